"""For tests of what you build on `election`: a clock that jumps, a store that fails, a verifier, scenarios.

    clock = FakeClock()
    renewer = LeaseRenewer(clock)
    store = FaultyStore(clock)
    link = store.link()
    term = Candidate(link, "billing", clock=clock, renew_with=lambda _register, term: renewer.add(term)).attempt()
    store.restart()

Nothing here sleeps, and nothing is random: the same calls have the same outcome. (A campaign has
jitter while the store does not answer: pass `Candidate(chance=)` to control it.) The clock that jumps to the next
deadline is trio's idea, the verifier that watches for what must never happen is hashicorp/raft's.
"""

from election.testing.fakes import FakeClock, Fault, FaultyRegister, FaultyStore
from election.testing.scenario import Scenario, ScenarioFailed
from election.testing.verifier import Claim, Verifier

__all__ = ["Claim", "FakeClock", "Fault", "FaultyRegister", "FaultyStore", "Scenario", "ScenarioFailed", "Verifier"]

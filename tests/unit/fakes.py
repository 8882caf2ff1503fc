"""A candidate on a fake clock and a fake store, renewed by nobody but the test."""

from election import Candidate, LeasePolicy, LeaseTerm
from election.clock import Clock
from election.renewer import LeaseRenewer
from election.testing import FakeClock, FaultyRegister, FaultyStore

NAME = "lease"


class World:
    """One clock, one store, one policy, and as many candidates as are asked for."""

    def __init__(self, ttl: float = 10.0, age: float = 1e9) -> None:
        self.clock = FakeClock()
        self.store = FaultyStore(self.clock, age)
        self.renewer = LeaseRenewer(self.clock)
        self.policy = LeasePolicy(ttl)

    def candidate(self, name: str = NAME, link: FaultyRegister | None = None, clock: Clock | None = None) -> Candidate:
        """One more, with a link of its own unless one is given."""
        return Candidate(
            link or self.store.link(),
            name,
            self.policy,
            clock=clock or self.clock,
            renew_with=lambda _r, t: self.renewer.add(t),
        )

    def leader(self, name: str = NAME, link: FaultyRegister | None = None) -> LeaseTerm:
        """The term of a new candidate, which must be elected at once."""
        term = self.candidate(name, link).attempt()
        assert term is not None
        return term

    def live(self, seconds: float) -> None:
        """Let time pass, with renewals when they are due."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.clock.advance(min(0.1, end - self.clock.now()))
            self.renewer.renew_due()

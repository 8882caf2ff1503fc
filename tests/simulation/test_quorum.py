"""The promise above a quorum of servers of which each may forget, be down, or be cut off from one process."""

from tests.simulation.attack import worlds
from tests.simulation.quorum import QUORUM, QuorumWorld


def test_there_are_never_two_leaders_above_a_quorum_and_somebody_leads_again() -> None:
    """A hundred thousand steps of bad luck break nothing, and one server that forgets costs no leader its term."""
    done = [world for world in worlds(100_000, kinds=QUORUM, make=QuorumWorld) if isinstance(world, QuorumWorld)]
    assert sum(world.terms for world in done) > 40, "hardly anybody was elected: this attacks nothing"
    assert sum(world.spared for world in done) > 20, "hardly any server forgot: this attacks nothing"


def test_what_a_quorum_remembers_elects_no_second_leader() -> None:
    """Restarts, in which servers remember again soon, with everything that hides a server from a process."""
    kinds = ("restart", "restart", "restart", "apart", "apart", "kill", "pause", "cut", "down", "slow")
    done = [w for w in worlds(100_000, first=6, kinds=kinds, make=QuorumWorld) if isinstance(w, QuorumWorld)]
    assert sum(world.remembered for world in done) > 3, "it was hardly ever asked: this attacks nothing"

"""What makes a standby look at the store: fabricated announcements, no network, a clock that is set by hand."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from discovery import Beacon
from discovery.beacon import Change, Sighting
from election import Candidate, LeasePolicy, LeaseTerm
from election.stores.memory import MemoryRegister
from politics import Peer
from politics.group import membership
from politics.group.directory import PeerDirectory
from politics.group.membership import NUDGE_EVERY, Membership
from politics.group.peers import LISTEN, Heard

LEADER = Peer("pork", "a1", "alice", 17, "memory:1", fence=5)
STANDBY = Peer("pork", "a1", "alice", 17, "memory:1")


class Standby:
    """A membership whose candidate only counts nudges, and what it has announced."""

    def __init__(self) -> None:
        self.nudges, self.announced = 0, list[dict[str, str]]()
        candidate = SimpleNamespace(name="pork", id="me", nudge=self._nudge, policy=LeasePolicy(ttl=10))
        self.membership = Membership(cast(Candidate, candidate), MemoryRegister())
        self.directory = PeerDirectory()
        self.directory.members = (self.membership,)
        self.heard = Heard()
        announcement = SimpleNamespace(update=self.announced.append)
        self.beacon = cast(Beacon, SimpleNamespace(announce=lambda *_, **__: announcement, pace=4.0))

    def _nudge(self) -> None:
        self.nudges += 1

    def hear(self, change: Change, peer: Peer) -> None:
        sighting = Sighting("peer", f"peer-{peer.id}", peer.properties(), ())
        self.directory._hear(self.heard, change, sighting)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list of one."""
    time = [1000.0]
    monkeypatch.setattr(membership, "now", lambda: time[0])
    return time


@pytest.mark.parametrize(
    ("before", "change", "after", "nudges"),
    [
        (LEADER, "changed", STANDBY, 1),
        (STANDBY, "changed", LEADER, 0),
        (LEADER, "removed", LEADER, 1),
        (STANDBY, "removed", STANDBY, 1),
        (STANDBY, "changed", STANDBY, 1),
        (STANDBY, "changed", Peer("pork", "a1", "alice", 17, "memory:2"), 0),
        (None, "added", STANDBY, 0),
        (None, "added", LEADER, 0),
        (None, "removed", STANDBY, 0),
    ],
)
def test_what_nudges(clock: list[float], before: Peer | None, change: Change, after: Peer, nudges: int) -> None:
    """Whatever may mean that the lease is free, even if the fence was gone before; but not that somebody leads."""
    standby = Standby()
    if before:
        standby.hear("added", before)
        clock[0] += 1
        standby.nudges = 0
    standby.hear(change, after)
    assert standby.nudges == nudges


def test_an_end_that_was_seen_early_is_announced_again(clock: list[float]) -> None:
    """The peers thread may look while the leader resigns: the term is over by then, the store does not know it yet."""
    leader = Standby()
    term = SimpleNamespace(fence=5, valid=True)
    leader.membership.tell(cast(LeaseTerm, term))
    leader.membership.announce(leader.beacon)
    term.valid = False
    leader.membership.announce(leader.beacon)
    early = len(leader.announced)
    leader.membership.announce(leader.beacon)
    assert len(leader.announced) == early == 1
    leader.membership.tell(None)
    leader.membership.announce(leader.beacon)
    assert leader.announced[early:] == leader.announced[:early]


def test_where_many_poll_the_end_of_a_term_is_announced_after_a_poll(clock: list[float]) -> None:
    """One of them has looked by then. That somebody leads is announced at once, and so is an end among few."""
    leader = Standby()
    leader.membership._joined = leader.directory
    term = SimpleNamespace(fence=5, valid=True)

    def announced() -> list[str | None]:
        leader.membership.announce(leader.beacon)
        return [properties.get("fence") for properties in leader.announced]

    announced()
    for number in range(50):
        leader.directory.heard.take(f"peer-{number}", Peer("pork", str(number), "h", number))
    leader.membership.tell(cast(LeaseTerm, term))
    assert announced() == ["5"]
    leader.membership.tell(None)
    assert announced() == ["5"]
    assert leader.membership.due == clock[0] + 0.25
    clock[0] += 0.26
    assert announced() == announced() == ["5", None]
    assert leader.membership.due > clock[0] + 0.25
    leader.directory.heard.take("peer-0", None)
    leader.membership.tell(cast(LeaseTerm, term))
    assert announced() == ["5", None, "5"]
    leader.membership.tell(None)
    assert announced() == ["5", None, "5", None]


def test_a_nudge_that_comes_too_soon_is_made_up_for(clock: list[float]) -> None:
    """Two changes within a moment: the second may be the one that matters."""
    standby = Standby()
    standby.hear("added", LEADER)
    standby.hear("changed", STANDBY)
    standby.directory.wake.clear()
    clock[0] += NUDGE_EVERY / 2
    standby.hear("changed", STANDBY)
    assert standby.nudges == 1
    assert standby.directory.wake.is_set()
    update(standby)
    assert standby.nudges == 1
    clock[0] += NUDGE_EVERY
    update(standby)
    update(standby)
    assert standby.nudges == 2


def test_who_joins_looks_once_more_when_all_have_been_heard(clock: list[float]) -> None:
    """A leader that resigned before it was heard of is no change."""
    standby = Standby()
    update(standby)
    assert standby.nudges == 0
    clock[0] += LISTEN
    update(standby)
    update(standby)
    assert standby.nudges == 1


def update(standby: Standby) -> Any:
    return standby.membership.update(standby.beacon)

"""Members of a group: how they are announced, and what follows from several of them."""

import hashlib
from typing import Any

import pytest

from discovery.beacon import LIFETIME, Sighting
from election import Candidate, Register, StoreUnavailable
from election.stores.memory import MemoryRegister
from politics import Peer
from politics.doctor.findings import Level, of_peers
from politics.group.membership import Membership, _assemblies, note
from politics.group.peers import CONFIRM, MAX_REPORTED, Doubts, understand

ALICE = Peer("pork", "a1", "alice", 17, "memcached:1", fence=5)
BOB = Peer("pork", "b1", "bob", 18, "memcached:1")


@pytest.mark.parametrize("peer", [ALICE, BOB, Peer("schweinebraten ü", "x", "h", 1)])
def test_what_is_announced_is_understood(peer: Peer) -> None:
    """Whoever announces himself is known again, leader or not, with and without a store."""
    assert understand(peer.properties()) == peer
    assert peer.leads == (peer is ALICE)


@pytest.mark.parametrize(
    "change",
    [
        {"group": ""}, {"id": ""}, {"host": ""}, {"pid": ""}, {"pid": "-1"}, {"pid": "٣"}, {"fence": "5.0"},
        {"host": "\x1b[2J"}, {"group": "a\nb"}, {"store": "\x07"},
    ],
)  # fmt: skip
def test_nonsense_is_nobody(change: dict[str, str]) -> None:
    """What lacks a part, is no number where there should be one, or would move a terminal's cursor, is ignored."""
    assert understand(ALICE.properties() | change) is None


def test_who_differs_for_long_enough_is_reported_once() -> None:
    """Not at once, since a restarted store gets a new identity, and not before ours was asked again; then once."""
    doubts = Doubts()
    assert doubts.weigh("memcached:2", [ALICE], asked=0.0, now=10.0) == []
    assert doubts.weigh("memcached:2", [ALICE], asked=9.0, now=10.0 + CONFIRM) == []
    assert doubts.weigh("memcached:2", [ALICE], asked=10.5, now=10.0 + CONFIRM) == [ALICE]
    assert doubts.weigh("memcached:2", [ALICE, BOB], asked=10.5, now=40.0) == []
    assert doubts.weigh("memcached:2", [ALICE, BOB], asked=40.0, now=40.0 + CONFIRM) == [BOB]


def test_who_agrees_meanwhile_is_not_reported() -> None:
    """The time begins again with the next difference."""
    doubts = Doubts()
    doubts.weigh("memcached:2", [ALICE], asked=0.0, now=0.0)
    doubts.weigh("memcached:1", [ALICE], asked=1.0, now=1.0)
    assert doubts.weigh("memcached:2", [ALICE], asked=2.0, now=CONFIRM) == []


def test_a_store_that_restarts_again_and_again_is_no_split() -> None:
    """Whoever is slow to learn its new identity each time is on another store only until then."""
    doubts = Doubts()
    for number in range(10):
        moment = number * CONFIRM / 2
        late = Peer("pork", "a1", "alice", 17, f"memcached:{number}")
        assert doubts.weigh(f"memcached:{number + 1}", [late], asked=moment, now=moment) == []


def test_the_dead_are_not_accused() -> None:
    """Who died while the store restarted never learns its new identity, and is heard for a while yet."""
    assert CONFIRM > LIFETIME + 2


@pytest.mark.parametrize(("ours", "theirs"), [("", "memcached:1"), ("memcached:1", ""), ("", "")])
def test_a_store_that_is_not_known_is_no_other_store(ours: str, theirs: str) -> None:
    """Nobody is accused while a store does not answer."""
    doubts = Doubts()
    for moment in (0.0, CONFIRM, 2 * CONFIRM):
        assert doubts.weigh(ours, [Peer("pork", "a1", "alice", 17, theirs)], asked=moment, now=moment) == []


def test_a_flood_of_strangers_does_not_fill_the_log() -> None:
    """Past the limit nobody is reported any more."""
    crowd = [Peer("pork", str(number), "h", number, "other") for number in range(2 * MAX_REPORTED)]
    doubts = Doubts()
    doubts.weigh("ours", crowd, asked=0.0, now=0.0)
    assert len(doubts.weigh("ours", crowd, asked=1.0, now=CONFIRM)) == MAX_REPORTED


def test_the_newest_news_of_each_announcement_count() -> None:
    """A change replaces what was heard before, a removal and what cannot be understood remove it."""
    heard: dict[str, Peer] = {}

    def hear(change: Any, properties: dict[str, str]) -> tuple[Peer | None, Peer | None]:
        return note(heard, change, Sighting("peer", "peer-1", properties, ()))

    assert hear("added", BOB.properties()) == (None, BOB)
    led = BOB.properties() | {"fence": "6"}
    assert hear("changed", led) == (BOB, understand(led))
    assert hear("changed", {"group": "pork"}) == (understand(led), None)
    assert hear("removed", BOB.properties()) == (None, None)
    assert heard == {}


class Odd(MemoryRegister):
    """Says, or raises, what it was made with when it is asked who it is."""

    def __init__(self, answer: str | Exception) -> None:
        super().__init__()
        self.answer = answer

    def identity(self) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def membership(store: str | Register) -> Membership:
    """A worker's, which has not joined."""
    return Membership(Candidate(MemoryRegister(), "pork"), store)


def test_a_store_that_cannot_say_who_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """One that does not answer is the campaign's to report; one that is broken is reported; both count as unknown."""
    assert membership(Odd(StoreUnavailable("gone"))).ask() == ""
    assert caplog.text == ""
    assert membership(Odd(ZeroDivisionError("odd"))).ask() == ""
    assert "no split can be seen" in caplog.text


@pytest.mark.parametrize("name", ["x" * 201, "ü" * 101, "a\nb"])
def test_an_identity_that_cannot_be_announced_is_hashed(name: str) -> None:
    """So that it is still equal only where the store is the same."""
    assert membership(Odd(name)).ask() == hashlib.sha256(name.encode()).hexdigest()
    assert membership(Odd("x" * 200)).ask() == "x" * 200


def test_nudges_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast announcements come in, a store is looked at fifty times a second at most."""
    moment, nudges = [100.0], []
    monkeypatch.setattr("politics.group.membership.now", lambda: moment[0])
    member = membership("memory://")
    monkeypatch.setattr(member.candidate, "nudge", lambda: nudges.append(moment[0]))
    for _ in range(100):
        member.nudge()
        moment[0] += 0.001
    assert len(nudges) == 5


def test_who_has_not_joined_hears_nobody_and_may_leave() -> None:
    """No thread is started for it, and nothing is raised."""
    before = dict(_assemblies)
    member = membership("memory://")
    member.tell(None)
    member.leave()
    assert member.peers() == ()
    assert _assemblies == before


def test_the_doctor_on_peers() -> None:
    """Nobody is fine, and so are members that agree with us and each other; another store is advice, a split danger."""
    apart = Peer("pork", "c1", "carol", 19, "memcached:2")

    def worst(peers: list[Peer], ours: dict[str, str], error: str = "") -> tuple[Level, str]:
        found = list(of_peers(peers, ours, error))
        return found[-1].level, found[-1].text

    assert worst([], {}) == (Level.FINE, "no worker is heard")
    assert worst([ALICE, BOB], {"pork": "memcached:1"}) == (Level.FINE, "2 are heard: pork (2)")
    assert worst([ALICE, BOB], {}) == (Level.FINE, "2 are heard: pork (2)")
    level, text = worst([ALICE, BOB], {"pork": "memcached:2"})
    assert (level, "another store" in text, "alice:17, bob:18" in text) == (Level.ADVICE, True, True)
    level, text = worst([ALICE, BOB, apart], {})
    assert (level, "memcached:2: carol:19" in text) == (Level.DANGER, True)
    assert worst([], {}, "no network")[0] is Level.ADVICE
    many = [Peer(f"group {number:02}", "x", "h", 1) for number in range(12)]
    assert worst(many, {})[1].endswith("group 09 (1) and 2 more groups")

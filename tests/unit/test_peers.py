"""Members of a group: how they are announced, and what follows from several of them."""

import hashlib
from typing import Any, cast

import pytest

from discovery.beacon import Beacon, Sighting
from election import BadPolicy, Candidate, LeasePolicy, Register, StoreUnavailable
from election.stores.memory import MemoryRegister
from politics import Peer, TokenWorker
from politics.doctor.findings import Level, of_peers
from politics.group.directory import _directories, listening, record
from politics.group.membership import CONFIRM, Membership
from politics.group.peers import (
    KIND,
    LOOKERS,
    MAX_PEERS,
    MAX_REPORTED,
    Heard,
    SplitDetector,
    heard_all_at,
    known_as,
    looks,
    parse,
)
from politics.settings import heartbeat

CONFIRMED = 16.0

ALICE = Peer("pork", "a1", "alice", 17, "memcached:1", fence=5)
BOB = Peer("pork", "b1", "bob", 18, "memcached:1")


@pytest.mark.parametrize("peer", [ALICE, BOB, Peer("schweinebraten ü", "x", "h", 1)])
def test_what_is_announced_is_understood(peer: Peer) -> None:
    """Whoever announces himself is known again, leader or not, with and without a store."""
    assert parse(peer.properties()) == peer
    assert peer.leads == (peer is ALICE)


@pytest.mark.parametrize(
    "change",
    [
        {"group": ""}, {"id": ""}, {"host": ""}, {"pid": ""}, {"pid": "-1"}, {"pid": "٣"}, {"fence": "5.0"},
        {"host": "\x1b[2J"}, {"group": "a\nb"}, {"store": "\x07"}, {"group": " "}, {"group": "x" * 100},
        {"group": "ü" * 41}, {"host": "[/x]"}, {"host": "[link=http://x]"}, {"host": "a b"}, {"host": "h" * 65},
        {"id": "[/x]"}, {"id": "x" * 65}, {"pid": "1" * 11}, {"fence": "1" + "0" * 60}, {"fence": "-1"},
        {"fence": "nan"}, {"pid": "1\n"},
    ],
)  # fmt: skip
def test_nonsense_is_nobody(change: dict[str, str]) -> None:
    """What lacks a part, is no number or no name where there should be one, or would move a terminal's cursor."""
    assert parse(ALICE.properties() | change) is None


@pytest.mark.parametrize(
    ("host", "name"),
    [("web1.example.com", "web1.example.com"), ("[/x]", "__x_"), ("Zoë's", "Zo__s"), ("h" * 99, "h" * 64), ("", "_")],
)
def test_every_host_may_announce_itself(host: str, name: str) -> None:
    """Under a name that the others believe."""
    assert known_as(host) == name
    assert parse(ALICE.properties() | {"host": name}) is not None


def test_who_differs_for_long_enough_is_reported_once() -> None:
    """Not at once, since a restarted store gets a new identity, and not before ours was asked again; then once."""
    splits = SplitDetector(CONFIRMED)
    assert splits.check("memcached:2", [ALICE], asked=0.0, now=10.0) == []
    assert splits.check("memcached:2", [ALICE], asked=9.0, now=10.0 + CONFIRMED) == []
    assert splits.check("memcached:2", [ALICE], asked=10.5, now=10.0 + CONFIRMED) == [ALICE]
    assert splits.check("memcached:2", [ALICE, BOB], asked=10.5, now=40.0) == []
    assert splits.check("memcached:2", [ALICE, BOB], asked=40.0, now=40.0 + CONFIRMED) == [BOB]


def test_who_agrees_meanwhile_is_not_reported() -> None:
    """The time begins again with the next difference."""
    splits = SplitDetector(CONFIRMED)
    splits.check("memcached:2", [ALICE], asked=0.0, now=0.0)
    splits.check("memcached:1", [ALICE], asked=1.0, now=1.0)
    assert splits.check("memcached:2", [ALICE], asked=2.0, now=CONFIRMED) == []


def test_a_store_that_restarts_again_and_again_is_no_split() -> None:
    """Whoever is slow to learn its new identity each time is on another store only until then."""
    splits = SplitDetector(CONFIRMED)
    for number in range(10):
        moment = number * CONFIRMED / 2
        late = Peer("pork", "a1", "alice", 17, f"memcached:{number}")
        assert splits.check(f"memcached:{number + 1}", [late], asked=moment, now=moment) == []


def test_the_dead_are_not_accused() -> None:
    """A peer that died while the store restarted never learns its new identity; it is forgotten before the report."""
    believed = 3.0 + 0.25  # heartbeats: a beacon forgets a quarter late at most
    assert believed < CONFIRM
    assert membership().splits.confirm == CONFIRM * heartbeat() == CONFIRM * Beacon().pace


@pytest.mark.parametrize(("text", "seconds"), [("", 3.0), ("0.4", 0.4), ("60", 60.0), ("1e1", 10.0)])
def test_the_heartbeat_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    """`$POLITICS_HEARTBEAT` is a number of seconds, by default 4; the time to a report follows from it."""
    monkeypatch.setenv("POLITICS_HEARTBEAT", text)
    assert heartbeat() == seconds
    assert membership().splits.confirm == CONFIRM * seconds


@pytest.mark.parametrize("text", ["often", "0", "-4", "0.09", "61", "nan", "inf", " "])
def test_a_heartbeat_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The error names the variable and its value, when the worker is made."""
    monkeypatch.setenv("POLITICS_HEARTBEAT", text)
    with pytest.raises(BadPolicy, match=r"\$POLITICS_HEARTBEAT must be between 0\.1 and 60 seconds, not '"):
        TokenWorker(group="pork", store="memory://")


@pytest.mark.parametrize(("ours", "theirs"), [("", "memcached:1"), ("memcached:1", ""), ("", "")])
def test_a_store_that_is_not_known_is_no_other_store(ours: str, theirs: str) -> None:
    """Nobody is accused while a store does not answer."""
    splits = SplitDetector(CONFIRMED)
    for moment in (0.0, CONFIRM, 2 * CONFIRMED):
        assert splits.check(ours, [Peer("pork", "a1", "alice", 17, theirs)], asked=moment, now=moment) == []


def test_a_flood_of_strangers_does_not_fill_the_log() -> None:
    """Past the limit nobody is reported any more."""
    crowd = [Peer("pork", str(number), "h", number, "other") for number in range(2 * MAX_REPORTED)]
    splits = SplitDetector(CONFIRMED)
    splits.check("ours", crowd, asked=0.0, now=0.0)
    assert len(splits.check("ours", crowd, asked=1.0, now=CONFIRMED)) == MAX_REPORTED


def test_the_newest_news_of_each_announcement_count() -> None:
    """A change replaces what was heard before, a removal and what cannot be parsed remove it."""
    heard = Heard()

    def hear(change: Any, properties: dict[str, str]) -> tuple[Peer | None, Peer | None]:
        return record(heard, change, Sighting("peer", "peer-1", properties, ()))

    assert hear("added", BOB.properties()) == (None, BOB)
    led = BOB.properties() | {"fence": "6"}
    assert hear("changed", led) == (BOB, parse(led))
    assert hear("changed", {"group": "pork"}) == (parse(led), None)
    assert hear("removed", BOB.properties()) == (None, None)
    assert heard.all() == heard.of("pork") == []


def test_the_peers_of_a_group_are_bounded() -> None:
    """Past the limit new ones are nobody, until one of those that are known ends; other groups have their own room."""
    heard = Heard()
    crowd = [Peer("pork", str(number), "h", number) for number in range(MAX_PEERS + 1)]
    for peer in crowd:
        heard.take(f"peer-{peer.id}", peer)
    assert heard.count("pork") == len(heard.of("pork")) == MAX_PEERS
    assert heard.take("peer-0", crowd[0]) == (crowd[0], crowd[0])
    assert heard.take("other", Peer("beef", "b", "h", 1))[1] is not None
    assert heard.take("late", crowd[-1]) == (None, None)
    heard.take("peer-0", None)
    assert heard.take("late", crowd[-1]) == (None, crowd[-1])


def test_about_eight_standbys_of_many_look_when_a_lease_is_free() -> None:
    """All of a small group do; of a larger one as many as are sure to include one that may lead."""
    chances = [number / 1000 for number in range(1000)]
    for peers in (1, 8):
        assert all(looks(peers, chance) for chance in chances)
    for peers in (10, 200, 1000):
        assert sum(looks(peers, chance) for chance in chances) / 1000 * peers == pytest.approx(LOOKERS, rel=0.05)


class Odd(MemoryRegister):
    """Says, or raises, what it was made with when it is asked who it is."""

    def __init__(self, answer: str | Exception) -> None:
        super().__init__()
        self.answer = answer

    def identity(self) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def membership(register: Register | None = None) -> Membership:
    """A worker's, which has not joined."""
    return Membership(Candidate(MemoryRegister(), "pork"), register or MemoryRegister())


def test_a_store_that_cannot_say_who_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """One that does not answer is the campaign's to report; one that is broken is reported; both count as unknown."""
    assert membership(Odd(StoreUnavailable("gone"))).ask() == ""
    assert caplog.text == ""
    assert membership(Odd(ZeroDivisionError("odd"))).ask() == ""
    assert "a split cannot be detected" in caplog.text


class Counting(MemoryRegister):
    """Counts how often it was asked who it is, and whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.closed = 0, False

    def identity(self) -> str:
        self.asked, self.closed = self.asked + 1, False
        return "one"

    def close(self) -> None:
        self.closed = True


def test_however_many_peers_differ_the_store_is_asked_once_in_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every half minute while all agree."""
    moment, store = [100.0], Counting()
    monkeypatch.setattr("politics.group.membership.now", lambda: moment[0])
    member, said = membership(store), cast(Beacon, Said())
    crowd: list[Peer] = []
    monkeypatch.setattr(member, "peers", lambda: tuple(crowd))
    for _ in range(1000):
        member.update(said)
        moment[0] += 0.1
    assert store.asked == 4
    for number in range(1000):
        crowd.append(Peer("pork", str(number), "h", number, f"other {number}"))
        member.update(said)
        moment[0] += 0.01
    assert 4 < store.asked <= 4 + 6


def test_the_first_announcement_names_the_store() -> None:
    """So that there is one and not two; but a register of the user's, which may never answer, is not waited for."""
    for closes in (True, False):
        said = Said()
        Membership(Candidate(MemoryRegister(), "pork"), Counting(), closes=closes).update(cast(Beacon, said))
        assert said.stores == ["one" if closes else ""]


def test_a_store_that_its_worker_has_closed_is_not_left_open() -> None:
    """The peers thread may ask just then; but a register that has other users stays open."""
    for closes in (True, False):
        store = Counting()
        member = Membership(Candidate(MemoryRegister(), "pork"), store, closes=closes)
        assert member.ask() == "one"
        assert not store.closed
        member.leave()
        store.close()
        assert member.ask() == "one"
        assert store.closed == closes


@pytest.mark.parametrize("name", ["x" * 201, "ü" * 101, "a\nb"])
def test_an_identity_that_cannot_be_announced_is_hashed(name: str) -> None:
    """So that it is still equal only where the store is the same."""
    assert membership(Odd(name)).ask() == hashlib.sha256(name.encode()).hexdigest()
    assert membership(Odd("x" * 200)).ask() == "x" * 200


def test_nudges_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast announcements come in, a store is looked at fifty times a second at most."""
    moment, nudges = [100.0], []
    monkeypatch.setattr("politics.group.membership.now", lambda: moment[0])
    member = membership()
    monkeypatch.setattr(member.candidate, "nudge", lambda: nudges.append(moment[0]))
    for _ in range(100):
        member.nudge()
        moment[0] += 0.001
    assert len(nudges) == 5


class Said:
    """A beacon, and its only announcement, that keep what they are told."""

    pace = 4.0

    def __init__(self) -> None:
        self.fences: list[str | None] = []
        self.stores: list[str] = []

    def announce(self, kind: str, properties: dict[str, str], **_: Any) -> Any:
        self.stores.append(properties["store"])
        self.update(properties)
        return self

    def update(self, properties: dict[str, str]) -> None:
        self.fences.append(properties.get("fence"))


def test_a_leader_that_cannot_renew_is_no_longer_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment at which its lease has run out, though nobody has told."""
    said, candidate = Said(), Candidate(MemoryRegister(), "pork", LeasePolicy(ttl=0.1), renew_with=lambda *_: None)
    term = candidate.attempt() or candidate.attempt()
    assert term is not None
    member = Membership(candidate, MemoryRegister())
    member.tell(term)
    member.announce(said)  # type: ignore[arg-type]
    assert term.lost.wait(10)
    member.announce(said)  # type: ignore[arg-type]
    assert said.fences == [str(term.fence), None]


def test_who_has_not_joined_hears_nobody_and_may_leave() -> None:
    """No thread is started for it, and nothing is raised."""
    before = dict(_directories)
    member = membership()
    member.tell(None)
    member.leave()
    assert member.peers() == ()
    assert _directories == before


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


@pytest.mark.parametrize(
    ("last", "heartbeat", "expected", "why"),
    [
        (None, 4.0, 101.0, "nobody has answered"),
        (100.05, 4.0, 100.45, "the second question has had its answers too"),
        (100.4, 4.0, 100.6, "somebody has just answered"),
        (100.95, 4.0, 101.0, "it listens for a second at most"),
        (100.05, 60.0, 101.0, "the second question comes late"),
        (100.05, 0.4, 100.25, "the second question comes early"),
    ],
)
def test_who_listens_ends_when_all_have_answered(
    last: float | None, heartbeat: float, expected: float, why: str
) -> None:
    """After a second if nobody does, and sooner if some have answered and then nobody else does."""
    assert heard_all_at(100.0, last, heartbeat) == pytest.approx(expected), why


def test_all_that_answer_are_heard() -> None:
    """Twenty members of other processes' beacons, by the first call; later calls wait for nothing."""
    with Beacon(["127.0.0.1"]) as beacon:
        for number in range(20):
            beacon.announce(KIND, Peer("pork", f"id{number}", "alice", number + 1).properties())
        with listening() as peers:
            assert {peer.pid for peer in peers() if peer.id.startswith("id")} == set(range(1, 21))

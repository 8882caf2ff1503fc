"""What somebody who reaches the store can write there: it ends nobody, and no write outlives its writer for long."""

import contextlib
import hashlib
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from election import Candidate, Event, Register, ask_to_resign, look, open_register
from election.cell import forget
from election.clock import wall_ms
from election.errors import BadRecord
from election.events import EventKind
from election.record import MAX_NUMBER, Record, State, decode, find_fence
from election.stores.memory import MemoryRegister
from politics import TokenWorker
from tests.commands import politics
from tests.memcached import Memcached
from tests.unit.fakes import NAME, World
from tests.waiting import DEADLINE

OPEN = Record(fence=7, holder="x" * 32, seq=3, ttl_ms=10_000, state=State.OPEN, host="here", pid=42, at_ms=5)
SLOT = {"slot": 2**53 - 2, "work": "running", "left_ms": -(2**53) + 1}
LONG = {"new": "x" * 840}

UNREADABLE = {
    "no record": b"not a lease",
    "nothing": b"",
    "too large": b"x" * 1_000_000,
    "not UTF-8": b'{"v":1,"fence":7,"holder":"\xff"}',
    "UTF-16": OPEN.encode().decode().encode("utf-16"),
    "deep": OPEN.encode()[:-1] + b',"new":' + b"[" * 300 + b"]" * 300 + b"}",
    "a fence without room": OPEN.encode().replace(b'"fence":7', b'"fence":9223372036854775807'),
    "the last fence": OPEN.encode().replace(b'"fence":7', b'"fence":9007199254740991'),
    "another format": OPEN.encode().replace(b'"v":1', b'"v":2'),
    "markup": b"[/x] [link=http://example.org]\x1b[31m\r\n",
}
READABLE = {
    "a field that leaves no room": replace(OPEN, unknown=LONG),
    "a slot that is done for ever": replace(OPEN, note={"slot": 7, "work": "done", "left_ms": 2**53 - 1}),
    "a slot that is over for ever": replace(OPEN, note={"slot": 2**53 - 1, "work": "done", "left_ms": -(2**53) + 1}),
    "a slot that runs for ever": replace(OPEN, note=SLOT),
    "a slot that is none": replace(OPEN, note={"slot": {"a": [1]}, "work": "\n[/x]\x1b[31m", "left_ms": "never"}),
    "a large date and process": replace(OPEN, at_ms=2**53 - 1, pid=2**53 - 1, seq=2**53 - 1),
}

unreadable = pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
readable = pytest.mark.parametrize("record", READABLE.values(), ids=READABLE)


def write(register: Register, data: bytes, name: str = NAME) -> None:
    """Overwrite the cell, whatever is in it."""
    cell = register.read(name)
    assert register.swap(name, data, cell.version if cell else None) is not None


@readable
def test_no_record_that_can_be_read_keeps_a_worker_from_its_work(record: Record) -> None:
    """Whatever was written, a worker is elected and does the work of two slots, and its record can be read."""
    register, done = MemoryRegister(), threading.Semaphore(0)
    write(register, record.encode(), "spoilt")

    class Spoilt(TokenWorker):
        group, iteration_length, lease_ttl, announce = "spoilt", 0.2, 0.5, False

    worker = Spoilt(store=register)
    worker.start(lambda _term: done.release())
    try:
        for _ in range(2):
            assert done.acquire(timeout=DEADLINE)
    finally:
        worker.stop()
    found = look(register, "spoilt")
    assert found is not None
    assert found.fence > record.fence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.dictionaries(st.sampled_from([*json.loads(OPEN.encode())]) | st.text(max_size=8), JSON, max_size=4)


@given(FIELDS, st.booleans(), st.sampled_from(["", "x" * 700, "☃" * 250, "\ud83d" * 100]))
def test_whatever_can_be_read_can_have_a_successor_that_can_be_read(
    fields: dict[str, Any], ascii_only: bool, padding: str
) -> None:
    """A worker that takes over any record that was believed writes one that everybody believes."""
    data = json.dumps({**json.loads(OPEN.encode()), **fields, "pad": padding}, ensure_ascii=ascii_only)
    try:
        found = decode("a", data.encode("utf-8", "surrogatepass"))
    except BadRecord:
        return
    assert str(found).isprintable()
    note = {"slot": 2**53 - 1, "work": "running", "left_ms": -(2**53) + 1}
    successor = replace(
        OPEN, fence=found.fence, host="☃" * 64, pid=2**22, at_ms=2**44, note=note, unknown=found.unknown
    )
    for state in State:
        assert decode("a", replace(successor, state=state).encode()).note == note


def test_a_key_that_is_there_twice_counts_once() -> None:
    """The last one counts, for everybody."""
    record = decode("a", OPEN.encode()[:-1] + b',"fence":8,"fence":9}')
    assert record.fence == 9
    assert decode("a", record.encode()) == record


def test_a_host_cannot_forge_lines_of_the_log() -> None:
    """Line breaks and escapes in a record's host, and whatever is too long, do not reach a log."""
    host = "a\n2026-01-01 ERROR all is lost\r\x1b[31m\u202e\ud800" + "x" * 200
    shown = decode("a", replace(OPEN, host=host).encode())
    assert str(shown).isprintable()
    assert len(shown.host) == 64
    assert shown.host.startswith("a\N{REPLACEMENT CHARACTER}2026-01-01 ERROR")


def test_a_request_to_resign_that_does_not_fit_is_an_error_that_names_the_record(tmp_path: Path) -> None:
    """A note whose letters take more room when we write them is nobody's of ours: there is no traceback."""
    register = open_register(f"sqlite:///{tmp_path}/a.db")
    held = {**json.loads(replace(OPEN, state=State.HELD).encode()), "note": {"a": "☃" * 200}}
    write(register, json.dumps(held, ensure_ascii=False, separators=(",", ":")).encode())
    with contextlib.closing(register), pytest.raises(BadRecord, match=NAME):
        ask_to_resign(register, NAME)


@unreadable
def test_a_record_that_cannot_be_used_is_never_free_and_can_be_forgotten(data: bytes) -> None:
    """Nobody is elected while it is there. Once it is forgotten, somebody is after a whole lease, as it were lost."""
    world = World()
    candidate, link = world.candidate(), world.store.link()
    write(link, data)
    for _ in range(3):
        with contextlib.suppress(BadRecord):
            assert candidate.attempt() is None
        world.live(20)
    with pytest.raises(BadRecord, match=NAME):
        candidate.attempt()
    vacant = forget(link, NAME, clock=world.clock)
    assert vacant is not None
    assert look(link, NAME) == vacant
    with contextlib.suppress(BadRecord):
        assert candidate.attempt() is None, "a record that was overwritten was not lost"
    world.live(10)
    assert candidate.attempt() is None, "not before a whole lease has passed"
    assert world.candidate().attempt() is None
    world.live(11)
    term = candidate.attempt()
    assert term is not None
    assert wall_ms() - 60_000 < term.fence <= wall_ms()


def test_a_standby_that_cannot_read_the_record_reports_that_nobody_is_seen_to_lead() -> None:
    """So the alert for a group without a leader is given, and ends when somebody is seen to lead again."""
    world, told = World(), list[Event]()
    standby = Candidate(world.store.link(), NAME, world.policy, clock=world.clock, on_event=told.append)
    term, link = world.leader(), world.store.link()
    assert standby.attempt() is None
    write(link, b"not a lease")
    for _ in range(2):
        with pytest.raises(BadRecord):
            standby.attempt()
    assert forget(link, NAME, clock=world.clock)
    term.renew()
    assert standby.attempt() is None
    assert [event.kind for event in told] == [EventKind.LED, EventKind.LEADERLESS, EventKind.LED]


def test_a_leader_whose_record_is_forgotten_leads_on() -> None:
    """It writes its record again, and nobody else was elected meanwhile, although the store remembers."""
    world = World()
    term, other, link = world.leader(), world.candidate(), world.store.link()
    write(link, b"not a lease")
    world.live(3)
    assert forget(link, NAME, clock=world.clock)
    assert other.attempt() is None
    world.live(30)
    assert term.valid
    found = look(link, NAME)
    assert found is not None
    assert (found.state, found.fence) == (State.HELD, term.fence)
    assert other.attempt() is None


@pytest.mark.parametrize("state", State)
def test_a_record_that_can_be_read_is_not_forgotten(state: State) -> None:
    """It stays as it is, and so does an empty cell."""
    link = World().store.link()
    assert forget(link, NAME) is None
    assert link.read(NAME) is None
    write(link, replace(OPEN, state=state).encode())
    before = link.read(NAME)
    assert forget(link, NAME) is None
    assert link.read(NAME) == before


NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("data", "fence"),
    [
        (b"", 0),
        (b"not a lease", 0),
        (OPEN.encode()[:-1], 7),
        (b'{"fence": 1799999999999, "v": 2}', 1_799_999_999_999),
        (b'{"fence":%d}' % (NOW + 3_600_000), NOW + 3_600_000),
        (b'{"fence":%d}' % (2 * NOW), 0),
        (b'{"fence":9007199254740991}', 0),
        (b'{"fence":9223372036854775807}', 0),
        (b'{"fence":1799999999999', 0),
        (b'{"fence":1e12}', 0),
        (b'{"fence":-5}', 0),
        (b"x" * 2000 + b'{"fence":7}', 0),
    ],
)
def test_the_fence_of_a_record_that_cannot_be_read(data: bytes, fence: int) -> None:
    """It is found where it can be, except where the record ends in it, and one from the far future is not believed."""
    assert find_fence(data, NOW) == fence


def test_the_fence_does_not_go_back_when_a_record_is_forgotten() -> None:
    """A fence ahead of the clock that can still be found is followed by a larger one, by whoever comes next."""
    world, ahead = World(), wall_ms() + 1_000_000_000
    link = world.store.link()
    write(link, replace(OPEN, fence=ahead).encode()[:-1])
    assert forget(link, NAME, clock=world.clock)
    newcomer = world.candidate()
    assert newcomer.attempt() is None
    world.live(11)
    term = newcomer.attempt()
    assert term is not None
    assert term.fence == ahead + 1


def test_no_leader_writes_a_fence_that_nobody_can_read() -> None:
    """The one with the last number has no successor, and the record says why until it is forgotten."""
    world = World()
    link = world.store.link()
    write(link, replace(OPEN, fence=MAX_NUMBER - 1, store="1").encode())
    term = world.leader()
    assert term.fence == MAX_NUMBER
    term.resign()
    with pytest.raises(BadRecord, match="no room"):
        world.candidate().attempt()


@pytest.fixture(params=["sqlite", "memcached"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    memcached: Memcached = request.getfixturevalue("memcached")
    return memcached.url


def show(place: str, *words: str) -> None:
    """Run a command that shows records: it says what it sees, and nothing obeys what is in them."""
    done = politics(words[0], "--store", place, *words[1:])
    assert done.status in (0, 1), done
    assert "Traceback" not in done.said
    assert "\x1b" not in done.said


def test_the_commands_show_whatever_is_there(place: str) -> None:
    """`status`, also as JSON, `resign` and `lock` have a sentence for each record, and no traceback."""
    spoilt = {**UNREADABLE, **{name: replace(each, state=State.HELD).encode() for name, each in READABLE.items()}}
    with contextlib.closing(open_register(place)) as register:
        for group, data in spoilt.items():
            write(register, data, group)
            show(place, "resign", "--timeout", "0", group)
        show(place, "status", *spoilt)
        show(place, "status", "--json", *spoilt)
        for group in UNREADABLE:
            show(place, "lock", "--wait", "0", group, "--", "true")


def test_the_doctor_names_the_groups_whose_records_nobody_can_read(tmp_path: Path) -> None:
    """It is a danger, and the remedy is the command; records that can be read are none."""
    place = f"sqlite:///{tmp_path}/a.db"
    with contextlib.closing(open_register(place)) as register:
        write(register, OPEN.encode(), "fine")
        for group, data in UNREADABLE.items():
            write(register, data, group)
        done = politics("doctor", "--store", place, "--json")
        assert done.status == 1
        (found,) = (each for each in json.loads(done.out) if each["subject"] == "records")
        assert found["level"] == "danger"
        assert found["remedy"] == "politics forget GROUP"
        assert all(group in found["text"] for group in UNREADABLE)
        assert "fine" not in found["text"]


@unreadable
def test_a_command_replaces_what_nobody_can_read(data: bytes, place: str) -> None:
    """`forget` asks first. It says what was there and what comes next; then there is nothing more to forget."""
    group = f"forget {hashlib.sha256(data).hexdigest()[:8]}"
    with contextlib.closing(open_register(place)) as register:
        write(register, data, group)
        refused = politics("forget", group, "--store", place)
        assert refused.status == 2
        assert "--yes" in refused.err
        assert register.read(group).data[:1024] == data[:1024]  # type: ignore[union-attr]
        done = politics("forget", group, "--store", place, "--yes")
        assert done.status == 0, done
        assert "cannot be used" in done.out
        assert "fence" in done.out
        found = look(register, group)
        assert found is not None
        assert (found.state, found.forgotten) == (State.VACANT, True)
        again = politics("forget", group, "--store", place, "--yes")
        assert again.status == 1
        assert "can be read, and is left as it is" in again.err


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_people_are_asked_before_a_record_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    """On a terminal the command shows the record and replaces it only after a yes."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    place = f"sqlite:///{tmp_path}/a.db"
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with contextlib.closing(open_register(place)) as register:
        write(register, b"[/x]\x1b[31m", "asked")
        done = politics("forget", "asked", "--store", place)
        assert done.status == status, done
        assert r"b'[/x]\x1b[31m'" in done.out
        assert "Replace the record of asked" in done.out
        assert (register.read("asked").data == b"[/x]\x1b[31m") is (status == 1)  # type: ignore[union-attr]


def test_nothing_is_forgotten_where_nothing_is(tmp_path: Path) -> None:
    """Of a group without a record the command says so, with status 1, as where the store does not answer."""
    done = politics("forget", "nobody", "--store", f"sqlite:///{tmp_path}/a.db", "--yes")
    assert done.status == 1
    assert "there is no record of 'nobody'" in done.err
    done = politics("forget", "nobody", "--servers", "127.0.0.1:1", "--yes")
    assert done.status == 1
    assert "did not answer" in done.err
    assert politics("forget", " ", "--store", f"sqlite:///{tmp_path}/a.db").status == 2

"""Which slot is due, and whose it is: by example, and for whatever may happen."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from election import LeasePolicy
from election.record import Record, State
from election.rules import View
from politics.worker.slots import (
    SLOTS_ALONE,
    Rivals,
    Slot,
    Turn,
    is_done,
    learn,
    may_be_lost,
    merge,
    next_turn,
    read_note,
)

LENGTH = 10.0
RUNNING, DONE = Slot(7, 100.0), Slot(7, 100.0, done=True)


@pytest.mark.parametrize(
    ("known", "now", "rerun", "turn"),
    [
        (None, 50.0, True, Turn(Slot(1, 60.0), run=True)),
        (None, 50.0, False, Turn(Slot(1, 60.0), run=True)),
        (RUNNING, 95.0, True, Turn(RUNNING, run=True, takeover=True)),
        (RUNNING, 195.0, True, Turn(RUNNING, run=True, takeover=True)),
        (RUNNING, 95.0, False, Turn(DONE, run=False, given_up=(7,))),
        (RUNNING, 100.0, False, Turn(Slot(8, 110.0), run=True, given_up=(7,))),
        (DONE, 95.0, True, Turn(DONE, run=False)),
        (DONE, 99.9, False, Turn(DONE, run=False)),
        (DONE, 100.0, True, Turn(Slot(8, 110.0), run=True)),
        (DONE, 109.9, True, Turn(Slot(8, 110.0), run=True)),
        (DONE, 110.0, True, Turn(Slot(9, 120.0), run=True, skipped=1)),
        (DONE, 135.0, True, Turn(Slot(11, 140.0), run=True, skipped=3)),
        (RUNNING, 135.0, False, Turn(Slot(11, 140.0), run=True, skipped=3, given_up=(7,))),
    ],
)
def test_the_next_turn(known: Slot | None, now: float, rerun: bool, turn: Turn) -> None:
    """What a leader does with what it knows, at that time."""
    assert next_turn(known, LENGTH, now, rerun=rerun) == turn


@pytest.mark.parametrize(
    ("known", "now", "rerun", "turn"),
    [
        (None, 50.0, True, Turn(Slot(1, 60.0), run=True, takeover=True)),
        (None, 50.0, False, Turn(Slot(1, 60.0), run=True, takeover=True)),
        (RUNNING, 95.0, True, Turn(RUNNING, run=True, takeover=True)),
        (DONE, 95.0, True, Turn(DONE, run=False)),
        (DONE, 135.0, True, Turn(Slot(11, 140.0), run=True, takeover=True, skipped=3)),
        (DONE, 100.0, False, Turn(Slot(8, 110.0, done=True), run=False, given_up=(8,))),
        (RUNNING, 100.0, False, Turn(Slot(8, 110.0, done=True), run=False, given_up=(7, 8))),
    ],
)
def test_the_next_turn_after_record_and_leader_were_lost_together(
    known: Slot | None, now: float, rerun: bool, turn: Turn
) -> None:
    """The slot whose time it is may have been begun, so that it counts as interrupted."""
    assert next_turn(known, LENGTH, now, rerun=rerun, lost=True) == turn


@pytest.mark.parametrize(
    ("known", "seen", "merged"),
    [
        (None, None, None),
        (None, RUNNING, RUNNING),
        (RUNNING, None, RUNNING),
        (RUNNING, DONE, DONE),
        (DONE, RUNNING, DONE),
        (Slot(7, 100.0), Slot(7, 99.0), Slot(7, 99.0)),
        (Slot(7, 99.0), Slot(7, 100.0), Slot(7, 99.0)),
        (DONE, Slot(8, 110.0), Slot(8, 110.0)),
        (DONE, Slot(1, 10.0), Slot(1, 10.0)),
    ],
)
def test_what_is_known_after_one_more_look(known: Slot | None, seen: Slot | None, merged: Slot | None) -> None:
    """The leaders' word counts, the earliest end is the best, and nothing done becomes undone."""
    assert merge(known, seen) == merged


@pytest.mark.parametrize(
    "note",
    [
        {},
        {"slot": 7, "work": "running"},
        {"slot": 7, "left_ms": 10},
        {"work": "done", "left_ms": 10},
        {"slot": "7", "work": "done", "left_ms": 10},
        {"slot": True, "work": "done", "left_ms": 10},
        {"slot": 7, "work": "asleep", "left_ms": 10},
        {"slot": 7, "work": ["done"], "left_ms": 10},
        {"slot": 7, "work": "done", "left_ms": 1.5},
        {"slot": 7, "work": "done", "left_ms": None},
        {"slot": 7, "work": "done", "left_ms": 10**400},
        {"slot": 7, "work": "done", "left_ms": -(10**400)},
        {"slot": 10**400, "work": "done", "left_ms": 10},
        {"slot": -1, "work": "done", "left_ms": 10},
    ],
)
def test_a_note_that_tells_of_no_slot(note: dict[str, Any]) -> None:
    """Somebody else's note, or half of one of ours, is no news and no error."""
    assert read_note(note, 50.0, LENGTH) is None


NOTE = {"slot": 8, "work": "running", "left_ms": 10_000}
SEEN = Record(fence=1, holder="other", seq=3, ttl_ms=10_000, state=State.HELD, note=NOTE)
MINE = replace(SEEN, holder="me")


@pytest.mark.parametrize(
    ("known", "seen", "attempt", "learned"),
    [
        (None, None, None, None),
        (DONE, None, None, DONE),
        (None, SEEN, None, Slot(8, 110.0)),
        (DONE, SEEN, None, Slot(8, 110.0)),
        (DONE, replace(SEEN, state=State.VACANT), None, Slot(8, 110.0)),
        (DONE, replace(SEEN, note={}), None, DONE),
        (DONE, MINE, (3, 95.0), DONE),
        (None, MINE, (3, 95.0), None),
        (DONE, MINE, (4, 95.0), Slot(8, 110.0)),
        (DONE, SEEN, (3, 95.0), Slot(8, 110.0)),
    ],
)
def test_what_is_learned_from_a_record(
    known: Slot | None, seen: Record | None, attempt: tuple[int, float] | None, learned: Slot | None
) -> None:
    """Each record tells of its slot, except our own takeover that was not confirmed: nobody has begun that."""
    view = View(attempt=attempt).see(seen, "version", 100.0)
    assert learn(known, view, "me", LENGTH) == learned


@pytest.mark.parametrize(
    ("known", "state", "now", "lost"),
    [
        (None, None, 100.0, False),
        (DONE, None, 100.0, True),
        (None, State.VACANT, 100.0, False),
        (None, State.VACANT, 109.8, False),
        (None, State.VACANT, 109.9, True),
        (DONE, State.VACANT, 100.0, True),
        (DONE, State.HELD, 200.0, False),
        (DONE, State.OPEN, 200.0, False),
    ],
)
def test_whether_a_slot_may_be_lost(known: Slot | None, state: State | None, now: float, lost: bool) -> None:
    """It may be where nothing is recorded, if we know of an earlier slot or had to wait out the vacancy."""
    record = None if state is None else replace(SEEN, state=state)
    view = View().see(record, "version", 100.0)
    assert may_be_lost(known is not None, view, LeasePolicy(10.0, drift=0.01), now) is lost


@pytest.mark.parametrize(
    ("failed", "retry", "done"), [(False, False, True), (False, True, True), (True, False, True), (True, True, False)]
)
def test_whether_a_slot_is_done(failed: bool, retry: bool, done: bool) -> None:
    """Only one that failed and is to be run again is not."""
    assert is_done(failed=failed, retry=retry) is done


slots = st.builds(Slot, st.integers(1, 1000), st.floats(0, 1e6), st.booleans())
times = st.floats(0, 1e6)
lengths = st.floats(0.1, 1e5)


@given(slots, times, times)
def test_a_note_is_read_as_it_was_written(slot: Slot, written: float, received: float) -> None:
    """What is left of the slot is the same on both clocks, to the millisecond."""
    read = read_note(slot.note(written), received, math.inf)
    assert read is not None
    assert (read.number, read.done) == (slot.number, slot.done)
    assert read.ends - received == pytest.approx(slot.ends - written, abs=0.001)


@given(slots, slots, slots)
def test_merging_forgets_nothing(a: Slot, b: Slot, c: Slot) -> None:
    """In whatever order looks at one slot arrive: done stays done, and the earliest end stays."""
    looks = [Slot(a.number, look.ends, look.done) for look in (a, b, c)]
    known: Slot | None = None
    for look in looks:
        known = merge(known, look)
    assert known == Slot(a.number, min(look.ends for look in looks), any(look.done for look in looks))


@given(st.none() | slots, lengths, times, st.booleans(), st.booleans())
def test_no_slot_is_run_twice_but_as_a_takeover(
    known: Slot | None, length: float, now: float, rerun: bool, lost: bool
) -> None:
    """What is run is new, or was interrupted (or may have been) and is run again because that was asked for."""
    turn = next_turn(known, length, now, rerun=rerun, lost=lost)
    assert turn.takeover or not turn.run or not lost
    if known is None:
        assert turn.run
        return
    assert turn.slot.number >= known.number
    if turn.run and turn.slot.number == known.number:
        assert turn.takeover
        assert rerun
        assert not known.done
    assert not (known.done and turn.slot.number == known.number and not turn.slot.done)
    assert turn.skipped == max(0, turn.slot.number - known.number - 1)


@given(lengths, times, st.lists(st.tuples(st.floats(0, 5), st.booleans(), st.booleans()), max_size=30))
def test_the_grid_never_drifts(length: float, start: float, leaders: list[tuple[float, bool, bool]]) -> None:
    """After any number of leaders, late ones and interrupted ones, every slot ends where the first one's grid says."""
    first = next_turn(None, length, start, rerun=True).slot
    slot, now = first, start
    for late, done, rerun in leaders:
        now += late * length
        known = Slot(slot.number, slot.ends, slot.done or done)
        turn = next_turn(known, length, now, rerun=rerun)
        slot = turn.slot
        assert slot.ends == pytest.approx(first.ends + (slot.number - 1) * length, rel=1e-9)
        # A new slot is the one whose time it is.
        if turn.run and not turn.takeover:
            assert slot.ends - length == pytest.approx(now, abs=length * 1.001)
            assert slot.ends >= now - 1e-6 * max(now, 1)


def by(holder: str, seq: int = 1) -> Record:
    """A record of somebody."""
    return Record(1, holder, seq, 10_000, State.OPEN)


def test_a_worker_that_is_alone_gives_way_to_nobody() -> None:
    """What a dead predecessor left, and what it writes itself, makes no rival; it gives way once in ten slots."""
    rivals = Rivals("me")
    for record in (by("old"), by("old"), by("me"), by("me", 2)):
        rivals.look(record)
    assert [rivals.may_be_there(heard=False) for _ in range(2 * SLOTS_ALONE)] == ([False] * 9 + [True]) * 2


@pytest.mark.parametrize("first", [None, by("old"), by("other"), by("me")])
def test_a_worker_gives_way_to_whom_it_has_seen(first: Record | None) -> None:
    """Somebody who wrote since our first look stands by, until ten slots in a row were ours."""
    rivals = Rivals("me")
    rivals.look(first)
    rivals.look(by("other", 2))
    rivals.look(by("me"))
    assert [rivals.may_be_there(heard=False) for _ in range(SLOTS_ALONE + 1)] == [True] * SLOTS_ALONE + [False]
    rivals.look(by("other", 3))
    assert rivals.may_be_there(heard=False)


def test_a_worker_gives_way_to_whom_it_hears() -> None:
    """While other members announce themselves it always gives way."""
    rivals = Rivals("me")
    rivals.look(None)
    assert all(rivals.may_be_there(heard=True) for _ in range(3 * SLOTS_ALONE))

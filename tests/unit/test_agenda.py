"""What a leader's agenda says of ticks and slots, given a record and a clock."""

import logging
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from election import LeasePolicy
from election.record import Record, State
from election.rules import View
from election.testing import FakeClock
from politics.worker import agenda
from politics.worker.agenda import SlotAgenda, TickAgenda
from politics.worker.schedule import Every
from politics.worker.ticks import Rules

MINUTE = 60_000
T = 30_000_000 * MINUTE
HELD = Record(fence=7, holder="other", seq=3, ttl_ms=10_000, state=State.HELD)
RULES = Rules("job", Every(60))


class Wall:
    """A wall clock that tests set, in minutes after T."""

    minutes = 0.5

    def __call__(self) -> int:
        return T + round(self.minutes * MINUTE)


@pytest.fixture
def wall() -> Iterator[Wall]:
    """The wall clock of the agenda under test."""
    clock = Wall()
    with patch.object(agenda, "wall_ms", clock):
        yield clock


def view(state: State = State.HELD, orders: dict[str, Any] | None = None, **note: Any) -> View:
    """What a candidate sees of a record with this note."""
    record = Record(7, "other", 3, 10_000, state, note=note, orders=orders or {})
    return View().see(record, "version", 100.0)


def ticks_of(store_remembers: bool = True, rules: Rules = RULES) -> tuple[TickAgenda, list[float]]:
    """An agenda, and for how many seconds the store was asked whether it remembers."""
    asked: list[float] = []

    def remembers(seconds: float) -> bool:
        asked.append(seconds)
        return store_remembers

    return TickAgenda(rules, LeasePolicy(10.0), FakeClock(100.0), remembers), asked


def test_a_leader_goes_on_from_the_recorded_tick(wall: Wall) -> None:
    """With what is due by its own clock, and in the record before it begins."""
    mine, asked = ticks_of()
    seen = view(tick=T, work="ran")
    mine.learn(seen, "me")
    assert not mine.take(seen).run
    wall.minutes = 1
    assignment = mine.take(seen)
    assert (assignment.run, assignment.takeover, assignment.tick) == (True, False, agenda.as_time(T + MINUTE))
    assert callable(assignment.note)
    assert assignment.note(0.0) == {"tick": T + MINUTE, "work": "running", "next": T + 2 * MINUTE}
    assert asked == []


@pytest.mark.parametrize("known", [True, False])
def test_whoever_knows_of_no_tick_asks_the_store_whether_there_may_have_been_one(wall: Wall, known: bool) -> None:
    """For longer than a lease: a leader that was lost a minute ago may have had a clock that was ahead."""
    mine, asked = ticks_of(store_remembers=known)
    empty = View().see(None, None, 100.0)
    assignment = mine.take(empty)
    assert asked == [pytest.approx(70.0, rel=0.02)]
    assert callable(assignment.note)
    assert ("doubt" in assignment.note(0.0)) is not known
    mine.begin(assignment)
    wall.minutes = 1
    assert mine.next({}).takeover is not known


def test_what_is_skipped_is_in_the_note_until_the_work_begins(wall: Wall) -> None:
    """By then it has been reported. A successor that reads it before that reports it again, as a takeover."""
    mine, _ = ticks_of()
    seen = view(tick=T, work="ran")
    mine.learn(seen, "me")
    wall.minutes = 3
    assignment = mine.take(seen)
    assert callable(assignment.note)
    assert [dict(each.about or {})["count"] for each in assignment.skipped] == [2]
    note = assignment.note(0.0)
    mine.begin(assignment)
    assert "skipped" not in assignment.note(0.0)
    successor, _ = ticks_of()
    successor.learn(view(**note), "me")
    again = successor.take(view(**note))
    assert (again.run, again.takeover, again.news) == (True, True, True)
    assert [dict(each.about or {})["takeover"] for each in again.skipped] == [True]


def test_an_end_counts_before_it_is_written_and_what_it_skips_does_not(wall: Wall) -> None:
    """So a leader that lost the lease meanwhile runs nothing twice, and leaves nothing out."""
    mine, _ = ticks_of()
    seen = view(tick=T, work="ran")
    mine.learn(seen, "me")
    wall.minutes = 1
    mine.begin(mine.take(seen))
    wall.minutes = 2.5
    ended = mine.end(mine.next({}), failed=False)
    assert len(ended.skipped) == 1
    later = mine.take(view(tick=T + MINUTE, work="running"))
    assert (later.run, later.number) == (True, T + 2 * MINUTE)
    mine.begin(ended)
    assert not mine.next({}).run


def test_a_tick_far_ahead_is_an_error_once_a_minute(wall: Wall, caplog: pytest.LogCaptureFixture) -> None:
    """It names the tick, and says what to do."""
    mine, _ = ticks_of()
    seen = view(tick=T + 60 * MINUTE, work="ran")
    mine.learn(seen, "me")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert not mine.take(seen).run
    [line] = caplog.messages
    assert line.startswith("job: the record has the tick 2027-01-15T09:00:00Z, which is 3570 s ahead of this machine's")
    assert "stop all its workers and delete it from the store" in line


@pytest.mark.parametrize("trigger", [7, "x" * 65, "\n", None])
def test_an_order_with_an_odd_name_is_ignored(wall: Wall, trigger: object) -> None:
    """Whoever can write to the store can write anything."""
    mine, _ = ticks_of()
    seen = view(orders={"trigger": trigger}, tick=T, work="ran")
    mine.learn(seen, "me")
    assert not mine.take(seen).run


def test_a_paused_group_begins_no_slot() -> None:
    """The slot counts as done, and its event says why; what was interrupted is run again all the same."""
    clock = FakeClock(100.0)
    slots = SlotAgenda(60.0, LeasePolicy(10.0), clock, rerun=True, sticky=True)
    assignment = slots.take(view(State.OPEN, {"paused": True}))
    assert (assignment.run, [each.text for each in assignment.skipped]) == (
        False,
        ["slot 1 is not run: the group is paused"],
    )
    seen = view(State.OPEN, {"paused": True}, slot=7, work="running", left_ms=1000)
    slots.learn(seen, "me")
    assert (slots.take(seen).run, slots.take(seen).takeover) == (True, True)

"""Each rule of the ticks and of orders, broken on purpose. See `breakages`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import election.term
from election import LeaseTerm
from election.cell import LeaseCell
from election.record import Record, State
from politics.worker import ticks
from politics.worker.agenda import Assignment, TickAgenda, TickNote
from politics.worker.duty import Duty
from politics.worker.ticks import RAN, RUNNING, Rules, Tick, TickTurn
from tests.simulation.breakages import Breakage
from tests.simulation.ticks import TICKS, TickWorld

_note, _next_turn, _ended, _choose, _record = Tick.note, ticks.next_turn, ticks.ended, ticks._choose, LeaseCell.record
_end = TickAgenda.end


def not_written(self: Tick, following: int | None) -> dict[str, Any]:
    return _note(replace(self, at=self.at - 1, work=RAN) if self.work == RUNNING else self, following)


def own_clock(known: Tick | None, seen: Tick | None) -> Tick | None:
    return known


def set_back(known: Tick | None, rules: Rules, wall: int, **more: Any) -> TickTurn:
    if known and known.work != RUNNING:
        known = replace(known, at=min(known.at, wall), through=min(known.through, wall))
    return _next_turn(known, rules, wall, **more)


def without_doubt(known: Tick | None, rules: Rules, wall: int, *, lost: bool, **more: Any) -> TickTurn:
    return _next_turn(known, rules, wall, lost=False, **more)


def unmarked(*args: Any, **kwargs: Any) -> TickTurn:
    return replace(_next_turn(*args, **kwargs), takeover=False)


def runs_what_may_have_begun(known: Tick, rules: Rules, *rest: Any) -> Any:
    return _choose(known, replace(rules, rerun=True), *rest)


def overrun_is_missed(*args: Any) -> TickTurn:
    turn = _ended(*args)
    return replace(turn, tick=replace(turn.tick, through=0, skipped=()))


def counts_what_is_not_written(self: TickAgenda, assignment: Assignment, *, failed: bool) -> Assignment:
    ended = _end(self, assignment, failed=failed)
    self._tick = replace(ended.what, skipped=())
    return ended


def forgets_at_once(self: TickNote, _now: float) -> Mapping[str, Any]:
    return self._turn.note(reported=True)


def trigger_not_remembered(self: Tick, following: int | None) -> dict[str, Any]:
    return _note(replace(self, trigger=""), following)


def named_by_the_clock_alone(after: int, rules: Rules, wall: int) -> int:
    return max(after, wall) + 1


def successor_without_orders(self: LeaseCell, fence: int, state: State, **more: Any) -> Record:
    return _record(self, fence, state, **more | ({"orders": {}} if state is State.HELD else {}))


def old_orders(orders: Mapping[str, Any], found: Record, holder: str) -> Mapping[str, Any]:
    return found.orders if found.holder == holder else orders


def pause_comes_too_late(self: Duty, lead: LeaseTerm) -> Assignment | None:
    assignment = self._agenda.next(lead.orders)
    return assignment if not assignment.news or self.tell(lead, assignment) else None


LOSSES = ("flush", "restart", "kill", "kill", "stop", "pause", "clock")


def of_ticks(
    what: str,
    within: int,
    *patches: tuple[Any, str, Any],
    rule: str = "ticks",
    first: int = 0,
    kinds: tuple[str, ...] = TICKS,
) -> Breakage:
    """A breakage that a world with schedules shows."""
    return Breakage(rule, what, within, patches, kinds, first, TickWorld)


CAUGHT = (
    of_ticks("a tick is not written into the record before its work", 50_000, (Tick, "note", not_written)),
    of_ticks("a successor goes on from its own clock, not from the record's tick", 20_000, (ticks, "merge", own_clock)),
    of_ticks("a clock that is set back begins again", 100_000, (ticks, "next_turn", set_back)),
    of_ticks("a rerun is not marked as a takeover", 50_000, (ticks, "next_turn", unmarked)),
    of_ticks(
        "what a lost leader may have begun is not marked as a takeover",
        50_000,
        (ticks, "next_turn", without_doubt),
        first=27,
        kinds=LOSSES,
    ),
    of_ticks(
        "what a lost leader may have begun is run again although nothing may run twice",
        50_000,
        (ticks, "_choose", runs_what_may_have_begun),
        first=584,
        kinds=LOSSES,
    ),
    of_ticks("a tick that came due while another ran is made up for", 20_000, (ticks, "ended", overrun_is_missed)),
    of_ticks("what is skipped is not reported", 50_000, (Duty, "_report", lambda *_args: None)),
    of_ticks(
        "what is skipped is not in the record until it is reported",
        100_000,
        (TickNote, "__call__", forgets_at_once),
        first=3,
    ),
    of_ticks(
        "what is skipped counts before it is written",
        100_000,
        (TickAgenda, "end", counts_what_is_not_written),
        first=3,
    ),
    of_ticks("an order that was carried out is not written down", 20_000, (Tick, "note", trigger_not_remembered)),
    of_ticks(
        "a run that was ordered takes the name of a later tick, or passes one",
        100_000,
        (ticks, "_name_of_trigger", named_by_the_clock_alone),
        first=6,
    ),
    of_ticks("a successor drops them", 20_000, (LeaseCell, "record", successor_without_orders), rule="orders"),
    of_ticks(
        "a holder puts older ones over those that a vacancy has",
        50_000,
        (election.term, "carry_on", old_orders),
        rule="orders",
    ),
    of_ticks(
        "a pause that a tick's own write finds does not stop it",
        50_000,
        (Duty, "next", pause_comes_too_late),
        rule="orders",
        first=49,
    ),
)

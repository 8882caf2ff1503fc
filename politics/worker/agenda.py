"""What a worker has to do and when: slots that follow each other, or the ticks of a schedule.

An agenda keeps what is known, and asks the clocks. What follows from it is decided in `slots.py` and `ticks.py`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from election import LeasePolicy
from election.clock import Clock, wall_ms
from election.record import State
from election.retries import Reminder
from election.rules import View, is_own_takeover
from election.term import Note
from politics.worker import ticks
from politics.worker.schedule import as_time
from politics.worker.slots import Slot, Turn, learn, may_be_lost, next_turn

log = logging.getLogger("politics")

GLANCE = 1.0
"""Seconds between two looks of a leader at the wall clock, which may be set, and at what operators have ordered."""
PAUSED, TRIGGER = "paused", "trigger"
"""Orders in a record: whether nothing new is run, and the name of the last request to run at once."""


@dataclass(frozen=True, slots=True)
class Unrun:
    """Work that is not done: what the log says of it, and the fields of its event (None: there is no event)."""

    text: str
    about: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a leader does next.

    Args:
        number: of the slot; for a tick its scheduled instant, in milliseconds since 1970.
        label: what the log calls it.
        about: the fields that name it in an event.
        note: what the record says of it before anything is done.
        news: whether the record has to be written for it.
        run: whether the work is run, and with that `takeover`: an earlier leader may have begun it.
        tick: the scheduled instant of a tick that is run.
        skipped: what is not run before it.
        what: the `Slot` or the `Tick` itself.
    """

    number: int
    label: str
    about: Mapping[str, Any]
    note: Note
    news: bool
    run: bool
    takeover: bool
    tick: datetime | None
    skipped: tuple[Unrun, ...]
    what: Any


class Agenda(Protocol):
    """What there is to do. One thread uses it."""

    stays: bool
    """Whether the leader keeps the lease when there is nothing to do."""

    def learn(self, view: View, me: str) -> None:
        """Take note of what the candidate `me` has seen of the record."""
        ...

    def take(self, view: View) -> Assignment:
        """Return what to do if the lease is taken now."""
        ...

    def next(self, orders: Mapping[str, Any]) -> Assignment:
        """Return what to do now, as the leader."""
        ...

    def begin(self, assignment: Assignment) -> None:
        """Take note that this is written in the record, that what it skips is reported, and that it begins."""
        ...

    def end(self, assignment: Assignment, *, failed: bool) -> Assignment:
        """Take note that the work has ended; return what to write, and what is skipped because of it."""
        ...

    def rest(self) -> float:
        """Return the seconds after which to ask for the `next` thing to do."""
        ...


class SlotAgenda:
    """Slots of `length` seconds, each after the other.

    Args:
        length: of a slot, in seconds.
        rerun: whether a slot that was interrupted is run again.
        sticky: whether the leader stays for the next slot.
        policy: the timings of the lease.
        clock: the candidate's.
    """

    def __init__(self, length: float, policy: LeasePolicy, clock: Clock, *, rerun: bool, sticky: bool) -> None:
        self.stays = sticky
        self._length, self._policy, self._clock, self._rerun = length, policy, clock, rerun
        self._slot: Slot | None = None

    def learn(self, view: View, me: str) -> None:
        """Take note of what was seen: see `Agenda`."""
        self._slot = learn(self._slot, view, me, self._length)

    def take(self, view: View) -> Assignment:
        """Return the slot to begin with."""
        lost = may_be_lost(self._slot is not None, view, self._policy, self._clock.now())
        return self._assign(view.record.orders if view.record else {}, lost=lost)

    def next(self, orders: Mapping[str, Any]) -> Assignment:
        """Return the slot whose time it is."""
        return self._assign(orders, lost=False)

    def _assign(self, orders: Mapping[str, Any], *, lost: bool) -> Assignment:
        turn = next_turn(self._slot, self._length, self._clock.now(), rerun=self._rerun, lost=lost)
        paused = bool(orders.get(PAUSED)) and turn.run and not turn.takeover
        if paused:
            turn = replace(turn, slot=replace(turn.slot, done=True), run=False)
        return _of_slot(turn, paused=paused)

    def begin(self, assignment: Assignment) -> None:
        """Take note that the slot has begun."""
        self._slot = assignment.what

    def end(self, assignment: Assignment, *, failed: bool) -> Assignment:
        """Take note that the slot's work is done."""
        self._slot = replace(assignment.what, done=True)
        return _of_slot(Turn(self._slot, run=False))

    def rest(self) -> float:
        """Return the seconds that are left of the slot."""
        assert self._slot is not None
        return self._slot.ends - self._clock.now()


def _of_slot(turn: Turn, *, paused: bool = False) -> Assignment:
    number = turn.slot.number
    skipped = [Unrun(f"slot {given_up} may be unfinished, and is not run again") for given_up in turn.given_up]
    if turn.skipped:
        text = f"slots {number - turn.skipped} to {number - 1} have passed unused"
        skipped.append(Unrun(text, {"slot": number, "count": turn.skipped}))
    if paused:
        why = "the group is paused"
        skipped.append(Unrun(f"slot {number} is not run: {why}", {"slot": number + 1, "count": 1, "reason": why}))
    return Assignment(
        number=number,
        label=f"slot {number}",
        about={"slot": number},
        note=turn.slot.note,
        news=True,
        run=turn.run,
        takeover=turn.takeover,
        tick=None,
        skipped=tuple(skipped),
        what=turn.slot,
    )


class TickAgenda:
    """The ticks of a schedule. The leader stays from tick to tick.

    Args:
        rules: what the group does with its ticks.
        policy: the timings of the lease.
        clock: the candidate's.
        remembers: `Register.remembers` of the store that keeps the lease.
    """

    stays = True

    def __init__(
        self,
        rules: ticks.Rules,
        policy: LeasePolicy,
        clock: Clock,
        remembers: Callable[[float], bool] = lambda _seconds: True,
    ) -> None:
        self._rules, self._policy, self._clock, self._remembers = rules, policy, clock, remembers
        self._tick: ticks.Tick | None = None
        self._begun = 0
        self._early = Reminder(log, clock)

    def learn(self, view: View, me: str) -> None:
        """Take note of what was seen: see `Agenda`."""
        if view.record is not None and not is_own_takeover(view, me):
            self._tick = ticks.merge(self._tick, ticks.read_note(view.record.note))

    def take(self, view: View) -> Assignment:
        """Return the tick that is due, if any.

        Raises:
            StoreUnavailable: the store had to be asked, and did not answer.
        """
        known = self._tick is not None
        lost = may_be_lost(known, view, self._policy, self._clock.now())
        if not (known or lost) and (view.record is None or view.record.state is State.VACANT):
            # That the store remembers for a lease proves that nobody leads. A leader whose clock is ahead may have
            # begun longer ago than that what is the next tick to us.
            lost = not self._remembers(self._policy.distrusted(self._policy.ttl + ticks.DOUBT_MS / 1000))
        return self._assign(view.record.orders if view.record else {}, lost=lost)

    def next(self, orders: Mapping[str, Any]) -> Assignment:
        """Return the tick that is due, if any."""
        return self._assign(orders, lost=False)

    def _assign(self, orders: Mapping[str, Any], *, lost: bool) -> Assignment:
        paused, trigger = bool(orders.get(PAUSED)), ticks.read_trigger(orders.get(TRIGGER))
        self.look_at_clock()
        return _of_tick(ticks.next_turn(self._tick, self._rules, wall_ms(), lost=lost, paused=paused, trigger=trigger))

    def look_at_clock(self) -> None:
        """Log once a minute that the recorded tick is ahead of our clock, if it is."""
        ahead = ticks.ahead(self._tick, wall_ms())
        if not ahead:
            self._early.over()
        elif self._tick and self._early.due(name := text_of(self._tick.passed)):
            log.error(
                "%s: the record has the tick %s, which is %.0f s ahead of this machine's clock, so nothing is run "
                "until then. One of the two is wrong: look at the clocks of all machines of the group. If it is the "
                "record, stop all its workers and delete it from the store, or run at once what must be run with "
                "`politics trigger %s`",
                *(self._rules.group, name, ahead / 1000, self._rules.group),
            )

    def begin(self, assignment: Assignment) -> None:
        """Take note that the tick has begun."""
        self._tick, self._begun = replace(assignment.what, skipped=()), wall_ms()
        if isinstance(assignment.note, TickNote):
            assignment.note.reported = True

    def end(self, assignment: Assignment, *, failed: bool) -> Assignment:
        """Take note that the tick's work has ended; those that came due meanwhile are skipped."""
        work = ticks.FAILED if failed else ticks.RAN
        # Only that it has ended is known before it is written: what nobody can read, nobody has skipped.
        self._tick = replace(assignment.what, work=work, skipped=())
        return _of_tick(ticks.ended(assignment.what, work, self._rules, self._begun, wall_ms()))

    def due(self, after: int = 0) -> int | None:
        """Return when the next tick comes due, in milliseconds since 1970; None if there is none.

        Args:
            after: leave out ticks up to this instant.
        """
        following = self._rules.following(max(after, self._tick.passed if self._tick else 0))
        return None if following is None else self._rules.due(following)

    def rest(self) -> float:
        """Return the seconds until the next tick, or less."""
        assert self._tick is not None
        left = ticks.wait(self._tick, self._rules, wall_ms())
        return GLANCE if left is None else min(GLANCE, left / 1000)


class TickNote:
    """The note of a tick, as the lease renewer asks for it. Skipped ticks are in it until they have been reported.

    So whoever leads next reports them again if nobody knows whether they were.
    """

    def __init__(self, turn: ticks.TickTurn) -> None:
        self._turn, self.reported = turn, False

    def __call__(self, _now: float) -> Mapping[str, Any]:
        return self._turn.note(reported=self.reported)


def _of_tick(turn: ticks.TickTurn) -> Assignment:
    tick = turn.tick
    name = text_of(tick.at)
    skipped = []
    for skip in tick.skipped:
        count = "many ticks" if skip.count is None else f"{skip.count} ticks"
        which = f"tick {text_of(skip.last)} is" if skip.count == 1 else f"{count} up to {text_of(skip.last)} are"
        reason = ticks.REASONS[skip.reason]
        about = {"tick": text_of(skip.last), "count": skip.count, "reason": reason, "takeover": skip.again or None}
        skipped.append(Unrun(f"{which} not run: {reason}", about))
    return Assignment(
        number=tick.at,
        label=f"tick {name}" if turn.run else f"next tick {text_of(turn.following)}" if turn.following else "no tick",
        about={"tick": name} if turn.run else {},
        note=TickNote(turn),
        news=turn.news,
        run=turn.run,
        takeover=turn.takeover,
        tick=as_time(tick.at) if turn.run else None,
        skipped=tuple(skipped),
        what=tick,
    )


def text_of(instant: int) -> str:
    """Return an instant as people and programs read it, in UTC: 2026-11-24T03:00:00Z."""
    return as_time(instant).isoformat().replace("+00:00", "Z")

"""Which slot is due, and whether its work is run. Pure.

Slots follow each other every `iteration_length` seconds. What is known of the present slot is in the lease's note, as
`{"slot": 7, "work": "running" | "done", "left_ms": 8200}`. It gives the time that is left of the slot, not a time of
day, so that no two clocks are compared. A reader adds it to the moment at which it received the note. The sum can only
be too late, by the note's age, so that the earliest of several estimates of one slot's end is the best.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from election.lease import LeasePolicy
from election.record import Record, State
from election.rules import View, is_own_takeover

RUNNING, DONE = "running", "done"
MAX_NUMBER = 2**53 - 1
"""The largest number of a slot. The one after it is 1 again, so that no leader writes a number that nobody reads."""
FAR_MS = 2**42
"""Milliseconds, more than a century: a slot that ended earlier than that counts as ended so long ago."""
SLOTS_ALONE = 10
"""Slots in a row after which a worker gives way once, though it has neither heard nor seen another."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: its number, when it ends on our clock (seconds), and whether its work is done."""

    number: int
    ends: float
    done: bool = False

    def note(self, now: float) -> dict[str, Any]:
        """Return what to tell the others at `now`."""
        left_ms = round((self.ends - now) * 1000)
        return {"slot": self.number, "work": DONE if self.done else RUNNING, "left_ms": left_ms}


@dataclass(frozen=True, slots=True)
class Turn:
    """What a leader does with a slot.

    `run`: whether it runs the work. `takeover`: whether an earlier leader may have begun it. `skipped`: how many slots
    before it have passed without a run. `given_up`: the slots that were interrupted and are not run again.
    """

    slot: Slot
    run: bool
    takeover: bool = False
    skipped: int = 0
    given_up: tuple[int, ...] = ()


def read_note(note: Mapping[str, Any], received: float, length: float) -> Slot | None:
    """Return the slot in a note that was received at `received`; None if there is none.

    No more than its `length` (seconds) is left of any slot, whatever the note says. Otherwise somebody's one write
    could make every leader wait for ever, and look healthy.
    """
    number, work, left_ms = note.get("slot"), note.get("work"), note.get("left_ms")
    if type(number) is not int or type(left_ms) is not int or work not in (RUNNING, DONE):
        return None
    if not 0 <= number <= MAX_NUMBER or abs(left_ms) > MAX_NUMBER:  # no slot of ours, and too large to reckon with
        return None
    return Slot(number, received + min(max(left_ms, -FAR_MS) / 1000, length), work == DONE)


def merge(known: Slot | None, seen: Slot | None) -> Slot | None:
    """Return what is known after one more look: what leaders say, except that nothing done becomes undone."""
    if known is None or seen is None or known.number != seen.number:
        return seen or known
    return Slot(seen.number, min(known.ends, seen.ends), known.done or seen.done)


def learn(known: Slot | None, view: View, me: str, length: float) -> Slot | None:
    """Return what the candidate `me` knows of the present slot, of `length` seconds, after it has seen `view`.

    Its own takeover that the store did not answer says nothing: the work has not begun, and nobody was interrupted.
    Nor does an earlier slot that the store has brought back.
    """
    if view.record is None or is_own_takeover(view, me):
        return known
    seen = read_note(view.record.note, view.since, length)
    if view.record.foreign and known and seen and seen.number < known.number:
        return known
    return merge(known, seen)


def may_be_lost(known: bool, view: View, policy: LeasePolicy, now: float) -> bool:
    """Return whether a slot may have been lost: begun by a leader that was lost together with its record.

    That can only be where the cell is empty or vacant. Then it may be if an earlier slot is `known`, or if the vacancy
    had to be waited out because the store could not say that it remembers. Otherwise nobody has led before.
    """
    if view.record is not None and view.record.state is not State.VACANT:
        return False
    waited = view.record is not None and now > view.free_at(policy) - policy.poll
    return waited or known


def is_done(*, failed: bool, retry: bool) -> bool:
    """Return whether a slot is done once its work has ended by itself.

    Work that `failed`, so raised an error, is done all the same, unless it is to be tried again (`retry`). Then its
    slot stays as the takeover recorded it, begun and not done, so that whoever leads next runs it as a takeover.
    """
    return not (failed and retry)


def next_turn(known: Slot | None, length: float, now: float, *, rerun: bool, lost: bool = False) -> Turn:
    """Return what to do as the new leader at `now`, or as the old one when the slot has ended.

    A slot that was left running was interrupted. It is run again, even past its end, or counts as done (`rerun`).
    Slots that have passed meanwhile are skipped. The one whose time it is starts at once, on the same grid. If it may
    be `lost` (`may_be_lost`), it counts as interrupted too. Where nothing at all is known the slot is run in any case,
    since otherwise the first slot ever might never be run.
    """
    if known is None:
        return Turn(Slot(1, now + length), run=True, takeover=lost)
    given_up: tuple[int, ...] = ()
    if not known.done:
        if rerun:
            return Turn(known, run=True, takeover=True)
        known, given_up = replace(known, done=True), (known.number,)
    if now < known.ends:
        return Turn(known, run=False, given_up=given_up)
    skipped = int((now - known.ends) // length)
    slot = Slot(known.number + 1 + skipped, known.ends + (skipped + 1) * length)
    if slot.number > MAX_NUMBER:
        slot, skipped = replace(slot, number=1), 0
    if lost and not rerun:
        return Turn(replace(slot, done=True), run=False, skipped=skipped, given_up=(*given_up, slot.number))
    return Turn(slot, run=True, takeover=lost, skipped=skipped, given_up=given_up)


@dataclass(slots=True)
class Rivals:
    """Whether others may stand by for the lease of the candidate `me`. A worker that is alone gives way to nobody.

    Standbys write nothing, so the record shows only those who have led or found the cell empty. Who neither did nor is
    heard gets a chance all the same, after every tenth slot in a row that was ours.
    """

    me: str
    first: tuple[str, int, int] | None = None
    """What the first look found. Whoever wrote that may be gone."""
    looked: bool = False
    seen: bool = False
    alone: int = 0

    def look(self, record: Record | None) -> None:
        """Note who has written the record that is there now."""
        key = record.key if record else None
        if not self.looked:
            self.looked, self.first = True, key
        elif record and record.holder != self.me and key != self.first:
            self.seen, self.alone = True, 0

    def may_be_there(self, *, heard: bool) -> bool:
        """Return whether to give way after a slot of ours; `heard`: other members announce themselves."""
        self.alone += 1
        if self.alone >= SLOTS_ALONE:
            self.seen, self.alone = False, 0
            return True
        return heard or self.seen

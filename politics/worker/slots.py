"""Which slot is due, and whose it is. Pure.

Slots follow each other every `iteration_length` seconds. What is known of the present one travels in the lease's note,
as `{"slot": 7, "work": "running" | "done", "left_ms": 8200}`: the time that is left of it, not a time of day, so that
no two clocks are compared. A reader adds what is left to the moment at which it received the note; it can only be late
by the note's age, which is why, of several estimates of one slot's end, the earliest is the best.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

RUNNING, DONE = "running", "done"


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: its number, when it ends on our clock (seconds), and whether its work is done."""

    number: int
    ends: float
    done: bool = False

    def note(self, now: float) -> dict[str, Any]:
        """What to tell the others at `now`."""
        left_ms = round((self.ends - now) * 1000)
        return {"slot": self.number, "work": DONE if self.done else RUNNING, "left_ms": left_ms}


@dataclass(frozen=True, slots=True)
class Turn:
    """What a leader does with a slot: run its work or leave it, again after a failover or not.

    `skipped`: how many slots have passed before it. `given_up`: slots that were interrupted, and are not run again.
    """

    slot: Slot
    run: bool
    takeover: bool = False
    skipped: int = 0
    given_up: tuple[int, ...] = ()


def read_note(note: Mapping[str, Any], received: float) -> Slot | None:
    """The slot that a note received at `received` tells of; None if it tells of none."""
    number, work, left_ms = note.get("slot"), note.get("work"), note.get("left_ms")
    if type(number) is not int or type(left_ms) is not int or work not in (RUNNING, DONE):
        return None
    if max(abs(number), abs(left_ms)) >= 2**53:  # no slot of ours, and too large to reckon with
        return None
    return Slot(number, received + left_ms / 1000, work == DONE)


def merge(known: Slot | None, seen: Slot | None) -> Slot | None:
    """What is known after one more look: what leaders say counts, except that nothing done becomes undone."""
    if known is None or seen is None or known.number != seen.number:
        return seen or known
    return Slot(seen.number, min(known.ends, seen.ends), known.done or seen.done)


def next_turn(known: Slot | None, length: float, now: float, *, rerun: bool, lost: bool = False) -> Turn:
    """What to do as the new leader at `now`, or as the old one when the slot has ended.

    A slot that was left running was interrupted: it is run again, even past its end, or counts as done (`rerun`).
    Slots that have passed meanwhile are skipped; the one whose time it is starts at once, on the same grid. After the
    record and the leader were `lost` together, that slot may have been begun and nobody else know it: it counts as
    interrupted. Where nothing at all is known it is run in any case, or else the first slot ever might never be.
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
    if lost and not rerun:
        return Turn(replace(slot, done=True), run=False, skipped=skipped, given_up=(*given_up, slot.number))
    return Turn(slot, run=True, takeover=lost, skipped=skipped, given_up=given_up)

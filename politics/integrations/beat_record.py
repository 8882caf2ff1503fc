"""What a Celery beat writes into its lease's record, so that the next one goes on exactly there. Pure.

All ticks of all entries are sent in one order: by their instant, and those of one instant by a digest of the entry's
name. So one place in this order says of every entry what was sent, however many there are.

Instants are whole microseconds since 1970, by the wall clock of whoever sent.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from election.record import MAX_NUMBER


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where ticks were sent.

    All ticks up to and including `begun` were sent. Those after it, up to and including `at`, are *under way*: of an
    entry whose digest is not greater than `entry` they were sent too, of the others not.

    `since` is when the first beat of all began. Intervals are counted from there.
    """

    since: int
    begun: int
    at: int
    entry: str = ""

    @classmethod
    def first(cls, now: int) -> "Position":
        """Return where the first beat of all begins: nothing before `now` is ever sent."""
        return cls(now, now, now)

    @classmethod
    def read(cls, note: Mapping[str, Any]) -> "Position | None":
        """Return what a record's note says; None if a beat did not write it, or if it makes no sense."""
        numbers: list[Any] = [note.get(f"{name}_us") for name in ("since", "begun", "at")]
        entry = note.get("entry")
        if not isinstance(entry, str) or len(entry) > 2 * DIGEST_BYTES:
            return None
        if not all(type(number) is int and 0 <= number <= MAX_NUMBER for number in numbers):
            return None
        since, begun, at = numbers
        return cls(since, begun, at, entry) if since <= begun <= at else None

    def note(self) -> Mapping[str, Any]:
        """Return it for a record's note. Its size does not depend on how many entries there are."""
        return {"since_us": self.since, "begun_us": self.begun, "at_us": self.at, "entry": self.entry}

    def covers(self, other: "Position") -> bool:
        """Return whether this says of every tick that it was sent of which `other` does."""
        same = (self.begun, self.at) == (other.begun, other.at)
        return self.begun >= other.at or (same and self.entry >= other.entry)

    def sent(self, entry: str) -> "Position":
        """Return it after the tick of the entry with this digest was sent."""
        return replace(self, entry=entry)

    def passed(self, now: int) -> "Position":
        """Return it once nothing is under way any more, and nothing is due until `now`."""
        return Position(self.since, max(self.at, now), max(self.at, now))

    def begin(self, due: int, now: int, catch_up: int) -> "Position":
        """Return it as the ticks that are due next get under way.

        Those of one instant are under way together. Of the ticks that are older than `catch_up`, all are: they are
        sent once for each entry, however many there were.

        Args:
            due: the earliest tick after `at`.
            now: the wall clock; not before `due`.
            catch_up: microseconds.
        """
        return Position(self.since, self.at, max(due, now - catch_up))


def last_of_interval(step: int, since: int, until: int) -> int:
    """Return the last tick that is not after `until`, of an interval of `step` microseconds that began at `since`.

    It does not depend on who sends, nor on how late: an interval keeps its rhythm across a handover.
    """
    return since + (until - since) // step * step


DIGEST_BYTES = 8


def digest_of(name: object) -> str:
    """Return what stands for an entry's name in the record, and orders the ticks of one instant.

    Celery takes a name that is no string, such as a number, too.
    """
    return hashlib.blake2s(str(name).encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()

"""Which tick of which entry a Celery beat sends next."""

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from politics.integrations.beat_record import Position, digest_of

log = logging.getLogger("politics")

YEAR = 366 * 24 * 3600.0
NOT_YET = 10_000
"""Microseconds after which an entry is asked again that is not due and says "at once". Must leave the others time."""

LastRun = Callable[[Any, int, int, Any], datetime]
"""Takes a schedule, when intervals began, up to when all ticks were sent, and a time zone.

Returns from when the schedule counts to its next tick. The instants are in microseconds.
"""


class BeatAgenda:
    """Which tick is to be sent next, and up to where all were.

    Args:
        scheduler: Celery's, which says which entries there are.
        last_run: says from when a schedule counts.
        catch_up: missed ticks that are at most this many seconds old are all sent, of older ones one for each entry.
    """

    def __init__(self, scheduler: Any, last_run: LastRun, catch_up: float) -> None:
        self._scheduler, self._last_run, self._catch_up = scheduler, last_run, microseconds(catch_up)
        self.position: Position | None = None
        """Up to where ticks were sent, as far as it is known; None: nothing is known."""
        self.start_over()

    def start_over(self) -> None:
        """Find out anew what is due: somebody else has sent meanwhile, or the entries are others."""
        self._entries: dict[str, Any] = {}  # by digest, in the order in which they are sent
        self._look_at: dict[str, int] = {}  # no tick of the entry is due after the position and before this instant
        self._queue: list[str] | None = None  # what is left of those that are under way

    def learn(self, found: Position | None) -> None:
        """Take over what a record says, unless it is known already."""
        if found is not None and not (self.position and self.position.covers(found)):
            self.position = found

    def next(self, now: int) -> "Any | float":
        """Return the entry that has to be sent now; if there is none, the seconds until there may be one."""
        position = self.position = self.position or Position.first(now)
        if self._queue is None:
            self._read_entries()
            self._queue = self._under_way(position)
        while not self._queue:
            due = self._next_due(position)
            if due is None or due > now:
                self.position = position.passed(now)
                return math.inf if due is None else (due - now) / 1e6
            position = self.position = position.begin(due, now, self._catch_up)
            self._queue = self._under_way(position)
        return self._entries[self._queue[0]]

    def sent(self) -> None:
        """Note that the tick of the entry that `next` returned was sent."""
        assert self.position is not None
        assert self._queue is not None
        self.position = self.position.sent(self._queue.pop(0))

    def reserved(self, entry: Any) -> None:
        """Use this entry from now on in place of the one of the same name."""
        self._entries[digest_of(entry.name)] = entry

    def _read_entries(self) -> None:
        known, entries = {entry.name: entry for entry in self._entries.values()}, self._scheduler.schedule
        if not self._scheduler.schedules_equal(known, entries):
            self.start_over()
            self._entries = dict(sorted((digest_of(name), entry) for name, entry in entries.items()))

    def _next_due(self, position: Position) -> int | None:
        """Return the earliest instant after the position at which an entry may be due; None if there is no entry."""
        self._read_entries()
        for digest, entry in self._entries.items():
            if self._look_at.get(digest, position.at) <= position.at:
                self._look_at[digest] = self._is_due(entry, position, position.at)[1]
        return min(self._look_at.values(), default=None)

    def _under_way(self, position: Position) -> list[str]:
        """Return which entries are still to be sent of those that have a tick under way."""
        return [
            digest
            for digest, entry in self._entries.items()
            if digest > position.entry
            and self._look_at.get(digest, position.at) <= position.at
            and self._is_due(entry, position, position.begun)[0]
        ]

    def _is_due(self, entry: Any, position: Position, sent: int) -> tuple[bool, int]:
        """Ask an entry at the position's instant whether it has a tick after `sent`, and when to ask again."""
        try:
            due, seconds = self._ask(entry, position, sent)
            if seconds is None and not due:  # as Celery has it
                seconds = self._scheduler.max_interval
            wait = microseconds(min(seconds or 0.0, YEAR))
        except Exception:  # as Celery does: an entry that cannot say when it is due must not stop the others
            log.exception("cannot tell when %r is due", entry.name)
            due, wait = False, microseconds(self._scheduler.max_interval)
        return bool(due), position.at + (wait if wait > 0 else 1 if due else NOT_YET)

    def _ask(self, entry: Any, position: Position, sent: int) -> Any:
        when, zone = entry.schedule, self._scheduler.app.timezone
        entry.last_run_at = self._last_run(when, position.since, sent, zone)
        before, when.nowfun = getattr(when, "nowfun", None), lambda: moment(position.at, zone)
        try:
            return self._scheduler.is_due(entry)
        finally:
            when.nowfun = before


def moment(instant: int, zone: Any) -> datetime:
    """Return an instant, in microseconds since 1970, as Celery has it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)).astimezone(zone)


def microseconds(seconds: float) -> int:
    """Return the whole microseconds."""
    return round(seconds * 1_000_000)

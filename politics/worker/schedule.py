"""When ticks come due: cron expressions in a time zone, and intervals. Pure.

Instants are whole milliseconds since 1970 in UTC, as `term.tick` and the lease's note have them.
"""

import contextlib
import difflib
import itertools
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from cronsim import CronSim, CronSimError

from election.errors import BadPolicy

YEAR_9999 = 253_370_764_800_000
"""The last year that has a name here: later instants are none of ours."""

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Schedule(Protocol):
    """Names instants, each later than the one before. All members of a group must have the same."""

    zone: tzinfo
    """The time zone in which people think of them."""

    def after(self, instant: int) -> Iterator[int]:
        """Yield the instants after this one, in order, for ever or until the year 9999."""
        ...


class Cron:
    """The instants of a cron expression, by the rules of Debian's cron, as cronsim has them.

    A time that the clocks skip in spring comes due when they have been put forward, and one that they show twice in
    autumn comes due once, if neither the minute nor the hour begins with `*` and there is no field for seconds.
    Otherwise the instants follow the time that passes.

    Args:
        expression: five fields, or six, of which the first is for seconds; or `@hourly`, `@daily`, `@weekly`,
            `@monthly`, `@yearly`.
        timezone: a name such as "Europe/Berlin".

    Raises:
        BadPolicy: one of the two is wrong, or the expression never fires; the message names it.
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self.zone: tzinfo = find_zone(timezone)
        self._fields = NICKNAMES.get(expression.strip().lower(), expression) if isinstance(expression, str) else ""
        self._text = f"{expression!r} in {timezone}"
        try:
            CronSim(self._fields, _SOME_DAY)
        except CronSimError as exc:
            raise BadPolicy(f"schedule {expression!r} {_what_is_wrong(self._fields, exc)}") from exc
        try:
            next(CronSim(self._fields, _SOME_DAY))
        except StopIteration as exc:
            raise BadPolicy(f"schedule {expression!r} never fires: no date is like that within fifty years") from exc

    def after(self, instant: int) -> Iterator[int]:
        """Yield the instants after this one, in order."""
        last = instant
        with contextlib.suppress(OverflowError):  # there is no year 10000
            for at in CronSim(self._fields, datetime.fromtimestamp(instant // 1000, self.zone)):
                # Within an hour that is shown twice, cronsim may begin with the time before.
                if (found := int(at.timestamp()) * 1000) > last:
                    yield (last := found)

    def __str__(self) -> str:
        return self._text


class Every:
    """The instants that are a whole number of intervals after the beginning of 1970, in UTC.

    Args:
        seconds: the interval; from a tenth of a second to a year, in whole milliseconds.

    Raises:
        BadPolicy: it is none.
    """

    def __init__(self, seconds: float) -> None:
        right = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0.1 <= seconds <= 366 * 86400
        if not right:
            raise BadPolicy(f"an interval must be a number of seconds from 0.1 to a year, not {seconds!r}")
        self.zone: tzinfo = UTC
        self._step, self._text = round(seconds * 1000), f"every {seconds:g} s"

    def after(self, instant: int) -> Iterator[int]:
        """Yield the instants after this one, in order."""
        return itertools.count((instant // self._step + 1) * self._step, self._step)

    def __str__(self) -> str:
        return self._text


def find_zone(name: str) -> tzinfo:
    """Return the time zone of this name.

    Raises:
        BadPolicy: there is none; the message names the one that was meant.
    """
    try:
        return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as exc:
        known = zoneinfo.available_timezones()
        if not known:
            raise BadPolicy(f"this machine has no time zones, so not {name!r} either: pip install tzdata") from exc
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ", as in 'Europe/Berlin'"
        raise BadPolicy(f"there is no time zone {name!r}{hint}") from exc


def as_time(instant: int) -> datetime:
    """Return an instant in milliseconds as a time of day in UTC."""
    return datetime.fromtimestamp(instant / 1000, UTC)


def _what_is_wrong(fields: str, exc: CronSimError) -> str:
    """Return what is wrong with an expression, as the end of a sentence."""
    parts = fields.split()
    if not parts:
        return "is empty: write five fields, such as '0 3 * * *'"
    if parts[0].startswith("@"):
        return f"is none that we know: there are {', '.join(NICKNAMES)}"
    if len(parts) not in (5, 6):
        return f"has {len(parts)} fields; there are five: minute hour day month weekday, or six with seconds first"
    try:
        CronSim(" ".join([*parts[:-2], "*", parts[-1]]), _SOME_DAY)
    except CronSimError:
        return f"is no cron expression: {str(exc)[:1].lower()}{str(exc)[1:]}"
    if str(exc) == "Bad month":
        return "is no cron expression: bad month"
    return "never fires: no month that it names has such a day"

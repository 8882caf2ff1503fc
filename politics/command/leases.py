"""What `politics lock` makes of the record that it finds. Pure."""

from election.record import Record, State
from election.rules import View

SLACK = 0.1
"""The part of `--once-per` that is left off: clocks differ, starts are late, and a day may have 23 hours."""
RAN = "ran_ms"
"""The key of the note: the wall clock, in milliseconds, when the last run began that ended well."""


def carried(record: Record | None) -> dict[str, int]:
    """Return the note to write into a lease that is taken: when the last run began that ended well, if that is known.

    Args:
        record: what is in the cell; somebody else may have written it.
    """
    ran = record.note.get(RAN) if record else None
    return {RAN: ran} if type(ran) is int and 0 < ran < 2**53 else {}


def ran_within(record: Record | None, once_per: float | None, wall_ms: int) -> str:
    """Return when a run that ended well began, in words, if that is less than nine tenths of `once_per` seconds ago.

    It compares the wall clocks of two machines, so it is wrong by their difference. A moment that lies ahead counts as
    one that is as long ago: whoever's clock is wrong, nobody waits longer than twice the time.
    """
    ran = carried(record).get(RAN)
    if ran is None or once_per is None or abs(wall_ms - ran) >= 1000 * once_per * (1 - SLACK):
        return ""
    return f"{abs(wall_ms - ran) / 1000:.0f} s {'ago' if wall_ms >= ran else 'ahead of this clock'}"


def held(first: View, view: View, wall_ms: int) -> bool:
    """Return whether the holder of a lease seems to be alive: its record has changed, or its date is recent.

    This decides only whether to wait. The lease is taken by the rules of the election, which read no date. Without
    this, a command that is started again and again, and never waits, would never replace a holder that has died.

    Args:
        first: our first look at the lease.
        view: our last look.
        wall_ms: the wall clock, in milliseconds.
    """
    record = view.record
    if record is None or record.state is not State.HELD:
        return False
    changed = first.record is not None and first.record.key != record.key
    return changed or abs(wall_ms - record.at_ms) < record.ttl_ms

"""The clock of this package: no one can set it, and it keeps counting while the machine sleeps."""

import time

__all__ = ["uptime"]

# macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC counts through sleep.
_COUNTS_THROUGH_SLEEP: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Return the seconds since some fixed moment, time asleep included."""
    return time.clock_gettime(_COUNTS_THROUGH_SLEEP)

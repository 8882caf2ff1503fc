"""The clock of this package: no one can set it, and it keeps counting while the machine sleeps."""

import time
from collections.abc import Callable
from functools import partial

__all__ = ["uptime"]

# macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC counts through sleep.
_COUNTS_THROUGH_SLEEP: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


uptime: Callable[[], float] = partial(time.clock_gettime, _COUNTS_THROUGH_SLEEP)
"""Return the seconds since some fixed moment, time asleep included."""

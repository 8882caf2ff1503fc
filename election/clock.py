"""Where the time comes from: a clock that nobody sets and that keeps counting while the machine sleeps."""

import threading
import time
from typing import Protocol

# time.monotonic() is CLOCK_MONOTONIC, which stands still on Linux while a laptop or a virtual machine sleeps: a leader
# would wake up and believe in a lease that others took over long ago. macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC
# counts through sleep.
_COUNTS_THROUGH_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Seconds since some fixed moment, and a way to wait. Two clocks never need to agree, only to run equally fast."""

    def now(self) -> float:
        """Return the time in seconds; it never goes back."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's own clock: CLOCK_BOOTTIME on Linux."""

    def now(self) -> float:
        """Return the seconds since the machine started, including those in which it slept."""
        return time.clock_gettime(_COUNTS_THROUGH_SLEEP)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`. Signal handlers run meanwhile, so Ctrl-C is prompt."""
        return event.wait(max(0.0, min(seconds, threading.TIMEOUT_MAX)))


def wall_ms() -> int:
    """Return the wall clock in milliseconds: for people to read, and as the least that a new fence can be."""
    return time.time_ns() // 1_000_000

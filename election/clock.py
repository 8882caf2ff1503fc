"""Where the time comes from: a clock that nobody sets and that keeps counting while the machine sleeps."""

import threading
import time
from typing import Protocol

# time.monotonic() is CLOCK_MONOTONIC, which stands still on Linux while a laptop or a virtual machine sleeps: a leader
# would wake up believing in a lease that others have long taken over. macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC
# counts through sleep.
_COUNTS_THROUGH_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Seconds since some fixed moment, and a way to wait. Two clocks never need to agree, only to run equally fast."""

    def now(self) -> float:
        """Seconds, never going back."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; say whether it is set."""
        ...


class SystemClock:
    """The machine's own clock: CLOCK_BOOTTIME on Linux."""

    def now(self) -> float:
        """Seconds since the machine started, sleep included."""
        return time.clock_gettime(_COUNTS_THROUGH_SLEEP)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; a signal handler runs meanwhile, so Ctrl-C is prompt."""
        return event.wait(max(0.0, min(seconds, threading.TIMEOUT_MAX)))

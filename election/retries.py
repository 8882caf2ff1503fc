"""Trying again what failed outside of this process: backoff with jitter, by tenacity.

This is for stores and databases that do not answer. The compare-and-swap loops and the renewals of a lease are part of
the protocol and do not use it.
"""

import logging
import random
import threading
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_base, stop_never

from election.clock import Clock


def backoff(failures: int, chance: float, *, first: float, longest: float) -> float:
    """Return how many seconds to wait after that many failures in a row. Pure.

    The limit begins at `first`, doubles with each failure, and ends at `longest`. The result lies between half of the
    limit and all of it, so that clients that failed at the same moment do not come back at the same moment.

    Args:
        failures: how often it has failed; 1 or more.
        chance: a random number, at least 0 and less than 1.
        first: seconds, the limit after the first failure.
        longest: seconds, the limit after many.
    """
    # 2.0**1000 is still a float. An outage of a week has more failures.
    limit = min(longest, first * 2.0 ** min(failures - 1, 1000))
    return limit * (0.5 + 0.5 * chance)


class Reminder:
    """Says when to log a trouble that lasts: when it begins, and then once a minute.

    Args:
        log: where it is logged. If nobody reads warnings there, no clock is asked.
        clock: counts the minutes.
    """

    every = 60.0
    """Seconds between two lines about the same trouble."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self.trouble: str | None = None
        """What is wrong; None while nothing is."""
        self.lasted = 0.0
        """For how many seconds, when it was logged last."""
        self._since = self._said = 0.0

    def due(self, trouble: str) -> bool:
        """Return whether to log `trouble` now; another trouble than the last one is logged at once."""
        now = self._clock.now() if self._log.isEnabledFor(logging.WARNING) else 0.0
        if trouble != self.trouble:
            self.trouble, self._since = trouble, now
        elif now - self._said < self.every:
            return False
        self._said, self.lasted = now, now - self._since
        return True

    def over(self) -> bool:
        """Note that nothing is wrong any more; return whether something was."""
        trouble, self.trouble = self.trouble, None
        return trouble is not None


def retrying(
    clock: Clock,
    *,
    first: float,
    longest: float,
    retry: retry_base,
    wake: threading.Event,
    stop: Callable[[RetryCallState], bool] = stop_never,
    before_sleep: Callable[[RetryCallState], None] | None = None,
    left: Callable[[], float] = lambda: float("inf"),
    chance: Callable[[], float] = random.random,
) -> Retrying:
    """Return tenacity's `Retrying` with our backoff, our clock and our randomness. Call it as `retrying(…)(work)`.

    When `stop` says so, what the last try returned or raised is passed on.

    Args:
        clock: waits between two tries.
        first, longest: seconds, as for `backoff`.
        retry: which outcome is tried again.
        wake: ends a wait as soon as it is set.
        stop: asked after each failure whether to give up.
        before_sleep: called before each wait, to log the first.
        left: the most seconds that a wait may last now.
        chance: makes a random number, at least 0 and less than 1.
    """

    def wait(state: RetryCallState) -> float:
        return max(0.0, min(left(), backoff(state.attempt_number, chance(), first=first, longest=longest)))

    def sleep(seconds: float) -> None:
        clock.wait(wake, seconds)

    return Retrying(
        sleep=sleep,
        stop=stop,
        wait=wait,
        retry=retry,
        before_sleep=before_sleep,
        reraise=True,
    )

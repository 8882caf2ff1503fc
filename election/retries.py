"""Trying again what failed outside of this process: backoff with jitter, by tenacity.

This is for stores and databases that do not answer. The compare-and-swap loops and the renewals of a lease are part of
the protocol and do not use it.
"""

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

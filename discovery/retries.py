"""Trying again what is outside, by tenacity: backoff with full jitter, ended at once by an event."""

import threading
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

FIRST = 0.1
"""Seconds that the first wait lasts at most."""
LONGEST = 5.0
"""Seconds that any wait lasts at most, unless the caller asks for another limit."""


def retrying(
    stop: threading.Event,
    *,
    first: float = FIRST,
    longest: float = LONGEST,
    failed: Callable[[BaseException, int], object] | None = None,
    sleep: Callable[[float], object] | None = None,
) -> Retrying:
    """Return what calls a function until it returns, and tries again after each exception.

    It is for threads that must live. So any `Exception` counts: a stranger's answer may be an error of any class, and
    a machine may be out of threads or of memory for a while.

    The n-th wait is a random number of seconds between 0 and `first * 2 ** (n - 1)`, and never more than `longest`, so
    that a fleet that lost one server does not come back in step. The idea is "full jitter" (Brooker, AWS, 2015).

    Args:
        stop: Ends a wait at once when it is set. The function is then called once more, and should return; if it
            raises, the result is None.
        failed: Called with the error and the number of the attempt, before each wait.
        sleep: Waits so many seconds; for tests, by default `stop` does.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if failed is not None and error is not None:
            failed(error, state.attempt_number)

    return Retrying(
        retry=retry_if_exception_type(Exception),
        wait=wait_random_exponential(multiplier=min(first, longest), max=longest),
        stop=stop_when_event_set(stop),
        sleep=sleep or sleep_using_event(stop),  # type: ignore[arg-type]
        before_sleep=before_sleep,
        retry_error_callback=lambda state: None,
    )

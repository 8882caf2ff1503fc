"""Wait in tests: for a condition that offers no event, with a deadline that a busy machine can keep."""

import inspect
import threading
import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE = 60.0
"""Seconds after which a test gives up waiting for something. It is half of what pytest allows one test."""

SOON = 10.0
"""Seconds within which a busy machine does what needs no waiting. Every timeout that may come instead is longer."""

T = TypeVar("T")


def until(condition: Callable[[], T], what: object = "", seconds: float = DEADLINE) -> T:
    """Return the first true value of `condition()`.

    Args:
        condition: is called every few milliseconds.
        what: completes the sentence "waited 60 s in vain for ..."; the source of `condition` if it is left out.

    Raises:
        AssertionError: there was none within `seconds`; the message has the last value.
    """
    end, pause = time.monotonic() + seconds, threading.Event()
    while not (value := condition()):
        if time.monotonic() > end:
            what = what or inspect.getsource(condition).strip()
            raise AssertionError(f"waited {seconds:g} s in vain for {what}; in the end it was {value!r}")
        pause.wait(0.005)
    return value

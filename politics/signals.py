"""Signals as numbers in a queue: a handler that did more, as to set an Event, could deadlock."""

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator

Inbox = queue.SimpleQueue[int]


@contextlib.contextmanager
def collect(*numbers: int) -> Iterator[Inbox]:
    """Put these signals into a queue meanwhile, where that is possible: on the main thread."""
    inbox: Inbox = queue.SimpleQueue()
    if threading.current_thread() is not threading.main_thread():
        yield inbox
        return
    earlier = {n: signal.signal(n, lambda number, _frame: inbox.put(number)) for n in numbers}
    try:
        yield inbox
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

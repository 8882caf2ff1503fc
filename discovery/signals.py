"""Waiting on the main thread for signals and for what else is put in."""

import contextlib
import math
import os
import queue
import signal
import socket
import threading
import time
from typing import Any


class SignalQueue:
    """A queue of numbers: of these signals, where they can be had (on the main thread), and of what is `put` in.

    The kernel may hand a signal to any thread, to one that is just starting another, say. The interpreter then runs the
    handler on the main thread, but does not wake it up for that: only the bell, which the signal itself rings, does.
    """

    def __init__(self, *signals: int) -> None:
        self._signals = signals
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()  # a handler may put into it at any moment
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._earlier: dict[int, Any] = {}
        self._pid = os.getpid()

    def put(self, number: int) -> None:
        """From any thread, at any time."""
        self._numbers.put(number)
        with contextlib.suppress(OSError):  # it rings already, or nobody listens any more
            self._bell.send(b"!")

    def get(self, timeout: float = math.inf) -> int:
        """The next number.

        Raises:
            queue.Empty: there is none within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(queue.Empty):
                return self._numbers.get_nowait()
            left = end - time.monotonic()
            if left <= 0:
                raise queue.Empty
            self._ear.settimeout(min(left, 3600.0))
            with contextlib.suppress(TimeoutError):
                self._ear.recv(4096)

    def _handle(self, number: int, _frame: object) -> None:
        if os.getpid() == self._pid:
            self.put(number)
        else:  # a fork ends as if we were not there
            signal.signal(number, self._earlier[number])
            os.kill(os.getpid(), number)

    def __enter__(self) -> "SignalQueue":
        if threading.current_thread() is threading.main_thread():
            self._rang = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
            self._earlier = {n: signal.getsignal(n) or signal.SIG_DFL for n in self._signals}
            for number in self._earlier:
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        if self._earlier:
            signal.set_wakeup_fd(self._rang)
        self._ear.close()
        self._bell.close()

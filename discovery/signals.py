"""Wait for signals on the main thread, and for what other threads put in. Every program of ours waits by this class."""

import contextlib
import math
import os
import queue
import signal
import socket
import threading
from typing import Any

from discovery.clock import uptime
from discovery.fork import ForkGuard


class SignalQueue:
    """A queue of numbers: the signals that arrived, and whatever was `put` in. Use it as a context manager.

        with SignalQueue(signal.SIGTERM, signal.SIGINT) as signals:
            number = signals.get(timeout=10.0)

    Inside the block the handlers of these signals are ours; afterwards they are what they were. Signals can only be
    handled on the main thread; on any other thread the queue holds what is `put` in and nothing else. In a forked child
    the signals do what they did before the block.

    The kernel may deliver a signal to any thread. The interpreter runs the handler on the main thread, but does not
    wake that thread up for it. So `get` waits on a socket to which the interpreter writes when a signal arrives
    (`signal.set_wakeup_fd`).
    """

    def __init__(self, *signals: int) -> None:
        self._signals = signals
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()  # a handler may put into it at any moment
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._earlier: dict[int, Any] = {}
        self._earlier_fd: int | None = None
        self._guard = ForkGuard()

    def put(self, number: int) -> None:
        """Add a number and wake the waiter up. Any thread may call it at any time, also after the block."""
        self._numbers.put(number)
        with contextlib.suppress(OSError):  # the waiter has enough to wake up for, or has gone
            self._writer.send(b"!")

    def get(self, timeout: float = math.inf) -> int:
        """Return the next number, in the order of arrival.

        Args:
            timeout: seconds to wait at most.

        Raises:
            queue.Empty: nothing arrived in time.
        """
        end = uptime() + timeout
        while True:
            with contextlib.suppress(queue.Empty):
                return self._numbers.get_nowait()
            left = end - uptime()
            if left <= 0:
                raise queue.Empty
            self._reader.settimeout(min(left, 3600.0))
            with contextlib.suppress(TimeoutError):
                self._reader.recv(4096)

    def _handle(self, number: int, _frame: object) -> None:
        if self._guard.forked:
            signal.signal(number, self._earlier[number])
            os.kill(os.getpid(), number)
        else:
            self.put(number)

    def __enter__(self) -> "SignalQueue":
        if threading.current_thread() is threading.main_thread():
            self._earlier_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._earlier = {n: signal.getsignal(n) or signal.SIG_DFL for n in self._signals}
            for number in self._earlier:
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        if self._earlier_fd is not None:
            signal.set_wakeup_fd(self._earlier_fd)
        self._reader.close()
        self._writer.close()

"""Threads that ask renewers: as many as there is work for, and never more than a limit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 64
"""Renewers that one space asks at the same time, at most. The others wait for their turn."""
IDLE = 1.0
"""Seconds after which a thread without work ends."""


class Askers(Generic[T]):
    """Call `ask(item)` for each item, on threads of our own. One call that hangs delays no other, as long as there are
    fewer than `most` of them. For any thread.
    """

    def __init__(self, ask: Callable[[T], object], most: int = MOST) -> None:
        self._ask, self._most = ask, most
        self._waiting: deque[T] = deque()
        self._threads = self._idle = 0
        self._news = threading.Condition()

    def add(self, items: Iterable[T]) -> bool:
        """Take in these items. Return False if nobody works on what waits, since the machine starts no thread.

        Call it again after a while then, without items: what waits is not lost.
        """
        with self._news:
            self._waiting.extend(items)
            self._news.notify(len(self._waiting))
            try:
                while self._threads < self._most and self._idle < len(self._waiting):
                    threading.Thread(target=self._run, name="tuplespace-renewer", daemon=True).start()
                    self._threads, self._idle = self._threads + 1, self._idle + 1
            except RuntimeError:
                pass  # those that there are do the work, one after the other
            return not self._waiting or self._threads > 0

    def _run(self) -> None:
        while True:
            with self._news:
                if not self._news.wait_for(lambda: self._waiting, IDLE):
                    self._threads, self._idle = self._threads - 1, self._idle - 1
                    return
                self._idle -= 1
                item = self._waiting.popleft()
            try:
                self._ask(item)
            except BaseException:
                with self._news:
                    self._threads -= 1
                raise
            with self._news:
                self._idle += 1

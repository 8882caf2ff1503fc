"""Events that wait to be fetched: one mechanism for a tuple space's listeners and a registry's watches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

from discovery.errors import RequestCanceled, RequestExpired


class StreamItem(Protocol):
    """What a stream carries: a named tuple with a field `missed`."""

    @property
    def missed(self) -> int:
        """How many events before this one were dropped because nobody fetched them."""
        ...

    def _replace(self, *, missed: int) -> Self: ...


E = TypeVar("E", bound=StreamItem)


class BoundedStream(Generic[E]):
    """Events in the order in which they came, for any thread: iterate, or `get` them one by one.

    At most `limit` wait to be fetched. After that the oldest are dropped, and the next event that is fetched says how
    many in `missed`. A stream that has ended delivers what it still has; then iterating ends and `get` raises.
    """

    def __init__(self, limit: int) -> None:
        self.closed = False
        self._events: deque[E] = deque(maxlen=limit)
        self._missed = 0
        self._ready = threading.Condition()

    def get(self, timeout: float | None = None) -> E:
        """Return the next event; wait for it up to `timeout` seconds of real time, None for ever.

        Raises:
            RequestExpired: there was none in time.
            RequestCanceled: the stream has ended, and everything was fetched.
        """
        with self._ready:
            if not self._ready.wait_for(lambda: self._events or self.closed, timeout):
                raise RequestExpired(f"nothing came in {timeout} s from {self!r}")
            if not self._events:
                raise RequestCanceled(f"there is nothing more to come from {self!r}")
            event, missed, self._missed = self._events.popleft(), self._missed, 0
            return event._replace(missed=missed) if missed else event

    def __iter__(self) -> Iterator[E]:
        while True:
            try:
                event = self.get()
            except RequestCanceled:
                return
            yield event

    def put(self, event: E) -> None:
        """Add an event; it is ignored once the stream has ended."""
        with self._ready:
            if not self.closed:
                self._append(event)

    def end(self, *last: E) -> None:
        """End the stream, after a last event if there is one. Nothing happens if it has ended."""
        with self._ready:
            if not self.closed:
                for event in last:
                    self._append(event)
                self.closed = True
                self._ready.notify_all()

    def _append(self, event: Any) -> None:
        if len(self._events) == self._events.maxlen:
            self._missed += 1
        self._events.append(event)
        self._ready.notify_all()

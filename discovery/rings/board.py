"""What a ring's server shows of its tuple space: `Board`. `discovery.rings.space` is the other side."""

import secrets
import threading
from typing import Any

from discovery.errors import RequestCanceled, RequestExpired
from discovery.remote.answers import Pending, Stream
from discovery.tuples.entry import Entry
from discovery.tuples.requests import BatchRequest, EventStream, Holding, Request, TupleEventKind
from discovery.tuples.space import TupleSpace
from discovery.tuples.template import Fields, Stored

__all__ = ["Board", "plain"]

MOST_EVENTS = 10_000
"""Events that wait for one listener, at most, whatever it asks for."""

_TIDY = 64
"""Writes from one look for entries that are gone to the next, at least."""


class Board:
    """What a server shows of a tuple space: nothing but these methods."""

    def __init__(self, space: TupleSpace, identity: str) -> None:
        self._space, self._identity = space, identity
        self._first = secrets.randbits(48)  # what a writer kept of an earlier server on this port means nothing here
        self._entries: dict[int, Entry] = {}
        self._lock = threading.Lock()
        self._until_tidy = _TIDY

    def identity(self) -> str:
        """Return which ring this is. It is the same by whatever address the ring was found."""
        return self._identity

    def write(self, fields: Fields, expires: Any) -> int:
        """Write a tuple. Return the number under which `entry` knows it."""
        entry = self._space.write(fields, expires)
        self._remember(entry)
        return self._first + entry.number

    def write_all(self, tuples: list[Fields], expires: float | None) -> list[int]:
        """Write all of them, or none."""
        entries = self._space.write_all(tuples, expires)
        self._remember(*entries)
        return [self._first + entry.number for entry in entries]

    def reading(self, template: Fields, timeout: float | None) -> "_Waiting":
        return _Waiting(self._space.reading(template, timeout))

    def taking(self, template: Fields, timeout: float | None) -> "_Waiting":
        return _Waiting(self._space.taking(template, timeout))

    def taking_all(self, template: Fields, limit: int | None) -> "_Batch":
        return _Batch(self._space.taking_all(template, limit))

    def read_all(self, template: Fields, after: int, limit: int) -> list[Any]:
        """Return a page of tuples, and the number to go on after, None at the end. A page of 0 passes over one."""
        page, following = self._space.read_page(template, after, limit or 1)
        return [[plain(stored) for stored in page] if limit else [], following]

    def notify(self, kind: TupleEventKind | None, template: Fields, expires: float | None, limit: int) -> "_Listening":
        return _Listening(self._space.notify(kind, template, expires, limit=min(limit, MOST_EVENTS)))

    def entry(self, number: int, what: str, expires: Any) -> bool:
        """Return whether an entry is alive, or what renewing or cancelling it did; False for one that is long gone."""
        if what not in ("alive", "renew", "cancel"):
            raise ValueError(f"expected alive, renew or cancel, got {what!r}")
        entry = self._entries.get(number)
        if entry is None:
            return False
        return {"alive": lambda: entry.alive, "renew": lambda: entry.renew(expires), "cancel": entry.cancel}[what]()

    def _remember(self, *entries: Entry) -> None:
        """Keep what `entry` may be asked for, and let go of what is gone, now and then."""
        with self._lock:
            for entry in entries:
                self._entries[self._first + entry.number] = entry
            self._until_tidy -= len(entries)
            if self._until_tidy <= 0:
                self._until_tidy = _TIDY
                if len(self._entries) > 2 * len(self._space) + _TIDY:  # most of them are gone
                    self._entries = {number: old for number, old in self._entries.items() if old.alive}


class _Held(Pending):
    """What the space holds, or will hold, for a client that may die meanwhile."""

    def __init__(self, request: Holding) -> None:
        self._request = request

    def wait(self) -> Any:
        return plain(self._request.result())

    def cancel(self) -> None:
        self._request.cancel()

    def confirm(self) -> None:
        self._request.confirm()

    def put_back(self) -> None:
        self._request.cancel()


class _Waiting(_Held):
    """One tuple, which may have to be waited for. It is held only by a take."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.held, self.ready = request.takes, request.state != "waiting"


class _Batch(_Held):
    """What a client takes at once. It is held until the client has it, unless it is nothing."""

    ready = True

    def __init__(self, batch: BatchRequest) -> None:
        super().__init__(batch)
        self.held = bool(batch.items)

    def wait(self) -> Any:
        return [plain(stored) for stored in self._request.result()]


class _Listening(Stream):
    """A stream of the space that a client fetches."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    def next_batch(self) -> list[Any] | None:
        try:
            batch = [self._stream.get()]
            while batch[-1].kind != "close":
                batch.append(self._stream.get(0))
        except RequestExpired:
            pass  # that is all for now
        except RequestCanceled:
            return None
        return [[event.kind, event.tuple and plain(event.tuple), event.missed] for event in batch]

    def cancel(self) -> None:
        self._stream.cancel()


def plain(stored: Stored) -> Stored:
    """Return a named tuple as a tuple, since the other side does not know its class."""
    return tuple(stored) if isinstance(stored, tuple) else stored

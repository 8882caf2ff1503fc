"""A bulletin board: write tuples, read or take them by template, wait for them, hear about them, let them expire.

The idea is Linda's (Gelernter, 1985); the calls are those of Ruby's Rinda (Masatoshi Seki).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from itertools import count
from math import inf
from typing import Any

from discovery.errors import BadTemplate, RequestCanceled, RequestExpired
from discovery.tuples.deadlines import Deadlines
from discovery.tuples.entry import Entry, Expiry, Renewer, answer, first_answer, lead, seconds_or_forever
from discovery.tuples.index import TemplateIndex, TupleIndex
from discovery.tuples.requests import EventStream, Request, RequestState, TupleEventKind
from discovery.tuples.template import Fields, Stored, Template, freeze, thaw

log = logging.getLogger("discovery")
_IDLE = 10.0  # seconds for which the background thread waits for something to do before it ends


def uptime() -> float:
    """Seconds on a clock that nobody can set, and which goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class TupleSpace:
    """A thread-safe tuple space in this process.

    Promises: of several matching tuples the oldest is returned; waiting takers are served in the order in which they
    came, after all waiting readers have seen the tuple; an expired tuple is never returned. A literal in a template,
    in whichever field, is found without a scan. Sequences come back as tuples, mappings as dictionaries of your own.

    `now` is the clock, in seconds. With `background=False` no thread is ever started: expired tuples are still never
    returned, but waiting requests expire, and renewers are asked, only when something calls `sweep`.
    """

    def __init__(self, now: Callable[[], float] = uptime, *, background: bool = True) -> None:
        self.now = now
        self._background = background
        self._numbers = count()
        self._entries: TupleIndex[Entry] = TupleIndex()
        self._readers: TemplateIndex[Request] = TemplateIndex()
        self._takers: TemplateIndex[Request] = TemplateIndex()
        self._streams: TemplateIndex[EventStream] = TemplateIndex()
        self._deadlines: Deadlines[Entry | Request | EventStream] = Deadlines()
        self._to_ask: list[Entry] = []
        self._answered: list[Request] = []
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._keeper: threading.Thread | None = None
        self._keeper_wakes = inf  # when it looks again; -inf while it is looking
        self._closed = False
        self._turn = _Turn(self)

    def write(self, fields: Fields, expires: Expiry = None) -> Entry:
        """Adds a tuple, for so many seconds, or for ever (None), or for as long as a renewer says.

        A renewer is asked for its first answer here; if it raises, nothing is written and the caller hears of it.
        Raises `BadTuple` and `BadTime`.
        """
        stored = freeze(fields)
        seconds, renewer = first_answer(expires, stored)
        with self._turn as now:
            self._refuse_if_closed()
            entry = Entry(self, next(self._numbers), stored)
            self._entries.add(entry)
            self._tell("write", stored)
            self._live(entry, now, seconds, renewer)
            self._offer(entry, now)
            return entry

    def read(self, template: Fields, timeout: float | None = None) -> Any:
        """The oldest tuple that matches; waits for one. `timeout` is in seconds, 0 is now, None for ever.

        Raises `RequestExpired`, `RequestCanceled` when the space is closed, `BadTemplate` and `BadTime`.
        """
        return self.reading(template, timeout).result()

    def take(self, template: Fields, timeout: float | None = None) -> Any:
        """As `read`, and removes the tuple: each goes to one taker only."""
        with self.taking(template, timeout) as taken:
            return taken

    def move(self, port: Callable[[Any], object], template: Fields, timeout: float | None = None) -> Any:
        """A `take` that cannot lose the tuple: it is handed to `port(tuple)` first, and removed once that returns.

        If `port` raises, the tuple is in the space as before, in its old place, and the caller gets the exception.
        """
        with self.taking(template, timeout) as taken:
            port(taken)
            return taken

    def read_all(self, template: Fields) -> list[Any]:
        """Every tuple that matches now, oldest first."""
        wanted = Template(template)
        with self._turn as now:
            return [thaw(entry.stored) for entry in self._visible(wanted, now)]

    def notify(
        self, kind: TupleEventKind | None, template: Fields, expires: float | None = None, *, limit: int = 1000
    ) -> EventStream:
        """A stream of what happens from now on to tuples that match: `write`, `take`, `delete`, or all (None).

        `delete` is an expiry or a cancellation. Every stream ends with one `close`: after `expires` seconds, or when
        it is cancelled, or the space closed.
        """
        if kind not in (None, "write", "take", "delete", "close"):
            raise ValueError(f"expected write, take, delete, close or None, got {kind!r}")
        seconds = seconds_or_forever(expires)
        wanted = Template(template)
        with self._turn as now:
            self._refuse_if_closed()
            stream = EventStream(self, next(self._numbers), kind, wanted, limit)
            self._streams.add(stream)
            self._deadlines.set(stream, now + seconds)
            return stream

    def reading(self, template: Fields, timeout: float | None = None) -> Request:
        """`read` as a request that can be waited for, cancelled, and listened to. Returns at once."""
        return self._request(template, timeout, takes=False)

    def taking(self, template: Fields, timeout: float | None = None) -> Request:
        """`take` as such a request, which holds its tuple until it is confirmed, or cancelled and put back."""
        return self._request(template, timeout, takes=True)

    def sweep(self) -> None:
        """Does what is due now, on this thread: expires tuples, requests and streams, and asks renewers."""
        with self._turn:
            due, self._to_ask = self._to_ask, []
        for entry in due:
            self._ask(entry)

    def close(self) -> None:
        """Cancels every waiting request, ends every stream, and stops the background thread. Writing and waiting then
        raise `RequestCanceled`."""
        with self._turn:
            self._closed = True
            for request in [*self._readers, *self._takers]:
                self._finish(request, "failed", RequestCanceled("the tuple space was closed"))
            for stream in list(self._streams):
                self._end(stream)
            self._wake.notify()

    def __len__(self) -> int:
        """How many tuples there are, those that a take holds included."""
        with self._turn:
            return len(self._entries)

    def __enter__(self) -> TupleSpace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        waiting = len(self._readers) + len(self._takers)
        return f"<TupleSpace of {len(self._entries)} tuples, {waiting} waiting, {len(self._streams)} listening>"

    # Below here the lock is held, unless a docstring says otherwise.

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RequestCanceled("the tuple space was closed")

    def _visible(self, template: Template, now: float) -> Iterable[Entry]:
        return (
            entry
            for entry in self._entries.candidates(template)
            if not entry.held and entry.expires > now and template.fits(entry.stored)
        )

    def _request(self, template: Fields, timeout: float | None, *, takes: bool) -> Request:
        """Takes the lock."""
        wanted = Template(template)
        seconds = seconds_or_forever(timeout)
        with self._turn as now:
            self._refuse_if_closed()
            request = Request(self, next(self._numbers), wanted, takes)
            entry = next(iter(self._visible(wanted, now)), None)
            if entry is not None:
                self._serve(request, entry)
            elif seconds == 0:
                self._finish(request, "failed", RequestExpired(f"no tuple matches {wanted.pattern!r}"))
            else:
                request.answered = threading.Event()
                (self._takers if request.takes else self._readers).add(request)
                self._deadlines.set(request, now + seconds)
            return request

    def _offer(self, entry: Entry, now: float) -> None:
        """Gives a tuple that became visible to all who wait to read it, and to the first who waits to take it."""
        if entry.expires <= now:
            return
        for queue in (self._readers, self._takers):
            for request in list(queue.candidates(entry.stored)) if queue else ():
                if not entry.held and self._fits(request, entry.stored):
                    self._serve(request, entry)

    def _fits(self, waiting: Request | EventStream, stored: Stored) -> bool:
        """A template that raises is the fault of whoever waits with it, not of the writer."""
        try:
            return waiting.template.fits(stored)
        except BadTemplate as exc:
            if isinstance(waiting, Request):
                self._finish(waiting, "failed", exc)
            else:
                log.warning("%r is closed: %s", waiting, exc)
                self._end(waiting)
            return False

    def _serve(self, request: Request, entry: Entry) -> None:
        request.answer = thaw(entry.stored)
        if request.takes:
            request.entry, entry.held = entry, True
            self._deadlines.drop(entry)
        self._finish(request, "held" if request.takes else "done")

    def _finish(self, request: Request, state: RequestState, error: Exception | None = None) -> None:
        """Answers a request, or fails it, for good or for bad; who waits hears of it once the lock is released."""
        if request.answered is not None and request.state == "waiting":
            (self._takers if request.takes else self._readers).remove(request)
            self._deadlines.drop(request)
        request.state, request.error = state, error
        self._answered.append(request)

    def _call_back(self, request: Request, callback: Callable[[Request], object]) -> bool:
        """Takes the lock. Whether the request is still waiting, and will call."""
        with self._turn:
            if request.state == "waiting":
                request.callbacks.append(callback)
            return request.state == "waiting"

    def _confirm(self, request: Request) -> None:
        """Takes the lock."""
        with self._turn:
            if request.state == "held" and request.entry is not None:
                request.state = "done"
                self._remove(request.entry, "take")

    def _cancel(self, request: Request) -> bool:
        """Takes the lock."""
        with self._turn as now:
            if request.state not in ("waiting", "held"):
                return False
            self._finish(request, "failed", RequestCanceled(f"{request!r} was canceled"))
            entry = request.entry
            if entry is not None:
                entry.held = False
                self._schedule(entry)
                self._offer(entry, now)
            return True

    def _live(self, entry: Entry, start: float, seconds: float, renewer: Renewer | None) -> None:
        entry.expires, entry.renewer, entry.asking = start + seconds, renewer, False
        entry.lead = lead(seconds) if renewer else 0.0
        self._schedule(entry)

    def _schedule(self, entry: Entry) -> None:
        if entry.listed and not entry.held and not entry.asking:
            self._deadlines.set(entry, entry.expires - entry.lead)

    def _entry_due(self, entry: Entry) -> None:
        if entry.renewer is None:
            self._remove(entry, "delete")
        else:
            entry.asking = True
            self._to_ask.append(entry)

    def _remove(self, entry: Entry, kind: TupleEventKind) -> None:
        entry.listed = False
        self._entries.remove(entry)
        self._deadlines.drop(entry)
        self._tell(kind, entry.stored)

    def _withdraw(self, entry: Entry) -> bool:
        """Takes the lock."""
        with self._turn as now:
            if not entry.listed:
                return False
            if entry.held:
                entry.expires, entry.renewer, entry.asking = now, None, False
                return False
            self._remove(entry, "delete")
            return True

    def _renew(self, entry: Entry, expires: Expiry) -> bool:
        """Takes the lock."""
        seconds, renewer = first_answer(expires, entry.stored)
        with self._turn as now:
            if entry.alive:
                self._live(entry, now, seconds, renewer)
                return True
            return False

    def _ask(self, entry: Entry) -> None:
        """Asks the renewer without the lock, since that may cross the network, then takes the lock."""
        renewer = entry.renewer
        if renewer is None:
            return
        try:
            seconds, again = answer(renewer, entry.stored)
        except Exception as exc:  # noqa: BLE001 - a renewer's faults are its own; its tuple pays
            log.warning("%r expires: its renewer %r raised %r", entry.stored, renewer, exc)
            seconds, again = 0.0, None
        with self._turn as now:
            if entry.listed and entry.renewer is renewer and entry.asking:
                late = entry.expires <= now
                self._live(entry, max(now, entry.expires) if seconds else entry.expires, seconds, again)
                if late and not entry.held:
                    self._offer(entry, now)

    def _tell(self, kind: TupleEventKind, stored: Stored) -> None:
        if self._streams:
            for stream in list(self._streams.candidates(stored)):
                if stream.kind in (None, kind) and self._fits(stream, stored):
                    stream._put(kind, stored)

    def _end(self, stream: EventStream) -> None:
        self._streams.remove(stream)
        self._deadlines.drop(stream)
        stream._put("close", None)

    def _close_stream(self, stream: EventStream) -> bool:
        """Takes the lock."""
        with self._turn:
            if stream.closed:
                return False
            self._end(stream)
            return True

    def _settle(self) -> float:
        """Lets everything expire that is due, so that whoever has the lock sees the space as it is now."""
        now = self.now()
        while self._deadlines.next <= now and (item := self._deadlines.pop(now)) is not None:
            item._due()
        return now

    def _wake_keeper(self) -> None:
        """Sees to it that the background thread looks again in time."""
        if self._background and not self._closed and (self._to_ask or self._deadlines.next < self._keeper_wakes):
            self._keeper_wakes = -inf
            if self._keeper is None:
                keeper = threading.Thread(target=self._keep, name="tuplespace", daemon=True)
                keeper.start()
                self._keeper = keeper
            self._wake.notify()

    def _keep(self) -> None:
        """The background thread: takes the lock, and lets it go while it waits."""
        while True:
            with self._turn:
                due, self._to_ask = self._to_ask, []
            for entry in due:  # a thread each: one renewer that hangs must not make the others late
                threading.Thread(target=self._ask, args=(entry,), name="tuplespace-renewer", daemon=True).start()
            with self._lock:
                if self._to_ask:
                    continue
                self._keeper_wakes = wakes = self._deadlines.next
                told = self._closed or self._wake.wait(_IDLE if wakes == inf else max(0.0, wakes - self.now()))
                if self._closed or (wakes == inf and not told):
                    self._keeper, self._keeper_wakes = None, inf
                    return
                self._keeper_wakes = -inf


class _Turn:
    """The lock. Entering it lets what is due expire and gives the time; leaving it tells those who were answered."""

    def __init__(self, space: TupleSpace) -> None:
        self._space = space

    def __enter__(self) -> float:
        self._space._lock.acquire()
        try:
            return self._space._settle()
        except BaseException:
            self._space._lock.release()
            raise

    def __exit__(self, *exc: object) -> None:
        space = self._space
        answered, space._answered = space._answered, []
        try:
            space._wake_keeper()
        finally:
            space._lock.release()
        for request in answered:
            request._announce()

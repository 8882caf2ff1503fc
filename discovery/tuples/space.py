"""A tuple space that threads share: write tuples, read or take them by template, wait for them, hear about them.

The idea is Linda's (Gelernter, 1985); the calls are those of Ruby's Rinda (Masatoshi Seki). What follows from what is
decided in `discovery.tuples.state`. Here are the lock, the clock and the background thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from discovery.clock import uptime
from discovery.errors import BadTemplate
from discovery.tuples.askers import Askers
from discovery.tuples.entry import Entry, Expiry, answer, first_answer, seconds_or_forever
from discovery.tuples.requests import BatchRequest, EventStream, Request
from discovery.tuples.state import Batch, Item, SpaceState, TupleEventKind
from discovery.tuples.template import Fields, Template, freeze, thaw

log = logging.getLogger("discovery")
_IDLE = 10.0  # seconds for which the background thread waits for something to do before it ends
_AGAIN = 1.0  # seconds after which a thread that could not be started is tried again


class TupleSpace:
    """A thread-safe tuple space in this process.

    Promises: of several matching tuples the oldest is returned. Waiting takers are served in the order in which they
    came, after all waiting readers have seen the tuple. An expired tuple is never returned. A literal in a template,
    in any field, is found without a scan. Sequences come back as tuples, mappings as dictionaries of your own.

    Args:
        now: the clock, in seconds.
        background: False starts no thread, ever. Expired tuples are still never returned, but waiting requests expire,
            and renewers are asked, only when you call `sweep`.
    """

    def __init__(self, now: Callable[[], float] = uptime, *, background: bool = True) -> None:
        self.now = now
        self._background = background
        self._state: SpaceState[Request, EventStream] = SpaceState()
        self._lock = threading.Lock()
        self._locked = _Locked(self)
        self._wake = threading.Condition(self._lock)
        self._sweeper: threading.Thread | None = None
        self._sweeper_wakes = inf  # when it looks again; -inf while it is looking
        self._sweeper_missing = False  # it was needed and could not be started
        self._askers = Askers(self._ask)

    def write(self, fields: Fields, expires: Expiry = None) -> Entry:
        """Add a tuple, for so many seconds, or for ever (None), or for as long as a renewer says.

        A renewer is asked for its first answer here. What it raises is raised here, and nothing is written.

        Raises:
            BadTuple: `fields` are no sequence and no mapping with string keys.
            BadTime: `expires` is no time.
            RequestCanceled: the space is closed.
        """
        stored = freeze(fields)
        seconds, renewer = first_answer(expires, stored)
        entry = Entry(self, stored)
        with self._locked as now:
            self._state.write(entry, seconds, renewer, now)
        return entry

    def write_all(self, tuples: Iterable[Fields], expires: float | None = None) -> list[Entry]:
        """Write many tuples at once, in their order. Write none of them if one is no tuple, or `expires` no time."""
        entries = [Entry(self, freeze(fields)) for fields in tuples]
        seconds = seconds_or_forever(expires)
        with self._locked as now:
            for entry in entries:
                self._state.write(entry, seconds, None, now)
        return entries

    def read(self, template: Fields, timeout: float | None = None) -> Any:
        """Return the oldest tuple that matches; wait for one up to `timeout` seconds, 0 is now, None for ever.

        Raises:
            RequestExpired: none came in time.
            RequestCanceled: the space is closed.
            BadTemplate: the template is none, or one of its patterns raised.
            BadTime: `timeout` is no time.
        """
        return self._answer(Request(self, Template(template), takes=False), timeout)

    def take(self, template: Fields, timeout: float | None = None) -> Any:
        """Do as `read` does, and remove the tuple: each goes to one taker only. Ctrl-C while it waits takes nothing."""
        return self._answer(Request(self, Template(template), takes=True), timeout)

    def take_all(self, template: Fields, limit: int | None = None) -> list[Any]:
        """Remove and return the tuples that match now, oldest first, with a `limit` at most so many. Never wait."""
        batch = BatchRequest(self)
        try:
            self._hold_all(batch, template, limit)
            taken = batch.result()
            batch.confirm()
        except BaseException:
            batch.cancel()
            raise
        return taken

    def move(self, port: Callable[[Any], object], template: Fields, timeout: float | None = None) -> Any:
        """Take a tuple without a chance to lose it: call `port(tuple)` first, and remove the tuple once that returns.

        If `port` raises, the tuple is in the space as before, in its old place, and you get the exception.
        """
        return self._answer(Request(self, Template(template), takes=True), timeout, port)

    def read_all(self, template: Fields, limit: int | None = None) -> list[Any]:
        """Return every tuple that matches now, oldest first; with a `limit` at most so many."""
        return self.read_page(template, -1, limit)[0]

    def read_page(self, template: Fields, after: int, limit: int | None) -> tuple[list[Any], int | None]:
        """Return at most `limit` of the tuples that match, oldest first, and what to give as `after` to read on.

        `after` is -1 at first. The second result is None when there is nothing more.
        """
        wanted = Template(template)
        _check(limit)
        with self._locked as now:
            items = self._state.find_all(wanted, now, after, None if limit is None else limit + 1)
        more = limit is not None and len(items) > limit
        page = items[:limit]
        return [thaw(item.stored) for item in page], (page[-1].number if page else after) if more else None

    def notify(
        self, kind: TupleEventKind | None, template: Fields, expires: float | None = None, *, limit: int = 1000
    ) -> EventStream:
        """Return a stream of what happens from now on to tuples that match.

        Every stream ends with one `close`: after `expires` seconds, or when it is cancelled, or the space closed.

        Args:
            kind: `write`, `take`, `delete` (an expiry or a cancellation), `close`, or None for all of them.
            template: as for `read`.
            expires: seconds, None for ever.
            limit: how many events wait to be fetched, at most; then the oldest are dropped.
        """
        if kind not in (None, "write", "take", "delete", "close"):
            raise ValueError(f"expected write, take, delete, close or None, got {kind!r}")
        seconds = seconds_or_forever(expires)
        stream = EventStream(self, kind, Template(template), limit)
        with self._locked as now:
            self._state.listen(stream, seconds, now)
        return stream

    def reading(self, template: Fields, timeout: float | None = None) -> Request:
        """Return `read` as a request, at once. You can wait for it, cancel it, and be called back."""
        return self._request(template, timeout, takes=False)

    def taking(self, template: Fields, timeout: float | None = None) -> Request:
        """Return `take` as such a request. It holds its tuple until you confirm it, or cancel and put it back."""
        return self._request(template, timeout, takes=True)

    def taking_all(self, template: Fields, limit: int | None = None) -> BatchRequest:
        """Return `take_all` as a request that holds the tuples until you confirm it, or cancel and put them back."""
        batch = BatchRequest(self)
        self._hold_all(batch, template, limit)
        return batch

    def sweep(self) -> None:
        """Do what is due now, on this thread: expire tuples, requests and streams, and ask renewers."""
        with self._locked:
            due, self._state.to_ask = self._state.to_ask, []
        for item in due:
            self._ask(item)

    def close(self) -> None:
        """Cancel every waiting request, end every stream, and stop the background thread.

        Writing and waiting then raise `RequestCanceled`.
        """
        with self._locked:
            self._state.close()
            self._wake.notify()

    def __len__(self) -> int:
        """Return how many tuples there are, those that a take holds included."""
        with self._locked:
            return len(self._state.items)

    def __enter__(self) -> TupleSpace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self._state
        waiting = len(state.readers) + len(state.takers)
        return f"<TupleSpace of {len(state.items)} tuples, {waiting} waiting, {len(state.listeners)} listening>"

    # What entries, requests and streams ask of their space.

    def _renew(self, entry: Entry, expires: Expiry) -> bool:
        seconds, renewer = first_answer(expires, entry.stored)
        with self._locked as now:
            return self._state.renew(entry, seconds, renewer, now)

    def _withdraw(self, entry: Entry) -> bool:
        with self._locked as now:
            return self._state.withdraw(entry, now)

    def _request(self, template: Fields, timeout: float | None, *, takes: bool) -> Request:
        request = Request(self, Template(template), takes)
        self._ask_for(request, seconds_or_forever(timeout))
        return request

    def _ask_for(self, request: Request, seconds: float) -> None:
        with self._locked as now:
            self._state.ask(request, seconds, now)
            if request.state == "waiting":
                request.answered = threading.Event()

    def _answer(self, request: Request, timeout: float | None, port: Callable[[Any], object] | None = None) -> Any:
        """Ask and return the answer. Wherever Ctrl-C interrupts this, no request is left behind to be given a tuple."""
        seconds = seconds_or_forever(timeout)
        try:
            self._ask_for(request, seconds)
            answer = request.result()
            if port is not None:
                port(answer)
            if request.takes:
                request.confirm()
        except BaseException:
            if request.state in ("waiting", "held"):
                with contextlib.suppress(AttributeError, KeyError):  # it had not come as far as being asked
                    request.cancel()
            raise
        return answer

    def _wait(self, answered: threading.Event, seconds: float | None) -> bool:
        """Wait for an answer. While there is no background thread, see to what is due from time to time."""
        left = inf if seconds is None else seconds
        while self._sweeper_missing and left > 0 and not answered.wait(min(_AGAIN, left)):
            left -= _AGAIN
            with self._locked:
                pass
        return answered.wait(None if left == inf else max(0.0, left))

    def _confirm(self, request: Request) -> None:
        with self._locked:
            self._state.confirm(request)

    def _cancel(self, request: Request) -> bool:
        with self._locked as now:
            return self._state.cancel(request, now)

    def _hold_all(self, batch: BatchRequest, template: Fields, limit: int | None) -> None:
        wanted = Template(template)
        _check(limit)
        with self._locked as now:
            self._state.hold_all(batch, wanted, limit, now)

    def _confirm_all(self, batch: Batch) -> None:
        with self._locked:
            self._state.confirm_all(batch)

    def _cancel_all(self, batch: Batch) -> bool:
        with self._locked as now:
            return self._state.cancel_all(batch, now)

    def _call_back(self, request: Request, callback: Callable[[Request], object]) -> bool:
        """Return whether the request is still waiting, and will call."""
        with self._locked:
            waiting = request.state == "waiting"
            if waiting:
                request.callbacks += (callback,)
            return waiting

    def _close_stream(self, stream: EventStream) -> bool:
        with self._locked:
            return self._state.leave(stream)

    # The background.

    def _ask(self, item: Item) -> None:
        """Ask a renewer. No lock is held, since the answer may have to cross the network."""
        renewer = item.renewer
        if renewer is None:
            return
        try:
            seconds, again = answer(renewer, item.stored)
        except Exception as exc:  # noqa: BLE001 - a renewer may raise anything
            log.warning("%.200r expires: its renewer %.200r raised %.200r", item.stored, renewer, exc)
            seconds, again = 0.0, None
        with self._locked as now:
            self._state.renewed(item, renewer, seconds, again, now)

    def _deliver(self) -> None:
        """Hand events to their streams. The lock is held, so that every stream has them in their order."""
        events, self._state.events = self._state.events, []
        for stream, event in events:
            if event.kind == "close":
                stream.end(event)
            else:
                stream.put(event)

    def _wake_sweeper(self) -> None:
        """See to it that the background thread looks again in time. The lock is held."""
        if self._background and self._state.next_look < self._sweeper_wakes and not self._state.closed:
            if self._sweeper is None:
                sweeper = threading.Thread(target=self._keep, name="tuplespace", daemon=True)
                try:
                    sweeper.start()
                except RuntimeError as exc:
                    if not self._sweeper_missing:
                        log.warning("%r expires nothing by itself, and tries again with its next use: %s", self, exc)
                    self._sweeper_missing = True
                    return
                self._sweeper, self._sweeper_missing = sweeper, False
            self._sweeper_wakes = -inf
            self._wake.notify()

    def _keep(self) -> None:
        """Run the background thread. It ends when there has been nothing to do for a while."""
        while True:
            with self._locked:
                due, self._state.to_ask = self._state.to_ask, []
            stuck = not self._askers.add(due)
            with self._lock:
                wakes = self._state.next_look
                if wakes == -inf:
                    continue
                self._sweeper_wakes = wakes
                pause = _IDLE if wakes == inf else max(0.0, wakes - self.now())
                told = self._state.closed or self._wake.wait(min(pause, _AGAIN) if stuck else pause)
                if self._state.closed or (wakes == inf and not told and not stuck):
                    self._sweeper, self._sweeper_wakes = None, inf
                    return
                self._sweeper_wakes = -inf


def _check(limit: int | None) -> None:
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ValueError(f"expected a limit of 0 or more, or None, got {limit!r}")


class _Locked:
    """The lock. Entering it lets happen what is due, and returns the time; leaving it does what was decided."""

    __slots__ = ("_space",)

    def __init__(self, space: TupleSpace) -> None:
        self._space = space

    def __enter__(self) -> float:
        space = self._space
        space._lock.acquire()
        try:
            now = space.now()
            if space._state.deadlines.next <= now:
                space._state.settle(now)
        except BaseException:
            space._lock.release()
            raise
        return now

    def __exit__(self, *exc: object) -> None:
        space, state = self._space, self._space._state
        answered: Sequence[Request] = ()
        failed: Sequence[tuple[EventStream, BadTemplate]] = ()
        try:
            if state.answered or state.failed:
                answered, state.answered = state.answered, []
                failed, state.failed = state.failed, []
            if state.events:
                space._deliver()
            if state.to_ask or state.deadlines.next < space._sweeper_wakes:
                space._wake_sweeper()
        finally:
            space._lock.release()
        for request in answered:
            request._announce()
        for stream, error in failed:
            log.warning("%r is closed: %s", stream, error)

"""What waits on a tuple space: a request for one tuple, and a stream of events."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from discovery.errors import RequestCanceled, RequestExpired
from discovery.tuples.template import Stored, Template

if TYPE_CHECKING:
    from discovery.tuples.entry import Entry
    from discovery.tuples.space import TupleSpace

TupleEventKind = Literal["write", "take", "delete", "close"]
RequestState = Literal["waiting", "held", "done", "failed"]
log = logging.getLogger("discovery")


class Request:
    """One `read` or `take` that may have to wait, made by `TupleSpace.reading` and `taking`.

    A take happens in two steps. Once it is answered the tuple is *held*: nobody else sees it, and it keeps its place.
    `confirm` removes it for good; `cancel` puts it back where it was. Used as a context manager it confirms at the end
    of the block, and cancels when the block raises:

        with space.taking(("job", None)) as job:
            work(job)  # if this raises, the job is there for the next taker

    Threads need not wait: `add_done_callback` tells.
    """

    def __init__(self, space: TupleSpace, number: int, template: Template, takes: bool) -> None:
        self.number, self.template, self.takes = number, template, takes
        self.state: RequestState = "waiting"
        self.entry: Entry | None = None
        self.answer: Any = None
        self.error: Exception | None = None
        self.answered: threading.Event | None = None  # there is none where the answer came at once
        self.callbacks: list[Callable[[Request], object]] = []
        self._space = space

    def wait(self, seconds: float | None = None) -> bool:
        """Whether there is an answer, good or bad, within so many seconds of real time; the request goes on waiting."""
        return self.answered is None or self.answered.wait(seconds)

    def result(self) -> Any:
        """The tuple; waits for it. Raises `RequestExpired`, `RequestCanceled`, or `BadTemplate`."""
        try:
            self.wait()
        except BaseException:  # Ctrl-C: what may just have been given to this request goes back
            self.cancel()
            raise
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self.answer

    def confirm(self) -> None:
        """The tuple has arrived: a taken one is now gone. Raises `RequestCanceled` if it has been put back."""
        self._space._confirm(self)
        if self.error is not None:
            raise self.error.with_traceback(None)

    def cancel(self) -> bool:
        """Stops waiting, or puts back the tuple that is held. False where it is too late for either."""
        return self._space._cancel(self)

    def add_done_callback(self, callback: Callable[[Request], object]) -> None:
        """Calls `callback(self)` once, when there is an answer: at once if there is one already, else on the thread
        that brought it (a writer's, the canceller's, or the space's own), holding no lock. What it raises is logged."""
        if not self._space._call_back(self, callback):
            self._call(callback)

    def _announce(self) -> None:
        if self.answered is not None:
            self.answered.set()
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Request], object]) -> None:
        try:
            callback(self)
        except Exception:
            log.exception("the callback of %r raised", self)

    def __enter__(self) -> Any:
        return self.result()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.confirm()
        else:
            self.cancel()

    def _due(self) -> None:
        self._space._finish(self, "failed", RequestExpired(f"no tuple matched {self.template.pattern!r} in time"))

    def __repr__(self) -> str:
        return f"<Request to {'take' if self.takes else 'read'} {self.template.pattern!r}, {self.state}>"


class TupleEvent(NamedTuple):
    """Something happened to a tuple. `missed` events before this one were dropped because nobody fetched them."""

    kind: TupleEventKind
    tuple: Any
    missed: int = 0


class EventStream:
    """The events that match a template, in the order in which they happened, the last of them `close`.

    Iterate over it, or `get` them one by one, from any thread. At most `limit` wait to be fetched; after that the
    oldest are dropped, and the next event fetched says how many in `missed`.
    """

    def __init__(
        self, space: TupleSpace, number: int, kind: TupleEventKind | None, template: Template, limit: int
    ) -> None:
        self.number, self.kind, self.template = number, kind, template
        self._space = space
        self._events: deque[TupleEvent] = deque(maxlen=limit)
        self._missed = 0
        self.closed = False
        self._ready = threading.Condition()

    def get(self, timeout: float | None = None) -> TupleEvent:
        """The next event. Raises `RequestExpired` if none comes within so many seconds of real time, and
        `RequestCanceled` once `close` has been fetched."""
        with self._ready:
            if not self._ready.wait_for(lambda: self._events or self.closed, timeout):
                raise RequestExpired(f"no event for {self.template.pattern!r} in {timeout} s")
            if not self._events:
                raise RequestCanceled("the stream is closed")
            event, missed, self._missed = self._events.popleft(), self._missed, 0
            return event._replace(missed=missed)

    def __iter__(self) -> Iterator[TupleEvent]:
        while True:
            event = self.get()
            yield event
            if event.kind == "close":
                return

    def cancel(self) -> bool:
        """Ends the stream with `close`. False if it had ended."""
        return self._space._close_stream(self)

    def _put(self, kind: TupleEventKind, stored: Stored | None) -> None:
        with self._ready:
            if len(self._events) == self._events.maxlen:
                self._missed += 1
            self._events.append(TupleEvent(kind, dict(stored) if isinstance(stored, dict) else stored))
            self.closed = kind == "close"
            self._ready.notify_all()

    def _due(self) -> None:
        self._space._end(self)

    def __repr__(self) -> str:
        what = self.kind or "every event"
        return f"<EventStream of {what} for {self.template.pattern!r}, {'closed' if self.closed else 'open'}>"

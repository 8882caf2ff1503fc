"""What a user of a tuple space holds while waiting: a request for one tuple, and a stream of events."""

from __future__ import annotations

import abc
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from discovery.errors import RequestCanceled
from discovery.tuples.state import Batch, EventListener, RequestState, TupleEvent, TupleEventKind, Waiter
from discovery.tuples.stream import BoundedStream
from discovery.tuples.template import Template, thaw

__all__ = ["BatchRequest", "EventStream", "Holding", "Request", "RequestState", "TupleEvent", "TupleEventKind"]

log = logging.getLogger("discovery")


class RequestOwner(Protocol):
    """What requests and streams need of their space."""

    def _wait(self, answered: threading.Event, seconds: float | None) -> bool: ...
    def _confirm(self, request: Request) -> None: ...
    def _cancel(self, request: Request) -> bool: ...
    def _call_back(self, request: Request, callback: Callable[[Request], object]) -> bool: ...
    def _close_stream(self, stream: EventStream) -> bool: ...


class BatchOwner(Protocol):
    """What a batch needs of its space."""

    def _confirm_all(self, batch: Batch) -> None: ...
    def _cancel_all(self, batch: Batch) -> bool: ...


class Holding(abc.ABC):
    """What holds tuples for whoever asked: a context manager that confirms at the end of the block, or else cancels."""

    __slots__ = ()

    @abc.abstractmethod
    def result(self) -> Any:
        """Return what is held, once it is there."""

    @abc.abstractmethod
    def confirm(self) -> None:
        """Remove for good what is held. Raises `RequestCanceled` if it has been put back."""

    @abc.abstractmethod
    def cancel(self) -> bool:
        """Put back what is held. Return False if it is too late."""

    def __enter__(self) -> Any:
        return self.result()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.confirm()
        else:
            self.cancel()


class Request(Waiter, Holding):
    """One `read` or `take` that may have to wait, made by `TupleSpace.reading` and `taking`.

    A take happens in two steps. Once it is answered the tuple is *held*: nobody else sees it, and it keeps its place.
    `confirm` removes it for good; `cancel` puts it back where it was. Used as a context manager it confirms at the end
    of the block, and cancels when the block raises:

        with space.taking(("job", None)) as job:
            work(job)  # if this raises, the job is there for the next taker

    You need not block a thread: `add_done_callback` tells you of the answer.
    """

    __slots__ = ("_space", "answered", "callbacks")

    def __init__(self, space: RequestOwner, template: Template, takes: bool) -> None:
        super().__init__(template, takes)
        self.answered: threading.Event | None = None  # there is none where the answer came at once
        self.callbacks: tuple[Callable[[Request], object], ...] = ()
        self._space = space

    def wait(self, seconds: float | None = None) -> bool:
        """Wait up to so many seconds of real time, and return whether there is an answer, good or bad.

        The request goes on waiting if there is none.
        """
        return self.answered is None or self._space._wait(self.answered, seconds)

    def result(self) -> Any:
        """Wait for the tuple and return it. Raises `RequestExpired`, `RequestCanceled` or `BadTemplate`."""
        try:
            self.wait()
        except BaseException:  # Ctrl-C: what may just have been given to this request goes back
            self.cancel()
            raise
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self.answer

    def confirm(self) -> None:
        """Remove the tuple that was taken for good. Raises `RequestCanceled` if it has been put back."""
        self._space._confirm(self)
        if self.error is not None:
            raise self.error.with_traceback(None)

    def cancel(self) -> bool:
        """Stop waiting, or put back the tuple that is held. Return False if it is too late for either."""
        return self._space._cancel(self)

    def add_done_callback(self, callback: Callable[[Request], object]) -> None:
        """Call `callback(self)` once, when there is an answer.

        It runs at once if there is an answer already; otherwise on the thread that brings it: a writer's, the
        canceller's, or the space's own. No lock is held meanwhile. What the callback raises is logged.
        """
        if not self._space._call_back(self, callback):
            self._call(callback)

    def _announce(self) -> None:
        if self.answered is not None:
            self.answered.set()
        callbacks, self.callbacks = self.callbacks, ()
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Request], object]) -> None:
        try:
            callback(self)
        except Exception:
            log.exception("the callback of %r raised", self)

    def __repr__(self) -> str:
        return f"<Request to {'take' if self.takes else 'read'} {self.template.pattern!r}, {self.state}>"


class BatchRequest(Batch, Holding):
    """One `take_all`, made by `TupleSpace.taking_all`: tuples that are held together. It does not wait.

    As with a take, `confirm` removes them for good, `cancel` puts each back where it was, and as a context manager it
    confirms at the end of the block, and cancels when the block raises.
    """

    __slots__ = ("_space",)

    def __init__(self, space: BatchOwner) -> None:
        super().__init__()
        self._space = space

    def result(self) -> list[Any]:
        """Return the tuples, oldest first; none where nothing matched."""
        return [thaw(item.stored) for item in self.items]

    def confirm(self) -> None:
        """Remove the tuples for good. Raises `RequestCanceled` if they have been put back."""
        self._space._confirm_all(self)
        if self.state == "failed":
            raise RequestCanceled(f"{self!r} was canceled")

    def cancel(self) -> bool:
        """Put the tuples back. Return False if it is too late."""
        return self._space._cancel_all(self)

    def __repr__(self) -> str:
        return f"<BatchRequest of {len(self.items)} tuples, {self.state}>"


class EventStream(BoundedStream[TupleEvent], EventListener):
    """The events that match a template, made by `TupleSpace.notify`. The last of them is `close`.

    See `BoundedStream` for how to fetch them, and for what happens if you do not.
    """

    def __init__(self, space: RequestOwner, kind: TupleEventKind | None, template: Template, limit: int) -> None:
        BoundedStream.__init__(self, limit)
        EventListener.__init__(self, kind, template)
        self._space = space

    def cancel(self) -> bool:
        """End the stream with `close`. Return False if it had ended."""
        return self._space._close_stream(self)

    def __repr__(self) -> str:
        what = self.kind or "every event"
        return f"<EventStream of {what} for {self.template.pattern!r}, {'closed' if self.closed else 'open'}>"

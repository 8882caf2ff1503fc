"""The rules of a tuple space. Pure: no lock, thread or clock, and nothing is called back.

`SpaceState` decides, `discovery.tuples.space.TupleSpace` acts. The time comes in as `now`, in seconds. Call
`settle(now)` first, then one other method. What has to be done as a result is then in these lists, which the caller
empties:

| list | holds | the caller |
|---|---|---|
| `answered` | waiters that had to wait and now have an answer or an error | wakes them |
| `events` | a listener and what it is to hear, in order | hands the event on |
| `failed` | listeners that were closed because their template raised | logs the error |
| `to_ask` | items whose renewer must be asked | asks, and calls `renewed` |

`next_look` says when to call `settle` again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice
from math import inf
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from discovery.errors import BadTemplate, RequestCanceled, RequestExpired
from discovery.tuples.deadlines import Deadlines
from discovery.tuples.index import TemplateIndex, TupleIndex
from discovery.tuples.template import Stored, Template, thaw

TupleEventKind = Literal["write", "take", "delete", "close"]
RequestState = Literal["waiting", "held", "done", "failed"]
BatchState = Literal["new", "held", "done", "failed"]


class TupleEvent(NamedTuple):
    """Something that happened to a tuple. `missed` counts the events before it that nobody fetched in time."""

    kind: TupleEventKind
    tuple: Any
    missed: int = 0


class Item:
    """A tuple in the space: how long it lives, and what holds it at the moment."""

    __slots__ = ("asking", "expires", "holder", "lead", "listed", "number", "renewer", "stored")
    number: int  # given by `SpaceState.write`, as is `listed`

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.expires, self.lead = inf, 0.0  # `lead`: how long before `expires` the renewer is asked
        self.renewer: Any = None  # decides how long the tuple lives; only the caller can ask it
        self.holder: Any = None  # the take that holds it, unseen by others
        self.listed = self.asking = False


class Waiter:
    """One read or take, and what has become of it."""

    __slots__ = ("answer", "entry", "error", "number", "state", "takes", "template")
    number: int  # given by `SpaceState.ask`

    def __init__(self, template: Template, takes: bool) -> None:
        self.template, self.takes = template, takes
        self.state: RequestState = "waiting"
        self.entry: Item | None = None  # what a take holds, or has taken
        self.answer: Any = None
        self.error: Exception | None = None


class EventListener:
    """Who hears of the events of one kind (None: of every kind) that match a template."""

    number: int  # given by `SpaceState.listen`
    listed = False

    def __init__(self, kind: TupleEventKind | None, template: Template) -> None:
        self.kind, self.template = kind, template


class Batch:
    """What one take of many tuples holds, and what has become of it."""

    __slots__ = ("items", "state")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.state: BatchState = "new"


W = TypeVar("W", bound=Waiter)
L = TypeVar("L", bound=EventListener)


def lead(seconds: float) -> float:
    """Return how many seconds before its time is up a tuple's renewer is asked, so that the answer is there in time."""
    return min(1.0, seconds / 10)


def _closed() -> RequestCanceled:
    """Return what is raised by a closed space."""
    return RequestCanceled("the tuple space was closed")


class SpaceState(Generic[W, L]):
    """All tuples, waiters and listeners of a space, and what follows from each call. See the module."""

    def __init__(self) -> None:
        self.closed = False
        self.answered: list[W] = []
        self.events: list[tuple[L, TupleEvent]] = []
        self.failed: list[tuple[L, BadTemplate]] = []
        self.to_ask: list[Item] = []
        self.items: TupleIndex[Item] = TupleIndex()
        self.readers: TemplateIndex[W] = TemplateIndex()
        self.takers: TemplateIndex[W] = TemplateIndex()
        self.listeners: TemplateIndex[L] = TemplateIndex()
        self.deadlines: Deadlines[Item | W | L] = Deadlines()
        self._numbers = count()

    @property
    def next_look(self) -> float:
        """When `settle` must be called next, at the latest: minus infinity while a renewer is to be asked."""
        return -inf if self.to_ask else self.deadlines.next

    def settle(self, now: float) -> None:
        """Let everything happen that is due: tuples, waiters and listeners expire, renewers are to be asked."""
        while self.deadlines.next <= now and (due := self.deadlines.pop(now)) is not None:
            if isinstance(due, Item):
                if due.renewer is None:
                    self._remove(due, "delete")
                else:
                    due.asking = True
                    self.to_ask.append(due)
            elif isinstance(due, Waiter):
                self._fail(due, RequestExpired(f"no tuple matched {due.template.pattern!r} in time"))
            else:
                self._end(due)

    def write(self, item: Item, seconds: float, renewer: Any, now: float) -> None:
        """Add a tuple, and give it to those who wait for it. Raises `RequestCanceled` when the space is closed."""
        if self.closed:
            raise _closed()
        item.number, item.listed = next(self._numbers), True
        self.items.add(item)
        if self.listeners.size:
            self._tell("write", item.stored)
        if seconds != inf:  # for ever is how an item begins
            self._live(item, now, seconds, renewer)
        if self.readers.size or self.takers.size:
            self._offer(item, now)

    def renew(self, item: Item, seconds: float, renewer: Any, now: float) -> bool:
        """Let a tuple live for `seconds` from now. Return False if it is gone."""
        alive = item.listed and item.expires > now
        if alive:
            self._live(item, now, seconds, renewer)
        return alive

    def renewed(self, item: Item, renewer: Any, seconds: float, again: Any, now: float) -> None:
        """Take a renewer's answer: `seconds` more, and whom to ask `again`. An answer that is out of date is ignored.

        A tuple whose renewer was late is seen again, in its old place.
        """
        if item.listed and item.renewer is renewer and item.asking:
            late = item.expires <= now
            self._live(item, max(now, item.expires) if seconds else item.expires, seconds, again)
            if late and item.holder is None:
                self._offer(item, now)

    def withdraw(self, item: Item, now: float) -> bool:
        """Remove a tuple. Return False if it is gone, or if a take holds it, which then cannot put it back."""
        if item.listed and item.holder is not None:
            item.expires, item.renewer, item.asking = now, None, False
        elif item.listed:
            self._remove(item, "delete")
            return True
        return False

    def find_all(self, template: Template, now: float, after: int = -1, limit: int | None = None) -> list[Item]:
        """Return what matches and has a higher number than `after`, oldest first, and at most `limit` of it."""
        return list(islice(self._visible(template, now, after), limit))

    def ask(self, waiter: W, seconds: float, now: float) -> None:
        """Answer a read or a take from what is there; otherwise let it wait for so many seconds.

        Its `state` tells which. It is put into `answered` only if it had to wait. Raises `RequestCanceled` when the
        space is closed, and `BadTemplate`.
        """
        if self.closed:
            raise _closed()
        for item in self._visible(waiter.template, now):
            return self._serve(waiter, item)
        if seconds == 0:
            waiter.state = "failed"
            waiter.error = RequestExpired(f"no tuple matches {waiter.template.pattern!r}")
            return None
        waiter.number = next(self._numbers)
        (self.takers if waiter.takes else self.readers).add(waiter)
        return self.deadlines.set(waiter, now + seconds)

    def confirm(self, waiter: W) -> None:
        """Remove for good what a take holds, if it holds anything."""
        if waiter.state == "held" and waiter.entry is not None:
            waiter.state = "done"
            self._remove(waiter.entry, "take")

    def cancel(self, waiter: W, now: float) -> bool:
        """Stop waiting, or put back what a take holds, in its old place. Return False if it is too late for either."""
        if waiter.state not in ("waiting", "held"):
            return False
        item, error = waiter.entry, RequestCanceled(f"{waiter!r} was canceled")
        if item is None:
            self._fail(waiter, error)
        else:
            waiter.state, waiter.error = "failed", error
            self._put_back(item, now)
        return True

    def hold_all(self, batch: Batch, template: Template, limit: int | None, now: float) -> None:
        """Hold what matches now, oldest first, and at most `limit` of it.

        Raises `RequestCanceled` when the space is closed, and `BadTemplate`.
        """
        if self.closed:
            raise _closed()
        batch.items, batch.state = self.find_all(template, now, limit=limit), "held"
        for item in batch.items:
            item.holder = batch
            if item.expires != inf:
                self.deadlines.drop(item)

    def confirm_all(self, batch: Batch) -> None:
        """Remove for good what a batch holds, if it still holds it."""
        if batch.state == "held":
            for item in batch.items:
                self._remove(item, "take")
            batch.state = "done"

    def cancel_all(self, batch: Batch, now: float) -> bool:
        """Put back what a batch holds, each in its old place. Return False if it is too late."""
        if batch.state != "held":
            return False
        batch.state = "failed"
        for item in batch.items:
            if item.holder is batch:  # all, unless Ctrl-C has interrupted `hold_all` or `confirm_all`
                self._put_back(item, now)
        return True

    def listen(self, listener: L, seconds: float, now: float) -> None:
        """Send events to a listener for so many seconds. Raises `RequestCanceled` when the space is closed."""
        if self.closed:
            raise _closed()
        listener.number, listener.listed = next(self._numbers), True
        self.listeners.add(listener)
        self.deadlines.set(listener, now + seconds)

    def leave(self, listener: L) -> bool:
        """Send a listener its last event. Return False if it has had it."""
        if not listener.listed:
            return False
        self._end(listener)
        return True

    def close(self) -> None:
        """Fail every waiter and end every listener; writing, asking and listening raise from now on."""
        self.closed = True
        for waiter in [*self.readers, *self.takers]:
            self._fail(waiter, _closed())
        for listener in list(self.listeners):
            self._end(listener)

    def _visible(self, template: Template, now: float, after: int = -1) -> Iterable[Item]:
        return (
            item
            for item in self.items.candidates(template)
            if item.number > after and item.holder is None and item.expires > now and template.fits(item.stored)
        )

    def _offer(self, item: Item, now: float) -> None:
        """Give a tuple that became visible to all who wait to read it, then to the first who waits to take it."""
        if item.expires <= now:
            return
        for queue in (self.readers, self.takers):
            for waiter in list(queue.candidates(item.stored)) if queue else ():
                try:
                    fits = waiter.template.fits(item.stored)
                except BadTemplate as exc:  # the fault of the waiter, not of the writer
                    self._fail(waiter, exc)
                    continue
                if fits:
                    self._dequeue(waiter)
                    self._serve(waiter, item)
                    self.answered.append(waiter)
                    if waiter.takes:
                        return

    def _serve(self, waiter: W, item: Item) -> None:
        waiter.answer = thaw(item.stored)
        if waiter.takes:
            waiter.state, waiter.entry, item.holder = "held", item, waiter
            if item.expires != inf:  # otherwise it has no deadline
                self.deadlines.drop(item)
        else:
            waiter.state = "done"

    def _put_back(self, item: Item, now: float) -> None:
        item.holder = None
        self._schedule(item)
        self._offer(item, now)

    def _fail(self, waiter: W, error: Exception) -> None:
        """Give a waiter in a queue its error."""
        self._dequeue(waiter)
        waiter.state, waiter.error = "failed", error
        self.answered.append(waiter)

    def _dequeue(self, waiter: W) -> None:
        (self.takers if waiter.takes else self.readers).remove(waiter)
        self.deadlines.drop(waiter)

    def _live(self, item: Item, start: float, seconds: float, renewer: Any) -> None:
        item.expires, item.renewer, item.asking = start + seconds, renewer, False
        item.lead = lead(seconds) if renewer else 0.0
        self._schedule(item)

    def _schedule(self, item: Item) -> None:
        if item.listed and item.holder is None and not item.asking:
            self.deadlines.set(item, item.expires - item.lead)

    def _remove(self, item: Item, kind: TupleEventKind) -> None:
        item.listed, item.holder = False, None
        self.items.remove(item)
        if item.expires != inf:
            self.deadlines.drop(item)
        if self.listeners.size:
            self._tell(kind, item.stored)

    def _tell(self, kind: TupleEventKind, stored: Stored) -> None:
        for listener in list(self.listeners.candidates(stored)):
            if listener.kind not in (None, kind):
                continue
            try:
                fits = listener.template.fits(stored)
            except BadTemplate as exc:
                self._end(listener)
                self.failed.append((listener, exc))
                continue
            if fits:
                self.events.append((listener, TupleEvent(kind, thaw(stored))))

    def _end(self, listener: L) -> None:
        listener.listed = False
        self.listeners.remove(listener)
        self.deadlines.drop(listener)
        self.events.append((listener, TupleEvent("close", None)))

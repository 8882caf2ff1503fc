"""An async `perform` runs in a loop of its worker's thread, and is cancelled when leadership is lost."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from election import Event, ask_to_resign, open_register
from election.clock import SystemClock
from election.testing import FaultyStore
from politics import Term, TokenWorker
from tests.waiting import until

OPTIONS: dict[str, Any] = {"group": "awaiting", "announce": False, "lease_ttl": 1.0}


async def coroutine(seen: list[Term], term: Term) -> None:
    """Work that is awaited."""
    await asyncio.sleep(0)
    seen.append(term)


class Callee:
    """An object that is called as a coroutine function is."""

    def __init__(self, seen: list[Term]) -> None:
        self.seen = seen

    async def __call__(self, term: Term) -> None:
        """Work that is awaited."""
        await coroutine(self.seen, term)


class Mailer(TokenWorker):
    """A worker with an async `perform`."""

    seen: list[Term]

    async def perform(self, term: Term) -> None:
        """Work that is awaited."""
        await coroutine(self.seen, term)


class Events(list[Event]):
    """What happened, by kind."""

    def of(self, kind: str) -> list[Event]:
        """Those of one kind."""
        return [event for event in self if event.kind == kind]


@pytest.mark.parametrize("way", ["perform", "function", "partial", "object", "asyncio.run"])
def test_async_work_is_done(old_store: str, way: str) -> None:
    """A method, a function, a partial or an object; and a loop that a sync one makes for itself."""
    seen, events = list[Term](), Events()

    async def function(term: Term) -> None:
        await coroutine(seen, term)

    work: dict[str, Callable[[Term], Any] | None] = {
        "perform": None,
        "function": function,
        "partial": functools.partial(coroutine, seen),
        "object": Callee(seen),
        "asyncio.run": lambda term: asyncio.run(function(term)),
    }
    worker = (Mailer if way == "perform" else TokenWorker)(**OPTIONS, store=old_store, on_event=events.append)
    worker.__dict__["seen"] = seen
    before = threading.active_count()
    worker.start(work[way])
    until(lambda: events.of("slot_done"))
    worker.stop()
    assert [term.iteration for term in seen] == [1]
    until(lambda: threading.active_count() <= before, "the end of all threads")


class Long(TokenWorker):
    """A worker whose work goes on until it is cancelled, and then cleans up."""

    grace = 60.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**OPTIONS, **options)
        self.began, self.ended = threading.Event(), threading.Event()
        self.cleaned: list[bool] = []

    async def perform(self, term: Term) -> None:
        """Wait for ever."""
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.cleaned.append(term.valid)
            self.ended.set()


def test_work_is_cancelled_when_the_worker_stops(old_store: str) -> None:
    """It cleans up under the lease, and its slot was interrupted."""
    events = Events()
    worker = Long(store=old_store, on_event=events.append)
    with worker:
        until(worker.began.is_set)
    assert worker.cleaned == [True]
    assert "asked to stop" in str(events.of("slot_interrupted")[0].reason)
    assert not events.of("slot_done")


def test_work_is_cancelled_when_somebody_asks_for_the_lease(old_store: str) -> None:
    """It cleans up under the lease."""
    with Long(store=old_store) as worker:
        until(worker.began.is_set)
        with contextlib.closing(open_register(old_store)) as register:
            ask_to_resign(register, "awaiting")
        until(worker.ended.is_set)
        assert worker.cleaned == [True]


def test_work_is_cancelled_when_the_lease_runs_out() -> None:
    """Nobody tells the worker of that: the store is silent, and the deadline passes."""
    register, events = FaultyStore(SystemClock()).link(), Events()
    with Long(store=register, on_event=events.append) as worker:
        until(worker.began.is_set)
        register.cut = True
        until(worker.ended.is_set)
        assert worker.cleaned == [False]
        until(lambda: events.of("slot_interrupted"))
        register.cut = False


def test_work_that_swallows_its_cancellation_holds_its_worker_up(old_store: str) -> None:
    """As work does that does not return: the lease is held for `grace`, and then given up."""
    began, release = threading.Event(), threading.Event()

    async def stubborn(term: Term) -> None:
        began.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    worker = TokenWorker(**OPTIONS, store=old_store)
    worker.start(stubborn)
    until(began.is_set)
    worker.stop(grace=0.1)
    assert worker.running
    release.set()
    until(lambda: not worker.running)


@pytest.mark.parametrize("cancels", [True, False], ids=["cancels itself", "raises"])
def test_work_that_fails_has_failed(old_store: str, cancels: bool) -> None:
    """Also if it cancels itself: that is an error of the work, not a loss of leadership. The worker lives on."""
    events = Events()

    async def failing(term: Term) -> None:
        if cancels:
            raise asyncio.CancelledError
        raise ZeroDivisionError

    worker = TokenWorker(**OPTIONS, store=old_store, on_event=events.append)
    worker.start(failing)
    until(lambda: events.of("slot_failed"))
    assert worker.running
    worker.stop()
    assert ("was cancelled" if cancels else "ZeroDivisionError") in str(events.of("slot_failed")[0].reason)


def test_work_that_exits_ends_the_process(old_store: str) -> None:
    """As sync work does."""

    async def leaving(term: Term) -> None:
        raise SystemExit(3)

    worker = TokenWorker(**OPTIONS, store=old_store)
    with pytest.raises(SystemExit) as caught:
        worker.process(leaving)
    assert caught.value.code == 3


def test_what_the_work_leaves_running_ends_with_it(old_store: str) -> None:
    """Nothing of a slot goes on in the next."""
    ended = threading.Event()

    async def forgetful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def work(term: Term) -> None:
        asyncio.create_task(forgetful()).add_done_callback(lambda task: None)
        await asyncio.sleep(0)

    worker = TokenWorker(**OPTIONS, store=old_store)
    worker.start(work)
    until(ended.is_set)
    worker.stop()

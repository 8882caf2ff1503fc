"""The lifespan of an ASGI application: who is entered when, what is passed on, and which mistakes are named."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from election import BadPolicy, BadStoreURL
from politics.integrations.asgi import AsyncTerm, Lifespan, leading
from tests.integration.test_lead import free, run

TTL = 0.6


class Application:
    """An application that remembers what happens to it, with a lifespan of its own."""

    def __init__(self) -> None:
        self.story: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[dict[str, int]]:
        """The application's own."""
        assert app is self
        self.story.append("opened")
        yield {"connections": 3}
        self.story.append("closed")

    async def work(self, term: AsyncTerm) -> None:
        """Work until cancelled, and take a moment to clean up."""
        self.story.append("works")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.story.append("cleaned up" if term.valid else "too late")

    async def serve(self, lifespan: Lifespan, until: str) -> Any:
        """Be entered, wait for something to happen, and be left; return the state."""
        async with lifespan(self) as state:
            while until not in self.story:
                await asyncio.sleep(0.005)
        return state


def test_your_own_lifespan_is_open_while_the_work_runs(old_store: str) -> None:
    """It is entered first and left last, and its state is passed on; the work cleans up while it leads."""
    app = Application()
    lifespan = leading("billing", app.work, lifespan=app.lifespan, store=old_store, lease_ttl=TTL)
    assert run(old_store, lambda: app.serve(lifespan, "works")) == {"connections": 3}
    assert app.story == ["opened", "works", "cleaned up", "closed"]


def test_several_tasks_are_nested(old_store: str) -> None:
    """Each under a name of its own; and a lifespan can be entered again, as in tests of an application."""
    app, seen = Application(), list[str]()

    async def other(term: AsyncTerm) -> None:
        seen.append(term.name)

    inner = leading("mailing", other, store=old_store, lease_ttl=TTL)
    lifespan = leading("billing", app.work, lifespan=inner, store=old_store, lease_ttl=TTL)
    for _ in range(2):
        app.story.clear()

        async def both() -> None:
            async with lifespan(app) as state:
                assert state is None
                while not (seen and app.story):
                    await asyncio.sleep(0.005)

        run(old_store, both)
        assert free(old_store, "mailing")
        seen.clear()


def test_an_error_of_the_application_is_passed_on(old_store: str) -> None:
    """From its own lifespan before anything begins, and from within: the work is cancelled then."""
    app = Application()

    @contextlib.asynccontextmanager
    async def failing(app: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    async def serve_and_fail() -> None:
        async with leading("billing", app.work, store=old_store, lease_ttl=TTL)(app):
            while "works" not in app.story:
                await asyncio.sleep(0.005)
            raise KeyError

    async def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            await app.serve(leading("billing", app.work, lifespan=failing, store=old_store, lease_ttl=TTL), "works")
        assert app.story == []
        with pytest.raises(KeyError):
            await serve_and_fail()

    run(old_store, fail)
    assert app.story == ["works", "cleaned up"]


def test_mistakes_are_named_when_the_application_is_made() -> None:
    """And not in the log of one that serves on without its work."""
    work = Application().work
    with pytest.raises(BadPolicy, match="lease_ttl"):
        leading("billing", work, lease_ttl=0)
    with pytest.raises(BadStoreURL, match="nonsense"):
        leading("billing", work, store="nonsense://")
    with pytest.raises(BadPolicy, match="the work of billing is no async function"):
        leading("billing", print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="there is no option stor"):
        leading("billing", work, stor="memory://")  # type: ignore[call-arg]

"""A background coroutine in exactly one of the worker processes of an ASGI application. Needs no library.

async def poll(term: AsyncTerm) -> None: ...

app = FastAPI(lifespan=leading("poller", poll))
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Unpack

from politics.leading import AsyncTerm, Options, Standing, work_while_leading
from politics.leading.awaited import refuse_sync
from politics.settings import find_store

__all__ = ["AsyncTerm", "Lifespan", "leading"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""What Starlette, FastAPI and others take as `lifespan`: called with the application when it starts."""


def leading(
    name: str,
    work: Callable[[AsyncTerm], Awaitable[object]],
    *,
    lifespan: Lifespan | None = None,
    **options: Unpack[Options],
) -> Lifespan:
    """Return a lifespan in which `work(term)` runs in one process of all that use this name.

    The others stand by, and serve as well. When the process that leads dies, another begins the work after `lease_ttl`
    at most; when it stops, at once. When it shuts down, the work is cancelled before your own lifespan ends. See
    `work_while_leading` for what happens when the work raises, or returns.

    Without `store`, `servers` and `$POLITICS_STORE` the workers of one machine elect by a file, and need no server.

    Args:
        name: the lease; printable, at most 80 bytes.
        work: a coroutine function.
        lifespan: your own, which is entered first, and whose state is passed on. To run several, nest `leading`.
        options: `store`, `servers`, `lease_ttl`, `on_event`; see `Options`.

    Raises:
        BadPolicy, BadStoreURL: a value that cannot work; the message names it.
    """
    # Mistakes are told here, and not in the log of a process that serves on.
    Standing(name, print, **options)
    refuse_sync(name, work)
    find_store(options.get("store"), options.get("servers"))

    @contextlib.asynccontextmanager
    async def entered(app: Any) -> AsyncIterator[Any]:
        async with contextlib.AsyncExitStack() as stack:
            state = await stack.enter_async_context(lifespan(app)) if lifespan else None
            task = asyncio.create_task(work_while_leading(name, work, **options), name=f"politics-{name}")
            try:
                yield state
            finally:
                task.cancel()
                await asyncio.wait({task})

    return entered

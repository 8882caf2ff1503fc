"""Async work, in an event loop of the thread that calls it, cancelled when leadership is lost."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from politics.worker.term import Term


def awaited(work: Callable[[Term], Any]) -> Callable[[Term], object]:
    """Return a function that runs the async `work` to its end, in an event loop that is made for this call.

    As soon as `term.lost` is set, the task of the work is cancelled, once. It may clean up. Work that ignores this goes
    on, like a call that does not return. Tasks that the work leaves running are cancelled when it has ended.

    The function raises what the work raises, but `LeadershipLost` if the work ended because it was cancelled for that.
    """

    def run(term: Term) -> object:
        with asyncio.Runner() as runner:
            return runner.run(_cancelled_when_lost(work, term))

    return run


async def _cancelled_when_lost(work: Callable[[Term], Awaitable[object]], term: Term) -> object:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work(term))
    timer = loop.call_soon(lambda: None)

    def look() -> None:
        nonlocal timer
        timer.cancel()
        if term.lost.is_set():
            unsubscribe()
            task.cancel()
        else:
            timer = loop.call_later(term.remaining(), look)

    def look_soon() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed just now
            loop.call_soon_threadsafe(look)

    unsubscribe = term.lost.subscribe(look_soon)
    look()
    try:
        return await task
    except asyncio.CancelledError:
        term.check()
        raise RuntimeError("the work was cancelled, and not because leadership was lost") from None
    finally:
        unsubscribe()
        timer.cancel()

"""Async work, in an event loop of the thread that calls it, cancelled when leadership is lost."""

import asyncio
from collections.abc import Awaitable, Callable

from politics.worker.term import Term

LOOK_EVERY = 0.05


def awaited(work: Callable[[Term], Awaitable[object]]) -> Callable[[Term], object]:
    """Return a function that runs the async `work` to its end, in an event loop that is made for this call.

    Soon after `term.lost` is set the task of the work is cancelled, once. It may clean up.

    The function raises what the work raises, but `LeadershipLost` if the work ended because it was cancelled for that.
    """

    def run(term: Term) -> object:
        with asyncio.Runner() as runner:
            return runner.run(_cancelled_when_lost(work, term))

    return run


async def _cancelled_when_lost(work: Callable[[Term], Awaitable[object]], term: Term) -> object:
    task = asyncio.ensure_future(work(term))
    while not task.done() and not term.lost.is_set():
        await asyncio.wait([task], timeout=LOOK_EVERY)
    if not task.done():
        task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        term.check()
        raise RuntimeError("the work was cancelled, and not because leadership was lost") from None

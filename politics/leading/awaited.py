"""`lead`: a lease in a program that has an event loop. No call here blocks the loop."""

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NoReturn, Unpack

from election import BadPolicy, ElectionError, LeadershipLost, LeasePolicy, LeaseTerm
from election.retries import backoff
from election.term import LostEvent
from politics.leading.standing import LONGEST_PAUSE, Options, Standing
from politics.worker.mistakes import is_async

log = logging.getLogger("politics")


class AsyncTerm:
    """Leadership inside an `async with lead(...)` block. Members that are not awaited may be used from any thread."""

    def __init__(self, lead: LeaseTerm, lost: asyncio.Event) -> None:
        self._lead, self._told = lead, lost
        self.name = lead.name
        self.fence = lead.fence
        """A number that is larger than in every earlier leader's term. Where effects land, refuse a smaller one."""

    @property
    def lost(self) -> LostEvent:
        """The event that is set when leadership is no longer proven, or somebody asked for the lease.

        Look at it with `is_set()`. In a coroutine await `wait_lost()`, since `lost.wait()` blocks its thread.
        """
        return self._lead.lost

    @property
    def valid(self) -> bool:
        """Whether leadership is proven now. Once it is false it stays so."""
        return self._lead.valid

    @property
    def reason(self) -> str:
        """Why `lost` is set, in words; empty while it is not set."""
        return self._lead.reason

    def remaining(self) -> float:
        """Return the seconds of proven leadership that are left if no renewal succeeds any more."""
        return self._lead.remaining()

    def check(self) -> None:
        """Return while this term leads, raise when it does not.

        Raises:
            LeadershipLost: leadership can no longer be proven, or somebody asked for the lease.
        """
        self._lead.check()

    async def wait_lost(self) -> None:
        """Wait until `lost` is set or the block is left. Any number of tasks may wait, and each may be cancelled."""
        await self._told.wait()

    def __repr__(self) -> str:
        return f"<AsyncTerm of {self._lead!r}>"


class Lead:
    """What `lead` returns: an asynchronous context manager, to be entered once."""

    def __init__(self, name: str, cancel: bool, options: Options) -> None:
        # A grace of 0: when the interpreter exits, the loop stands still, and nobody leaves the block any more.
        self._standing = Standing(name, self._govern, grace=0.0, ended=self._report_end, **options)
        self._cancel = cancel
        self._left = threading.Event()
        self._task: asyncio.Task[Any] | None = None
        self._lost_because = ""
        self._cancelled = False
        """Whether we have cancelled the body."""

    async def __aenter__(self) -> AsyncTerm:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("lead() must be entered in a task")
        if self._task is not None:
            raise RuntimeError("a lead() is entered once: call lead() again")
        self._task, self._cancelling = task, task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._elected: asyncio.Future[LeaseTerm] = self._loop.create_future()
        self._told, self._ended = asyncio.Event(), self._loop.create_future()
        self._standing.begin()
        try:
            term = AsyncTerm(await self._elected, self._told)
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, None)
            raise
        if self._cancel:
            task.add_done_callback(self._report_end_of_task)
        return term

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.remove_done_callback(self._report_end_of_task)
        if kind is GeneratorExit:  # nobody runs this coroutine any more, so nothing can be awaited
            self._let_go()
            return
        # As in asyncio.timeout(): a cancellation that came from elsewhere as well is passed on.
        ours = self._cancelled and self._task.uncancel() <= self._cancelling
        await self._leave()
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise LeadershipLost(self._lost_because) from exc

    def _let_go(self) -> None:
        self._left.set()
        self._standing.ask_to_stop("the block was left")

    async def _leave(self) -> None:
        """Hand over, and return when that is done and the thread has ended, whoever cancels us meanwhile."""
        assert self._task is not None
        self._let_go()
        self._told.set()
        cancelled: asyncio.CancelledError | None = None
        # The store's own time limits end it much sooner. After the lease's length there is nothing left to hand over.
        until = self._loop.time() + max(5.0, self._standing.policy.ttl)
        while self._standing.alive and (left := until - self._loop.time()) > 0:
            try:
                if self._ended.done():
                    await asyncio.sleep(0.001)  # the thread is on its last line: to join it would block the loop
                else:
                    await asyncio.wait({self._ended}, timeout=left)
            except asyncio.CancelledError as exc:
                cancelled = exc
        if self._standing.alive:
            log.warning("%s: the store holds up the thread that hands over", self._standing.group)
        if cancelled and self._task.cancelling() > self._cancelling:
            raise cancelled

    # Called on the loop.

    def _begin_body(self, term: LeaseTerm) -> None:
        if not self._elected.done():
            self._elected.set_result(term)

    def _lose(self, why: str) -> None:
        assert self._task is not None
        self._told.set()
        if not self._left.is_set():
            self._lost_because = why
            if self._cancel:
                self._cancelled = True
                self._task.cancel()

    def _report_end_of_task(self, _task: object) -> None:
        log.error(
            "%s: the task that entered lead() has ended before the block: nobody will be cancelled when leadership is "
            "lost. Enter it in the task that does the work (asyncio.wait_for may make another, asyncio.timeout does "
            "not), or use cancel=False",
            self._standing.group,
        )

    def _finish(self) -> None:
        self._ended.set_result(None)
        if not self._elected.done():
            self._elected.set_exception(self._standing.failure or LeadershipLost("the interpreter exits"))
            self._elected.exception()  # it counts as seen, even if the task is cancelled before it sees it

    # Called on the thread.

    def _govern(self, term: LeaseTerm) -> None:
        self._call(self._begin_body, term)
        term.lost.wait()
        self._call(self._lose, f"{term.name}: leadership lost (fence {term.fence}): {term.reason}")
        self._left.wait()

    def _report_end(self) -> None:
        self._call(self._finish)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed, so nobody is in the block any more
            self._let_go()


def lead(name: str, *, cancel: bool = True, **options: Unpack[Options]) -> Lead:
    """Wait until this process leads, and lead inside the block: `async with lead("billing") as term: …`.

    Leaving the block hands the lease over, and returns when that is done. You may cancel the task at any point: while
    it waits, inside the block, or while it hands over. Nothing is left behind: no lease, no thread, no task.

    When the lease is lost, or somebody asks for it (`politics resign`), the task in the block is cancelled, and the
    block raises `LeadershipLost`, as `asyncio.timeout()` raises `TimeoutError`. A lease that somebody asked for is held
    until the block has been left.

    Args:
        name: the lease; printable, at most 80 bytes.
        cancel: False: the block is not cancelled. Await `term.wait_lost()` or look at `term.valid`, and leave it.
        options: `store`, `servers`, `lease_ttl`, `on_event`; see `Options`.

    Raises:
        BadPolicy: the name or the times cannot work.
        BadStoreURL, StoreUnusable: raised on entering; the store cannot be used, and waiting would not help.
        LeadershipLost: raised on leaving; see above.
    """
    return Lead(name, cancel, options)


def refuse_sync(name: str, work: object) -> None:
    """Refuse work that is no async function, with `BadPolicy`: it would hold up the loop, and not be cancelled."""
    if not is_async(work):
        raise BadPolicy(f"the work of {name} is no async function, and could not be cancelled: write `async def`")


async def work_while_leading(
    name: str, work: Callable[[AsyncTerm], Awaitable[object]], **options: Unpack[Options]
) -> NoReturn:
    """Await `work(term)` whenever this process leads, until you cancel this.

    When leadership is lost, the work is cancelled and this process waits until it leads again. If the work raises, that
    is logged, the lease is handed over, and this process pauses before it campaigns again, longer with each failure. If
    the work returns, this process goes on leading and runs nothing, so that the work is done once for each leader.

    Args:
        name: the lease; printable, at most 80 bytes.
        work: a coroutine function.
        options: `store`, `servers`, `lease_ttl`, `on_event`; see `Options`.

    Raises:
        BadPolicy: the name or the times cannot work, or the work is not async.
    """
    refuse_sync(name, work)
    failures, poll = 0, LeasePolicy(ttl=options.get("lease_ttl", 10.0)).poll
    while True:
        leading = lead(name, **options)
        try:
            async with leading as term:
                await work(term)
                failures = 0
                await term.wait_lost()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failures += 1
            log.exception("%s: the work cancelled itself, and is begun again later", name)
        except LeadershipLost as exc:
            failures = 0
            log.info("%s", exc)
        except ElectionError as exc:
            failures += 1
            log.error("%s: does not campaign for now: %s", name, exc)
        except Exception:
            failures += 1
            log.exception("%s: the work failed, and is begun again later", name)
        if failures:
            await asyncio.sleep(backoff(failures, random.random(), first=2 * poll, longest=LONGEST_PAUSE))
        else:
            await asyncio.sleep(1.2 * poll)  # somebody may have asked for this lease: let the others look first

"""`lead`, `work_while_leading` and `run_while_leading`: in coroutines and with what has a start and a stop."""

import asyncio
import contextlib
import functools
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from election import BadPolicy, BadStoreURL, Candidate, LeadershipLost, LeasePolicy, ask_to_resign, look, open_register
from election.errors import StoreUnusable
from election.record import State
from politics import lead
from politics.leading import AsyncTerm, work_while_leading
from tests.memcached import Memcached
from tests.processes import running
from tests.waiting import until

TTL = 0.6


def threads() -> set[threading.Thread]:
    """All threads but the one that renews the leases of a store: it ends by itself when there are none."""
    return {thread for thread in threading.enumerate() if thread.name != "election-renewer"}


def free(store: str, name: str = "billing") -> bool:
    """Whether nobody holds the lease."""
    with contextlib.closing(open_register(store)) as register:
        record = look(register, name)
    return record is None or record.state is not State.HELD


@contextlib.contextmanager
def nothing_left(store: str) -> Any:
    """Verify that the block leaves no thread, no task and no lease behind."""
    before, tasks = threads(), list[asyncio.Task[Any]]()
    yield tasks
    assert threads() <= before
    assert all(task.done() for task in tasks)
    assert free(store)


def run(store: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine, and verify that it leaves nothing behind, no other task either."""

    async def watched() -> Any:
        result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with nothing_left(store):
        return asyncio.run(watched())


def test_a_block_leads_and_hands_over(old_store: str) -> None:
    """Inside the block the term is valid, and after it the lease is free and `wait_lost` returns."""

    async def main() -> None:
        async with lead("billing", store=old_store, lease_ttl=TTL) as term:
            assert term.valid
            assert 0 < term.remaining() <= TTL
            assert not term.lost.is_set()
            term.check()
            assert not free(old_store)
        assert not term.valid
        await term.wait_lost()
        with pytest.raises(LeadershipLost):
            term.check()

    run(old_store, main)


def test_of_many_blocks_one_leads_at_a_time(old_store: str) -> None:
    """Five coroutines of one loop take turns, each with a larger fence."""
    inside: list[int] = []
    fences: list[int] = []

    async def one() -> None:
        async with lead("billing", store=old_store, lease_ttl=TTL) as term:
            inside.append(term.fence)
            fences.append(term.fence)
            await asyncio.sleep(0)
            assert inside == [term.fence]
            inside.remove(term.fence)

    async def main() -> None:
        await asyncio.gather(*(one() for _ in range(5)))

    run(old_store, main)
    assert fences == sorted(set(fences))
    assert len(fences) == 5


def test_a_lost_lease_cancels_the_block_and_raises(old_store: str) -> None:
    """Asked to hand over, the block may clean up while the lease is still held, and then `LeadershipLost` is raised."""
    held: list[bool] = []

    async def body() -> None:
        async with lead("billing", store=old_store, lease_ttl=TTL) as term:
            with contextlib.closing(open_register(old_store)) as register:
                ask_to_resign(register, "billing")
            try:
                await asyncio.Event().wait()
            finally:
                held.append(term.valid)

    async def main() -> None:
        with pytest.raises(LeadershipLost, match="asked to hand over") as caught:
            await body()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # the task goes on as if it had never been cancelled

    run(old_store, main)
    assert held == [True]


def test_a_block_that_is_only_told_is_not_cancelled(old_store: str) -> None:
    """With `cancel=False` it awaits `wait_lost`, in as many tasks as it likes, and leaves without an error."""

    async def main() -> None:
        async with lead("billing", cancel=False, store=old_store, lease_ttl=TTL) as term:
            other = asyncio.create_task(term.wait_lost())
            with contextlib.closing(open_register(old_store)) as register:
                ask_to_resign(register, "billing")
            await term.wait_lost()
            await other
            assert term.lost.is_set()
            assert term.reason == "asked to hand over"

    run(old_store, main)


def test_a_cancellation_from_elsewhere_is_passed_on(old_store: str) -> None:
    """Also if the lease is lost at the same moment: whoever cancelled the task sees that it was."""

    async def main() -> None:
        async def body() -> None:
            async with lead("billing", store=old_store, lease_ttl=TTL) as term:
                with contextlib.closing(open_register(old_store)) as register:
                    ask_to_resign(register, "billing")
                try:
                    await term.wait_lost()
                except asyncio.CancelledError:
                    task.cancel()
                    raise

        task = asyncio.create_task(body())
        with pytest.raises(asyncio.CancelledError):
            await task

    run(old_store, main)


def test_a_timeout_around_the_block_still_works(old_store: str) -> None:
    """`asyncio.timeout` ends a wait for a lease that somebody else holds."""

    async def main() -> None:
        async with lead("billing", store=old_store, lease_ttl=TTL):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), lead("billing", store=old_store, lease_ttl=TTL):
                    pytest.fail("two lead")

    run(old_store, main)


def test_an_error_in_the_block_is_passed_on(old_store: str) -> None:
    """The lease is handed over all the same."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with lead("billing", store=old_store, lease_ttl=TTL):
                raise ZeroDivisionError

    run(old_store, main)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"store": "nonsense://"}, BadStoreURL),
        ({"servers": "10.0.0.5"}, BadStoreURL),
        ({"store": "sqlite:////dev/null/leases.db"}, StoreUnusable),
        ({"lease_ttl": -1}, BadPolicy),
    ],
)
def test_what_cannot_work_is_said_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    """On entering at the latest, and no thread is left behind."""
    before = threads()

    async def main() -> None:
        async with lead("billing", **options):
            pytest.fail("it leads")

    with pytest.raises(error):
        asyncio.run(main())
    assert threads() <= before


def test_it_is_entered_once() -> None:
    """And in a task: both mistakes are named."""

    async def main() -> None:
        leading = lead("billing", store="memory://once")
        async with leading:
            with pytest.raises(RuntimeError, match="call lead\\(\\) again"):
                await leading.__aenter__()

    asyncio.run(main())


def test_a_coroutine_that_is_dropped_hands_over(old_store: str) -> None:
    """Nobody awaits it any more, as when a loop is closed too early: its thread hands over and ends by itself."""
    before = threads()
    loop = asyncio.new_event_loop()
    entered = loop.create_future()

    async def body() -> None:
        async with lead("billing", store=old_store, lease_ttl=TTL):
            entered.set_result(None)
            await asyncio.Event().wait()

    coroutine = body()
    task = loop.create_task(coroutine)
    loop.run_until_complete(entered)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine.close()
    loop.close()
    until(lambda: free(old_store) and threads() <= before, "the end of its thread")


def test_a_generator_that_is_closed_ends_the_waits(old_store: str) -> None:
    """It cannot wait for the hand-over itself; who awaits `wait_lost` is told."""

    async def terms() -> AsyncIterator[AsyncTerm]:
        async with lead("billing", store=old_store, lease_ttl=TTL) as term:
            yield term

    async def main() -> None:
        generator = terms()
        term = await anext(generator)
        waiting = asyncio.create_task(term.wait_lost())
        await asyncio.sleep(0)
        await generator.aclose()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(main())
    until(lambda: free(old_store))


def test_a_task_that_enters_and_ends_is_named(old_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left who can be cancelled: that is logged at once, and not only when the lease is lost."""

    async def main() -> None:
        for cancel in (True, False):
            leading = lead("billing", cancel=cancel, store=old_store, lease_ttl=TTL)
            await asyncio.create_task(leading.__aenter__())
            await asyncio.sleep(0)
            await leading.__aexit__(None, None, None)
        async with lead("billing", store=old_store, lease_ttl=TTL):
            pass

    run(old_store, main)
    assert caplog.text.count("billing: the task that entered lead() has ended") == 1


# Cancellation, at each await.


async def body(store: str, reached: list[str]) -> None:
    """Pass through everything that is awaited: connecting, campaigning, the block, `wait_lost`, handing over."""
    async with lead("billing", cancel=False, store=store, lease_ttl=TTL) as term:
        reached.append("elected")
        with contextlib.closing(open_register(store)) as register:
            ask_to_resign(register, "billing")
        await term.wait_lost()
        reached.append("lost")
        await asyncio.sleep(0)
    reached.append("left")


class Stepper:
    """An awaitable that passes on to another, and cancels its own task just before the n-th suspension of that."""

    def __init__(self, inner: Coroutine[Any, Any, None], number: int, again: bool) -> None:
        self.inner, self.number, self.again = inner, number, again
        self.suspensions = 0

    def __await__(self) -> Any:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                future = self.inner.send(value) if error is None else self.inner.throw(error)
            except StopIteration:
                return
            self.suspensions += 1
            if self.suspensions == self.number or (self.again and self.suspensions > self.number):
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            value, error = None, None
            try:
                value = yield future
            except BaseException as exc:  # noqa: BLE001 (it is passed on)
                error = exc


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
def test_cancelling_at_any_await_leaves_nothing_behind(old_store: str, again: bool) -> None:
    """At the k-th suspension, for each k that there is: no lease, no thread and no task are left."""
    number, ends = 0, set[str]()
    while True:
        number += 1
        reached: list[str] = []
        stepper = Stepper(body(old_store, reached), number, again)

        async def main(stepper: Stepper = stepper) -> None:
            async def stepping() -> None:
                await stepper

            task = asyncio.create_task(stepping())
            await asyncio.wait({task})
            assert task.cancelled() == (stepper.suspensions >= stepper.number), task

        run(old_store, main)
        ends.add(reached[-1] if reached else "waiting")
        if stepper.suspensions < number:
            break
    assert ends == {"waiting", "elected", "lost", "left"}
    assert number >= 5


@pytest.mark.parametrize("rival", [False, True], ids=["free", "held"])
def test_cancelling_at_any_moment_leaves_nothing_behind(old_store: str, rival: bool) -> None:
    """After a random time, in the middle of whatever the thread does; also while somebody else leads."""
    chance = random.Random(7)
    ends = set[str]()
    for _ in range(40):
        reached: list[str] = []
        with contextlib.ExitStack() as stack:
            if rival:
                register = stack.enter_context(contextlib.closing(open_register(old_store)))
                stack.enter_context(Candidate(register, "billing", LeasePolicy(ttl=TTL)).campaign())

            async def main(reached: list[str] = reached) -> None:
                task = asyncio.create_task(body(old_store, reached))
                await asyncio.wait({task}, timeout=chance.random() * (0.02 if chance.random() < 0.7 else 0.2))
                task.cancel()
                await asyncio.wait({task})
                assert task.done()
                assert asyncio.all_tasks() == {asyncio.current_task()}

            before = threads()
            asyncio.run(main())
            assert threads() <= before
        assert free(old_store)
        ends.add(reached[-1] if reached else "waiting")
    assert "waiting" in ends
    assert rival or len(ends) > 1


def test_cancelling_while_the_store_is_silent_leaves_nothing_behind(own_memcached: Memcached) -> None:
    """While it campaigns, and while it leads and hands over: the store's own time limits end the wait."""
    url = f"{own_memcached.url}?timeout=0.2"
    with contextlib.closing(open_register(url)) as register:
        until(lambda: register.remembers(TTL), "a store that remembers")
    before, reached = threads(), list[str]()

    async def main() -> None:
        entered = asyncio.Event()

        async def body() -> None:
            async with lead("billing", store=url, lease_ttl=TTL):
                entered.set()
                await asyncio.Event().wait()

        leader = asyncio.create_task(body())
        await entered.wait()
        own_memcached.freeze()
        standby = asyncio.create_task(body())
        await asyncio.sleep(0)
        for task in (leader, standby):
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            reached.append("left")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(main())
        assert threads() <= before
    finally:
        own_memcached.thaw()
    assert reached == ["left", "left"]


def test_nested_blocks_that_are_lost_together_raise_once(old_store: str) -> None:
    """The inner one hands over and passes the cancellation on, and the outer one raises; tasks of a group end too."""
    ended: list[str] = []

    async def wait_for_ever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def body() -> None:
        options: Any = {"store": old_store, "lease_ttl": TTL}
        async with lead("billing", **options), lead("mailing", **options), asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever("one"))
            group.create_task(wait_for_ever("two"))
            with contextlib.closing(open_register(old_store)) as register:
                ask_to_resign(register, "billing")
                ask_to_resign(register, "mailing")

    async def main() -> None:
        with pytest.raises(LeadershipLost):
            await body()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(old_store, main)
    assert free(old_store, "mailing")
    assert sorted(ended) == ["one", "two"]


PROGRAM = """
import asyncio, sys
from politics import lead

async def main():
    async with lead("billing", store=sys.argv[1], lease_ttl=30.0):
        print("leads", flush=True)
        await asyncio.Event().wait()

if sys.argv[2] == "run":
    asyncio.run(main())
else:  # the interpreter exits while a block is open that nobody will leave
    loop = asyncio.new_event_loop()
    leading = lead("billing", store=sys.argv[1], lease_ttl=30.0)
    loop.run_until_complete(loop.create_task(leading.__aenter__()))
    print("leads", flush=True)
"""


@pytest.mark.parametrize("way", ["run", "dropped"])
def test_a_process_that_ends_hands_over(old_store: str, way: str) -> None:
    """By Ctrl-C, which cancels the task of `asyncio.run`, and by an exit that leaves no block."""
    with running(sys.executable, "-c", PROGRAM, old_store, way) as process:
        process.line("leads")
        if way == "run":
            process.popen.send_signal(signal.SIGINT)
        process.result()
    assert free(old_store)


# Work that is awaited again and again.


def test_work_is_begun_again_after_a_loss_and_after_an_error(old_store: str) -> None:
    """When somebody asked for the lease, and when it failed or cancelled itself; not when it has returned."""
    fences: list[int] = []

    async def work(term: AsyncTerm) -> None:
        fences.append(term.fence)
        if len(fences) == 1:
            with contextlib.closing(open_register(old_store)) as register:
                ask_to_resign(register, "billing")
            await asyncio.Event().wait()
        if len(fences) == 2:
            raise ZeroDivisionError
        if len(fences) == 3:
            raise asyncio.CancelledError  # as of a task of its own that it awaited

    async def main() -> None:
        task = asyncio.create_task(work_while_leading("billing", work, store=old_store, lease_ttl=TTL))
        while len(fences) < 4:
            await asyncio.sleep(0.01)
        assert not task.done()
        assert not free(old_store)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(old_store, main)
    assert fences == sorted(set(fences))
    assert len(fences) == 4


def test_work_that_cannot_be_awaited_is_refused() -> None:
    """A sync function would hold up the loop, and an async generator would not run."""

    async def generator(term: AsyncTerm) -> Any:
        yield term

    for work in (print, generator):
        with pytest.raises(BadPolicy, match="the work of billing is no async function"):
            asyncio.run(work_while_leading("billing", work, store="memory://"))


def test_a_store_that_cannot_be_used_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """An application that serves goes on serving; the log says what is wrong, in one line."""

    async def main() -> None:
        work = functools.partial(asyncio.sleep, 0)
        task = asyncio.create_task(work_while_leading("billing", work, store="sqlite:////dev/null/leases.db"))
        while "does not campaign for now: billing: the store /dev/null/leases.db" not in caplog.text:
            await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(main())
    assert "Traceback" not in caplog.text

"""A scheduler in several processes, with real stores: jobs are shared, none is lost, and none runs twice unsaid."""

import contextlib
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from election import Register, look, open_register
from election.cell import order
from election.register import Cell
from election.stores.memcached import MemcachedRegister
from tests.integration.shop import make
from tests.integration.worker import Diary, now
from tests.memcached import Memcached
from tests.processes import Process, running
from tests.waiting import until

Entry = dict[str, Any]


class Shop:
    """Processes with the same scheduler, and their diary."""

    def __init__(self, folder: Path, store: str, stack: contextlib.ExitStack) -> None:
        self.path, self.store, self.group = folder / "diary", store, f"shop {uuid.uuid4().hex[:8]}"
        self.path.touch()
        self._stack = stack

    def open(self, jobs: dict[str, Entry], **options: Any) -> Process:
        """Start one more process."""
        given = json.dumps({"store": self.store, "group": self.group, "jobs": jobs} | options)
        process = self._stack.enter_context(running(sys.executable, "-m", "tests.integration.shop", self.path, given))
        process.line("the next is")
        return process

    def entries(self, event: str, **fields: Any) -> list[Entry]:
        """The entries so far of these events with these fields, in their order."""
        wanted = fields | {"event": event}
        *lines, _ = self.path.read_bytes().split(b"\n")
        return [entry for line in lines if wanted.items() <= (entry := json.loads(line)).items()]

    def wait(self, event: str, count: int = 1, **fields: Any) -> list[Entry]:
        """The same, as soon as there are so many."""
        return until(
            lambda: len(found := self.entries(event, **fields)) >= count and found, f"{count} times {event} {fields}"
        )

    def order(self, job: str, **orders: Any) -> None:
        """Order something of a job, as an operator does, once its first record is there."""
        with contextlib.closing(open_register(self.store)) as register:
            lease = f"{self.group}/{job}"
            until(lambda: (record := look(register, lease)) and "tick" in record.note, "a record")
            assert order(register, lease, lambda record: {**record.orders, **orders})

    def assert_that_nobody_doubts(self, begun: Sequence[Entry]) -> None:
        """None is a takeover, on the store that has been there for long; a young memcached cannot say what it lost."""
        assert self.store.startswith("memcached:") or not any(entry["takeover"] for entry in begun)

    def assert_that_ticks_follow(self, job: str) -> None:
        """Of a job that is due each second no tick is left out; each is run once, or again as a takeover, or skipped.

        They are run in their order, and fences grow.
        """
        begun = self.entries("begin", who=job)
        assert [entry["tick"] for entry in begun] == sorted(entry["tick"] for entry in begun)
        assert [entry["fence"] for entry in begun] == sorted(entry["fence"] for entry in begun)
        firsts = [entry["tick"] for entry in begun if not entry["takeover"]]
        assert len(set(firsts)) == len(firsts)
        ran = {round(entry["tick"]) for entry in begun}
        skipped = []
        for entry in self.entries("slots_skipped", who=job):
            last = round(datetime.fromisoformat(entry["tick"]).timestamp())
            skipped += range(last - entry["count"] + 1, last + 1)
        accounted = sorted([*ran, *skipped])
        assert accounted == list(range(accounted[0], accounted[-1] + 1))


MakeShop = Callable[[str], Shop]


@pytest.fixture
def make_shop(tmp_path: Path) -> Iterator[MakeShop]:
    """Make the shop of this test around a store."""
    with contextlib.ExitStack() as stack:
        yield lambda store: Shop(tmp_path, store, stack)


@pytest.fixture(params=["memcached", "sqlite"])
def shop(request: pytest.FixtureRequest, make_shop: MakeShop) -> Shop:
    """A shop around a store that is old enough for immediate elections."""
    if request.param == "sqlite":
        return make_shop(request.getfixturevalue("old_store"))
    server: Memcached = request.getfixturevalue("old_memcached")
    return make_shop(server.url)


@pytest.fixture
def file_shop(make_shop: MakeShop, old_store: str) -> Shop:
    """A shop around a file."""
    return make_shop(old_store)


def pids(entries: Sequence[Entry]) -> set[int]:
    """The processes that have written these."""
    return {entry["pid"] for entry in entries}


def test_processes_share_the_jobs(shop: Shop) -> None:
    """Of three processes each tick of each job is run by one, and each process runs some.

    The ticks that come due while a job still runs are skipped.
    """
    jobs = {f"job {number}": {"every": 1, "seconds": 0.3} for number in range(8)} | {"slow": {"seconds": 1.4}}
    for _ in range(3):
        shop.open(jobs)
    for job in jobs:
        shop.wait("end", 3, who=job)
    begun = shop.entries("begin")
    assert len(pids(begun)) == 3
    assert len({(entry["who"], entry["tick"]) for entry in begun}) == len(begun)
    shop.assert_that_nobody_doubts(begun)
    for job in jobs:
        shop.assert_that_ticks_follow(job)


def test_a_hundred_jobs_that_are_due_at_the_same_moment_are_each_run_once(shop: Shop) -> None:
    """Five processes want all of them at once, and each of them gets some."""
    jobs = {f"job {number}": {"every": 5, "seconds": 0.1} for number in range(100)}
    for _ in range(5):
        shop.open(jobs)
    # At the first one some may not have known all jobs.
    second = until(
        lambda: len(ticks := sorted({e["tick"] for e in shop.entries("begin")})) > 1 and ticks[1], "two ticks"
    )
    until(lambda: len(shop.entries("end", tick=second)) >= 100, "all jobs")
    runs = shop.entries("begin", tick=second)
    assert sorted(entry["who"] for entry in runs) == sorted(jobs)
    shop.assert_that_nobody_doubts(runs)
    assert len(pids(shop.entries("begin"))) == 5


def test_a_process_that_is_killed_in_the_middle_of_a_job_is_replaced(shop: Shop) -> None:
    """Another runs the tick again, and is told so; then the ticks go on, and those that passed are accounted for."""
    jobs = {"bill": {"every": 1, "seconds": 3600}, "drain": {"every": 1}}
    two = {process.popen.pid: process for process in (shop.open(jobs), shop.open(jobs))}
    (first,) = shop.wait("begin", who="bill")
    killed = two.pop(first["pid"])
    killed.kill()
    again = shop.wait("begin", 2, who="bill")[1]
    (left,) = two.values()
    assert (again["pid"], again["tick"], again["takeover"]) == (left.popen.pid, first["tick"], True)
    assert again["fence"] > first["fence"]
    seen = len(shop.entries("end", who="drain"))
    shop.wait("end", seen + 2, who="drain")
    shop.assert_that_ticks_follow("drain")
    assert left.stop() == 0


def test_every_process_is_killed_in_turn_and_no_tick_is_lost(shop: Shop) -> None:
    """Three times whoever runs the job is killed, and somebody else is started: each tick is run, or said to be not."""
    jobs = {"bill": {"every": 1, "seconds": 0.4, "catch_up": "all"}}
    open_now = {process.popen.pid: process for process in (shop.open(jobs), shop.open(jobs))}
    for round_number in range(1, 4):
        runner = shop.wait("begin", 3 * round_number, who="bill")[-1]["pid"]
        if runner in open_now:
            open_now.pop(runner).kill()
        process = shop.open(jobs)
        open_now[process.popen.pid] = process
    seen = len(shop.entries("end", who="bill"))
    shop.wait("end", seen + 2, who="bill")
    shop.assert_that_ticks_follow("bill")


def test_sigterm_asks_the_jobs_to_stop_and_another_process_goes_on(file_shop: Shop) -> None:
    """The job that it interrupts is run again by another process; the process ends with status 0."""
    jobs = {"bill": {"every": 1, "seconds": 3600}}
    one = file_shop.open(jobs)
    (first,) = file_shop.wait("begin")
    other = file_shop.open(jobs)
    assert one.stop() == 0
    assert len(file_shop.entries("slot_interrupted")) == 1
    again = file_shop.wait("begin", 2)[1]
    assert (again["tick"], again["takeover"], again["pid"]) == (first["tick"], True, other.popen.pid)


def test_a_job_that_does_not_stop_ends_with_the_process(file_shop: Shop) -> None:
    """After `grace` its lease is given up, and the exit status is 124."""
    process = file_shop.open({"bill": {"every": 1, "work": "ignore", "seconds": 3600}}, grace=0.2)
    file_shop.wait("begin")
    process.popen.terminate()
    status, said = process.result()
    assert status == 124
    assert "/bill: the work did not stop in time: its lease is given up" in said


def test_a_job_that_ends_the_process(file_shop: Shop) -> None:
    """The other jobs are asked to stop, and the status is the one that it gave."""
    process = file_shop.open({"bill": {"every": 1, "seconds": 3600}, "leaver": {"every": 2, "work": "leave"}})
    status, said = process.result()
    assert status == 3
    assert ": the scheduler ends: SystemExit(3)" in said
    for _ in file_shop.entries("begin", who="bill"):
        file_shop.wait("slot_interrupted", who="bill")


def test_what_fails_is_retried_by_another_process(file_shop: Shop) -> None:
    """With on_error="retry" the tick is run again by the other process, as a takeover."""
    process = file_shop.open({"bill": {"every": 3600, "work": "fail", "on_error": "retry"}})
    file_shop.order("bill", trigger="now")
    (first,) = file_shop.wait("begin")
    other = file_shop.open({"bill": {"every": 3600, "on_error": "retry"}})
    (done,) = file_shop.wait("slot_done")
    (again,) = file_shop.entries("begin", pid=other.popen.pid)
    assert (again["tick"], again["takeover"]) == (first["tick"], True)
    assert done["pid"] == other.popen.pid
    assert process.stop() == 0


def test_a_failure_is_done_unless_it_is_to_be_retried(file_shop: Shop) -> None:
    """The next tick runs as if nothing had happened, and each failure is one event."""
    file_shop.open({"bill": {"every": 1, "work": "fail"}})
    failed = file_shop.wait("slot_failed", 3)
    assert {entry["reason"] for entry in failed} == {"ValueError: out of stock"}
    assert len({entry["tick"] for entry in failed}) == len(failed)


def test_operators_trigger_and_pause_a_job(shop: Shop) -> None:
    """One process runs what was triggered, once; while the job is paused each tick is skipped by one process."""
    jobs = {"bill": {"every": 3600}, "drain": {"every": 1}}
    for _ in range(2):
        shop.open(jobs)
    shop.order("bill", trigger="one")
    shop.wait("begin", who="bill")
    shop.order("bill", trigger="two")
    shop.wait("end", 2, who="bill")
    shop.order("drain", paused=True)
    skipped = shop.wait("slots_skipped", 3, who="drain")
    assert {entry["reason"] for entry in skipped} == {"the group is paused"}
    assert len({entry["tick"] for entry in skipped}) == len(skipped)
    shop.order("drain", paused=False)
    seen = len(shop.entries("begin", who="drain"))
    shop.wait("begin", seen + 1, who="drain")
    assert len(shop.entries("begin", who="bill")) == 2
    shop.assert_that_ticks_follow("drain")


def test_jobs_that_came_due_while_the_store_was_silent_are_made_up_for(
    make_shop: MakeShop, own_memcached: Memcached
) -> None:
    """Every tick of the outage is run when the store answers again, in order, with catch_up="all"; it is said once."""
    until(lambda: int(own_memcached.stats()["uptime"]) > 5, "an older memcached")
    shop = make_shop(own_memcached.url)
    processes = [shop.open({"bill": {"every": 1, "catch_up": "all"}}) for _ in range(2)]
    shop.wait("end", 2)
    own_memcached.freeze()
    for process in processes:
        process.line("waiting for the store")
    ended, silent = len(shop.entries("end")), now()
    until(lambda: now() > silent + 2.5, "some ticks")
    own_memcached.thaw()
    shop.wait("end", ended + 4)
    for process in processes:
        process.line("the store answers again")
        assert sum("waiting for the store" in line for line in process.lines) == 1
    shop.assert_that_ticks_follow("bill")


def test_one_of_two_servers_is_gone(make_shop: MakeShop) -> None:
    """The jobs whose leases the other one keeps go on; those of the first are made up for when it is back."""
    with Memcached() as one, Memcached() as two:
        until(lambda: int(two.stats()["uptime"]) > 5, "older servers")
        shop = make_shop(f"memcached://{one.address},{two.address}")
        jobs = {f"job {number}": {"catch_up": "all"} for number in range(6)}
        for _ in range(2):
            shop.open(jobs)
        for job in jobs:
            shop.wait("end", who=job)
        with contextlib.closing(open_register(shop.store)) as register:
            first = register.shard(f"{shop.group}/job 0")
            assert isinstance(first, MemcachedRegister)
            there = [job for job in jobs if register.shard(f"{shop.group}/{job}") is first]
        gone = one if first.port == one.port else two
        gone.freeze()
        seen = {job: len(shop.entries("end", who=job)) for job in jobs}
        for job in jobs.keys() - there:
            shop.wait("end", seen[job] + 3, who=job)
        gone.thaw()
        for job in jobs:
            shop.wait("end", seen[job] + 5, who=job)
            shop.assert_that_ticks_follow(job)


def test_a_store_that_has_lost_everything_loses_no_tick(make_shop: MakeShop, own_memcached: Memcached) -> None:
    """The processes know the last tick, and put it back; what may have begun meanwhile is a takeover."""
    until(lambda: int(own_memcached.stats()["uptime"]) > 5, "an older memcached")
    shop = make_shop(own_memcached.url)
    for _ in range(2):
        shop.open({"bill": {"every": 1, "catch_up": "all"}})
    shop.wait("end", 2)
    own_memcached.restart()
    seen = len(shop.entries("end"))
    shop.wait("end", seen + 4)
    shop.assert_that_ticks_follow("bill")


def test_an_async_job_is_cancelled_when_the_process_is_told_to_stop(file_shop: Shop) -> None:
    """It is cancelled while its lease is still held, and another process runs the tick again."""
    jobs = {"bill": {"every": 1, "work": "sleep", "seconds": 3600}}
    process = file_shop.open(jobs)
    file_shop.wait("begin")
    assert process.stop() == 0
    (cancelled,) = file_shop.entries("cancelled")
    assert cancelled["left"] > 0
    assert len(file_shop.entries("slot_interrupted")) == 1
    file_shop.open(jobs)
    assert file_shop.wait("begin", 2)[1]["takeover"]


def test_a_busy_process_leaves_jobs_to_others(file_shop: Shop) -> None:
    """With one thread each process runs one job at a time; what nobody has a free thread for waits for one."""
    jobs = {f"job {number}": {"every": 3600, "seconds": 0.5} for number in range(5)}
    processes = [file_shop.open(jobs, threads=1) for _ in range(2)]
    for job in jobs:
        file_shop.order(job, trigger="now")
    for job in jobs:
        file_shop.wait("end", who=job)
    for process in processes:
        mine = [
            e["event"] for e in file_shop.entries("begin") + file_shop.entries("end") if e["pid"] == process.popen.pid
        ]
        assert mine
    spans = {process.popen.pid: 0 for process in processes}
    for line in file_shop.path.read_bytes().splitlines():
        entry = json.loads(line)
        spans[entry["pid"]] += {"begin": 1, "end": -1}.get(entry["event"], 0)
        assert spans[entry["pid"]] in (0, 1)
    assert len(file_shop.entries("begin")) == 5


def test_a_job_that_forks(file_shop: Shop) -> None:
    """The child that returns from the work ends there and says nothing, and the job is run once by its parent."""
    process = file_shop.open({"bill": {"every": 1, "work": "fork"}})
    file_shop.wait("slot_done", 3, pid=process.popen.pid)
    assert pids(file_shop.entries("slot_done")) == {process.popen.pid}
    assert pids(file_shop.entries("begin")) == {process.popen.pid}
    assert not any(entry["takeover"] for entry in file_shop.entries("begin"))
    assert process.stop() == 0


class CountingRegister(Register):
    """Counts the questions that go to another register."""

    def __init__(self, inner: Register) -> None:
        self.inner, self.calls = inner, 0

    def shard(self, name: str) -> Register:
        return self

    def identity(self) -> str:
        return self.inner.identity()

    def _ask(self) -> Register:
        self.calls += 1
        return self.inner

    def read(self, name: str) -> Cell | None:
        return self._ask().read(name)

    def version(self, name: str) -> Any | None:
        return self._ask().version(name)

    def versions(self, names: Sequence[str]) -> list[Any | None]:
        return self._ask().versions(names)

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        return self._ask().swap(name, data, expected)

    def remembers(self, seconds: float) -> bool:
        return self._ask().remembers(seconds)

    def names(self) -> None:
        return None

    def close(self) -> None:
        self.inner.close()


def test_a_hundred_waiting_jobs_cost_one_thread_and_one_question_a_second(
    old_memcached: Memcached, tmp_path: Path
) -> None:
    """There is no thread but the scheduler's, and the store is asked for all versions at once: a hundred `mg`."""
    with contextlib.closing(open_register(old_memcached.url)) as inner:
        register = CountingRegister(inner)
        jobs = {f"job {number}": {"cron": f"{number % 60} 3 1 1 *"} for number in range(100)}
        scheduler = make(Diary(tmp_path / "diary"), jobs, f"shop {uuid.uuid4().hex}", store=register, lease_ttl=10.0)
        before = threading.active_count()
        with scheduler:
            until(lambda: all(inner.versions(list(scheduler.jobs))), "records of all jobs")
            until(lambda: threading.active_count() == before + 1, "the renewer's end")

            def asked() -> tuple[float, int, int, int]:
                stats = old_memcached.stats()
                return now(), register.calls, int(stats["cmd_get"]), int(stats["cmd_set"])

            first = asked()
            last = until(lambda: (last := asked())[1] >= first[1] + 4 and last, "four questions")
            assert threading.active_count() == before + 1
        seconds, calls, gets, sets = (after - before for before, after in zip(first, last, strict=True))
        assert calls <= seconds + 2
        assert gets <= 100 * (seconds + 2)
        assert sets == 0

"""A scheduler in one process: what it refuses, how it starts and stops, and what it does about one bad record."""

import asyncio
import contextlib
import functools
import json
import logging
import re
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from election import BadPolicy, BadStoreURL, Event, StoreUnavailable, look, open_register
from election.cell import order
from election.clock import SystemClock, wall_ms
from election.errors import StoreUnusable
from election.retries import Reminder
from election.testing import Fault, FaultyStore
from politics import Scheduler, Term
from politics.worker import agenda, dispatcher
from tests.commands import politics
from tests.processes import python
from tests.waiting import DEADLINE, SOON, until


def nothing(term: Term) -> None:
    """A job."""


async def nothing_async(term: Term) -> None:
    """An async job."""


def no_argument() -> None:
    """A function that takes no term."""


def generator(term: Term) -> Iterator[int]:
    """A function whose call runs nothing."""
    yield 1


jobs = Scheduler("shop", store="memory://unit")


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda: Scheduler(""), "a lease's name must be printable text and not empty, not ''"),
        (lambda: Scheduler("shop", threads=0), "threads must be a whole number from 1 to 1000, not 0"),
        (lambda: Scheduler("shop", threads=True), "threads must be a whole number from 1 to 1000, not True"),
        (lambda: Scheduler("shop", grace=-1), "grace must be a positive number of seconds, a year at most, not -1"),
        (lambda: Scheduler("shop", lease_ttl=0), "lease_ttl must be between 0.1 and 3600, not 0"),
        (lambda: Scheduler("shop", store="redes://x"), "'redes://x' is no store URL"),
        (lambda: Scheduler("shop", store="memory://", servers=["x"]), "name one store, not both"),
        (lambda: jobs.cron("0 3 * *"), "schedule '0 3 * *' has 4 fields"),
        (lambda: jobs.cron("0 0 31 2 *"), "schedule '0 0 31 2 *' never fires"),
        (lambda: jobs.cron("@daily", timezone="Europe/Berln"), "did you mean 'Europe/Berlin'?"),
        (lambda: jobs.cron(nothing), "@cron above nothing needs a schedule: write @jobs.cron('0 3 * * *')"),
        (lambda: jobs.every(nothing), "@every above nothing needs a schedule: write @jobs.every(60)"),
        (lambda: jobs.every(0), "an interval must be a number of seconds from 0.1 to a year, not 0"),
        (lambda: jobs.every("60"), "an interval must be a number of seconds from 0.1 to a year, not '60'"),
        (lambda: jobs.every(60, catch_up="none"), "catch_up must be 'latest', 'all' or 'skip', not 'none'"),
        (lambda: jobs.every(60, deadline=0), "deadline must be a positive number of seconds"),
        (lambda: jobs.every(60, jitter=-1), "jitter must be a positive number of seconds"),
        (lambda: jobs.every(60, on_failover="stop"), "on_failover must be 'rerun' or 'skip', not 'stop'"),
        (lambda: jobs.every(60, on_error="stop"), "on_error must be 'done' or 'retry', not 'stop'"),
        (lambda: jobs.every(60, on_error="retry", on_failover="skip"), "on_error='retry' runs a tick again"),
        (lambda: jobs.every(60)(lambda term: None), "has no name: pass name="),
        (lambda: jobs.every(60)(functools.partial(nothing)), "has no name: pass name="),
        (lambda: jobs.every(60, name="")(nothing), "the name of a job must be a text that is not empty, not ''"),
        (lambda: jobs.every(60, name="x" * 80)(nothing), "a lease's name has 80 bytes at most, not 85"),
        (
            lambda: jobs.every(60, name="n")("shop.bill"),
            "the work of the job 'shop/n' must be a function, not 'shop.bill'",
        ),
        (lambda: jobs.every(60)(no_argument), "the function of the job 'shop/no_argument' must take one argument"),
        (lambda: jobs.every(60)(generator), "is a generator, and a call would run none of it"),
        (lambda: twice(jobs), "there is a job 'shop/twice' already: give one of the two another name="),
        (lambda: Scheduler("shop", store="memory://unit").start(), "the scheduler 'shop' has no jobs"),
        (lambda: Scheduler("shop", store="memory://unit").run(), "the scheduler 'shop' has no jobs"),
    ],
)
def test_mistakes_are_refused(mistake: Callable[[], object], sentence: str) -> None:
    """At once, where they are made, in one sentence that names them."""
    with pytest.raises((BadPolicy, BadStoreURL)) as raised:
        mistake()
    assert sentence in str(raised.value)


def twice(scheduler: Scheduler) -> None:
    """Add two jobs of one name."""
    scheduler.every(60, name="twice")(nothing)
    scheduler.every(60, name="twice")(nothing_async)


def test_a_job_stays_the_function_that_it_was() -> None:
    """It can be called and tested by itself; and the table of jobs has its name and its schedule."""
    shop = Scheduler("shop", store="memory://unit")
    assert shop.cron("@daily")(nothing) is nothing
    assert shop.every(60, name="async")(nothing_async) is nothing_async
    assert list(shop.jobs) == ["shop/nothing", "shop/async"]
    assert str(shop.jobs["shop/async"].rules.schedule) == "every 60 s"
    assert repr(shop) == "<Scheduler 'shop' with 2 jobs>"


@pytest.fixture
def shop() -> Iterator[Scheduler]:
    """A scheduler, stopped at the end."""
    scheduler = Scheduler("shop", store=f"memory://{uuid.uuid4().hex}", lease_ttl=1.0)
    yield scheduler
    scheduler.stop(grace=0.1)


def test_while_it_runs_it_is_neither_started_nor_changed(shop: Scheduler) -> None:
    """Afterwards it can be started again."""
    shop.every(60)(nothing)
    with shop:
        assert shop.running
        with pytest.raises(RuntimeError, match="the scheduler 'shop' runs already"):
            shop.start()
        with pytest.raises(RuntimeError, match="the scheduler 'shop' runs already: add all jobs before"):
            shop.every(60, name="more")
        with pytest.raises(RuntimeError, match="the scheduler 'shop' runs already: configure it before"):
            shop.configure(lease_ttl=2)
    assert not shop.running
    shop.start()
    assert shop.running


def test_run_refuses_to_freeze_an_event_loop(shop: Scheduler) -> None:
    """It says what to do instead."""
    shop.every(60)(nothing)

    async def mistake() -> None:
        shop.run()

    with pytest.raises(RuntimeError, match=r"run\(\) waits until the worker ends"):
        asyncio.run(mistake())


def test_a_job_may_stop_the_scheduler(shop: Scheduler) -> None:
    """It only asks, so that nobody waits for himself; other jobs are asked, too."""
    begun, stopped, lost = threading.Event(), threading.Event(), threading.Event()

    @shop.every(0.1)
    def waits(term: Term) -> None:
        begun.set()
        term.lost.wait(DEADLINE)
        if term.valid:  # it was asked, and leads as long as it runs
            lost.set()

    @shop.every(0.1)
    def stops(term: Term) -> None:
        begun.wait(DEADLINE)
        shop.stop()
        stopped.set()

    shop.start()
    assert stopped.wait(DEADLINE)
    until(lambda: not shop.running, "its end")
    assert lost.is_set()


def test_each_tick_ends_in_one_event(shop: Scheduler) -> None:
    """It ran or it was skipped; `group` is the name of the lease. What a hook raises harms nobody."""
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        raise ValueError("a hook that fails")

    shop.on_event = on_event  # type: ignore[method-assign, assignment]
    shop.every(0.1)(nothing)
    with shop:
        until(lambda: [event.kind for event in events].count("slot_done") >= 5, "some ticks")
    assert {event.group for event in events} == {"shop/nothing"}
    ended = [event.tick for event in events if event.kind in ("slot_done", "slot_failed", "slot_interrupted")]
    assert len(set(ended)) == len(ended)
    assert [event.tick for event in events if event.kind == "slot_started"] == ended


def test_a_record_that_is_not_ours_stops_its_job_alone(shop: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log, once, and the job goes on when the record is right again."""
    ran: list[str] = []
    shop.every(0.1, name="good")(lambda _term: ran.append("good"))
    shop.every(0.1, name="bad")(lambda _term: ran.append("bad"))
    with contextlib.closing(open_register(str(shop._store))) as register:
        assert register.swap("shop/bad", b"not a lease", None) is not None
        with shop:
            until(lambda: ran.count("good") >= 3, "the good job")
            assert "bad" not in ran
            assert politics("forget", "shop/bad", "--store", shop._store, "--yes").status == 0
            until(lambda: "bad" in ran, "the other job")
    lines = [record.getMessage() for record in caplog.records if "cannot be run" in record.getMessage()]
    assert len(lines) == 1
    assert "shop/bad" in lines[0]


def test_a_store_that_cannot_be_used_ends_it_at_once(tmp_path: Path) -> None:
    """In one sentence, since waiting would mend nothing."""
    (tmp_path / "folder").mkdir()
    shop = Scheduler("shop", store=f"sqlite:///{tmp_path}/folder")
    shop.every(60)(nothing)
    with pytest.raises(StoreUnusable, match=r"shop: the store .* cannot be used"):
        shop.run()


def test_a_store_that_is_silent_at_a_takeover_runs_nothing_twice() -> None:
    """The takeover that was not answered is adopted when it has landed: the tick is run once, and is no takeover."""
    store = FaultyStore(SystemClock())
    ran: list[tuple[int, bool]] = []
    register = store.link()
    shop = Scheduler("shop", store=register, lease_ttl=1.0)

    @shop.every(3600)
    def bill(term: Term) -> None:
        ran.append((term.iteration, term.takeover))

    with shop:
        until(lambda: register.read("shop/bill"), "a record")
        until(lambda: json.loads(register.read("shop/bill").data)["state"] == "open", "its end")  # type: ignore[union-attr]
        register.fail(Fault.UNANSWERED)
        # The order itself is written through another link, which does not fail.
        order(store.link(), "shop/bill", lambda _record: {"trigger": "now"})
        until(lambda: ran, "the run")
        until(lambda: json.loads(register.read("shop/bill").data)["note"]["work"] == "ran", "its end")  # type: ignore[union-attr]
    assert [takeover for _, takeover in ran] == [False]


def test_a_store_that_can_only_be_read_is_waited_for_once(caplog: pytest.LogCaptureFixture) -> None:
    """As when its disk is full: that it answers again is said when it does, and not at each question."""
    register = FaultyStore(SystemClock()).link()
    shop = Scheduler("shop", store=register, lease_ttl=0.5)
    ran, refused = threading.Event(), threading.Event()
    tries: list[str] = []

    def refuse(method: str) -> None:
        if method == "swap" and not refused.is_set():
            tries.append(method)
            raise StoreUnavailable("the disk is full")

    shop.every(0.1, name="bill")(lambda _term: ran.set())
    with caplog.at_level(logging.INFO), shop:
        assert ran.wait(DEADLINE)
        register.before = refuse
        until(lambda: len(tries) >= 8, "some attempts")
        said = caplog.text
        refused.set()
        ran.clear()
        assert ran.wait(DEADLINE)
        until(lambda: "the store answers again" in caplog.text, "its return")
    assert said.count("shop: waiting for the store") == 1
    assert "answers again" not in said


def test_a_clock_that_is_set_back_is_an_error_of_each_job(
    shop: Scheduler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is run until the recorded tick, so nobody looks at the record: the log says so again and again."""
    monkeypatch.setattr(Reminder, "every", 0.1)
    ran, back = threading.Event(), threading.Event()
    shop.every(0.1, name="bill")(lambda _term: ran.set())

    def wall() -> int:
        return wall_ms() - (3_600_000 if back.is_set() else 0)

    with patch.object(agenda, "wall_ms", wall), patch.object(dispatcher, "wall_ms", wall), shop:
        assert ran.wait(DEADLINE)
        back.set()
        until(lambda: caplog.text.count("shop/bill: the record has the tick") >= 4, "the errors")
    assert "ahead of this machine's clock, so nothing is run" in caplog.text


@pytest.fixture
def file_store(tmp_path: Path) -> str:
    """The URL of a store."""
    return f"sqlite:///{tmp_path}/store.db"


def test_a_forked_child_runs_the_same_scheduler_by_itself(file_store: str) -> None:
    """As under a server that loads the program before it forks: parent and child share the jobs."""
    program = f"""
import os, sys, threading
from politics import Scheduler
ran = threading.Semaphore(0)
jobs = Scheduler("shop", store={file_store!r}, lease_ttl=1.0)
@jobs.every(0.1)
def bill(term):
    ran.release()
jobs.start()
pid = os.fork()
if not pid:
    assert not jobs.running
    jobs.start()
ran.acquire(), ran.acquire()
jobs.stop()
if pid:
    print("the child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    with python(program) as process:
        process.line("the child ended with 0")
        assert process.result()[0] == 0


PROGRAM = """
from politics import Scheduler, TokenWorker
jobs = Scheduler("shop")

@jobs.every(0.1)
def bill(term): print("bill", flush=True)

class Pork(TokenWorker):
    group, announce = "pork", False
    def perform(self, term):
        print("pork", flush=True)
        term.lost.wait()

class Rival(Pork):
    group = "shop/bill"
"""


def test_politics_run_runs_a_scheduler_beside_a_worker(tmp_path: Path, file_store: str) -> None:
    """Both in one process, in the store of the command line; one page has the metrics of each lease."""
    (tmp_path / "app.py").write_text(PROGRAM)
    targets = [f"{tmp_path}/app.py:jobs", f"{tmp_path}/app.py:Pork"]
    code = "import sys; from politics.cli import main; sys.argv[0] = 'politics'; main()"
    with python(code, "run", *targets, "--store", file_store, "--lease-ttl", "1", "--metrics-port", "0") as process:
        until(lambda: {"bill", "pork"} <= set(process.lines), "both")
        with contextlib.closing(open_register(file_store)) as register:
            assert register.read("shop/bill")
        found = re.search(r"shop, pork: metrics on port (\d+)", process.line("metrics on port"))
        assert found
        done = re.compile(r'politics_slots_total{group="shop/bill",result="done"} [1-9]')
        page = f"http://127.0.0.1:{found[1]}"
        until(lambda: done.search(urllib.request.urlopen(f"{page}/metrics", timeout=SOON).read().decode()), "a tick")
        assert urllib.request.urlopen(f"{page}/leader/pork", timeout=SOON).read() == b"leading\n"
        assert process.stop() == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["jobs", "jobs"], "two of the workers are of the group 'shop/bill'; only one could ever lead"),
        (["jobs", "Rival"], "two of the workers are of the group 'shop/bill'; only one could ever lead"),
        (["jobs", "--group", "other"], "--group is for a TokenWorker, and "),
        (["jobs", "--on-error", "retry"], "--on-error is for a TokenWorker, and "),
        (["jobs", "--lease-ttl", "0"], "lease_ttl must be between 0.1 and 3600, not 0"),
        (["Jobs"], "does not exist; workers there: Pork, Rival, jobs"),
        (["bill"], "is not a subclass of politics.TokenWorker, and no Scheduler; workers there: Pork, Rival, jobs"),
    ],
)
def test_politics_run_refuses_what_a_scheduler_does_not_have(tmp_path: Path, words: list[str], sentence: str) -> None:
    """With status 2, before anything has started."""
    (tmp_path / "app.py").write_text(PROGRAM)
    targets = [
        f"{tmp_path}/app.py:{word}" if word.isalpha() and word not in ("other", "retry") else word for word in words
    ]
    ended = politics("run", "--store", "memory://run", *targets)
    assert (ended.status, sentence in ended.said) == (2, True), ended


def test_a_program_that_ends_while_a_job_runs_hands_over(file_store: str) -> None:
    """When the interpreter exits, jobs are asked to stop, and their leases are free at once."""
    program = f"""
import threading
from politics import Scheduler
begun = threading.Event()
jobs = Scheduler("shop", store={file_store!r}, lease_ttl=1.0)
@jobs.every(0.1)
def bill(term):
    begun.set()
    term.lost.wait()
    term.check()
jobs.start()
begun.wait()
"""
    with python(program) as process:
        assert process.result()[0] == 0
    with contextlib.closing(open_register(file_store)) as register:
        record = look(register, "shop/bill")
    assert record is not None
    assert (record.state, record.note["work"]) == ("open", "running")


def test_a_job_that_ignores_the_failure_of_another_is_given_up() -> None:
    """A program hears of what failed after `grace`, also if a job goes on for ever."""
    program = """
import sys, threading
from politics import Scheduler
begun = threading.Event()
jobs = Scheduler("shop", store="memory://", grace=0.2)
@jobs.every(0.1)
def deaf(term):
    begun.set()
    threading.Event().wait()
@jobs.every(0.1)
def leaves(term):
    begun.wait()
    sys.exit(3)
jobs.run()
"""
    with python(program) as process:
        status, said = process.result()
    assert status == 3
    assert "shop: jobs: 2; the next is shop/" in said

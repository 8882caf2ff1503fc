"""APScheduler's own schedulers in several processes: the leader's runs jobs, and no time is left out or run twice."""

import contextlib
import importlib
import itertools
import math
import signal
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from election import BadPolicy, BadStoreURL, Candidate, ask_to_resign, look, open_register
from politics.integrations.apscheduler import LeaderJobs, run_on_leader
from tests.processes import running, suspend
from tests.waiting import until

LEASE = 1.5

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from politics.integrations.apscheduler import run_on_leader

kind, store, path, jobs = sys.argv[1:]
scheduler = {"background": BackgroundScheduler, "blocking": BlockingScheduler, "asyncio": AsyncIOScheduler}[kind]()

def write(*words):
    with open(path, "a") as journal:
        journal.write(" ".join(map(str, (os.getpid(), *words))) + "\\n")

def work():
    write("begins", 0)
    time.sleep(0.05)
    write("ends", 0)

async def work_async():
    write("begins", 0)
    await asyncio.sleep(0.05)
    write("ends", 0)

leader = run_on_leader(scheduler, "jobs", store=store, lease_ttl=LEASE)
options = {"coalesce": False, "misfire_grace_time": 60, "max_instances": 1}
if jobs != "memory":
    scheduler.add_jobstore("sqlalchemy", url=jobs)
function = work_async if kind == "asyncio" else work
scheduler.add_job(function, "cron", second="*", id="job", replace_existing=True, **options)
scheduler.add_listener(lambda event: write("ran", event.scheduled_run_time.timestamp()), EVENT_JOB_EXECUTED)

def stop(number, frame):
    if kind == "blocking":
        threading.Thread(target=scheduler.shutdown).start()
    stopped.set()

stopped = threading.Event()
signal.signal(signal.SIGTERM, stop)
if kind == "asyncio":
    async def main():
        scheduler.start()
        print("started", flush=True)
        await asyncio.to_thread(stopped.wait)
        scheduler.shutdown()
        await asyncio.sleep(0)
    asyncio.run(main())
else:
    print("started", flush=True)
    scheduler.start()
    if kind == "background":
        stopped.wait()
        scheduler.shutdown()
""".replace("LEASE", str(LEASE))


def entries(path: Path) -> list[tuple[int, str, float]]:
    """Of each line the process, what it did, and for which time."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [(int(pid), what, float(at)) for pid, what, at in map(str.split, lines)]


def ran(path: Path) -> list[tuple[int, int]]:
    """The processes and the scheduled times of all runs that came to their end."""
    return [(pid, round(at)) for pid, what, at in entries(path) if what == "ran"]


def is_recorded(store: str, path: Path) -> bool:
    """Whether the leader has written down the last time that it has run."""
    with contextlib.closing(open_register(store)) as register:
        record = look(register, "jobs")
    return record is not None and record.note["submitted_ms"] >= 1000 * ran(path)[-1][1]


def verify_no_overlap(path: Path, killed: int) -> None:
    """Verify that no run began while one of another process had begun and not ended; a killed one never ends."""
    inside: int | None = None
    for pid, what, _ in entries(path):
        if what == "begins":
            assert inside in (None, killed), f"{pid} begins while {inside} runs"
            inside = pid
        elif what == "ends":
            inside = None


@pytest.fixture
def shared_jobs(tmp_path: Path) -> str:
    """The address of a job store for several processes, whose table is there: APScheduler's would race to create it."""
    store = SQLAlchemyJobStore(url=f"sqlite:///{tmp_path}/jobs.db")
    store.jobs_t.create(store.engine)
    store.engine.dispose()
    return str(store.engine.url)


KINDS = [("background", "memory"), ("blocking", "memory"), ("asyncio", "memory"), ("background", "shared")]


@pytest.mark.parametrize(("kind", "jobs"), KINDS)
def test_the_jobs_go_on_though_the_leader_is_killed(
    kind: str, jobs: str, old_store: str, shared_jobs: str, tmp_path: Path
) -> None:
    """Every second is run by one of three processes; those in which nobody led are made up for, and none runs twice."""
    path = tmp_path / "journal.txt"
    with contextlib.ExitStack() as stack:
        where = "memory" if jobs == "memory" else shared_jobs
        command = (sys.executable, "-c", PROGRAM, kind, old_store, path, where)
        programs = [stack.enter_context(running(*command)) for _ in range(3)]
        first = until(lambda: ran(path))[0][0]
        until(lambda: len(ran(path)) >= 2 and is_recorded(old_store, path))
        next(program for program in programs if program.popen.pid == first).kill()
        until(lambda: len([pid for pid, _ in ran(path) if pid != first]) >= 4)
        alive = [program for program in programs if program.popen.pid != first]
        second = ran(path)[-1][0]
        leader = next(program for program in alive if program.popen.pid == second)
        assert leader.stop() == 0
        until(lambda: len({pid for pid, _ in ran(path)}) == 3, "the third")
        assert next(program for program in alive if program is not leader).stop() == 0
    times = Counter(at for _, at in ran(path))
    verify_no_overlap(path, first)
    begun = {int(at) for at in times}
    missing = sorted(set(range(min(begun), max(begun))) - begun)
    assert len(missing) <= 1, f"only the run that was under way may be missing: {missing}"
    assert not [at for at, count in times.items() if count > 1]


def test_a_leader_that_was_stopped_for_too_long_begins_nothing(old_store: str, tmp_path: Path) -> None:
    """When it goes on, another leads: what came due meanwhile is not run by both, not even for a moment."""
    path = tmp_path / "journal.txt"
    command = (sys.executable, "-c", PROGRAM, "background", old_store, path, "memory")
    with running(*command) as one, running(*command) as other:
        until(lambda: len(ran(path)) >= 2)
        first = ran(path)[0][0]
        stopped, leader = (one, other) if one.popen.pid == first else (other, one)
        until(lambda: is_recorded(old_store, path))
        suspend(stopped.popen)
        assert {pid for pid, _, _ in entries(path)} == {first}
        until(lambda: len([pid for pid, _ in ran(path) if pid != first]) >= 3)
        stopped.popen.send_signal(signal.SIGCONT)
        count = len(ran(path))
        until(lambda: len(ran(path)) >= count + 3)
        assert leader.stop() == 0
        assert stopped.stop() == 0
    assert [at for at, count in Counter(at for _, at in ran(path)).items() if count > 1] == []


class Recorder:
    """A scheduler of this process whose job runs every tenth of a second."""

    def __init__(self, store: str, options: dict[str, Any]) -> None:
        self.ran, self.missed = list[datetime](), list[datetime]()
        self.scheduler: Any = BackgroundScheduler(timezone=UTC)
        self.jobs: LeaderJobs = run_on_leader(self.scheduler, "jobs", store=store, lease_ttl=LEASE)
        start = datetime.now(UTC).replace(microsecond=0)
        self.scheduler.add_job(lambda: None, "interval", seconds=0.1, start_date=start, id="job", **options)
        self.scheduler.add_listener(lambda event: self.ran.append(event.scheduled_run_time), EVENT_JOB_EXECUTED)
        self.scheduler.add_listener(lambda event: self.missed.append(event.scheduled_run_time), EVENT_JOB_MISSED)


def test_what_the_leader_has_run_does_not_come_due_on_the_next(old_store: str) -> None:
    """A standby whose own jobs have waited runs none of the times that were run, though each may be late for ever."""
    options = {"misfire_grace_time": None, "coalesce": False, "max_instances": 100}
    one, other = Recorder(old_store, options), Recorder(old_store, options)
    one.scheduler.start()
    until(lambda: len(one.ran) > 3)
    other.scheduler.start()
    until(lambda: len(one.ran) > 15)
    assert other.ran == []
    one.scheduler.shutdown()
    until(lambda: len(other.ran) > 3)
    assert one.jobs.lead is None
    until(lambda: other.jobs.lead is not None)
    other.scheduler.shutdown()
    assert max(one.ran) < min(other.ran)
    assert min(other.ran) - max(one.ran) == timedelta(seconds=0.1), "and none was left out"


def test_missed_times_are_as_apscheduler_has_them(old_store: str) -> None:
    """What came due while nobody ran jobs is run if it is not too late, and else missed, which is an event."""
    recorder = Recorder(old_store, {"misfire_grace_time": 1, "coalesce": False, "max_instances": 100})
    with contextlib.closing(open_register(old_store)) as register, Candidate(register, "jobs").campaign():
        recorder.scheduler.start()
        begun = datetime.now(UTC)
        until(lambda: datetime.now(UTC) > begun + timedelta(seconds=1.5), "times that are too late")
        assert recorder.ran == recorder.missed == []
    until(lambda: len(recorder.ran) > 3)
    recorder.scheduler.shutdown()
    times = sorted(recorder.ran + recorder.missed)
    assert recorder.missed
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {timedelta(seconds=0.1)}


def test_a_clock_that_is_behind_is_named(old_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs of an instant that an earlier leader has passed are not run, and the log says until when."""
    note = {"submitted_ms": math.ceil(1000 * (datetime.now(UTC) + timedelta(hours=1)).timestamp())}
    with contextlib.closing(open_register(old_store)) as register:
        Candidate(register, "jobs").campaign(plan=lambda _view: note).resign()
    recorder = Recorder(old_store, {})
    recorder.scheduler.start()
    until(lambda: "s behind that: jobs in memory are not run before then" in caplog.text)
    recorder.scheduler.shutdown()
    assert recorder.ran == []


def test_one_time_jobs_that_were_run_are_gone(old_store: str) -> None:
    """A job for one moment that the leader has run is not run by the next one."""
    moment = datetime.now(UTC) + timedelta(seconds=0.5)
    runs, recorders = list[str](), list[Recorder]()
    for name in ("one", "other"):
        recorder = Recorder(old_store, {"misfire_grace_time": None, "coalesce": True})
        recorder.scheduler.add_job(
            runs.append, "date", run_date=moment, args=[name], id="once", misfire_grace_time=None
        )
        recorders.append(recorder)
    one, other = recorders
    one.scheduler.start()
    until(lambda: one.jobs.lead)
    other.scheduler.start()
    until(lambda: runs)
    count = len(one.ran)
    until(lambda: len(one.ran) > count)
    one.scheduler.shutdown()
    until(lambda: other.ran)
    assert other.scheduler.get_job("once") is None
    other.scheduler.shutdown()
    assert runs == ["one"]


def test_running_jobs_end_before_the_lease_is_handed_over(old_store: str) -> None:
    """Asked for the lease, the scheduler is paused, and the lease held until the job has ended."""
    scheduler: Any = BackgroundScheduler(timezone=UTC)
    jobs = run_on_leader(scheduler, "jobs", store=old_store, lease_ttl=LEASE)
    began, release, held = threading.Event(), threading.Event(), list[bool]()

    def work() -> None:
        began.set()
        release.wait()
        held.append(jobs.lead is not None and jobs.lead.valid)

    scheduler.add_job(work, "date", run_date=datetime.now(UTC), misfire_grace_time=None)
    scheduler.start()
    until(began.is_set)
    with contextlib.closing(open_register(old_store)) as register:
        ask_to_resign(register, "jobs")
        until(lambda: jobs.lead and jobs.lead.lost.is_set())
        assert jobs.lead
        release.set()
        until(lambda: held)
    scheduler.shutdown()
    assert held == [True]


def test_mistakes_are_named(old_store: str) -> None:
    """When it is called, and not in a log."""
    with pytest.raises(BadPolicy):
        run_on_leader(BackgroundScheduler(), "jobs", store=old_store, lease_ttl=math.nan)
    with pytest.raises(BadStoreURL):
        run_on_leader(BackgroundScheduler(), "jobs", store="nonsense://")
    scheduler: Any = BackgroundScheduler()
    scheduler.start()
    try:
        with pytest.raises(RuntimeError, match=r"comes before scheduler\.start"):
            run_on_leader(scheduler, "jobs", store=old_store)
    finally:
        scheduler.shutdown()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where APScheduler 4 is, which has no such schedulers."""
    for missing in ("apscheduler.events", "apscheduler.schedulers.base"):
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "politics.integrations.apscheduler")
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(ModuleNotFoundError, match=r"this needs APScheduler 3: pip install 'apscheduler>=3\.10"):
                importlib.import_module("politics.integrations.apscheduler")

"""APScheduler 3: the schedulers of all processes are started, and the leader's runs jobs. The extra `apscheduler`.

scheduler = BackgroundScheduler()
run_on_leader(scheduler, "reports", store="memcached://10.0.0.5:11211")
scheduler.add_job(report, "cron", hour=3, misfire_grace_time=3600)
scheduler.start()
"""

import contextlib
import logging
import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

try:
    from apscheduler.events import (
        EVENT_JOB_ERROR,
        EVENT_JOB_EXECUTED,
        EVENT_JOB_MAX_INSTANCES,
        EVENT_JOB_MISSED,
        EVENT_JOB_SUBMITTED,
        EVENT_SCHEDULER_SHUTDOWN,
        EVENT_SCHEDULER_STARTED,
    )
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.schedulers.base import BaseScheduler  # which APScheduler 4 does not have
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError("this needs APScheduler 3: pip install 'apscheduler>=3.10,<4'", name=exc.name) from exc

from election import LeadershipLost, LeaseTerm, StoreUnavailable
from election.clock import wall_ms
from election.rules import View
from politics.leading import Options, Standing
from politics.settings import find_store

log = logging.getLogger("politics")

SUBMITTED_MS = "submitted_ms"
"""The key of the note: the latest scheduled time that a leader has submitted, in milliseconds since 1970."""
FAR_AHEAD_MS = 24 * 3600 * 1000
"""A note that is further ahead of our clock than this is not believed: it would stop all jobs until then."""

BEHIND = 60.0
"""Seconds that our clock may be behind the note before that is logged."""


class LeaderJobs:
    """What `run_on_leader` returns."""

    def __init__(self, scheduler: BaseScheduler, name: str, grace: float, options: Options) -> None:
        self._scheduler, self._name, self._grace, self._options = scheduler, name, grace, options
        self._standing = self._new()
        self._submitted_ms = 0
        self._term: LeaseTerm | None = None
        """The term in which jobs are run."""
        self._process, scheduler._process_jobs = scheduler._process_jobs, self._process_jobs_if_leading
        self._news = threading.Event()
        """Set when there is something to record, or a reason to look whether the term or a job has ended."""
        scheduler.add_listener(self._on_submitted, EVENT_JOB_SUBMITTED | EVENT_JOB_MAX_INSTANCES)
        scheduler.add_listener(self._on_ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        scheduler.add_listener(self._on_started, EVENT_SCHEDULER_STARTED)
        scheduler.add_listener(self._on_shutdown, EVENT_SCHEDULER_SHUTDOWN)

    @property
    def lead(self) -> LeaseTerm | None:
        """The term, while this process leads: for `fence`, and for jobs that call `check()` on the way."""
        return self._standing.lead

    def _new(self) -> Standing:
        return Standing(self._name, self._govern, grace=self._grace, plan=self._plan, **self._options)

    # Called on the threads of the scheduler.

    def _process_jobs_if_leading(self) -> float | None:
        """Submit what is due, in the place of the scheduler's own method; return the seconds to the next time.

        So a process that was stopped for longer than its lease submits nothing when it goes on.
        """
        term = self._term
        return self._process() if term and term.valid else None

    def _on_started(self, _event: object) -> None:
        self._standing = self._new()
        self._standing.begin()

    def _on_shutdown(self, _event: object) -> None:
        self._standing.ask_to_stop("the scheduler was shut down")

    def _on_submitted(self, event: Any) -> None:
        latest = max(event.scheduled_run_times).timestamp()
        self._submitted_ms = max(self._submitted_ms, math.ceil(1000 * latest))
        self._news.set()

    def _on_ended(self, _event: object) -> None:
        self._news.set()

    # Called on the thread of the `Standing`.

    def _plan(self, view: View) -> dict[str, int]:
        """Learn from each look what others have submitted, and carry it on."""
        submitted = view.record.note.get(SUBMITTED_MS) if view.record else None
        if type(submitted) is int and self._submitted_ms < submitted < wall_ms() + FAR_AHEAD_MS:
            self._submitted_ms = submitted
        return self._note()

    def _note(self) -> dict[str, int]:
        return {SUBMITTED_MS: self._submitted_ms}

    def _govern(self, term: LeaseTerm) -> None:
        unsubscribe = term.lost.subscribe(self._news.set)
        try:
            self._skip_what_was_submitted()
            self._term = term
            self._scheduler.wakeup()
            self._record_what_is_submitted(term)
            self._term = None
            self._scheduler.get_jobs()  # waits until it has submitted what it was about to submit
            self._wait_for_jobs(term)
        finally:
            self._term = None
            unsubscribe()
        if not term.lost.is_set():
            raise LeadershipLost(f"{self._name}: not renewed in time: no more jobs are begun")

    def _skip_what_was_submitted(self) -> None:
        """Advance what only this process remembers past what earlier leaders have submitted."""
        latest = datetime.fromtimestamp(self._submitted_ms / 1000, UTC)
        after = latest + timedelta(microseconds=1)
        if (ahead := (self._submitted_ms - wall_ms()) / 1000) > BEHIND:
            log.warning(
                "%s: jobs were run up to %s, and the clock of this machine is %.0f s behind that: jobs in memory are "
                "not run before then. If the other clock was wrong, stop all processes and start them with a new name",
                self._name,
                latest.isoformat(),
                ahead,
            )
        for alias, store in tuple(self._scheduler._jobstores.items()):
            for job in self._scheduler.get_jobs(alias) if isinstance(store, MemoryJobStore) else ():
                if job.next_run_time is None or job.next_run_time > latest:  # the former: this job is paused
                    continue
                previous, following = None, job.trigger.get_next_fire_time(None, after)
                while following not in (None, previous) and following <= latest:  # of a trigger that ignores `after`
                    previous, following = following, job.trigger.get_next_fire_time(following, after)
                if following is None:
                    job.remove()
                else:
                    job.modify(next_run_time=following)

    def _record_what_is_submitted(self, term: LeaseTerm) -> None:
        """Write it into the record at once, until the term ends or a third of the lease is left."""
        margin, written = self._standing.policy.ttl / 3, self._submitted_ms
        while (left := term.remaining() - margin) > 0 and not term.lost.is_set():
            self._news.wait(left)
            self._news.clear()
            if written != self._submitted_ms:
                written = self._submitted_ms
                with contextlib.suppress(LeadershipLost, StoreUnavailable):  # the next renewal writes it
                    term.proclaim(self._note())

    def _wait_for_jobs(self, term: LeaseTerm) -> None:
        """Hold the lease until the jobs that were begun under it have ended."""
        while busy := self._running():
            if not term.valid:
                log.error("%s: the lease is over, and still run: %s", self._name, ", ".join(busy))
                return
            self._news.wait(min(0.25, term.remaining()))
            self._news.clear()
        with contextlib.suppress(LeadershipLost, StoreUnavailable):
            term.proclaim(self._note())

    def _running(self) -> list[str]:
        """Return the ids of jobs that run."""
        executors = tuple(self._scheduler._executors.values())
        return [str(job) for executor in executors for job, count in tuple(executor._instances.items()) if count > 0]


def run_on_leader(
    scheduler: BaseScheduler, name: str, *, grace: float = 10.0, **options: Unpack[Options]
) -> LeaderJobs:
    """Let `scheduler` run jobs only while this process leads. Call it before `scheduler.start()`, in all processes.

    The scheduler is started everywhere, and looks for due jobs only where it leads. Before the lease is handed over, it
    stops looking, and the jobs that run come to their end. If the lease cannot be renewed, it stops looking while a
    third of the lease is left; a job that runs longer than that outlives the lease, which is logged as an error. Such a
    job should call `check()` of the returned object's `lead` on the way. `scheduler.shutdown()` hands over.

    What came due while nobody led is a misfire, as APScheduler has it: a job with `misfire_grace_time` (1 second by
    default) of more than a lease runs late, once for each time, or once in all with `coalesce`. What an earlier leader
    has submitted does not come due again: a job store that is shared says so itself, and for the jobs in memory the
    leader writes into the lease's record up to when it has submitted. A leader that is killed between the two may leave
    a time that is run twice.

    Args:
        scheduler: a `BackgroundScheduler`, `BlockingScheduler`, `AsyncIOScheduler` or another of APScheduler 3.
        name: the lease; printable, at most 80 bytes.
        grace: seconds that running jobs may take to end when the interpreter exits (10).
        options: `store`, `servers`, `lease_ttl`, `on_event`; see `Options`.

    Raises:
        BadPolicy, BadStoreURL: a value that cannot work; the message names it.
        RuntimeError: the scheduler has been started already.
    """
    if scheduler.running:
        raise RuntimeError("run_on_leader() comes before scheduler.start(): jobs may have run already")
    find_store(options.get("store"), options.get("servers"))
    return LeaderJobs(scheduler, name, grace, options)

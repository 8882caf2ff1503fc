"""One run of a scheduler: one thread looks at the leases of all jobs, and each job that runs has its own thread."""

import collections
import functools
import logging
import math
import random
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from election import Candidate, Event, LeasePolicy, LeaseTerm, Register, StoreUnavailable
from election.clock import Clock, wall_ms
from election.errors import BadRecord, ElectionError, StoreUnusable
from election.events import EventKind, OnEvent, tell
from election.retries import Reminder, backoff
from election.rules import View, is_own_takeover
from election.term import Note
from politics.worker.agenda import GLANCE, Assignment, TickAgenda, text_of
from politics.worker.duty import Duty, Work
from politics.worker.ticks import Rules

log = logging.getLogger("politics")

LONGEST_PAUSE = 60.0
"""Seconds for which a process leaves a job that it failed to the others, at most."""


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """Work, and when it is run.

    Args:
        name: of the job and of its lease.
        work: called with the `Term` of each tick that is run.
        rules: its schedule, and what is done about missed ticks.
        retry: whether a tick whose work raised an error is run again by another process.
    """

    name: str
    work: Work
    rules: Rules
    retry: bool


class JobWatch:
    """What this process knows of a job's lease, and when it looks at it next.

    The dispatcher's thread uses it while the job does not run here, and the job's own thread while it does.
    """

    def __init__(
        self,
        job: ScheduledJob,
        register: Register,
        policy: LeasePolicy,
        clock: Clock,
        chance: Callable[[], float],
        on_event: OnEvent,
    ) -> None:
        self.name, self.rules = job.name, job.rules
        self.candidate = Candidate(register, job.name, policy, clock=clock, on_event=on_event)
        self.agenda = TickAgenda(job.rules, policy, clock, register.shard(job.name).remembers)
        self.duty = Duty(
            job.name, job.work, self.agenda, policy, clock, retry=job.retry, on_event=on_event, chance=chance
        )
        self.assignment: Assignment | None = None
        self.lead: LeaseTerm | None = None
        """The lease's term, while the job runs here."""
        self.changed = True
        """Whether to look now, since its cell is not what was seen last."""
        self.due = math.inf
        """When to look because a tick is due, in milliseconds since 1970."""
        self.look_at = math.inf
        """When to look because the lease may be free then, on the clock."""
        self.pause_until = 0.0
        """Until then a tick is left to other processes, on the clock."""
        self.bad_record = Reminder(log, clock)

    def plan(self, view: View, free: bool, now: float) -> Note | None:
        """Learn what was seen; return what we would write if we took the lease now, None if there is no reason to."""
        me = self.candidate.id
        self.agenda.learn(view, me)
        if self.assignment is None or not is_own_takeover(view, me):
            self.assignment = self.agenda.take(view)
        may = not self.assignment.run or (free and now >= self.pause_until)
        return self.assignment.note if self.assignment.news and may else None

    def settle(self, free: bool, now: float, again: float) -> None:
        """Decide when to look next, after a look that did not make us the leader; `again`: seconds until the next."""
        assert self.assignment is not None
        news, run = self.assignment.news, self.assignment.run
        # Also if somebody runs the job now: that may have ended before we find it out at a glance.
        due = self.agenda.due(wall_ms() if news else 0)
        self.due, self.look_at = math.inf if due is None else due, math.inf
        if news and run and now < self.pause_until:
            self.look_at = self.pause_until
        elif news and run and not free:
            self.due = 0.0
        elif news:  # somebody has the lease, or was first
            self.look_at = max(self.candidate.view.free_at(self.candidate.policy), now + again)


class JobShard:
    """A store, or one server of several, and the jobs whose leases it keeps."""

    def __init__(self, register: Register, watches: list[JobWatch], clock: Clock) -> None:
        self.register, self.watches = register, watches
        self.glance_at = 0.0
        """When to ask for the versions of all cells, on the clock."""
        self.failures = 0
        """How many times in a row it has not answered."""
        self.answered = False
        """Whether it ever has."""
        self.silence = Reminder(log, clock)

    def glance(self) -> bool:
        """Find out in one question which cells have changed; return whether the store was asked.

        Raises:
            StoreUnavailable: it did not answer.
        """
        waiting = [watch for watch in self.watches if not watch.lead]
        for watch in waiting:
            watch.agenda.look_at_clock()
        versions = self.register.versions([watch.name for watch in waiting])
        for watch, version in zip(waiting, versions, strict=True):
            watch.changed |= version != watch.candidate.view.version
        return bool(waiting)

    def ready(self, now: float, wall: int, *, free: bool) -> list[JobWatch]:
        """Return the jobs to look at now. Those that have waited longest come first, and others in any order."""
        found = [
            watch
            for watch in self.watches
            if not watch.lead and (watch.changed or (free and (wall >= watch.due or now >= watch.look_at)))
        ]
        return sorted(found, key=lambda watch: (watch.due, random.random()))

    def rest(self, now: float, wall: int, *, free: bool) -> float:
        """Return the seconds until there is something to do here."""
        at = self.glance_at - now
        for watch in self.watches:
            if not (self.failures or watch.lead):
                if watch.changed:
                    return 0.0
                if free:
                    at = min(at, (watch.due - wall) / 1000, watch.look_at - now)
        return max(0.0, at)


class Dispatcher:
    """Runs the jobs of a scheduler. `thread` is its thread; everything else may be used from any.

    Args:
        group: the scheduler's name, for logs.
        jobs: what there is to do.
        register: keeps the leases of the jobs.
        policy: the timings of the leases.
        threads: how many jobs run at the same time, at most.
        grace: seconds that jobs may take to return once they are asked to stop.
        clock: of the candidates.
        on_event: called with each event.
        finished: called at the end, on the dispatcher's thread.
        chance: returns a random number, at least 0 and less than 1, for the jitter of retries.
        aloud: say on standard error what is run, if nobody has configured a log.
    """

    def __init__(
        self,
        group: str,
        jobs: Iterable[ScheduledJob],
        register: Register,
        policy: LeasePolicy,
        *,
        threads: int,
        grace: float,
        clock: Clock,
        on_event: OnEvent,
        finished: Callable[[], None],
        chance: Callable[[], float],
        aloud: bool,
    ) -> None:
        self.group, self.grace = group, grace
        self.failure: BaseException | None = None
        """What a job raised that ended the run, as `sys.exit` does; None if nothing did."""
        self._policy, self._threads, self._clock = policy, threads, clock
        self._on_event, self._finished, self._chance, self._aloud = on_event, finished, chance, aloud
        # Often enough that a change is seen soon, and never more often than a standby of one lease looks.
        self._every = max(policy.poll, min(GLANCE, policy.ttl / 10))
        kept: dict[Register, list[JobWatch]] = {}
        for job in jobs:
            watch = JobWatch(job, register, policy, clock, chance, on_event)
            kept.setdefault(register.shard(job.name), []).append(watch)
        self._shards = [JobShard(keeper, watches, clock) for keeper, watches in kept.items()]
        self._watches = [watch for shard in self._shards for watch in shard.watches]
        self._busy: set[threading.Thread] = set()
        self._ended: collections.deque[JobWatch] = collections.deque()
        self._stop, self._stop_reason, self._wake = threading.Event(), "", threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"politics-{group}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self.thread.is_alive()

    def is_inside(self) -> bool:
        """Return whether this is called by a job, or by a hook of ours."""
        me = threading.current_thread()
        return me is self.thread or me in self._busy

    def ask_to_stop(self, reason: str) -> None:
        """Set `lost` for all jobs that run, and end when they have returned."""
        self._stop_reason = self._stop_reason or reason
        self._stop.set()
        self._wake.set()
        for lead in self._leads():
            lead.ask_to_stop(reason)

    def give_up(self) -> bool:
        """Hand over the leases of jobs that still run; return whether there are any."""
        leads = self._leads()
        for lead in leads:
            log.warning("%s: the work did not stop in time: its lease is given up", lead.name)
            lead.resign()
        return bool(leads)

    def _leads(self) -> Sequence[LeaseTerm]:
        return [lead for watch in self._watches if (lead := watch.lead)]

    # What follows is called on the dispatcher's own thread.

    def _run(self) -> None:
        try:
            self._say_what_there_is()
            while not self._stop.is_set():
                self._clock.wait(self._wake, min(map(self._attend, self._shards)))
                self._wake.clear()
        except BaseException as exc:
            log.critical("%s: the scheduler ends: %s", self.group, _say(exc), exc_info=self._fail(exc))
        finally:
            self._wait_for_jobs()
            log.info("%s: stopped", self.group)
            self._finished()

    def _wait_for_jobs(self) -> None:
        """Wait until the jobs that run have ended; for `grace`, if somebody waits to hear what has failed."""
        until = self._clock.now() + self.grace
        while self._count_ended():
            left = until - self._clock.now() if self.failure else math.inf
            if left <= 0:
                self.give_up()
                return
            self._clock.wait(self._wake, left)
            self._wake.clear()

    def _say_what_there_is(self) -> None:
        wall = wall_ms()
        following = {watch.name: watch.rules.following(wall) for watch in self._watches}
        name, first = min(following.items(), key=lambda pair: pair[1] or math.inf)
        when = f"the next is {name} at {text_of(first)}" if first else "none is due before the year 9999"
        log.info("%s: jobs: %d; %s", self.group, len(following), when)
        if self._aloud and not log.hasHandlers() and sys.stderr:
            hint = "For more, call logging.basicConfig(level=logging.INFO)"
            print(f"{self.group}: jobs: {len(following)}; {when}. {hint}", file=sys.stderr)

    def _count_ended(self) -> int:
        """Take note of the jobs that have ended; return how many still run."""
        while self._ended:
            watch = self._ended.popleft()
            watch.lead, watch.changed = None, True
        return len(self._leads())

    def _free(self) -> bool:
        return self._count_ended() < self._threads

    def _attend(self, shard: JobShard) -> float:
        """Do what there is to do at a server; return the seconds until there is more."""
        try:
            now, asked = self._clock.now(), False
            if glances := now >= shard.glance_at:
                asked = shard.glance()
                shard.glance_at = now + self._every
            if glances or not shard.failures:
                for watch in shard.ready(self._clock.now(), wall_ms(), free=self._free()):
                    if self._stop.is_set():
                        return 0.0
                    self._look(watch)
            if asked:  # and it does more than let itself be read, as a full disk does
                self._has_answered(shard)
        except StoreUnavailable as exc:
            self._has_not_answered(shard, exc)
        return shard.rest(self._clock.now(), wall_ms(), free=self._free())

    def _look(self, watch: JobWatch) -> None:
        """Look at the lease of a job, and run the job if that is its turn and ours."""
        free, now = self._free(), self._clock.now()
        try:
            lead = watch.candidate.attempt(functools.partial(watch.plan, free=free, now=now))
            watch.bad_record.over()
        except BadRecord as exc:
            if watch.bad_record.due(str(exc)):
                log.error("%s: this job cannot be run: %s", watch.name, exc)
            watch.changed, watch.due, watch.look_at = False, math.inf, math.inf
            return
        watch.changed = False
        if lead:
            self._begin(watch, lead)
        else:
            watch.settle(free, now, self._every)

    def _begin(self, watch: JobWatch, lead: LeaseTerm) -> None:
        assert watch.assignment is not None
        watch.lead = lead
        if self._stop.is_set():
            lead.ask_to_stop(self._stop_reason)
        if watch.assignment.run:
            name = f"politics-{watch.name}"
            threading.Thread(target=self._work, args=(watch, lead), name=name, daemon=True).start()
        else:
            self._serve(watch, lead)

    def _has_answered(self, shard: JobShard) -> None:
        shard.answered, shard.failures = True, 0
        if shard.silence.over():
            log.info("%s: the store answers again", self.group)
            for watch in shard.watches:
                tell(self._on_event, Event(EventKind.STORE_ANSWERS, watch.name))

    def _has_not_answered(self, shard: JobShard, trouble: StoreUnavailable) -> None:
        """Ask it again after a while. At the start some errors need no waiting."""
        if trouble.permanent and not shard.answered:
            raise StoreUnusable(f"{self.group}: {trouble}") from trouble
        begins = shard.silence.trouble is None
        if shard.silence.due("silence"):
            lasts = "" if begins else f" for {shard.silence.lasted:.0f} s"
            log.warning("%s: waiting for the store%s: %s", self.group, lasts, trouble)
        if begins:
            for watch in shard.watches:
                tell(self._on_event, Event(EventKind.STORE_SILENT, watch.name, reason=str(trouble)))
        shard.failures += 1
        first, longest = self._policy.poll, self._policy.longest_pause
        pause = backoff(shard.failures, self._chance(), first=first, longest=longest)
        shard.glance_at = self._clock.now() + pause

    # What follows is called on the threads of jobs, too.

    def _work(self, watch: JobWatch, lead: LeaseTerm) -> None:
        self._busy.add(threading.current_thread())
        try:
            self._serve(watch, lead)
        except BaseException as exc:  # the work called sys.exit, say: process() passes it on
            log.critical("%s: the scheduler ends: %s", self.group, _say(exc), exc_info=self._fail(exc))
        finally:
            self._busy.discard(threading.current_thread())
            self._wake.set()

    def _serve(self, watch: JobWatch, lead: LeaseTerm) -> None:
        """Do what is written in the record of a job, and hand its lease over."""
        assert watch.assignment is not None
        try:
            with lead:
                if not watch.duty.serve(lead, watch.assignment):
                    # What was interrupted, or failed and is to be run again, may succeed in another process.
                    failures = max(1, watch.duty.failures)
                    pause = backoff(failures, self._chance(), first=2 * self._every, longest=LONGEST_PAUSE)
                    watch.pause_until = self._clock.now() + pause
        finally:
            self._ended.append(watch)

    def _fail(self, exc: BaseException) -> bool:
        """End the run because of this; return whether the log needs a traceback."""
        self.failure = self.failure or exc
        self.ask_to_stop("the scheduler ends")
        return not isinstance(exc, SystemExit | ElectionError)


def _say(exc: BaseException) -> str:
    """Return an error in words: one of ours says all in one sentence."""
    return str(exc) if isinstance(exc, ElectionError) else repr(exc)

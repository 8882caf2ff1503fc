"""`Scheduler`: many jobs in each of many identical processes, of which one runs each tick of each job."""

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from election import BadPolicy, Event, LeasePolicy, Register
from election.clock import Clock, SystemClock
from election.events import OnEvent
from election.record import check_name
from politics.settings import choose_store, open_store
from politics.worker.daemon import Daemon, begin, process
from politics.worker.dispatcher import Dispatcher, ScheduledJob
from politics.worker.mistakes import check_policies, is_async, refuse_event_loop, refuse_what_a_call_does_not_run
from politics.worker.schedule import Cron, Every, Schedule
from politics.worker.ticks import check_seconds, make_rules

F = TypeVar("F", bound=Callable[..., object])

MOST_THREADS = 1000


class Scheduler(Daemon):
    """Jobs with a schedule each, which all processes that have the same jobs share among them.

        jobs = Scheduler("shop", servers=["10.0.0.5:11211"])

        @jobs.cron("0 3 * * *", timezone="Europe/Berlin")
        def bill(term): ...

        @jobs.every(60)
        async def drain(term): ...

        jobs.run()

    Each tick of a job is run by one process, whichever is free first. If that process dies, another one runs the tick
    again, with `term.takeover`. The job `bill` has the lease `shop/bill`, which is held while the job runs.

    Constructing does no I/O.

    Args:
        name: what the names of all leases begin with; the same in all processes. Printable.
        servers: memcached servers, each `host:port`.
        store: the store's URL, or a `Register`; instead of `servers`. Default: `$POLITICS_STORE`, else a file of this
            user, which serves the processes of this machine.
        lease_ttl: seconds after which the process that runs a job, and has fallen silent, is replaced (10); the same
            in all processes.
        threads: how many jobs a process runs at the same time, at most (10). While all are busy, it leaves what comes
            due to other processes, and runs later what no other has begun.
        grace: seconds that jobs may take to return once they are asked to stop, still renewed (10).
        on_event: called instead of the method of this name.

    Raises:
        BadPolicy, BadStoreURL: a value that cannot work; the message names it.
    """

    _run: Dispatcher | None = None

    def __init__(
        self,
        name: str,
        *,
        servers: Sequence[str] | None = None,
        store: str | Register | None = None,
        lease_ttl: float = 10.0,
        threads: int = 10,
        grace: float = 10.0,
        on_event: OnEvent | None = None,
    ) -> None:
        self.group = check_name(name)
        """The scheduler's name."""
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise BadPolicy(f"threads must be a whole number from 1 to {MOST_THREADS}, not {threads!r}")
        check_seconds("grace", grace)
        self.threads, self.grace = threads, grace
        self.policy = LeasePolicy(ttl=lease_ttl)
        self._store: str | Register | None = store
        self._servers = servers
        if servers is not None or store is not None:
            open_store(choose_store(store, servers))  # a mistake in it is told here
        self._jobs: dict[str, tuple[Schedule, Callable[..., object], dict[str, Any], bool]] = {}
        if on_event is not None:
            self.on_event = on_event  # type: ignore[assignment, method-assign]
        self._clock: Clock = SystemClock()
        self._chance: Callable[[], float] = random.random

    def cron(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        catch_up: str = "latest",
        deadline: float | None = None,
        jitter: float = 0.0,
        on_failover: str = "rerun",
        on_error: str = "done",
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Return a decorator that makes a function a job, which is run at each tick of a cron expression.

        The function is called with the `Term` of the tick. It may be async.

        Args:
            expression: five fields, or six with seconds first, or `@daily` and the like.
            timezone: the time zone of the expression.
            catch_up: what to do about ticks that nobody could run in time: "latest" runs the last one, "all" runs each,
                the last hundred at most, "skip" none.
            deadline: seconds after which a tick is not begun any more; None: it is begun however late.
            jitter: seconds; each tick begins up to so much later, as its name decides.
            on_failover: what to do with a tick that a process left unfinished: "rerun" or "skip" it.
            on_error: what to do with a tick whose work raises an error: it is "done", or "retry": another process runs
                it again. The one that failed pauses, longer with each failure.
            name: of the job; None: the function's.

        Raises:
            BadPolicy: a value cannot work, or there is a job of this name; the message names it.
            RuntimeError: the scheduler runs.
        """
        if callable(expression):
            raise BadPolicy(_needs_an_argument("cron", expression, "'0 3 * * *'"))
        options = {"catch_up": catch_up, "deadline": deadline, "jitter": jitter}
        return self._add(Cron(expression, timezone), options, on_failover, on_error, name)

    def every(
        self,
        seconds: float,
        *,
        catch_up: str = "latest",
        deadline: float | None = None,
        jitter: float = 0.0,
        on_failover: str = "rerun",
        on_error: str = "done",
        name: str | None = None,
    ) -> Callable[[F], F]:
        """Return a decorator that makes a function a job, which is run every so many `seconds`.

        The ticks are the instants that are a whole number of intervals after the beginning of 1970, in UTC: all
        processes agree on them, and a restart moves none. Everything else is as for `cron`.

        Args:
            seconds: the interval; from a tenth of a second to a year.
        """
        if callable(seconds):
            raise BadPolicy(_needs_an_argument("every", seconds, "60"))
        options = {"catch_up": catch_up, "deadline": deadline, "jitter": jitter}
        return self._add(Every(seconds), options, on_failover, on_error, name)

    def _add(
        self, schedule: Schedule, options: dict[str, Any], on_failover: str, on_error: str, name: str | None
    ) -> Callable[[F], F]:
        if self.running:
            raise RuntimeError(f"the scheduler {self.group!r} runs already: add all jobs before")
        check_policies(on_failover, on_error, "tick")
        options["rerun"] = on_failover == "rerun"
        make_rules(self.group, schedule, **options, lease_ttl=self.policy.ttl)  # a mistake is told here

        def decorate(work: F) -> F:
            job = check_name(f"{self.group}/{_name_of(work, name)}")
            if job in self._jobs:
                raise BadPolicy(f"there is a job {job!r} already: give one of the two another name=")
            self._jobs[job] = schedule, _callable(self.group, job, work), options, on_error == "retry"
            return work

        return decorate

    @property
    def jobs(self) -> Mapping[str, ScheduledJob]:
        """The jobs that have been added, by the names of their leases."""
        made = {}
        for name, (schedule, work, options, retry) in self._jobs.items():
            rules = make_rules(name, schedule, **options, lease_ttl=self.policy.ttl)
            made[name] = ScheduledJob(name, work, rules, retry)
        return MappingProxyType(made)

    def configure(
        self,
        *,
        servers: Sequence[str] | None = None,
        store: str | Register | None = None,
        lease_ttl: float | None = None,
    ) -> None:
        """Replace settings that were given when the scheduler was made, before it runs. None leaves one as it is.

        Raises:
            BadPolicy, BadStoreURL: a value that cannot work; the message names it.
            RuntimeError: the scheduler runs.
        """
        if self.running:
            raise RuntimeError(f"the scheduler {self.group!r} runs already: configure it before")
        if servers is not None or store is not None:
            open_store(choose_store(store, servers))
            self._servers, self._store = servers, store
        if lease_ttl is not None:
            self.policy = LeasePolicy(ttl=lease_ttl)

    def on_event(self, event: Event) -> object:
        """Something happened, to be counted or shown. Called in several threads; return at once, or renewals wait.

        `event.group` is the name of the job's lease.
        """

    def run(self) -> None:
        """Run the jobs until `stop`, SIGTERM or SIGINT; call it on the main thread to have signals handled.

        The first signal sets `term.lost` of all jobs that run and leaves them `grace` seconds, the second ends the
        wait at once. If no log is configured, one line on standard error says which job is next.

        Raises:
            RuntimeError: the scheduler runs already, or this thread runs an event loop, which would stand still.
            BadPolicy: there are no jobs.
            SystemExit: a job raised it, or has not returned within `grace` (status 124), and ends with the process.
        """
        refuse_event_loop("run()")
        process([lambda finished: self._begin(None, finished, aloud=True)])

    def start(self) -> None:
        """Run the jobs in threads, and return at once. `with jobs:` starts them, and stops them at the end.

        When the interpreter exits, a scheduler that still runs is stopped as by `stop()`.

        Raises:
            RuntimeError, BadPolicy: as for `run`.
        """
        self._begin(None, lambda: None)

    def _begin(self, work: None, finished: Callable[[], None], aloud: bool = False) -> Dispatcher:
        if self.running:
            raise RuntimeError(f"the scheduler {self.group!r} runs already")
        if not self._jobs:
            raise BadPolicy(f"the scheduler {self.group!r} has no jobs: write @jobs.cron(...) above a function")
        store = choose_store(self._store, self._servers)
        register = open_store(store)

        def close() -> None:
            if register is not store:  # otherwise it is the caller's, and may have other users
                register.close()
            finished()

        self._run = Dispatcher(
            self.group,
            self.jobs.values(),
            register,
            self.policy,
            threads=self.threads,
            grace=self.grace,
            clock=self._clock,
            on_event=lambda event: self.on_event(event),
            finished=close,
            chance=self._chance,
            aloud=aloud,
        )
        begin(self._run)
        return self._run

    def __repr__(self) -> str:
        return f"<Scheduler {self.group!r} with {len(self._jobs)} jobs>"


def _name_of(work: Callable[..., object], name: str | None) -> str:
    """Return the name of a job: the one that was given, or that of the function.

    Raises:
        BadPolicy: neither is one.
    """
    found = getattr(work, "__name__", "<lambda>") if name is None else name
    if found == "<lambda>":
        raise BadPolicy(f"the job {work!r} has no name: pass name=")
    if not isinstance(found, str) or not found.strip():
        raise BadPolicy(f"the name of a job must be a text that is not empty, not {found!r}")
    return found


def _callable(owner: str, job: str, work: Callable[..., Any]) -> Callable[..., object]:
    """Return what runs the work when it is called with a term.

    Raises:
        BadPolicy: it cannot be called so, or a call would run nothing.
    """
    if not callable(work):
        raise BadPolicy(f"the work of the job {job!r} must be a function, not {work!r}")
    try:
        inspect.signature(work).bind("term")
    except TypeError as exc:
        raise BadPolicy(f"the function of the job {job!r} must take one argument, the term: {exc}") from exc
    except ValueError:
        pass  # one that does not say what it takes
    if is_async(work):
        from politics.worker.awaiting import awaited  # here, since only those who await need asyncio

        return awaited(work)
    refuse_what_a_call_does_not_run(f"the scheduler {owner!r}", [(f"the job {job!r}", work)])
    return work


def _needs_an_argument(method: str, work: Any, example: str) -> str:
    name = getattr(work, "__name__", "the function")
    return f"@{method} above {name} needs a schedule: write @jobs.{method}({example})"

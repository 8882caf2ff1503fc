"""`TokenWorker`: of many identical daemons, one does the work. The idea is from the Ruby gem Politics."""

import functools
import logging
import random
from collections.abc import Callable, Sequence

from election import BadPolicy, Candidate, Event, LeasePolicy, Register
from election.clock import Clock, SystemClock
from election.events import OnEvent
from politics.group.peers import Peer
from politics.settings import choose_store, heartbeat, open_store
from politics.worker.agenda import Agenda, SlotAgenda, TickAgenda
from politics.worker.daemon import Daemon, begin, process
from politics.worker.duty import Work
from politics.worker.mistakes import (
    METHODS,
    check_policies,
    is_async,
    refuse_event_loop,
    refuse_misspellings,
    refuse_what_a_call_does_not_run,
)
from politics.worker.run import Announcer, Run
from politics.worker.schedule import Cron
from politics.worker.term import Term
from politics.worker.ticks import Rules, check_seconds, make_rules

log = logging.getLogger("politics")


class TokenWorker(Daemon):
    """A daemon of which many copies run and one works: every `iteration_length` seconds, or as a `schedule` says.

    Subclass it and override `perform`, or pass the work to `process`. Set class attributes, or pass keyword arguments,
    which override them. Constructing does no I/O.

    Args:
        group: the name that all copies share; required, here or on the class. Printable, at most 80 bytes.
        iteration_length: seconds from one slot of work to the next (60). May be hours: a dead leader is replaced
            within `lease_ttl` all the same.
        schedule: instead of `iteration_length`: when to work, as a cron expression of five fields, or of six with
            seconds first, or `@daily` and the like. Each instant is a tick, which is run once.
        timezone: the time zone of the schedule ("UTC").
        catch_up: what to do about ticks that nobody could run in time: "latest" runs the last one (default), "all" runs
            each, the last hundred at most, "skip" none.
        deadline: seconds after which a tick is not begun any more; None: it is begun however late.
        jitter: seconds; each tick begins up to so much later, as its name decides, so that many groups do not begin at
            the same moment (0).
        servers: memcached servers, each `host:port`. Several share the groups among them; they are not replicas.
        store: the store's URL, or a `Register`; instead of `servers`. Default: `$POLITICS_STORE`, else a file of this
            user, which elects a leader of this machine.
        lease_ttl: seconds after which a silent leader is replaced (10); the same for the whole group.
        sticky: keep a healthy leader from slot to slot, instead of a new race for each (False).
        on_failover: what to do with a slot that a leader left unfinished: "rerun" (default) or "skip".
        on_error: what to do with a slot whose work raises an error: it is "done" (default), or "retry": it counts as
            interrupted, this worker hands over, and whoever leads next runs the slot again. The worker that failed
            pauses before it campaigns again, longer with each failure.
        grace: seconds that the work may take to return once it is asked to stop, still renewed (10).
        on_event: called instead of the method of this name.
        announce: tell the other members on this network of this one, and hear them (True).

    Raises:
        BadPolicy, BadStoreURL: a value that cannot work; the message names it.
    """

    group: str = ""
    iteration_length: float = 60.0
    schedule: str | None = None
    timezone: str = "UTC"
    catch_up: str = "latest"
    deadline: float | None = None
    jitter: float = 0.0
    servers: Sequence[str] | None = None
    store: str | Register | None = None
    lease_ttl: float = 10.0
    sticky: bool = False
    on_failover: str = "rerun"
    on_error: str = "done"
    grace: float = 10.0
    announce: bool = True
    _run: Run | None = None

    def __init__(
        self,
        *,
        group: str | None = None,
        iteration_length: float | None = None,
        schedule: str | None = None,
        timezone: str | None = None,
        catch_up: str | None = None,
        deadline: float | None = None,
        jitter: float | None = None,
        servers: Sequence[str] | None = None,
        store: str | Register | None = None,
        lease_ttl: float | None = None,
        sticky: bool | None = None,
        on_failover: str | None = None,
        on_error: str | None = None,
        grace: float | None = None,
        on_event: OnEvent | None = None,
        announce: bool | None = None,
    ) -> None:
        given = {
            "group": group,
            "iteration_length": iteration_length,
            "schedule": schedule,
            "timezone": timezone,
            "catch_up": catch_up,
            "deadline": deadline,
            "jitter": jitter,
            "lease_ttl": lease_ttl,
            "sticky": sticky,
            "on_failover": on_failover,
            "on_error": on_error,
            "grace": grace,
            "on_event": on_event,
            "announce": announce,
        }
        refuse_misspellings(TokenWorker, type(self))
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)
        if servers is not None or store is not None:
            self.servers, self.store = servers, store
        for what in ("iteration_length", "grace"):
            check_seconds(what, getattr(self, what))
        for what in ("sticky", "announce"):
            if not isinstance(value := getattr(self, what), bool):  # a text such as "no" would count as true
                raise BadPolicy(f"{what} must be True or False, not {value!r}")
        check_policies(self.on_failover, self.on_error, "slot")
        if not self.group:
            raise BadPolicy(f"{type(self).__name__} needs a group: set it on the class or pass group=")
        if self.announce:
            heartbeat()  # a mistake in it is told here, not in the middle of the first run
        self.policy = LeasePolicy(ttl=self.lease_ttl)
        self._rules = self._read_schedule()
        self._register = open_store(choose_store(self.store, self.servers))
        self._candidate = Candidate(
            self._register, self.group, self.policy, on_event=lambda event: self.on_event(event)
        )
        self._clock: Clock = SystemClock()
        self._chance: Callable[[], float] = random.random

    # What subclasses override; all of it is called on the worker's own thread.

    def perform(self, term: Term) -> object:
        """Do the work of one slot or tick; called on the leader, once for each. It may be `async def`, no generator.

        An async one runs in an event loop of the worker's thread, made for this call. When `term.lost` is set, its task
        is cancelled.

        Return: the slot is done. Raise `LeadershipLost` (`term.check()` does): it was interrupted. Raise anything
        else: it is logged, `on_error` says what the slot counts as, and the worker lives on.
        """

    def eligible(self) -> bool:
        """Whether this worker may lead; asked at each look at the lease, and between two slots of a sticky leader."""
        return True

    def on_elected(self, term: Term) -> None:
        """Leadership began."""

    def on_lost(self, term: Term) -> None:
        """Leadership ended, by itself or not; the work has returned."""

    def on_event(self, event: Event) -> object:
        """Something happened, to be counted or shown. Called in several threads; return at once, or renewals wait."""

    def peers(self) -> tuple[Peer, ...]:
        """Return the group's other members, as they were last heard. These are hints.

        Empty while this worker does not run or announce.
        """
        run = self._run
        return run.announcer.peers() if run and run.announcer else ()

    # Running.

    def process(self, work: Work | None = None) -> None:
        """Campaign and work until `stop`, SIGTERM or SIGINT; call it on the main thread to have signals handled.

        The first signal sets `term.lost` and leaves the work `grace` seconds, the second ends the wait at once. If no
        log is configured, one line on standard error says when this worker is elected for the first time.

        Raises:
            RuntimeError: the worker runs already, or this thread runs an event loop, which would stand still.
            BadPolicy: there is no work, or calling it would run nothing; or the class's `__init__` forgot
                `super().__init__()`. The message says which.
            SystemExit: the work raised it, or has not returned within `grace` (status 124), and ends with the process.
        """
        refuse_event_loop("process()")
        process([lambda finished: self._begin(work, finished, aloud=True)])

    def start(self, work: Work | None = None) -> None:
        """Campaign and work in a thread, and return at once. `with worker:` starts it, and stops it at the end.

        When the interpreter exits, a worker that still runs is stopped as by `stop()`.

        Raises:
            RuntimeError, BadPolicy: as for `process`.
        """
        self._begin(work, lambda: None)

    def _begin(self, work: Work | None, finished: Callable[[], None], aloud: bool = False) -> Run:
        if self.running:
            raise RuntimeError(f"the worker of {self.group!r} runs already")
        name = type(self).__name__
        if not hasattr(self, "_candidate"):
            raise BadPolicy(f"{name}.__init__ must call super().__init__(), with the arguments of a TokenWorker")
        functions = [(method, getattr(self, method)) for method in METHODS if method != "perform"]
        functions.append(("the work", work) if work else ("perform", self.perform))
        refuse_what_a_call_does_not_run(name, functions, work=functions[-1][0])
        if work is None and type(self).perform is TokenWorker.perform:
            raise BadPolicy(f"{name} has no work: override perform(term) or pass process(work)")
        work = work or self.perform
        if is_async(work):
            from politics.worker.awaiting import awaited  # here, since only async work needs asyncio

            work = awaited(work)

        def close() -> None:
            if self._register is not self.store:  # otherwise it is the caller's, and may have other users
                self._register.close()
            finished()

        rerun = self.on_failover == "rerun"
        agenda: Agenda
        if self._rules:
            remembers = self._register.shard(self.group).remembers
            agenda = TickAgenda(self._rules, self.policy, self._clock, remembers)
        else:
            agenda = SlotAgenda(self.iteration_length, self.policy, self._clock, rerun=rerun, sticky=self.sticky)
        self._run = Run(
            self,
            work,
            agenda,
            self._candidate,
            clock=self._clock,
            announcer=self._announcer() if self.announce else None,
            finished=close,
            chance=self._chance,
            aloud=aloud,
        )
        begin(self._run)
        return self._run

    def _announcer(self) -> Announcer:
        from politics.group.membership import Membership  # here, since only those who announce need multicast DNS

        return Membership(self._candidate, self._register, closes=self._register is not self.store)

    def _read_schedule(self) -> Rules | None:
        """Return the rules of the schedule; None if there is none.

        Raises:
            BadPolicy: a setting of the schedule cannot work.
        """
        of_schedule = {name: getattr(self, name) for name in ("timezone", "catch_up", "deadline", "jitter")}
        if self.schedule is None:
            for name, value in of_schedule.items():
                if value != getattr(TokenWorker, name):
                    raise BadPolicy(f"{name}={value!r} is for a schedule, and {type(self).__name__} has none")
            return None
        if "iteration_length" in vars(self) or self.iteration_length != TokenWorker.iteration_length:
            raise BadPolicy(
                f"{type(self).__name__} has both schedule={self.schedule!r} and "
                f"iteration_length={self.iteration_length!r}: choose one"
            )
        return make_rules(
            self.group,
            Cron(self.schedule, self.timezone),
            catch_up=self.catch_up,
            deadline=self.deadline,
            jitter=self.jitter,
            lease_ttl=self.lease_ttl,
            rerun=self.on_failover == "rerun",
        )

    def __repr__(self) -> str:
        what = f"schedule={self.schedule!r}" if self.schedule else f"iteration_length={self.iteration_length:g}"
        return f"<{type(self).__name__} group={self.group!r} {what}>"


def process_all(workers: Sequence[Daemon]) -> None:
    """Campaign and work with several workers in one process, as `TokenWorker.process` does with one.

    A signal stops all of them, and so does one that fails.

    Raises:
        RuntimeError, BadPolicy, SystemExit: as for `TokenWorker.process`.
    """
    refuse_event_loop("process_all()")
    process([functools.partial(worker._begin, None, aloud=True) for worker in workers])

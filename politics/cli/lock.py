"""`politics lock`: run a command while a lease is held."""

import contextlib
import os
import queue
import random
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import typer

from discovery.signals import SignalQueue
from election import Candidate, LeadershipLost, LeasePolicy, LeaseTerm, NotElected, StoreUnavailable
from election.clock import SystemClock, wall_ms
from election.rules import View
from politics.cli.common import ServersOption, StoreOption, complain, pause, register_of, when_the_store_answers
from politics.command.job import Job
from politics.command.leases import RAN, carried, held, ran_within

# As in sysexits.h, and as timeout(1), env(1) and shells have it; 77 is how a test says that it was skipped.
STORE_UNAVAILABLE, NOT_ACQUIRED, SKIPPED, LEASE_LOST, NOT_EXECUTABLE, NOT_FOUND = 69, 75, 77, 124, 126, 127
PASSED_ON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip
MAX_PERMITS = 1000
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST = 28 * 86_400
"""Seconds that `--once-per` and `--hold` may be long. memcached forgets a record that nobody writes for 30 days."""


class Skipped(Exception):
    """The command has run well already."""


def seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `15m`, `12h` or `1d`."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", text)
    result = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < result <= LONGEST:
        raise typer.BadParameter(f"{text!r} is not a time such as 90s, 15m, 12h or 1d, of 28 days at most")
    return result


WaitOption = Annotated[
    float | None,
    typer.Option(
        help="How long to wait for a holder that is alive. 0 tries once.",
        metavar="SECONDS",
        show_default="as long as it takes",
    ),
]
HoldOption = Annotated[
    float | None,
    typer.Option(
        parser=seconds,
        help="Keep the lease for this long from the start, also when COMMAND has ended earlier.",
        metavar="TIME",
        show_default="no longer than COMMAND runs",
    ),
]
OncePerOption = Annotated[
    float | None,
    typer.Option(
        parser=seconds,
        help="Do not run COMMAND if a run that ended well began within this time, less a tenth.",
        metavar="TIME",
        show_default="run it each time",
    ),
]
PermitsOption = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--permits",
        help="Let this many run at once. The same for all.",
        metavar="PERMITS",
        min=1,
        max=MAX_PERMITS,
        show_default="one",
    ),
]


class LostFlag(Protocol):
    """What `lost` is."""

    def is_set(self) -> bool: ...


class Held(Protocol):
    """What a command may depend on: the term of a lease, or a loan."""

    @property
    def name(self) -> str: ...
    @property
    def lost(self) -> LostFlag: ...
    @property
    def reason(self) -> str: ...
    def remaining(self) -> float: ...


def lock(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the lease.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The command to run.")],
    store: StoreOption = None,
    servers: ServersOption = None,
    ttl: Annotated[
        float,
        typer.Option(help="A silent holder is replaced after this time. The same for all.", metavar="SECONDS"),
    ] = 10.0,
    wait: WaitOption = None,
    hold: HoldOption = None,
    once_per: OncePerOption = None,
    permits: PermitsOption = None,
) -> None:
    """Run COMMAND while holding the lease NAME.

    On all machines together, one COMMAND runs at a time. It finds the fence of the lease in $POLITICS_FENCE, and its
    name in $POLITICS_LOCK.

    For a job that cron starts on several machines use --once-per, with the period of the job: 90s, 15m, 12h, 1d. With
    --wait 0 alone, a short job runs once on each machine, one after the other.

    COMMAND never outlives the lease. If the lease cannot be renewed, COMMAND and all that it started get SIGTERM while
    a third of the lease is left, and SIGKILL while a sixth is left. When COMMAND ends, what it left running in its
    process group is ended too.

    The exit status is COMMAND's own, or 128 + n if signal n ended it. Other values: 75 not acquired in time; 77 not run
    because of --once-per; 69 the store did not answer; 124 the lease was lost or asked for, and COMMAND was stopped;
    126 COMMAND cannot be run; 127 COMMAND was not found.

    Example: politics lock backup --once-per 1d -- rsync -a /srv /backup
    """
    if wait is not None and not 0 <= wait < float("inf"):
        raise typer.BadParameter(f"must be a number of seconds, not {wait!r}", param_hint="--wait")
    if once_per is not None and permits is not None:
        raise typer.BadParameter("cannot be combined with --permits", param_hint="--once-per")
    policy = LeasePolicy(ttl=ttl)
    names = [name] if permits is None else [f"{name}/{number}" for number in range(permits)]
    random.shuffle(names)
    with register_of(store, servers) as register, SignalQueue(*collected()) as signals:
        candidates = [Candidate(register, each, policy) for each in names]
        try:
            term = acquire(name, candidates, wait, signals, once_per)
        except Skipped as exc:
            complain(exc)
            raise typer.Exit(SKIPPED) from exc
        except NotElected as exc:
            complain(exc)
            raise typer.Exit(NOT_ACQUIRED) from exc
        except StoreUnavailable as exc:
            complain(exc)
            raise typer.Exit(STORE_UNAVAILABLE) from exc
        with term:
            variables = {"POLITICS_FENCE": str(term.fence), "POLITICS_LOCK": term.name}
            began, began_ms = SystemClock().now(), wall_ms()
            status = run_while(term, policy.ttl, command, variables, signals)
            if status == 0 and once_per is not None:
                record_success(term, began_ms)
            keep(term, began + (hold or 0.0), signals)
        raise typer.Exit(status)


def collected() -> Sequence[int]:
    """Return the signals to handle: all but those that we were started to ignore, for example by nohup(1)."""
    return [*(n for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN), signal.SIGCHLD]


def acquire(
    name: str,
    candidates: Sequence[Candidate],
    wait: float | None,
    signals: SignalQueue,
    once_per: float | None = None,
) -> LeaseTerm:
    """Return the term of the first of these leases that is free.

    It waits `wait` seconds (None: for ever) for holders that are alive. If a holder may have died, it waits until that
    is certain, one lease at most.

    Raises:
        Skipped: a run that began within `once_per` seconds has ended well.
        NotElected: all of them are held.
        StoreUnavailable: the store did not answer in time.
        typer.Exit: a signal arrived.
    """
    clock, policy, first, told = SystemClock(), candidates[0].policy, dict[str, View](), [""]
    end = float("inf") if wait is None else clock.now() + wait

    def say(news: str) -> None:
        if wait != 0 and news != told[-1]:
            complain(news)
            told.append(news)

    def plan(view: View) -> dict[str, int]:
        if age := ran_within(view.record, once_per, wall_ms()):
            raise Skipped(f"{name} is not run: a run that began {age} has ended well")
        return carried(view.record)

    def look_at_each() -> LeaseTerm | None:
        trouble: StoreUnavailable | None = None
        for candidate in candidates:
            try:
                if term := candidate.attempt(plan):
                    return term
                first.setdefault(candidate.name, candidate.view)
            except StoreUnavailable as exc:
                trouble = exc
        if trouble:
            raise trouble
        return None

    while not (term := when_the_store_answers(signals, end, 8 * policy.poll, say)(look_at_each)):
        left = end - clock.now()
        if left <= 0 and all(held(first[each.name], each.view, wall_ms()) for each in candidates):
            raise NotElected(f"{name} is held by {', '.join(str(each.view.record) for each in candidates)}")
        say(f"waiting for {name}")
        pause(signals, policy.poll if left <= 0 else min(policy.poll, left))
    return term


def record_success(term: LeaseTerm, began_ms: int) -> None:
    """Write into the record that a run which began at that moment has ended well; it stays there for later holders."""
    try:
        term.proclaim({RAN: began_ms})
    except LeadershipLost as exc:
        complain(f"it is not recorded that the command ended well, so it may run again: {exc}")
    except StoreUnavailable:
        pass  # it is written with the next renewal, or when the lease is handed over


def keep(term: LeaseTerm, until: float, signals: SignalQueue) -> None:
    """Hold the lease until then, on the system's clock, while it is ours and nobody asks for it; a signal ends it."""
    clock = SystemClock()
    with contextlib.suppress(typer.Exit):
        while not term.lost.is_set() and (left := until - clock.now()) > 0:
            pause(signals, min(left, 0.25))


def run_while(
    held: Held, ttl: float, command: Sequence[str], variables: Mapping[str, str], signals: SignalQueue
) -> int:
    """Run a command as long as something is held, and return the exit status of `politics lock`.

    Args:
        held: what must be held.
        ttl: seconds that it lasts without a renewal.
        command: the command and its arguments.
        variables: added to its environment.
        signals: signals to pass on to the command.
    """
    try:
        job = Job(command, os.environ | variables, SystemClock().now() + held.remaining() - ttl / 6)
    except TimeoutError:
        complain(f"{held.name}: not renewed in time: the command was not started")
        return LEASE_LOST
    except OSError as exc:
        complain(f"cannot run {command[0]}: {exc.strerror}")
        # Nothing has run, so nothing is held: another machine may have the command.
        raise typer.Exit(NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE) from exc
    try:
        return _supervise(job, held, ttl, signals)
    finally:
        job.clear()


def _supervise(job: Job, held: Held, ttl: float, signals: SignalQueue) -> int:
    clock, asked, until = SystemClock(), False, float("inf")
    while (status := job.poll()) is None:
        until = clock.now() + held.remaining() - ttl / 6
        job.until(until)
        if not asked and (held.lost.is_set() or held.remaining() < ttl / 3):
            asked = True
            why = held.reason or f"not renewed, {held.remaining():.1f} s are left"
            job.send(signal.SIGTERM)
            job.send(signal.SIGCONT)
            complain(f"{held.name}: {why}: the command is asked to stop")
        with contextlib.suppress(queue.Empty):
            number = signals.get(timeout=ttl / 20)
            if number != signal.SIGCHLD:
                job.send(number)
    # It may have been the watchdog that ended it.
    late = clock.now() >= until
    if late and not asked:
        complain(f"{held.name}: not renewed in time: the command was killed")
    return LEASE_LOST if asked or late else status

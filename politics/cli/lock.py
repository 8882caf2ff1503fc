"""`politics lock`: run a command while a lease is held."""

import contextlib
import os
import queue
import random
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import typer

from discovery.signals import SignalQueue
from election import Candidate, LeasePolicy, LeaseTerm, NotElected, StoreUnavailable
from election.clock import SystemClock, wall_ms
from election.record import State
from election.rules import View
from politics.cli.common import ServersOption, StoreOption, complain, pause, register_of, when_the_store_answers
from politics.command.job import Job

# As in sysexits.h, and as timeout(1), env(1) and shells have it.
STORE_UNAVAILABLE, NOT_ACQUIRED, LEASE_LOST, NOT_EXECUTABLE, NOT_FOUND = 69, 75, 124, 126, 127
PASSED_ON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip
MAX_PERMITS = 1000

WaitOption = Annotated[
    float | None,
    typer.Option(
        help="How long to wait for a holder that is alive. 0 tries once.",
        metavar="SECONDS",
        show_default="as long as it takes",
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
    permits: PermitsOption = None,
) -> None:
    """Run COMMAND while holding the lease NAME.

    On all machines together, one COMMAND runs at a time. It finds the fence of the lease in $POLITICS_FENCE, and its
    name in $POLITICS_LOCK.

    COMMAND never outlives the lease. If the lease cannot be renewed, COMMAND and all that it started get SIGTERM while
    a third of the lease is left, and SIGKILL while a sixth is left. When COMMAND ends, what it left running in its
    process group is ended too.

    The exit status is COMMAND's own, or 128 + n if signal n ended it. Other values: 75 not acquired in time; 69 the
    store did not answer; 124 the lease was lost or asked for, and COMMAND was stopped; 126 COMMAND cannot be run;
    127 COMMAND was not found.

    Example: politics lock nightly-backup --wait 0 --servers 10.0.0.5:11211 -- rsync -a /srv /backup
    """
    if wait is not None and not 0 <= wait < float("inf"):
        raise typer.BadParameter(f"must be a number of seconds, not {wait!r}", param_hint="--wait")
    policy = LeasePolicy(ttl=ttl)
    names = [name] if permits is None else [f"{name}/{number}" for number in range(permits)]
    random.shuffle(names)
    with register_of(store, servers) as register, SignalQueue(*collected()) as signals:
        candidates = [Candidate(register, each, policy) for each in names]
        try:
            term = acquire(name, candidates, wait, signals)
        except NotElected as exc:
            complain(exc)
            raise typer.Exit(NOT_ACQUIRED) from exc
        except StoreUnavailable as exc:
            complain(exc)
            raise typer.Exit(STORE_UNAVAILABLE) from exc
        with term:
            variables = {"POLITICS_FENCE": str(term.fence), "POLITICS_LOCK": term.name}
            raise typer.Exit(run_while(term, policy.ttl, command, variables, signals))


def collected() -> Sequence[int]:
    """Return the signals to handle: all but those that we were started to ignore, for example by nohup(1)."""
    return [*(n for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN), signal.SIGCHLD]


def acquire(name: str, candidates: Sequence[Candidate], wait: float | None, signals: SignalQueue) -> LeaseTerm:
    """Return the term of the first of these leases that is free.

    It waits `wait` seconds (None: for ever) for holders that are alive. If a holder may have died, it waits until that
    is certain, one lease at most.

    Raises:
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

    def look_at_each() -> LeaseTerm | None:
        trouble: StoreUnavailable | None = None
        for candidate in candidates:
            try:
                if term := candidate.attempt():
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


def held(first: View, view: View, wall_ms: int) -> bool:
    """Return whether the holder of a lease seems to be alive: its record has changed, or its date is recent.

    This decides only whether to wait. The lease is taken by the rules of the election, which read no date. Without
    this, a command that is started again and again, and never waits, would never replace a holder that has died.

    Args:
        first: our first look at the lease.
        view: our last look.
        wall_ms: the wall clock, in milliseconds.
    """
    record = view.record
    if record is None or record.state is not State.HELD:
        return False
    changed = first.record is not None and first.record.key != record.key
    return changed or abs(wall_ms - record.at_ms) < record.ttl_ms


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
        return NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE
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

"""`politics lock`: run a command while a lease is held."""

import contextlib
import os
import queue
import random
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import typer

from election import Candidate, LeasePolicy, LeaseTerm, NotElected, StoreUnavailable
from election.clock import SystemClock, wall_ms
from election.record import State
from election.rules import View
from politics.cli.common import ServersOption, StoreOption, app, complain, register_of
from politics.command.job import Job
from politics.signals import Inbox

# As in sysexits.h, and as timeout(1), env(1) and shells have it.
STORE_UNAVAILABLE, NOT_ACQUIRED, LEASE_LOST, NOT_EXECUTABLE, NOT_FOUND = 69, 75, 124, 126, 127
PASSED_ON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip
MAX_PERMITS = 1000


class Held(Protocol):
    """What a command may depend on: a term, or a loan."""

    @property
    def name(self) -> str: ...
    @property
    def lost(self) -> "Awaitable": ...
    @property
    def reason(self) -> str: ...
    def remaining(self) -> float: ...


class Awaitable(Protocol):
    """Something like an event."""

    def is_set(self) -> bool: ...


@app.command()
def lock(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The lease.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run meanwhile.")],
    store: StoreOption = None,
    servers: ServersOption = None,
    ttl: Annotated[
        float,
        typer.Option(help="Seconds after which a silent holder is replaced; the same for all.", metavar="SECONDS"),
    ] = 10.0,
    wait: Annotated[
        float | None,
        typer.Option(
            help="Seconds to wait for a holder that is alive; 0: try once.",
            metavar="SECONDS",
            show_default="as long as it takes",
        ),
    ] = None,
    permits: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--permits",
            help="Let up to this many run at once; the same for all.",
            metavar="PERMITS",
            min=1,
            max=MAX_PERMITS,
            show_default="one",
        ),
    ] = None,
) -> None:
    """Run COMMAND while holding the lease NAME; on all machines together, one at a time.

    When the lease cannot be renewed, COMMAND and all that it started gets SIGTERM while a third of the lease is left,
    and SIGKILL while a sixth is left: it never outlives the lease. It finds the fence in $POLITICS_FENCE, and the
    lease's name in $POLITICS_LOCK. What it leaves running in its process group is ended with it.

    The exit status is COMMAND's (128 + n after signal n), or: 75 not acquired in time, 69 the store does not answer,
    124 the lease was lost or asked for and COMMAND was stopped, 126 COMMAND cannot be run, 127 COMMAND not found.

    Example: politics lock nightly-backup --wait 0 --servers 10.0.0.5:11211 -- rsync -a /srv /backup
    """
    if wait is not None and not 0 <= wait < float("inf"):
        raise typer.BadParameter(f"--wait must be a number of seconds, not {wait!r}")
    policy = LeasePolicy(ttl=ttl)
    names = [name] if permits is None else [f"{name}/{number}" for number in range(permits)]
    random.shuffle(names)
    with register_of(store, servers) as register, Inbox(*collected()) as inbox:
        candidates = [Candidate(register, each, policy) for each in names]
        try:
            term = acquire(name, candidates, wait, inbox)
        except NotElected as exc:
            complain(exc)
            raise typer.Exit(NOT_ACQUIRED) from exc
        except StoreUnavailable as exc:
            complain(exc)
            raise typer.Exit(STORE_UNAVAILABLE) from exc
        with term:
            variables = {"POLITICS_FENCE": str(term.fence), "POLITICS_LOCK": term.name}
            raise typer.Exit(run_while(term, policy.ttl, command, variables, inbox))


def collected() -> Sequence[int]:
    """What we want to hear of: but for what we were started to ignore, as by nohup(1)."""
    return [*(n for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN), signal.SIGCHLD]


def acquire(name: str, candidates: Sequence[Candidate], wait: float | None, inbox: Inbox) -> LeaseTerm:
    """The first of these leases that is free; waits `wait` seconds (None: for ever) where holders are alive.

    Where there may be none, it goes on until that is certain: a lease's time at most.

    Raises:
        NotElected: all of them are held.
        StoreUnavailable: the store did not answer in time.
        typer.Exit: a signal came.
    """
    clock, first, told = SystemClock(), dict[str, View](), ""
    end = float("inf") if wait is None else clock.now() + wait
    while True:
        trouble: StoreUnavailable | None = None
        for candidate in candidates:
            try:
                if term := candidate.attempt():
                    return term
                first.setdefault(candidate.name, candidate.view)
            except StoreUnavailable as exc:
                trouble = exc
        late, views = clock.now() >= end, [candidate.view for candidate in candidates]
        if late and trouble:
            raise trouble
        if late and all(held(first[each.name], each.view, wall_ms()) for each in candidates):
            raise NotElected(f"{name} is held by {', '.join(str(view.record) for view in views)}")
        news = f"waiting for the store: {trouble}" if trouble else f"waiting for {name}"
        if wait != 0 and news != told:
            complain(news)
            told = news
        pause = candidates[0].policy.poll
        with contextlib.suppress(queue.Empty):
            number = inbox.get(timeout=pause if late else min(pause, end - clock.now()))
            if number not in (signal.SIGCHLD, signal.SIGWINCH):
                raise typer.Exit(128 + number)


def held(first: View, view: View, wall_ms: int) -> bool:
    """Whether the holder of a lease seems to be alive: its record has changed since we came, or is fresh by its date.

    Only a reason not to wait: the lease is taken by the election's own rules, which read no date. Without this, one who
    comes again and again and never stays would never replace a holder that has died.
    """
    record = view.record
    if record is None or record.state is not State.HELD:
        return False
    changed = first.record is not None and first.record.key != record.key
    return changed or abs(wall_ms - record.at_ms) < record.ttl_ms


def run_while(held: Held, ttl: float, command: Sequence[str], variables: Mapping[str, str], inbox: Inbox) -> int:
    """Run the command while it is held, with these variables in its environment; the exit status for all."""
    try:
        job = Job(command, os.environ | variables)
    except OSError as exc:
        complain(f"cannot run {command[0]}: {exc.strerror}")
        return NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE
    try:
        return _supervise(job, held, ttl, inbox)
    finally:
        job.clear()


def _supervise(job: Job, held: Held, ttl: float, inbox: Inbox) -> int:
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
            number = inbox.get(timeout=ttl / 20)
            if number != signal.SIGCHLD:
                job.send(number)
    # Had it been left running until then, it would have been killed: perhaps it was.
    late = clock.now() >= until
    if late and not asked:
        complain(f"{held.name}: not renewed in time: the command was killed")
    return LEASE_LOST if asked or late else status

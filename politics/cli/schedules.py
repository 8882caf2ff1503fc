"""What operators do about schedules: `politics next`, `trigger`, `pause` and `resume`."""

import heapq
import itertools
import json
import math
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from shlex import quote
from typing import Annotated, Any

import typer

from discovery.signals import SignalQueue
from election import ElectionError, Register, StoreUnavailable, look
from election.cell import order
from election.clock import SystemClock, wall_ms
from election.record import Record, State
from politics.cli import common
from politics.cli.common import (
    ServersOption,
    StoreOption,
    aligned,
    complain,
    out,
    register_of,
    span,
    when_the_store_answers,
)
from politics.cli.run import load, saying_whose_error
from politics.cli.status import lease_left
from politics.worker import Scheduler
from politics.worker.agenda import PAUSED, TRIGGER, text_of
from politics.worker.schedule import YEAR_9999, Cron, as_time
from politics.worker.slots import read_note as read_slot
from politics.worker.ticks import FAILED, INTERRUPTED, RAN, RUNNING, Rules, read_note

LOOK = 0.1
"""Seconds between two looks at the record."""
LONGEST = 2.0
"""Seconds at most between two looks while the store does not answer."""
NOT_YET = 75
"""The exit status if it has not ended in time, as of `politics lock`."""

ENDS = {FAILED: "failed", INTERRUPTED: "was interrupted"}

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="The group of the workers.")]


class NoOrder(ElectionError):
    """The group cannot be given an order; the message says why, and what to do."""


def next(  # noqa: A001 (this is what the command is called)
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A worker or Scheduler, path/to/file.py:NAME or package.module:NAME; or a cron expression in quotes.",
        ),
    ],
    number: Annotated[int, typer.Option("-n", "--number", help="How many.", metavar="NUMBER", min=1, max=10_000)] = 5,
    after: Annotated[
        str | None,
        typer.Option(help="Begin after this one: 2026-11-24T03:00:00Z.", metavar="INSTANT", show_default="now"),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="The time zone of a cron expression.", metavar="NAME", show_default="UTC"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array of instants in UTC.")] = False,
) -> None:
    """Show the next ticks of a schedule.

    Each has one line: the time in the schedule's zone, the instant in UTC, and how long it is until then. For the jobs
    of a Scheduler the name of the job follows.

    The command imports the worker's class and makes a worker, as `politics run` does. It does not ask the store.

    Example: politics next "0 3 * * 1-5" --timezone Europe/Berlin
    """
    begin = _instant(after) if after is not None else wall_ms()
    schedules = _schedules_of(target, timezone)
    each = [_ticks(rules, begin) for rules in schedules]
    found = list(itertools.islice(heapq.merge(*each, key=lambda pair: pair[0]), number))
    if as_json:
        out.print(json.dumps([text_of(tick) for tick, _ in found]))
        return
    several = len(schedules) > 1
    for line in aligned([_row(tick, rules, named=several) for tick, rules in found]) if found else ():
        out.print(line)
    if len(found) < number:
        out.print("there are no more")
    for rules in schedules:
        if rules.jitter:
            whose = f"each of {rules.group}" if several else "each"
            out.print(f"{whose} begins up to {rules.jitter / 1000:g} s later: that is the jitter")


def _ticks(rules: Rules, begin: int) -> Iterator[tuple[int, Rules]]:
    """Yield the ticks after that instant, and whose they are."""
    return ((tick, rules) for tick in itertools.takewhile(lambda tick: tick < YEAR_9999, rules.schedule.after(begin)))


def _instant(text: str) -> int:
    """Return an instant that was typed, in milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            whole = moment.isoformat()
            raise typer.BadParameter(
                f"--after {text!r} does not say in which time zone: write {whole}Z for UTC, or {whole}+01:00"
            )
        instant = math.floor(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise typer.BadParameter(f"--after {text!r} is no instant; write it as in 2026-11-24T03:00:00Z") from exc
    if not 0 <= instant < YEAR_9999:
        raise typer.BadParameter(f"--after {text!r} must be from 1970 to 9998")
    return instant


def _schedules_of(target: str, timezone: str | None) -> list[Rules]:
    """Return the schedules that are meant: of an expression, of a worker, or of each job of a scheduler.

    Raises:
        BadPolicy: the expression or the zone is wrong.
        typer.BadParameter: there is no such class, or it has no schedule.
    """
    if ":" not in target and (" " in target.strip() or target.startswith("@")):
        return [Rules(target, Cron(target, timezone or "UTC"))]
    if timezone is not None:
        raise typer.BadParameter("--timezone is for a cron expression; the class of a worker says its own")
    os.environ.setdefault("POLITICS_STORE", "memory://")  # a worker that names no store must not be told of it here
    with saying_whose_error(target):
        found = load(target)
        worker = found if isinstance(found, Scheduler) else found()
    if isinstance(worker, Scheduler):
        if not worker.jobs:
            raise typer.BadParameter(f"{target} has no jobs: write @jobs.cron(...) above a function")
        return [job.rules for job in worker.jobs.values()]
    if (rules := worker._rules) is None:
        raise typer.BadParameter(
            f"{target} has no schedule: it works every {worker.iteration_length:g} s, from when its first leader began"
        )
    return [rules]


def _row(tick: int, rules: Rules, *, named: bool) -> tuple[str, ...]:
    """Return a tick for people: the time there, the instant in UTC, the distance from now, and whose it is."""
    there = as_time(tick).astimezone(rules.schedule.zone)
    millis = f"{there:.%f}"[:4] if tick % 1000 else ""
    left = (tick - wall_ms()) / 1000
    away = f"in {span(left)}" if left >= 0 else f"{span(-left)} ago"
    return f"{there:%a %Y-%m-%d %H:%M:%S}{millis} {there:%Z}", text_of(tick), away, *[rules.group] * named


def pause(group: GroupArgument, store: StoreOption = None, servers: ServersOption = None) -> None:
    """Let GROUP skip its ticks or slots, until `politics resume`.

    The order is kept in the group's record, and each leader carries it on. The leader finds it within a second or two.
    What comes due meanwhile is skipped, with an event and a line in the log, and is not made up for. Work that runs
    goes on, and work that a dead leader left unfinished is run again. `politics trigger` works all the same.

    The order is lost if the store loses the record together with the leader.
    """
    with register_of(store, servers) as register:
        if _order(register, group, {PAUSED: True}).get(PAUSED):
            out.print(f"{group} is paused already")
        else:
            out.print(f"{group} is paused: what comes due is skipped, until you say: politics resume {quote(group)}")


def resume(group: GroupArgument, store: StoreOption = None, servers: ServersOption = None) -> None:
    """Let GROUP go on after `politics pause`.

    The leader finds the order within a second or two. What was skipped is not made up for.
    """
    with register_of(store, servers) as register:
        if _order(register, group, {PAUSED: None}).get(PAUSED):
            out.print(f"{group} goes on with what comes due next")
        else:
            out.print(f"{group} is not paused")


def trigger(
    group: GroupArgument,
    store: StoreOption = None,
    servers: ServersOption = None,
    wait: Annotated[
        float | None,
        typer.Option(
            help="How long to wait until it has ended; 0: only order it.",
            metavar="SECONDS",
            show_default="as long as it takes",
        ),
    ] = None,
) -> None:
    """Let the leader of GROUP run the work of its schedule now, once.

    The order is kept in the group's record. Whoever leads carries it out once, also while the group is paused: after
    the work that runs, and after ticks that are due. If nobody leads, the next leader does.

    The command says who runs the work, waits for the end, and says how it ended. Ctrl-C ends the waiting, and takes
    nothing back.

    Exit status 0 means that the work ran, or with --wait 0 that it is ordered; 1 that it failed or was interrupted; 75
    that it has not ended in time.
    """
    if wait is not None and not 0 <= wait < math.inf:
        raise typer.BadParameter(f"must be a number of seconds, not {wait!r}", param_hint="--wait")
    identity = secrets.token_hex(4)
    with register_of(store, servers) as register, SignalQueue(signal.SIGINT, signal.SIGTERM) as signals:
        _order(register, group, {TRIGGER: identity}, scheduled=True)
        out.print(f"ordered that {group} runs now")
        if wait != 0:
            raise typer.Exit(_Run(register, group, identity, signals).follow(wait))


def _order(register: Register, group: str, orders: Mapping[str, Any], *, scheduled: bool = False) -> Mapping[str, Any]:
    """Change orders of a group, None for one that is taken back; return those before.

    Raises:
        NoOrder: there is no record, it is not that of a worker, it is `scheduled` that is wanted and the group has no
            schedule, or the store fell silent after the order was sent.
    """
    before: Mapping[str, Any] | None = None

    def change(record: Record) -> Mapping[str, Any]:
        nonlocal before
        other = read_slot(record.note, 0.0, math.inf)
        if record.state is State.HELD and read_note(record.note) is None and not other:
            raise NoOrder(f"{record} holds {group!r} and is no worker, so there is nothing that could heed the order")
        if scheduled and read_note(record.note) is None:
            raise NoOrder(
                f"{group!r} has no schedule: its workers run every iteration_length, which no order changes"
                if other
                else f"the record of {group!r} tells of no schedule: either its workers have none, or nobody has led "
                "yet; see `politics status`"
            )
        before = record.orders
        return {name: order for name, order in {**before, **orders}.items() if order is not None}

    try:
        record = order(register, group, change)
    except StoreUnavailable as exc:
        if before is None:
            raise
        raise NoOrder(
            f"{exc}; the order may have been written before: `politics status` shows what became of it"
        ) from exc
    if record is None or before is None:
        raise NoOrder(
            f"there is no record of {group!r} in this store: start a worker of it, or name its store. A job of "
            "a Scheduler has the name of both, as in shop/bill"
        )
    return before


class _Run:
    """A run that was ordered, followed in the record until it has ended."""

    def __init__(self, register: Register, group: str, identity: str, signals: SignalQueue) -> None:
        self._register, self._group, self._identity, self._signals = register, group, identity, signals
        self._told = ""
        self._tick: int | None = None

    def follow(self, wait: float | None) -> int:
        """Follow it for so many seconds, and tell what happens; return the exit status."""
        now = SystemClock().now
        end = math.inf if wait is None else now() + wait
        while True:
            answer = when_the_store_answers(self._signals, end, LONGEST, self._complain)
            if (status := self._look(answer(look, self._register, self._group))) is not None:
                return status
            if now() >= end:
                what = "carried out" if self._tick is None else "finished"
                complain(f"it was not {what} within {wait:g} s; the order stays")
                return NOT_YET
            common.pause(self._signals, min(LOOK, max(0.0, end - now())))

    def _look(self, record: Record | None) -> int | None:
        """Take note of a record; return the exit status if that is the end."""
        tick = read_note(record.note) if record else None
        if record is None or tick is None:
            complain("the order was lost together with the record: say it again")
            return 1
        if tick.trigger != self._identity:
            return self._wait_for_its_turn(record)
        if self._tick is None and tick.at % 1000:
            self._tick = tick.at
        if tick.at != self._tick:
            self._say(f"{record} has run it; a later tick has followed, so see the log for how it ended")
            return 0
        if tick.work == RUNNING:
            self._say(f"{record} runs it as {text_of(tick.at)}")
            return None
        if tick.work == RAN:
            self._say(f"{record} has run it as {text_of(tick.at)}")
            return 0
        complain(f"{record} ran it as {text_of(tick.at)}, and it {ENDS[tick.work]}: the log says why")
        return 1

    def _wait_for_its_turn(self, record: Record) -> int | None:
        other = record.orders.get(TRIGGER)
        if not isinstance(other, str):
            complain("the order was lost together with the record: say it again")
            return 1
        if other != self._identity:
            self._say("somebody else has ordered the same since, and the work runs once for both")
            self._identity = other
        if not lease_left(record, time.time()):
            self._say("nobody leads now: the next leader carries it out")
        return None

    def _say(self, news: str) -> None:
        """Print what is new."""
        if news != self._told:
            out.print(news)
        self._told = news

    def _complain(self, news: str) -> None:
        """Say once that the store is silent."""
        if self._told != "silence":
            complain(news)
        self._told = "silence"

"""`politics resign`: ask the leader to hand over."""

import signal
from typing import Annotated

import typer

from discovery.signals import SignalQueue
from election import ask_to_resign, look
from election.clock import SystemClock
from election.record import State
from politics.cli.common import (
    ServersOption,
    StoreOption,
    complain,
    out,
    pause,
    register_of,
    when_the_store_answers,
)

LOOK = 0.1
"""Seconds between two looks at the record."""
LONGEST = 2.0
"""Seconds at most between two looks while the store does not answer."""


def resign(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group whose leader is asked.")],
    store: StoreOption = None,
    servers: ServersOption = None,
    timeout: Annotated[float, typer.Option(help="How long to wait for the handover.", metavar="SECONDS")] = 30.0,
) -> None:
    """Ask the leader of GROUP to hand over.

    The leader finds the request when it next looks at its lease, within a quarter of a second. It then asks its work
    to stop, and resigns. Any member may be elected next, the same one included.

    The request takes nothing away. A leader that ignores it goes on leading; then this command ends with status 1.
    """
    if not 0 <= timeout < float("inf"):
        raise typer.BadParameter(f"must be a number of seconds, not {timeout!r}", param_hint="--timeout")
    now, told = SystemClock().now, list[str]()

    def say(news: str) -> None:
        if not told:
            complain(news)
        told.append(news)

    with register_of(store, servers) as register, SignalQueue(signal.SIGINT, signal.SIGTERM) as signals:
        asked = ask_to_resign(register, group)
        if asked is None:
            complain(f"nobody leads {group!r}")
            raise typer.Exit(1)
        out.print(f"asked {asked} to hand over {group} …")
        end = now() + timeout
        while now() < end:
            record = when_the_store_answers(signals, end, LONGEST, say)(look, register, group)
            if record is None or record.state is not State.HELD or record.fence != asked.fence:
                out.print(f"{asked} has handed over")
                return
            pause(signals, LOOK)
        complain(f"{asked} has not handed over within {timeout:g} s; it leads as long as it renews its lease")
        raise typer.Exit(1)

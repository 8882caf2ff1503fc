"""`politics resign`: ask the present leader to hand over."""

import threading
import time
from typing import Annotated

import typer

from election import ask_to_resign, look
from election.record import State
from politics.cli.common import ServersOption, StoreOption, app, complain, out, register_of


@app.command()
def resign(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Whose leader.")],
    store: StoreOption = None,
    servers: ServersOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the handover.", metavar="SECONDS")] = 30.0,
) -> None:
    """Ask the present leader of GROUP to hand over.

    The leader finds the request at its next renewal, within a third of its lease, asks its work to stop and resigns.
    Nothing is taken away: a leader that ignores the request goes on leading, and this command says so with exit
    status 1. Anybody may be elected next, that leader included.
    """
    with register_of(store, servers) as register:
        asked = ask_to_resign(register, group)
        if asked is None:
            complain(f"nobody leads {group!r}")
            raise typer.Exit(1)
        out.print(f"asked {asked} to hand over {group} …")
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            record = look(register, group)
            if record is None or record.state is not State.HELD or record.fence != asked.fence:
                out.print(f"{asked} has handed over")
                return
            threading.Event().wait(0.1)
        complain(f"{asked} has not handed over within {timeout:g} s; it leads as long as it renews its lease")
        raise typer.Exit(1)

"""`politics status`: who leads which group."""

import json
import threading
import time
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from election import BadRecord, Register, State, look
from politics.cli.common import ServersOption, StoreOption, app, out, register_of
from politics.settings import default_store


@app.command()
def status(
    groups: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GROUP]...", help="The groups to show; all, where the store can list them."),
    ] = None,
    store: StoreOption = None,
    servers: ServersOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array per look.")] = False,
) -> None:
    """Show who leads: host and process, fence, slot and its state, and the time left of what is proven.

    memcached cannot list what it holds, so with it the groups are named. The times are told by the wall clocks of this
    machine and of the leader's; the election itself never compares clocks.
    """
    with register_of(store, servers) as register:
        where = store or (",".join(servers) if servers else default_store())
        if not groups and register.names() is None:
            raise typer.BadParameter(f"{where} cannot list its groups: name them, as in politics status GROUP")

        def rows() -> list[dict[str, Any]]:
            names = groups or register.names() or []
            return [describe(register, name, where, time.time()) for name in names]

        def show(found: list[dict[str, Any]]) -> Table | str:
            return json.dumps(found) if as_json else table(found)

        if not watch:
            out.print(show(rows()), markup=False)
        elif as_json or not out.is_terminal:
            while True:
                out.print(show(rows()), markup=False)
                threading.Event().wait(1.0)
        else:
            with Live(show(rows()), console=out, auto_refresh=False) as live:
                while True:
                    threading.Event().wait(1.0)
                    live.update(show(rows()), refresh=True)


def describe(register: Register, group: str, where: str, now: float) -> dict[str, Any]:
    """What the store says of one group, as `--json` prints it; `now` is the wall clock in seconds."""
    row: dict[str, Any] = {"group": group, "state": "unknown", "leader": None, "store": where}
    try:
        record = look(register, group)
    except BadRecord as exc:
        return {**row, "state": "unreadable", "trouble": str(exc)}
    if record is None:
        return row
    silent = max(0.0, now - record.at_ms / 1000)
    lease_left = max(0.0, record.ttl - silent) if record.state is State.HELD else 0.0
    return {
        **row,
        "state": "led" if lease_left else "silent" if record.state is State.HELD else record.state.value,
        "leader": {"host": record.host, "pid": record.pid} if record.state is State.HELD else None,
        "fence": record.fence,
        "slot": record.note.get("slot"),
        "work": record.note.get("work"),
        "lease_left": round(lease_left, 3),
        "renewed": round(silent, 3),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table("group", "state", "leader", "fence", "slot", "work", "lease left", "last renewed", "store", box=None)
    for row in rows:
        leader = row["leader"]
        shown.add_row(
            row["group"],
            row.get("trouble") or row["state"],
            f"{leader['host']}:{leader['pid']}" if leader else "-",
            *(str(row.get(key) or "-") for key in ("fence", "slot", "work")),
            f"{row['lease_left']:.1f} s" if leader else "-",
            f"{row['renewed']:.1f} s ago" if "renewed" in row else "-",
            row["store"],
        )
    return shown

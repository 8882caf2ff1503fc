"""`politics status`: who leads each group, and who stands by."""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from discovery.errors import MulticastUnavailable
from discovery.signals import SignalQueue
from election import Register, StoreUnavailable, look
from election.errors import BadRecord
from election.record import State
from politics.cli.common import ServersOption, StoreOption, complain, out, pause, register_of
from politics.group.directory import listening
from politics.group.peers import Peer, stores
from politics.settings import default_store
from politics.worker.slots import read_note


def status(
    groups: Annotated[
        list[str] | None,
        typer.Argument(metavar="GROUP", help="The groups to show. Default: all that the network and the store know."),
    ] = None,
    store: StoreOption = None,
    servers: ServersOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array per look.")] = False,
) -> None:
    """Show who leads each group, and who stands by.

    The store says who leads: host and process, fence, slot and its state, and how much of the lease is left.

    The network says who else is there. The command listens for a second. It shows each member, whether it leads, and
    the identity of its store; SPLIT means that two members of a group use different stores.

    The times compare the wall clock of this machine with that of the leader. The election itself compares no clocks.
    """
    with register_of(store, servers) as register, network() as heard:
        where = store or (",".join(servers) if servers else default_store())
        rows = Rows(register, where, groups or [], heard)

        def show() -> Group | str:
            found = rows.look()
            return json.dumps(found) if as_json else table(found)

        first = show()
        if rows.trouble:
            complain(rows.trouble)
        if not watch:
            out.print(first, markup=False)
            raise typer.Exit(rows.status)
        # Ctrl-C interrupts a look at once. SIGTERM is waited for, so that a terminal gets its cursor back.
        with SignalQueue(signal.SIGTERM) as signals:
            if as_json or not out.is_terminal:
                out.print(first, markup=False)
                while True:
                    pause(signals, 1.0)
                    out.print(show(), markup=False)
            with Live(first, console=out, auto_refresh=False) as live:
                while True:
                    pause(signals, 1.0)
                    live.update(show(), refresh=True)


@contextlib.contextmanager
def network() -> Iterator[Callable[[], list[Peer]]]:
    """Listen inside the block. Yields a function that returns the peers; without multicast it prints why, and none."""
    with contextlib.ExitStack() as stack:
        try:
            heard = stack.enter_context(listening())
        except MulticastUnavailable as exc:
            complain(f"members are not heard: {exc}")
            heard = list
        yield heard


class Rows:
    """The groups, as the store and the network know them, and as `--json` prints them."""

    def __init__(self, register: Register, where: str, groups: list[str], heard: Callable[[], list[Peer]]) -> None:
        self._register, self._where, self._groups, self._heard = register, where, groups, heard
        self.trouble, self.status = "", 0

    def look(self) -> list[dict[str, Any]]:
        """Return a row for each group that was named, or for each that is known if none was."""
        self.trouble, self.status = "", 0
        members: dict[str, list[Peer]] = {}
        for peer in self._heard():
            members.setdefault(peer.group, []).append(peer)
        groups = self._groups or sorted({*members, *self._listed(bool(members))})
        return [self._row(group, members.get(group, [])) for group in groups]

    def _listed(self, heard: bool) -> list[str]:
        """Return the groups that the store can list."""
        try:
            names = self._register.names()
        except StoreUnavailable as exc:
            self._fail(exc, heard)
            return []
        if names is None and not heard:
            self.trouble = f"{self._where} cannot list its groups, and no member is heard: name the groups"
        return list(names or [])

    def _row(self, group: str, members: list[Peer]) -> dict[str, Any]:
        told = {
            "split": len(stores(members)) > 1,
            "members": [
                {"host": peer.host, "pid": peer.pid, "leads": peer.leads, "fence": peer.fence, "store": peer.store}
                for peer in members
            ],
        }
        try:
            row = describe(self._register, group, self._where, time.time())
            identity = self._register.shard(group).identity() if members else ""
        except StoreUnavailable as exc:
            self._fail(exc, bool(members))
            unreachable = {"group": group, "state": "unreachable", "leader": None, "store": self._where}
            return {**unreachable, **told, "elsewhere": False}
        return {**row, **told, "elsewhere": bool(stores(members)) and identity not in stores(members)}

    def _fail(self, exc: StoreUnavailable, heard: bool) -> None:
        """Note what failed. That is no failure of the command if peers are heard, for there is something to show."""
        self.trouble, self.status = str(exc), int(not heard)


def describe(register: Register, group: str, where: str, now: float) -> dict[str, Any]:
    """Return what the store says of one group, as `--json` prints it. `now` is the wall clock in seconds."""
    row: dict[str, Any] = {"group": group, "state": "unknown", "leader": None, "store": where}
    try:
        record = look(register, group)
    except BadRecord as exc:
        return {**row, "state": "unreadable", "trouble": str(exc)}
    if record is None:
        return row
    slot = read_note(record.note, 0.0, math.inf)
    silent = max(0.0, now - record.at_ms / 1000)
    lease_left = max(0.0, record.ttl - silent) if record.state is State.HELD else 0.0
    return {
        **row,
        "state": "led" if lease_left else "silent" if record.state is State.HELD else record.state.value,
        "leader": {"host": record.host, "pid": record.pid} if record.state is State.HELD else None,
        "fence": record.fence,
        "slot": slot.number if slot else None,
        "work": ("done" if slot.done else "running") if slot else None,
        "lease_left": round(lease_left, 3),
        "renewed": round(silent, 3),
    }


def table(rows: list[dict[str, Any]]) -> Group:
    """Return the rows for people: a table of the groups, and below it the store and a line for each member.

    Nothing is cut off, however narrow the terminal is.
    """
    shown = Table(box=None, pad_edge=False)
    for column in ("group", "state", "leader", "fence", "slot", "work", "lease left", "renewed"):
        shown.add_column(column, overflow="fold", no_wrap=column == "fence")
    for row in rows:
        leader = row["leader"]
        cells = (
            row["group"],
            row.get("trouble") or row["state"],
            f"{leader['host']}:{leader['pid']}" if leader else "-",
            *(str(row.get(key) or "-") for key in ("fence", "slot", "work")),
            f"{row['lease_left']:.1f} s" if leader else "-",
            f"{row['renewed']:.1f} s ago" if "renewed" in row else "-",
        )
        shown.add_row(*map(plain, cells))
    places = dict.fromkeys(row["store"] for row in rows)
    below = [f"store: {place}" for place in places] + [f"{row['group']}: {line}" for row in rows for line in lines(row)]
    return Group(shown, *(plain(line) for line in below))


def plain(text: str) -> Text:
    """Return a text in which nothing is markup: names come from strangers."""
    return out.render_str(text, markup=False)


def lines(row: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to say of the members of one group, and a line for each."""
    if row["split"]:
        yield "SPLIT: each store has a leader of its own"
    elif row["elsewhere"]:
        yield "they use another store than the one looked at"
    for member in row["members"]:
        leads = " leads" if member["leads"] else ""
        yield f"{member['host']}:{member['pid']}{leads}, {member['store'][:18] or 'store unknown'}"

"""`politics status`: who leads each group, and who stands by."""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from discovery.errors import MulticastUnavailable
from discovery.signals import SignalQueue
from election import BadPolicy, Register, StoreUnavailable, look
from election.errors import BadRecord
from election.record import Record, State, check_name
from election.stores import redacted
from politics.cli.common import ServersOption, StoreOption, aligned, complain, out, pause, register_of, styled
from politics.group.directory import listening
from politics.group.peers import Peer, stores
from politics.settings import default_store
from politics.worker import ticks
from politics.worker.agenda import PAUSED, text_of
from politics.worker.schedule import YEAR_9999
from politics.worker.slots import read_note


def status(
    groups: Annotated[
        list[str] | None,
        typer.Argument(metavar="GROUP", help="The groups to show. Default: all that the network and the store know."),
    ] = None,
    store: StoreOption = None,
    servers: ServersOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Show fences, when the lease was renewed, and the store of each member too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array per look.")] = False,
) -> None:
    """Show who leads each group, and who stands by.

    The store says who leads: host and process, how much of the lease is left, the slot and its state.

    The network says who else is there. The command listens for a second at most. It shows each member below its group,
    and whether it leads; SPLIT means that two members of a group use different stores.

    The times compare the wall clock of this machine with that of the leader. The election itself compares no clocks.
    """
    with register_of(store, servers) as register, network() as heard:
        where = store or (",".join(servers) if servers else default_store())
        rows = Rows(register, str(redacted(where)), groups or [], heard)

        def show() -> Text | str:
            found = rows.look()
            return json.dumps(found) if as_json else picture(found, wide)

        first = show()
        if rows.trouble:
            complain(rows.trouble)
        if not watch:
            out.print(first)
            raise typer.Exit(rows.status)
        # Ctrl-C interrupts a look at once. SIGTERM is waited for, so that a terminal gets its cursor back.
        with SignalQueue(signal.SIGTERM) as signals:
            if as_json or not out.is_terminal:
                out.print(first)
                while True:
                    pause(signals, 1.0)
                    out.print(show())
            with Live(folded(first), console=out, auto_refresh=False) as live:
                while True:
                    pause(signals, 1.0)
                    live.update(folded(show()), refresh=True)


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
        self._register, self._where, self._groups, self._heard = register, where, [*map(check_name, groups)], heard
        self.trouble, self.status = "", 0

    def look(self) -> list[dict[str, Any]]:
        """Return a row for each group that was named, or for each that is known if none was."""
        self.trouble, self.status = "", 0
        members: dict[str, list[Peer]] = {}
        for peer in self._heard():
            members.setdefault(peer.group, []).append(peer)
        groups = self._groups or sorted({*members, *self._listed(bool(members))})
        rows = [self._row(group, members.get(group, [])) for group in groups]
        if self.status and not rows:
            rows = [{"group": None, **self._unreachable(), "split": False, "members": [], "elsewhere": False}]
        return rows

    def _listed(self, heard: bool) -> list[str]:
        """Return the groups that the store can list."""
        try:
            names = self._register.names()
            if names is None and not heard:
                self.trouble = f"{self._where} cannot list its groups, and no member is heard: name the groups"
                self._register.remembers(0.0)  # to learn whether it answers at all
        except StoreUnavailable as exc:
            self._fail(exc, heard)
            return []
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
            return {"group": group, **self._unreachable(), **told, "elsewhere": False}
        return {**row, **told, "elsewhere": bool(stores(members)) and identity not in stores(members)}

    def _fail(self, exc: StoreUnavailable, heard: bool) -> None:
        """Note what failed. That is no failure of the command if peers are heard, for there is something to show."""
        self.trouble, self.status = str(exc), int(not heard)

    def _unreachable(self) -> dict[str, Any]:
        return {"state": "unreachable", "leader": None, "store": self._where, "trouble": self.trouble}


def describe(register: Register, group: str, where: str, now: float) -> dict[str, Any]:
    """Return what the store says of one group, as `--json` prints it. `now` is the wall clock in seconds."""
    row: dict[str, Any] = {"group": group, "state": "unknown", "leader": None, "store": where}
    try:
        record = look(register, group)
    except (BadRecord, BadPolicy) as exc:  # the store may list what is no name of a group
        return {**row, "state": "unreadable", "trouble": str(exc)}
    if record is None:
        return row
    slot, tick = read_note(record.note, 0.0, math.inf), ticks.read_note(record.note)
    silent, left = silence(record, now), lease_left(record, now)
    return {
        **row,
        "state": "led" if left else "silent" if record.state is State.HELD else record.state.value,
        "leader": {"host": record.host, "pid": record.pid} if record.state is State.HELD else None,
        "fence": record.fence,
        "slot": slot.number if slot else None,
        "work": ("done" if slot.done else "running") if slot else tick.work if tick else None,
        **(of_tick(tick, record.note.get("next")) if tick else {}),
        "paused": bool(record.orders.get(PAUSED)),
        "lease_left": round(left, 3),
        "renewed": round(silent, 3),
    }


def silence(record: Record, now: float) -> float:
    """Return for how many seconds its leader has written nothing, by the wall clocks of both machines."""
    return max(0.0, now - record.at_ms / 1000)


def lease_left(record: Record, now: float) -> float:
    """Return the seconds that are left of the lease, by the wall clocks of both machines; 0.0 if nobody leads."""
    return max(0.0, record.ttl - silence(record, now)) if record.state is State.HELD else 0.0


def of_tick(tick: ticks.Tick, following: object) -> dict[str, Any]:
    """Return what a row says of a schedule: its last tick, and the next one as its leader saw it."""
    usable = type(following) is int and 0 <= following < YEAR_9999
    return {
        "tick": None if tick.work == ticks.NONE else text_of(tick.at),
        "next": text_of(following) if usable and isinstance(following, int) else None,
    }


def picture(rows: list[dict[str, Any]], wide: bool = False) -> Text:
    """Return the rows for people: a line for each group, its members below it, and the store in the last line.

    Nothing is cut off, however narrow the terminal is.
    """
    header = ("group", "state", "left", "slot", *(("fence", "renewed") if wide else ()), "leader")
    lines = aligned([header, *(cells(row, wide) for row in rows)])
    shown = [styled((lines[0], "bold")) if rows else styled("no groups")]
    for row, line in zip(rows, lines[1:], strict=True):
        shown.append(styled(line))
        shown += [styled(f"  {line}") for line in remarks(row, wide)]
    shown += [styled(f"store: {place}") for place in dict.fromkeys(row["store"] for row in rows)]
    return Text("\n").join(shown)


def folded(shown: Text | str) -> Text:
    """Return a picture whose long lines go on in the next one: rich would cut those of a live display."""
    text = Text(shown) if isinstance(shown, str) else shown
    text.no_wrap, text.overflow = False, "fold"
    return text


def cells(row: dict[str, Any], wide: bool) -> tuple[str, ...]:
    """Return the cells of a group's own line; the leader is the last, since it may be long."""
    leader, slot = row["leader"], [str(row[key]) for key in ("slot", "work") if row.get(key)]
    if "tick" in row:
        slot = ["tick", slot[-1]] if row["tick"] else []
    renewed = f"{row['renewed']:.1f} s ago" if "renewed" in row else "-"
    return (
        row["group"] or "-",
        row["state"],
        f"{row['lease_left']:.1f} s" if leader else "-",
        " ".join(slot) or "-",
        *((str(row.get("fence") or "-"), renewed) if wide else ()),
        f"{leader['host']}:{leader['pid']}" if leader else "-",
    )


def remarks(row: dict[str, Any], wide: bool) -> Iterator[str]:
    """Yield what there is to say of one group and its members: a line for each member."""
    if row.get("trouble"):
        yield row["trouble"]
    if row.get("paused"):
        yield "paused: what comes due is skipped"
    if "tick" in row:
        last = f"last tick {row['tick']} ({row['work']})" if row["tick"] else "no tick yet"
        yield f"{last}, next {row['next']}" if row["next"] else last
    if row["split"]:
        yield "SPLIT: each store has a leader of its own"
    elif row["elsewhere"]:
        yield "they use another store than the one looked at"
    for member in row["members"]:
        says = "leads" if member["leads"] else "stands by"
        if wide and member["leads"]:
            says += f" (fence {member['fence']})"
        if wide or row["split"] or row["elsewhere"]:
            says += f", {member['store'] or 'store unknown'}"
        yield f"{member['host']}:{member['pid']} {says}"

"""`politics doctor`: check whether a setup is sound."""

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.table import Table

from discovery.errors import MulticastUnavailable
from election import LeasePolicy, Register
from election.stores.memcached import MemcachedRegister, ShardedRegister
from election.stores.memory import MemoryRegister
from election.stores.quorum import QuorumRegister
from election.stores.sqlite import SQLiteRegister
from politics.cli.common import ServersOption, StoreOption, out, register_of, styled
from politics.doctor import clocks, findings, probe, quorums
from politics.doctor.findings import Finding, Level, MemcachedServer
from politics.doctor.servers import of_any_server
from politics.group.directory import listening
from politics.group.peers import Peer

COLOURS = {Level.FINE: "green", Level.ADVICE: "yellow", Level.DANGER: "red"}
WATCHED = 3.2
"""Seconds for which a server's clock is compared with ours."""


def doctor(
    store: StoreOption = None,
    servers: ServersOption = None,
    lease_ttl: Annotated[float, typer.Option(help="The lease to check for.", metavar="SECONDS")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, an object per finding.")] = False,
) -> None:
    """Check the store, the clocks, the network and the workers.

    It prints a line for each finding, and what to do about it. It takes about five seconds and changes nothing.

    Exit status 1 means that two leaders are possible, or that none is.
    """
    ttl = LeasePolicy(ttl=lease_ttl).ttl
    named = bool(store or servers or os.environ.get("POLITICS_STORE"))
    with register_of(store, servers) as register, _network() as network:
        peers, trouble = network()
        before = probe.looks(register, peers)
        found = [*findings.of_machine(probe.machine()), *_of_store(register, named, ttl, peers)]
        found += clocks.of_clocks([*clocks.compare(before, probe.looks(register, peers))])
        found += findings.of_records(probe.unreadable(register, peers))
        found += findings.of_peers(peers, probe.identities(register, peers), trouble)
    if as_json:
        out.print(json.dumps([dataclasses.asdict(each) for each in found]))
    else:
        for each in found:
            show(each)
    raise typer.Exit(int(any(each.level is Level.DANGER for each in found)))


@contextlib.contextmanager
def _network() -> Iterator[Callable[[], tuple[list[Peer], str]]]:
    """Listen inside the block. Yields a function that returns the peers, and why none can be heard."""
    with contextlib.ExitStack() as stack:
        try:
            heard = stack.enter_context(listening())
        except MulticastUnavailable as exc:
            trouble = str(exc)
            yield lambda: ([], trouble)
        else:
            yield lambda: (heard(), "")


def _of_store(register: Register, named: bool, ttl: float, peers: list[Peer]) -> Iterator[Finding]:
    if isinstance(register, QuorumRegister):
        yield from quorums.of_quorum(probe.quorum(register, peers))
        each = [MemcachedRegister(*address, register.timeout) for address in register.addresses]
        for server in _measured(each):
            yield from findings.of_server(server, ttl, alone=False) if server.reached else ()
    elif isinstance(register, MemcachedRegister | ShardedRegister):
        for server in _measured(register.servers if isinstance(register, ShardedRegister) else [register]):
            yield from findings.of_server(server, ttl)
    elif isinstance(register, SQLiteRegister):
        yield from findings.of_choice("sqlite", named)
        yield from findings.of_file(probe.file(register, ttl), ttl)
    elif isinstance(register, MemoryRegister):
        yield from findings.of_choice("memory", named)
    else:
        yield from of_any_server(probe.any_server(register), ttl)


def _measured(each: list[MemcachedRegister]) -> Iterator[MemcachedServer]:
    """Measure these servers side by side."""
    stop = threading.Event()  # Ctrl-C ends the measurements too, which the pool waits for
    with ThreadPoolExecutor(len(each)) as pool:
        try:
            yield from pool.map(lambda one: probe.server(one, WATCHED, stop), each)
        finally:
            stop.set()


def show(finding: Finding) -> None:
    """Print one line. A terminal gets it wrapped between words, with the text below the text."""
    level = (f"{finding.level:<6}", COLOURS[finding.level])
    text = f"{finding.subject}: {finding.text}" + (f" -> {finding.remedy}" if finding.remedy else "")
    if not out.is_terminal:
        out.print(styled(level, f"  {text}"))
        return
    line = Table.grid(padding=(0, 2))
    line.add_row(styled(level), styled(text))
    out.print(line, soft_wrap=False)

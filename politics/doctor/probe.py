"""Measure what `politics doctor` judges. This module judges nothing."""

import contextlib
import os
import secrets
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from election import Register, StoreUnavailable
from election.cell import read_record
from election.clock import SystemClock
from election.errors import BadRecord
from election.record import is_usable
from election.stores.memcached import MemcachedRegister
from election.stores.quorum.register import IDENTITY, QuorumRegister
from election.stores.sqlite import SQLiteRegister
from politics.doctor.clocks import Look
from politics.doctor.findings import ClockTick, File, Machine, MemcachedServer
from politics.doctor.quorums import Quorum
from politics.doctor.servers import StoreServer
from politics.group.peers import Peer

ROUND_TRIPS = 21
CONNECTIONS = 4
HINTED = 2.0
"""Seconds within which hints arrive, or do not."""
NOBODY = "politics doctor"
"""The name of a cell that nobody has."""
MAX_LISTED = 20_000
MAX_COMPARED = 100
MAX_LINE = 65536
LONGEST = 5.0
"""Seconds for all lines that answer one command."""
# Site-local, and sent with a time to live of 0: it never leaves the machine.
MULTICAST = "239.255.71.71"
IFF_UP, IFF_LOOPBACK, IFF_MULTICAST = 0x1, 0x8, 0x1000

now = SystemClock().now


def machine() -> Machine:
    """Measure this machine."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    slept = time.clock_gettime(boottime) - time.monotonic() if boottime is not None else None
    clock = "CLOCK_BOOTTIME" if boottime is not None else "CLOCK_MONOTONIC"
    macos = os.uname().sysname == "Darwin"
    return Machine(clock, boottime is not None or macos, slept, {name: _hears_itself(name) for name in _interfaces()})


def _interfaces() -> Iterator[str]:
    """Yield the interfaces that are up and do multicast, except the loopback. Works on Linux only."""
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError):
            flags = int(Path(f"/sys/class/net/{name}/flags").read_text(), 16)
            if flags & IFF_UP and flags & IFF_MULTICAST and not flags & IFF_LOOPBACK:
                yield name


def _hears_itself(interface: str) -> bool:
    """Return whether a datagram that we send to a multicast group on this interface arrives at ourselves."""
    where = struct.pack("=4s4si", socket.inet_aton(MULTICAST), bytes(4), socket.if_nametoindex(interface))
    message = secrets.token_bytes(8)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.bind(("", 0))
            ours.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, where)
            ours.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, where)
            ours.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            ours.settimeout(0.2)
            ours.sendto(message, (MULTICAST, ours.getsockname()[1]))
            return ours.recv(64) == message
    except OSError:
        return False


def identities(register: Register, peers: Sequence[Peer]) -> dict[str, str]:
    """Return the identity of the store for each group of these peers, if it answers."""
    found = {}
    for group in {peer.group for peer in peers}:
        with contextlib.suppress(StoreUnavailable):
            found[group] = register.shard(group).identity()
    return found


def unreadable(register: Register, peers: Sequence[Peer]) -> list[str]:
    """Return the groups whose record nobody can read, of those that the store lists and those of these peers."""
    found = list[str]()
    with contextlib.suppress(StoreUnavailable):
        for group in sorted({*(register.names() or ()), *(peer.group for peer in peers)}):
            cell = register.shard(group).read(group)
            if cell and not is_usable(group, cell.data):
                found.append(group)
    return found


def looks(register: Register, peers: Sequence[Peer]) -> list[Look]:
    """Return a look at the record of each group that the store lists and of those of these peers; the first hundred."""
    found = list[Look]()
    with contextlib.suppress(StoreUnavailable):
        for group in sorted({*(register.names() or ()), *(peer.group for peer in peers)})[:MAX_COMPARED]:
            asked = time.time()
            with contextlib.suppress(BadRecord):
                if record := read_record(register.shard(group), group)[0]:
                    found.append(Look(group, record, asked, time.time()))
    return found


def quorum(register: QuorumRegister, peers: Sequence[Peer]) -> Quorum:
    """Measure what each server has in the cells of the groups of these peers, and in that of the register's name."""
    names = [IDENTITY, *sorted({peer.group for peer in peers})[:MAX_COMPARED]]
    return Quorum(
        [f"{host}:{port}" for host, port in register.addresses],
        register.configuration,
        [_ips(host) for host, _ in register.addresses],
        {name: register.sights(name) for name in names},
    )


def _ips(host: str) -> frozenset[str]:
    try:
        return frozenset(str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):  # UnicodeError: what cannot be a host's name
        return frozenset()


def file(register: SQLiteRegister, ttl: float) -> File:
    """Measure an SQLite store, for leases of `ttl` seconds. This creates the file if it does not exist."""
    path = str(register.path)
    try:
        leases = len(list(register.names()))
        trips = tuple(_timed(lambda: _write(register)) for _ in range(ROUND_TRIPS))
        return File(
            path,
            filesystem=_filesystem(register.path),
            old_enough=register.remembers(ttl),
            leases=leases,
            round_trips=trips,
            mode=stat.S_IMODE(register.path.stat().st_mode),
            folder_mode=stat.S_IMODE(register.path.parent.stat().st_mode),
        )
    except (StoreUnavailable, OSError) as exc:
        return File(path, error=str(exc.__cause__ or exc))


def any_server(register: Register) -> StoreServer:
    """Measure a store of any kind through its port. This makes the store's table, or what it has, if it is missing."""
    kind = type(register).__module__.removeprefix("election.stores.").partition(".")[0]
    try:
        identity, names = register.identity(), register.names()
        listed = None if names is None else sorted(names)
        reads = tuple(_timed(lambda: register.version(NOBODY)) for _ in range(ROUND_TRIPS))
        version = register.version(listed[0]) if listed else None
        swaps = tuple[float, ...]()
        if version is not None:
            # A version of another cell is refused, so nothing changes. But it needs the permission to write.
            swaps = tuple(_timed(lambda: register.swap(NOBODY, b"", version)) for _ in range(ROUND_TRIPS))
        generation = "" if version is None else register.generation(version)
        leases = None if listed is None else len(listed)
        return StoreServer(kind, "", identity, generation, reads, swaps, leases, _hints(register))
    except StoreUnavailable as exc:
        return StoreServer(kind, error=str(exc))


def _hints(register: Register) -> bool | None:
    """Return whether hints of changes arrive, as soon as they do; None if the store has none."""
    hints, pause = register.watch(NOBODY, lambda: None), threading.Event()
    if hints is None:
        return None
    with contextlib.closing(hints):
        end = now() + HINTED
        while not hints.live and now() < end:
            pause.wait(0.01)
        return hints.live


def _write(register: SQLiteRegister) -> None:
    # No cell has this version, so nothing changes. But it needs the permission to write.
    register.swap(NOBODY, b"", ("", b"no version"))


def _filesystem(path: Path) -> str:
    """Return the kind of file system that `path` is on; empty if unknown."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    around = [(len(place), kind) for place, kind in mounts if path.resolve().is_relative_to(place)]
    # If several are mounted at one place, the last one counts.
    return max(reversed(around), key=lambda mount: mount[0], default=(0, ""))[1]


class _Link:
    """A connection to what may be memcached, or a proxy. It speaks the text protocol without a client library."""

    def __init__(self, register: MemcachedRegister) -> None:
        self.socket = register.access.connect(register.host, register.port, register.timeout)
        self._received, self._until = bytearray(), 0.0

    def ask(self, command: bytes) -> bytes:
        """Send a command and return the one line that answers it, or the first of several."""
        self._until = now() + LONGEST
        self.socket.sendall(command + b"\r\n")
        return self._line()

    def ask_for_many(self, command: bytes, prefix: bytes) -> list[bytes]:
        """Send a command and return the lines that answer it, up to END, without their prefix."""
        line, lines = self.ask(command), []
        while line != b"END":
            if not line.startswith(prefix):
                raise ValueError(f"{command.decode()} is answered {line[:60]!r}")
            lines.append(line.removeprefix(prefix))
            line = self._line()
        return lines

    def stats(self, command: bytes = b"stats") -> dict[str, str]:
        """Return what `stats` says."""
        lines = self.ask_for_many(command, b"STAT ")
        return dict(line.decode(errors="replace").partition(" ")[::2] for line in lines)

    def _line(self) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > MAX_LINE or now() > self._until:
                raise ValueError("its answer has no end")
            if not (more := self.socket.recv(MAX_LINE)):
                raise ConnectionError("it closed the connection")
            self._received += more
        if now() > self._until:
            raise ValueError("its answer has no end")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line.rstrip()


def server(register: MemcachedRegister, seconds: float, stop: threading.Event) -> MemcachedServer:
    """Measure one memcached server, and watch its clock for `seconds`, or until `stop` is set."""
    address = register.address
    with contextlib.ExitStack() as stack:
        try:
            links = [_Link(register) for _ in range(CONNECTIONS)]
        except (OSError, ValueError) as exc:
            return MemcachedServer(address, error=str(exc), reached=False)
        for link in links:
            stack.enter_context(link.socket)
        try:
            return _measure(address, links, seconds, stop)
        except (OSError, ValueError, KeyError) as exc:
            return MemcachedServer(address, error=str(exc))


def _measure(address: str, links: list[_Link], seconds: float, stop: threading.Event) -> MemcachedServer:
    link = links[0]
    version = link.ask(b"version").decode(errors="replace").removeprefix("VERSION ")
    trips = tuple(_timed(lambda: link.ask(b"version")) for _ in range(ROUND_TRIPS))
    meta = _meta(links[1])
    try:
        found = [each.stats() for each in links[:1] + links[2:]]
        stats, settings = found[0], link.stats(b"stats settings")
        processes = tuple((each["pid"], int(each["time"]) - int(each["uptime"])) for each in found)
        behind = time.time() - int(stats["time"]) - 0.5
        ours = _ours(link) if int(stats["curr_items"]) <= MAX_LISTED else None
        ticks = tuple(_ticks(link, seconds, stop))
    except (OSError, ValueError, KeyError):
        # A proxy answers `stats` differently, or not at all.
        return MemcachedServer(address, round_trips=trips, version=version, meta=meta)
    return MemcachedServer(
        address,
        round_trips=trips,
        version=version,
        processes=processes,
        meta=meta,
        stats=stats,
        settings=settings,
        ours=ours,
        ticks=ticks,
        behind=behind,
    )


def _ours(link: _Link) -> int | None:
    """Return how many items are ours; None if the server does not list them now."""
    try:
        return sum(key.startswith(b"politics") for key in link.ask_for_many(b"lru_crawler metadump all", b"key="))
    except ValueError:
        return None


def _ticks(link: _Link, seconds: float, stop: threading.Event) -> Iterator[ClockTick]:
    """Yield the moments at which the server's `uptime` changes, for `seconds` or until `stop` is set.

    On a busy machine fewer than two may be seen in that time. Then go on, up to three times as long.
    """
    begun, earlier, sent, seen = now(), None, 0.0, 0
    while not stop.wait(0.002) and (asked := now()) < begun + (seconds if seen > 1 else 3 * seconds):
        uptime = int(link.stats()["uptime"])
        if earlier is not None and uptime != earlier:
            yield ClockTick(uptime, sent, now())
            seen += 1
        earlier, sent = uptime, asked


def _meta(link: _Link) -> str:
    """Return what is wrong with the meta commands that leases use; empty if nothing is."""
    key = b"politics-doctor-" + secrets.token_hex(8).encode()
    try:
        made = link.ask(b"ms %b 1 c T10 ME\r\n1" % key)
        version = int(made.removeprefix(b"HD c"))
        steps = [
            ("no operation", link.ask(b"mn"), b"MN"),
            ("create again", link.ask(b"ms %b 1 c T10 ME\r\n2" % key), b"NS"),
            ("compare another version", link.ask(b"ms %b 1 c T10 C%d\r\n3" % (key, version + 1)), b"EX"),
            ("compare and swap", link.ask(b"ms %b 1 c T10 C%d\r\n4" % (key, version)), b"HD c"),
            ("delete", link.ask(b"md %b" % key), b"HD"),
        ]
    except (OSError, ValueError) as exc:
        return str(exc)
    return "; ".join(
        f"{what} is answered {answer[:40]!r}" for what, answer, right in steps if not answer.startswith(right)
    )


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun

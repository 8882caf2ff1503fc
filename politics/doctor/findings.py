"""Findings of `politics doctor`. Pure: measurements go in, findings come out."""

import enum
import itertools
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from politics.group.peers import Peer, stores

MIN_VERSION = (1, 6, 10)
MAX_GROUPS = 10  # that are named on one line
DRIFT = 0.01
# Kinds of file system, as /proc/mounts names them, whose locks do not reach, or do not reach in time, other machines.
NETWORKED = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs", "vboxsf",
}  # fmt: skip


DIRECTLY = "name the memcached server itself: what stands before it may turn to another one when it is down"
# What `stats` counts when an item is dropped, beside flushes.
DROPS = ("evictions", "store_no_memory", "store_too_large", "slab_reassign_busy_deletes")


class Level(enum.StrEnum):
    """How much a finding matters."""

    FINE = "fine"
    ADVICE = "advice"
    """Elections are slower or rarer than they could be; the promise holds."""
    DANGER = "danger"
    """Two leaders may be possible, or none is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, what was found, and what to do about it."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def fine(subject: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.FINE, subject, text)


def advice(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that slows elections down or makes them rarer."""
    return Finding(Level.ADVICE, subject, text, remedy)


def danger(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that makes two leaders possible, or none."""
    return Finding(Level.DANGER, subject, text, remedy)


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured of this machine.

    `clock` is the clock that times leases, and `counts_sleep` whether it goes on while the machine sleeps. `slept` is
    for how many seconds it has slept, None if that is unknown. `interfaces` says of each network interface, except the
    loopback, whether a multicast datagram that we send through it arrives at ourselves.
    """

    clock: str
    counts_sleep: bool
    slept: float | None
    interfaces: Mapping[str, bool] = field(default_factory=dict)


def of_machine(machine: Machine) -> Iterator[Finding]:
    """Yield the findings about the clock, sleep and multicast."""
    if machine.counts_sleep:
        yield fine("clock", f"leases are timed by {machine.clock}, which counts while the machine sleeps")
    else:
        yield danger(
            "clock",
            f"leases are timed by {machine.clock}, which may stand still while the machine sleeps",
            "keep this machine awake, or use Linux or macOS",
        )
    if machine.slept is not None and machine.slept > 1:
        yield advice(
            "sleep",
            f"this machine has slept for {machine.slept:.0f} s since it started: a leader loses its lease meanwhile",
            "do not let a machine sleep that may lead",
        )
    works = [name for name, heard in machine.interfaces.items() if heard]
    deaf = [name for name, heard in machine.interfaces.items() if not heard]
    if works:
        yield fine("multicast", f"works on {', '.join(works)}")
    if deaf or not works:
        yield advice(
            "multicast",
            f"does not work on {', '.join(deaf)}" if deaf else "there is no interface that is up and does multicast",
            "allow UDP port 5353 to 224.0.0.251 there, or do without peers and services; leases do not need it",
        )


def of_peers(peers: Sequence[Peer], ours: Mapping[str, str], error: str = "") -> Iterator[Finding]:
    """Yield the findings about the workers on the network.

    Args:
        peers: the workers that were heard.
        ours: for each group, the identity of the store that we would use, if it answers.
        error: why no peer can be heard, if that is so.
    """
    if error:
        yield advice("peers", f"cannot be heard: {error}", "nothing, if you know that all members name the same store")
        return
    groups: dict[str, list[Peer]] = {}
    for peer in peers:
        groups.setdefault(peer.group, []).append(peer)
    heard = ", ".join(f"{group} ({len(members)})" for group, members in sorted(groups.items())[:MAX_GROUPS])
    more = f" and {len(groups) - MAX_GROUPS} more groups" if len(groups) > MAX_GROUPS else ""
    yield fine("peers", f"{len(peers)} are heard: {heard}{more}" if peers else "no worker is heard")
    for group, members in sorted(groups.items()):
        named = sorted(stores(members))
        if len(named) > 1:
            places = "; ".join(f"{store}: {_places(members, store)}" for store in named)
            yield danger(
                f"peers of {group}",
                f"use {len(named)} stores, and each has a leader of its own: {places}",
                "name one store for all, or give them different groups",
            )
        elif named and ours.get(group, named[0]) != named[0]:
            yield advice(
                f"peers of {group}",
                f"use another store than this one: {_places(members, named[0])}",
                "name their store before you start a worker of that group here",
            )


def _places(members: Sequence[Peer], store: str) -> str:
    return ", ".join(f"{peer.host}:{peer.pid}" for peer in members if peer.store == store)


@dataclass(frozen=True, slots=True)
class ClockTick:
    """The store's `uptime` became `second`. On our clock that was between `after` and `before`."""

    second: int
    after: float
    before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemcachedServer:
    """What was measured of one memcached server, or of what answers in its place.

    `error`: why nothing could be measured. `reached`: whether something listens there. `round_trips`: seconds.
    `processes`: the `pid` of the server and when it started by its own wall clock, asked on several connections.
    `meta`: what is wrong with the meta commands. `ours`: how many items are ours, None if there are too many to count.
    `behind`: by how many seconds its wall clock is behind ours.
    """

    address: str = field(kw_only=False)
    error: str = ""
    reached: bool = True
    round_trips: tuple[float, ...] = ()
    version: str = ""
    processes: tuple[tuple[str, int], ...] = ()
    meta: str = ""
    stats: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    ours: int | None = None
    ticks: tuple[ClockTick, ...] = ()
    behind: float = 0.0

    def stat(self, name: str) -> int:
        """Return a counter; 0 if the server does not tell it."""
        text = self.stats.get(name, "")
        return int(text) if text.isdecimal() else 0


def of_server(server: MemcachedServer, ttl: float, alone: bool = True) -> Iterator[Finding]:
    """Yield the findings about one memcached server, for leases of `ttl` seconds, that it keeps `alone`."""
    subject = f"memcached {server.address}"
    if not server.reached:
        yield danger(subject, f"does not answer: {server.error}", "start it, or correct the address: nobody can lead")
        return
    if server.error:
        judge = danger if alone else advice  # one of several may fail
        yield judge(subject, f"something listens, but does not answer as memcached does: {server.error}", DIRECTLY)
        return
    yield from _speed(server, ttl, subject)
    yield from _identity(server, subject)
    if server.stats:
        yield from _memory(server, subject)
    if alone:  # no rule of a quorum asks a server what it has lost, or how old it is
        yield from _losses(server, ttl, subject) if server.stats else ()
        yield from _clock(server, subject)


def _speed(server: MemcachedServer, ttl: float, subject: str) -> Iterator[Finding]:
    median = statistics.median(server.round_trips)
    text = f"answers in {median * 1000:.2f} ms (median of {len(server.round_trips)})"
    if median > ttl / 30:
        yield advice(subject, f"{text}, much for a lease of {ttl:g} s", "use a nearer server or a longer lease")
    else:
        yield fine(subject, text)


def _identity(server: MemcachedServer, subject: str) -> Iterator[Finding]:
    number = re.match(r"(\d+)\.(\d+)\.(\d+)", server.version)
    if not number or not {"pid", "uptime", "curr_items", "cmd_flush"} <= server.stats.keys():
        yield danger(subject, f"is not memcached itself: it calls itself {server.version!r}", DIRECTLY)
    elif server.settings.get("proxy_enabled", "no") not in ("no", "0"):
        yield danger(subject, "runs as a proxy", DIRECTLY)
    elif (several := _different(server.processes)) > 1:
        yield danger(subject, f"is {several} different servers behind one address", DIRECTLY)
    elif tuple(map(int, number.groups())) < MIN_VERSION:
        yield danger(subject, f"is version {server.version}", "use 1.6.10 or later")
    else:
        yield fine(subject, f"is version {server.version}, up for {_span(server.stat('uptime'))}")
    if server.meta:
        yield danger(subject, f"does not do the meta commands as memcached does: {server.meta}", "use 1.6.10 or later")


def _different(processes: tuple[tuple[str, int], ...]) -> int:
    """Return how many processes these are. The start of one may vary, since it is computed from whole seconds."""
    pairs = itertools.pairwise(sorted(processes))
    return 1 + sum(pid != other or begun > start + 2 for (pid, start), (other, begun) in pairs)


def _memory(server: MemcachedServer, subject: str) -> Iterator[Finding]:
    used, limit = server.stat("bytes"), server.stat("limit_maxbytes")
    ours = "an unknown number" if server.ours is None else str(server.ours)
    items = f"{ours} of its {server.stat('curr_items')} items are ours"
    full = f"{used / limit:.0%} of its memory is used" if limit else "its memory has no limit"
    if limit and used > 0.8 * limit and server.settings.get("evictions") == "off":
        yield advice(subject, f"{full}, and then renewals fail; {items}", "give it more memory (-m)")
    elif limit and used > 0.8 * limit and not server.stat("evictions"):
        yield advice(subject, f"{full}, and then it evicts; {items}", "give it more memory (-m)")
    else:
        yield fine(subject, f"{full}; {items}")


def _losses(server: MemcachedServer, ttl: float, subject: str) -> Iterator[Finding]:
    dropped, flushes, uptime = sum(map(server.stat, DROPS)), server.stat("cmd_flush"), server.stat("uptime")
    slow = "so each first election waits one lease"
    # Items that were there when the counters were set back are still counted as items, but not as stored.
    if server.stat("total_items") < server.stat("curr_items"):
        yield danger(
            subject,
            "its counters were set back (stats reset), which hides lost leases",
            "restart it, and never use stats reset",
        )
    if dropped:
        yield advice(
            subject,
            f"has dropped {dropped} items for lack of memory, {slow}",
            "give it more memory (-m), or give the leases a server of their own with -M, and restart it",
        )
    if flushes:
        yield advice(
            subject, f"was flushed {flushes} times, {slow}", "find out who calls flush_all, and restart the server"
        )
    if uptime < ttl * (1 + DRIFT) + 3:  # as in election/stores/memcached.py
        yield advice(
            subject,
            f"has been up for {_span(uptime)} only, so a first election waits one lease of {ttl:g} s",
            "nothing: it passes",
        )
    elif not dropped and not flushes:
        yield fine(subject, "has lost nothing since it started, so a first election is immediate")


def _clock(server: MemcachedServer, subject: str) -> Iterator[Finding]:
    if len(server.ticks) > 1:
        slowest, fastest = rate(server.ticks[0], server.ticks[-1])
        if slowest > 1 + DRIFT or fastest < 1 - DRIFT:
            yield danger(
                subject,
                f"its clock runs at {slowest:.3f} to {fastest:.3f} times the speed of ours; {DRIFT:.0%} is allowed",
                "find out which of the two machines keeps time badly",
            )
        else:
            off = max(abs(slowest - 1), abs(fastest - 1))
            yield fine(subject, f"its clock runs as fast as ours, within {off:.1%} (the measurement's error)")
    elif server.stats:
        yield advice(
            subject,
            "its clock was not seen to run, so it could not be compared with ours",
            "run the doctor again when both machines are less busy",
        )
    if abs(server.behind) > 60:
        yield advice(
            subject,
            f"its wall clock and ours differ by {_span(abs(server.behind))}",
            "run NTP on both: fences and status use wall clocks, leases do not",
        )


def rate(first: ClockTick, last: ClockTick) -> tuple[float, float]:
    """Return how fast the store's clock runs compared with ours, at least and at most."""
    seconds = last.second - first.second
    return seconds / (last.before - first.after), seconds / max(last.after - first.before, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What was measured of an SQLite store.

    `error`: why it cannot be used. `filesystem`: the kind of file system, empty if unknown. `old_enough`: whether the
    file is older than a lease. `leases`: how many it keeps. `round_trips`: seconds. `mode` and `folder_mode`: the
    permissions of the file and of its folder.
    """

    path: str = field(kw_only=False)
    error: str = ""
    filesystem: str = ""
    old_enough: bool = True
    leases: int = 0
    round_trips: tuple[float, ...] = ()
    mode: int = 0o600
    folder_mode: int = 0o700


def of_file(file: File, ttl: float) -> Iterator[Finding]:
    """Yield the findings about an SQLite store, for leases of `ttl` seconds."""
    subject = f"sqlite {file.path}"
    if file.error:
        yield danger(subject, f"cannot be used: {file.error}", "make it a file that this user can write")
        return
    median = statistics.median(file.round_trips)
    yield fine(subject, f"can be written, and answers in {median * 1000:.2f} ms (median of {len(file.round_trips)})")
    kept = "1 lease" if file.leases == 1 else f"{file.leases} leases"
    yield fine(subject, f"keeps {kept}, of this machine only")
    if file.filesystem in NETWORKED:
        yield danger(
            subject,
            f"is on a network file system ({file.filesystem}), whose locks cannot be relied on",
            "use a local disk for the processes of one machine, memcached for several",
        )
    elif file.filesystem == "overlay":
        yield advice(
            subject,
            "is in a container's own layer: each container has its own file, and so its own leader",
            "mount a volume that they share, or use memcached",
        )
    yield from _permissions(file, subject)
    if not file.old_enough:
        yield advice(
            subject, f"is younger than a lease of {ttl:g} s, so a first election waits one", "nothing: it passes"
        )


def _permissions(file: File, subject: str) -> Iterator[Finding]:
    """Yield what users other than the owner may do. A folder's sticky bit keeps its files from them."""
    if file.mode & 0o002 or (file.folder_mode & 0o002 and not file.folder_mode & 0o1000):
        yield danger(
            subject,
            f"or its folder can be written by everybody ({file.mode:04o} in {file.folder_mode:04o}), who can then end "
            "any lease, or take it",
            "chmod 600 the file, with -wal and -shm beside it, and chmod 700 its folder",
        )
    elif file.mode & 0o077:
        what = "written" if file.mode & 0o022 else "read"
        yield advice(
            subject,
            f"can be {what} by other users ({file.mode:04o}): who can read it can lock it, and nobody leads meanwhile",
            "chmod 600 the file, with -wal and -shm beside it, unless those users share the leases",
        )


def of_records(unreadable: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding about the groups whose records nobody can read, if there are any."""
    if unreadable:
        more = f" and {len(unreadable) - MAX_GROUPS} more" if len(unreadable) > MAX_GROUPS else ""
        yield danger(
            "records",
            f"nobody can be elected in {', '.join(unreadable[:MAX_GROUPS])}{more}: nobody can read the record",
            "politics forget GROUP",
        )


def of_choice(kind: str, named: bool) -> Iterator[Finding]:
    """Yield the findings about the choice of a store: its kind (`memory`, `sqlite`), and whether it was named."""
    if kind == "memory":
        yield danger("store", "memory:// is private to each process, so each process leads", "use it in tests only")
    elif not named:
        yield advice(
            "store",
            "none is named, so a file of this user is used, and each machine has its own leader",
            "for several machines, name one with --store, --servers, $POLITICS_STORE or in the worker's class",
        )


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

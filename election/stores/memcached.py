"""Cells in memcached 1.6.10 or later, through its meta commands, which return the version of what was just written."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote

from election.errors import StoreUnavailable
from election.register import Cell, Register, Swap, identity_of
from election.stores import meta
from election.stores.access import Files, ServerAccess, StoreRefused
from election.stores.urls import address, pop_timeout

DEFAULT_PORT = 11211
LONGEST_LOGIN = 255
# What `stats` counts, beside evictions, when a cell is dropped: memcached also deletes an item when it finds no memory
# for the one that is to take its place (with -M, for instance), and one that is in use while its page is moved.
LOSSES = {b"cmd_flush", b"evictions", b"store_no_memory", b"store_too_large", b"slab_reassign_busy_deletes"}
COUNTER = re.compile(rb"^STAT (uptime|%b|\S{0,60}evict\S{0,60}) (\d{1,20})\r$" % b"|".join(sorted(LOSSES)), re.M)

# `uptime` is less than so many seconds ahead of the server's age. It begins at 2. When its clock ticks, the server adds
# the difference of two times, both cut to whole seconds. A tick that is late, on a busy machine or after a pause, may
# fall into the next second, and then counts one more than have passed.
AHEAD = 3

T = TypeVar("T")


class MemcachedRegister(Register):
    """Cells in one memcached server.

    A version is `(connection, CAS id)`: CAS ids start again at 1 with the server, so that one which was read on an
    earlier connection can no longer be compared.
    """

    def __init__(self, host: str, port: int, timeout: float, access: ServerAccess | None = None) -> None:
        self.host, self.port, self.timeout, self.access = host, port, timeout, access or ServerAccess()
        self._connection = meta.MemcachedConnection(host, port, timeout, self.access)

    @property
    def address(self) -> str:
        """`host:port`, or the path of the server's socket."""
        return self.access.path or f"{self.host}:{self.port}"

    def _use(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(connection, *args)`, done by one thread at a time."""
        if self._connection.forked():
            # After a fork: the socket is our parent's, and its lock may have been held.
            self._connection = meta.MemcachedConnection(self.host, self.port, self.timeout, self.access)
        connection = self._connection
        with connection.lock:
            try:
                return work(connection, *args)
            except BaseException as exc:
                # Ctrl-C included: an answer that is still on its way must never be taken for the next command's.
                connection.close()
                if not isinstance(exc, OSError | ValueError):
                    raise
                raise self._unavailable(exc) from exc

    def _unavailable(self, exc: Exception) -> StoreUnavailable:
        refused = isinstance(exc, StoreRefused)
        trouble = "cannot be used" if refused else "did not answer"
        return StoreUnavailable(
            f"memcached at {self.address} {trouble}: {str(exc) or type(exc).__name__}", permanent=refused
        )

    def identity(self) -> str:
        """Return a random name, kept in the server itself: two `localhost` differ, a restart makes a new one."""
        return identity_of("memcached", self._use(meta.identity))

    def shard(self, name: str) -> "MemcachedRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the item, or None."""
        return self._use(meta.read, name)

    def version(self, name: str) -> meta.Version | None:
        """Return the item's CAS id on this connection, or None."""
        return self._use(meta.version, name)

    def versions(self, names: Sequence[str]) -> list[meta.Version | None]:
        """Send all questions in one write, and read all answers; in pieces of at most `meta.MANY`."""
        found: list[meta.Version | None] = []
        for begin in range(0, len(names), meta.MANY):
            found += self._use(meta.versions, names[begin : begin + meta.MANY])
        return found

    def swap(self, name: str, data: bytes, expected: meta.Version | None) -> meta.Version | None:
        """Send one `ms` command: mode E (add) to create, otherwise with the CAS id to compare."""
        return self._use(meta.swap, name, data, expected)

    def swap_many(self, swaps: Sequence[Swap]) -> list[meta.Version | StoreUnavailable | None]:
        """Send all commands in one write, and read all answers; in pieces of at most `meta.MANY`."""
        answers: list[meta.Version | StoreUnavailable | None] = []
        for begin in range(0, len(swaps), meta.MANY):
            try:
                known, trouble = self._use(meta.swap_many, swaps[begin : begin + meta.MANY])
                answers += known
                silence = self._unavailable(trouble) if trouble else None
            except StoreUnavailable as exc:
                silence = exc
            if silence:
                return answers + [silence] * (len(swaps) - len(answers))
        return answers

    def remembers(self, seconds: float) -> bool:
        """Return whether the server has been up for longer, and has neither been flushed nor dropped anything."""
        counters = {name: int(value) for name, value in COUNTER.findall(self._use(meta.stats))}
        uptime = counters.pop(b"uptime", 0)
        # A server that does not count its losses is not believed.
        return counters.keys() >= LOSSES and not any(counters.values()) and uptime >= seconds + AHEAD

    def names(self) -> None:
        """Return None: memcached has no reliable way to list its keys."""

    def close(self) -> None:
        """Close the socket, if this process opened it."""
        if not self._connection.forked():
            with self._connection.lock:
                self._connection.close()


class ShardedRegister(Register):
    """Several servers, each the only one for its share of the names.

    A name belongs to the server with the highest hash of both (rendezvous hashing). It does not move when that server
    is down: no leader is better than two.
    """

    def __init__(self, servers: list[MemcachedRegister]) -> None:
        self.servers = servers

    def identity(self) -> str:
        """Return the identities of all servers."""
        return ",".join(sorted(server.identity() for server in self.servers))

    def shard(self, name: str) -> MemcachedRegister:
        """Return the server that keeps `name`. Neither TLS nor a password moves it."""
        return max(self.servers, key=lambda s: hashlib.sha256(f"{s.address} {name}".encode()).digest())

    def read(self, name: str) -> Cell | None:
        """Ask the server that keeps `name`."""
        return self.shard(name).read(name)

    def version(self, name: str) -> Any | None:
        """Ask the server that keeps `name`."""
        return self.shard(name).version(name)

    def versions(self, names: Sequence[str]) -> list[Any | None]:
        """Ask each server for what it keeps."""
        found: dict[str, Any] = {}
        for server in self.servers:
            mine = [name for name in names if self.shard(name) is server]
            found |= zip(mine, server.versions(mine), strict=True)
        return [found[name] for name in names]

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Swap on the server that keeps `name`."""
        return self.shard(name).swap(name, data, expected)

    def swap_many(self, swaps: Sequence[Swap]) -> list[Any | StoreUnavailable | None]:
        """Swap on each server what it keeps. What one does not answer says nothing of another."""
        answers: dict[int, Any] = {}
        for server in self.servers:
            mine = [number for number, swap in enumerate(swaps) if self.shard(swap.name) is server]
            answers |= zip(mine, server.swap_many([swaps[number] for number in mine]), strict=True)
        return [answers[number] for number in range(len(swaps))]

    def remembers(self, seconds: float) -> bool:
        """Return whether all servers do."""
        return all(server.remembers(seconds) for server in self.servers)

    def names(self) -> Iterable[str] | None:
        """Return None, as for one server."""
        return None

    def close(self) -> None:
        """Close all sockets."""
        for server in self.servers:
            server.close()


def connect(parts: SplitResult, options: dict[str, str]) -> Register:
    """Return the register for `//[user:password@]host[:port][,host[:port]…]` or `//[user:password@]/path.sock`.

    Each answer may take `timeout` seconds. `memcacheds` is TLS, with the files `ca`, `cert` and `key`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it, without the password.
    """
    timeout = timeout_of(options)
    login, hosts = _login(parts)
    tls = None
    if parts.scheme == "memcacheds":
        tls = Files(*(options.pop(name, "") for name in ("ca", "cert", "key")))
        if tls.key and not tls.cert:
            raise ValueError("key= needs cert=, the certificate to which it belongs")
    if not hosts and parts.path.strip("/"):
        if tls:
            raise ValueError("there is no TLS on a socket of this machine: write memcached://")
        return MemcachedRegister("", 0, timeout, ServerAccess(unquote(parts.path), login))
    access = ServerAccess("", login, tls)
    servers = [MemcachedRegister(*each, timeout, access) for each in addresses_of(hosts)]
    return servers[0] if len(servers) == 1 else ShardedRegister(servers)


def timeout_of(options: dict[str, str]) -> float:
    """Take the option `timeout` and return it, or its default.

    Raises:
        ValueError: it makes no sense.
    """
    return pop_timeout(options, 0.5)


def addresses_of(hosts: str) -> list[tuple[str, int]]:
    """Return the servers that a URL names.

    Raises:
        ValueError: one of them makes no sense; the message names it.
    """
    return [address(part, DEFAULT_PORT) for part in hosts.split(",")]


def _login(parts: SplitResult) -> tuple[bytes, str]:
    """Return what is sent to log in, and the rest of the address."""
    known, at, hosts = parts.netloc.rpartition("@")
    if "@" in parts.path and not at:
        raise ValueError("a / in a password is written %2F")
    user, _, password = known.partition(":")
    user, password = unquote(user), unquote(password)
    if not at:
        return b"", hosts
    login = f"{user} {password}".encode()
    if not all(each and each.isprintable() and " " not in each for each in (user, password)):
        raise ValueError("a user and a password without spaces are wanted, as in memcached://user:password@host")
    if len(login) > LONGEST_LOGIN:
        raise ValueError(f"user and password have more than {LONGEST_LOGIN - 1} bytes")
    return login, hosts

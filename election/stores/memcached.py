"""Cells in memcached 1.6 or later, through its meta commands, which return the version of what was just written."""

import contextlib
import functools
import hashlib
import itertools
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.register import Cell, Register, identity_of

DEFAULT_PORT = 11211
# Only for tidiness: no rule relies on memcached's own expiry, whose ticks are a second long.
EXPIRY = 30 * 24 * 3600
# What `stats` counts, beside evictions, when a cell is dropped: memcached also deletes an item when it finds no memory
# for the one that is to take its place (with -M, for instance), and one that is in use while its page is moved.
LOSSES = {"cmd_flush", "evictions", "store_no_memory", "store_too_large", "slab_reassign_busy_deletes"}

# `uptime` is less than so many seconds ahead of the server's age. It begins at 2. When its clock ticks, the server adds
# the difference of two times, both cut to whole seconds. A tick that is late, on a busy machine or after a pause, may
# fall into the next second, and then counts one more than have passed.
AHEAD = 3

LONGEST = 1 << 21
"""Bytes of an answer at most: an item of the largest size that memcached has by default, and what goes with it."""

_connections = itertools.count(1)


class _Socket(socket.socket):
    """Limits an answer as a whole: one in many small pieces has no more time than one in a single piece."""

    def __init__(self, *args: Any, seconds: float) -> None:
        super().__init__(*args)
        self.seconds, self.until, self.left = seconds, 0.0, 0

    def sendall(self, *args: Any) -> None:
        self.until, self.left = time.monotonic() + self.seconds, LONGEST
        self.settimeout(self.seconds)
        super().sendall(*args)

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self.left -= len(data)
        seconds = self.until - time.monotonic()
        if seconds <= 0 or self.left < 0:
            raise TimeoutError("its answer has no end")
        self.settimeout(seconds)
        return data


class _Connection:
    """One socket and a lock that keeps its users apart. `number` changes with each new socket."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.forked = fork_detector()
        self.lock = threading.Lock()
        self.number = 0
        self.client = Client(
            # pymemcache tries one address only, ::1 where /etc/hosts says so, and memcached listens on the other.
            ("127.0.0.1" if host == "localhost" else host, port),
            connect_timeout=timeout,
            timeout=timeout,
            socket_module=SimpleNamespace(**vars(socket) | {"socket": functools.partial(_Socket, seconds=timeout)}),
            no_delay=True,
            default_noreply=False,
        )


class MemcachedRegister:
    """Cells in one memcached server.

    A version is `(connection, CAS id)`: CAS ids start again at 1 with the server, so that one which was read on an
    earlier connection can no longer be compared.
    """

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.host, self.port, self.timeout = host, port, timeout
        self._connection = _Connection(host, port, timeout)

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Connection]:
        if self._connection.forked():
            # After a fork: the socket is our parent's, and its lock may have been held.
            self._connection = _Connection(self.host, self.port, self.timeout)
        connection = self._connection
        with connection.lock:
            if connection.client.sock is None:
                connection.number = next(_connections)
            try:
                yield connection
            except BaseException as exc:
                # Ctrl-C included: an answer that is still on its way must never be taken for the next command's.
                connection.client.close()
                # A LookupError is pymemcache's way to stumble over an answer that memcached would not give.
                if not isinstance(exc, MemcacheError | OSError | ValueError | LookupError):
                    raise
                where, why = f"{self.host}:{self.port}", str(exc) or type(exc).__name__
                raise StoreUnavailable(f"memcached at {where} did not answer: {why}") from exc

    def identity(self) -> str:
        """Return a random name, kept in the server itself: two `localhost` differ, a restart makes a new one."""
        with self._open() as connection:
            identity = connection.client.get("politics-identity")
            if identity is None:
                connection.client.add("politics-identity", uuid.uuid4().hex, expire=0)
                identity = connection.client.get("politics-identity", b"")
            return identity_of("memcached", identity)

    def shard(self, name: str) -> "MemcachedRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the item, or None."""
        with self._open() as connection:
            data, cas = connection.client.gets(_key(name))
            return None if data is None else Cell(data, (connection.number, cas))

    def swap(self, name: str, data: bytes, expected: tuple[int, bytes] | None) -> tuple[int, bytes] | None:
        """Send one `ms` command: mode E (add) to create, otherwise with the CAS id to compare."""
        with self._open() as connection:
            if expected is None:
                condition = b"ME"
            elif expected[0] == connection.number:
                condition = b"C" + expected[1]
            else:
                return None
            command = b"ms %b %d %b c T%d\r\n%b" % (_key(name).encode(), len(data), condition, EXPIRY, data)
            answer = connection.client.raw_command(command)
            if answer.startswith(b"HD c") and answer[4:].strip().isdigit():
                return connection.number, answer[4:].strip()
            if answer.split(b" ", 1)[0] in (b"NS", b"EX", b"NF"):
                return None
            raise ValueError(f"an answer that memcached 1.6.10 or later would not give: {answer[:60]!r}")

    def remembers(self, seconds: float) -> bool:
        """Return whether the server has been up for longer, and has neither been flushed nor dropped anything."""
        with self._open() as connection:
            stats = {key.decode(): value for key, value in connection.client.stats().items()}
            losses = [int(value) for key, value in stats.items() if key in LOSSES or "evict" in key]
            # A server that does not count its losses is not believed.
            return stats.keys() >= LOSSES and not any(losses) and int(stats["uptime"]) >= seconds + AHEAD

    def names(self) -> None:
        """Return None: memcached has no reliable way to list its keys."""

    def close(self) -> None:
        """Close the socket, if this process opened it."""
        if not self._connection.forked():
            with self._connection.lock:
                self._connection.client.close()


class ShardedRegister:
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
        """Return the server that keeps `name`."""
        return max(self.servers, key=lambda s: hashlib.sha256(f"{s.host}:{s.port} {name}".encode()).digest())

    def read(self, name: str) -> Cell | None:
        """Ask the server that keeps `name`."""
        return self.shard(name).read(name)

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Swap on the server that keeps `name`."""
        return self.shard(name).swap(name, data, expected)

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


def connect(netloc: str, timeout: float) -> Register:
    """Return the register for `host[:port][,host[:port]…]`; each answer may take `timeout` seconds.

    Raises:
        ValueError: an address or the timeout makes no sense; the message names it.
    """
    if not 0 < timeout <= 60:
        raise ValueError(f"timeout={timeout:g} is not a number of seconds between 0 and 60")
    servers = [MemcachedRegister(*_address(part), timeout) for part in netloc.split(",")]
    return servers[0] if len(servers) == 1 else ShardedRegister(servers)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text.strip(), str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return host, int(port)


@functools.lru_cache
def _key(name: str) -> str:
    return "politics:" + quote(name, safe="")

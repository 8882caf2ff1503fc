"""The connections of a client: opened when they are needed, kept while they are good, forgotten in a forked child."""

import re
import socket
import ssl
import threading
from collections.abc import Callable
from operator import itemgetter

from discovery.clock import uptime
from discovery.errors import BadMessage, ConnectionLost
from discovery.fork import ForkGuard
from discovery.remote.address import Address
from discovery.remote.protocol import Role
from discovery.remote.wire import Connection

__all__ = ["ConnectionPool"]

_PER_SERVER, _IN_ALL = 8, 64
"""Connections kept open when nobody uses them. A stranger may send us to any number of servers."""

_KEPT = 60.0
"""Seconds for which they are kept. A server hangs up later than that, and so never on a call that is being sent."""


class ConnectionPool:
    """Connections on which nothing is under way. For any thread.

    Args:
        context: How to speak TLS; None: not at all.
        connect_timeout: Seconds in which a server must be reached and greet.
        max_message: The most bytes in one message.
        lost: Called with the address when a server cannot be reached, on the thread that tried.
        clock: Seconds since some fixed moment.
    """

    def __init__(
        self,
        *,
        context: ssl.SSLContext | None,
        connect_timeout: float,
        max_message: int,
        lost: Callable[[Address], object],
        clock: Callable[[], float] = uptime,
    ) -> None:
        self._context, self._connect_timeout = context, connect_timeout
        self._max_message, self._lost, self._clock = max_message, lost, clock
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[tuple[float, Connection]]] = {}  # with when each was last used
        self._size = 0
        self._closed = False  # and not used again since
        self._guard = ForkGuard(self._in_child)

    def acquire(self, address: Address, within: float | None) -> Connection:
        """Return a connection that is certainly open, if need be a new one, within so many seconds.

        Raises:
            ConnectionLost: The server cannot be reached or refuses us. Nothing has been sent.
        """
        while True:
            with self._lock:
                self._closed = False
                idle = self._idle.get(address[1:])
                used, connection = idle.pop() if idle else (0.0, None)
                self._size -= connection is not None
            if connection is None:
                return self._connect(address, min(self._connect_timeout, within or self._connect_timeout))
            if used + _KEPT > self._clock() and not connection.readable:
                return connection
            connection.close()  # the server has ended it or is about to, and has nothing to say that we asked for

    def release(self, address: Address, connection: Connection) -> None:
        """Take a connection back on which nothing is under way any more."""
        with self._lock:
            idle = self._idle.setdefault(address[1:], [])
            kept = len(idle) < _PER_SERVER and not self._closed
            if kept:
                idle.append((self._clock(), connection))
                self._size += 1
        if not kept:
            connection.close()
        elif self._size > _IN_ALL:
            self.tidy()

    def forget(self, address: Address) -> None:
        """Close the connections to one server that nobody is using."""
        with self._lock:
            idle = self._idle.pop(address[1:], [])
            self._size -= len(idle)
        for _, connection in idle:
            connection.close()

    def close(self) -> None:
        """Close the connections that nobody is using, and those in use when they come back. The pool remains usable."""
        with self._lock:
            idle, self._idle, self._size, self._closed = self._idle, {}, 0, True
        for connections in idle.values():
            for _, connection in connections:
                connection.close()

    def tidy(self) -> None:
        """Close what nobody will use again: what has ended, what has long been idle, and the oldest of too many."""
        now, ended = self._clock(), []
        with self._lock:
            idle = [(used, place, each) for place, known in self._idle.items() for used, each in known]
            self._idle, self._size = {}, 0
            for used, place, connection in sorted(idle, key=itemgetter(0))[::-1]:
                if self._size == _IN_ALL or used + _KEPT <= now or connection.readable:
                    ended.append(connection)
                else:
                    self._idle.setdefault(place, []).insert(0, (used, connection))
                    self._size += 1
        for connection in ended:
            connection.close()

    def _connect(self, address: Address, within: float) -> Connection:
        """Connect and wait for the greeting, so that a refusal is known before anything has been sent."""
        self.tidy()
        sock: socket.socket | None = None
        try:
            sock = socket.create_connection(address[1:], within)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=address.host)
            connection = Connection(sock, Role.CLIENT, self._max_message)
            connection.receive(within, whole=within)
        except (OSError, UnicodeError, BadMessage) as exc:  # UnicodeError: a host that cannot be a host's name
            if sock is not None:
                sock.close()
            self._lost(address)
            hint = " (its access list may not admit us, or only one side speaks TLS)"
            if sock is None or (isinstance(exc, ssl.SSLError) and re.search("CERTIFICATE|ALERT", exc.reason or "")):
                hint = ""  # no connection at all; or TLS itself says why
            raise ConnectionLost(f"cannot connect to {address.host}:{address.port}: {exc}{hint}") from exc
        return connection

    def _in_child(self) -> None:
        """Close the child's copies: what it said on them would arrive on its parent's connections."""
        self._lock = threading.Lock()
        self.close()

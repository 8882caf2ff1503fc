"""The connections of a client: opened when they are needed, kept while they are good, forgotten in a forked child."""

import re
import socket
import ssl
import threading
from collections.abc import Callable

from discovery.errors import BadMessage, ConnectionLost
from discovery.fork import ForkGuard
from discovery.remote.address import Address
from discovery.remote.protocol import Role
from discovery.remote.wire import Connection

__all__ = ["ConnectionPool"]

_IDLE = 8  # connections kept open to one server when nobody uses them


class ConnectionPool:
    """Connections on which nothing is under way. For any thread.

    Args:
        context: How to speak TLS; None: not at all.
        connect_timeout: Seconds in which a server must be reached and greet.
        max_message: The most bytes in one message.
        lost: Called with the address when a server cannot be reached, on the thread that tried.
    """

    def __init__(
        self,
        *,
        context: ssl.SSLContext | None,
        connect_timeout: float,
        max_message: int,
        lost: Callable[[Address], object],
    ) -> None:
        self._context, self._connect_timeout = context, connect_timeout
        self._max_message, self._lost = max_message, lost
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[Connection]] = {}
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
                connection = idle.pop() if idle else None
            if connection is None:
                return self._connect(address, min(self._connect_timeout, within or self._connect_timeout))
            if not connection.readable:
                return connection
            connection.close()  # the server has ended it, and has nothing to say that we asked for

    def release(self, address: Address, connection: Connection) -> None:
        """Take a connection back on which nothing is under way any more."""
        with self._lock:
            idle = self._idle.setdefault(address[1:], [])
            if len(idle) < _IDLE and not self._closed:
                idle.append(connection)
                return
        connection.close()

    def forget(self, address: Address) -> None:
        """Close the connections to one server that nobody is using."""
        with self._lock:
            idle = self._idle.pop(address[1:], [])
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close the connections that nobody is using, and those in use when they come back. The pool remains usable."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, {}, True
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _connect(self, address: Address, within: float) -> Connection:
        """Connect and wait for the greeting, so that a refusal is known before anything has been sent."""
        self._forget_the_dead()
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

    def _forget_the_dead(self) -> None:
        dead = []
        with self._lock:
            for connections in self._idle.values():
                dead += [connection for connection in connections if connection.readable]
                connections[:] = [connection for connection in connections if connection not in dead]
        for connection in dead:
            connection.close()

    def _in_child(self) -> None:
        """Close the child's copies: what it said on them would arrive on its parent's connections."""
        self._lock = threading.Lock()
        self.close()

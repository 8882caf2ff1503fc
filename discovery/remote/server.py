"""The serving side: `Server` lends and serves objects on one port."""

import logging
import resource
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from discovery.clock import uptime
from discovery.fork import ForkGuard
from discovery.remote import objects
from discovery.remote.address import Address
from discovery.remote.client import Client
from discovery.remote.encoding import Codec
from discovery.remote.listener import Listener, RareWarnings, own_host
from discovery.remote.protocol import MAX_MESSAGE, ConversationState, Role
from discovery.remote.security import TLS, Access
from discovery.remote.session import Session
from discovery.remote.wire import Connection

__all__ = ["Server"]

log = logging.getLogger(__name__)


class Server:
    """Serve objects on one port, with settings of its own. For any thread.

    It listens from `start`, the first `serve` or `with` on, until `close`. One thread per connected client runs the
    methods. A forked child serves nothing.

    Args:
        host: The address of the interface to listen on; empty: all of them.
        port: The port; 0: any free one.
        advertise: The host in the addresses that are given out, where the server cannot know how others reach it.
        access: Who may connect; None: everybody.
        tls: How both sides prove who they are; None: nothing is encrypted.
        client: Makes the calls to references that arrive here.
        keep: Seconds for which an object is kept after its last use that was only lent: it is served because it was
            sent by reference.
        max_connections: Clients beyond this number are refused. So are those who would take one of the last quarter (at
            most 256) of the file descriptors that this process may open, so that its own work finds some.
        silence: Seconds after which a client is hung up on that begins no call, or takes no answer. Clients of this
            project let go of a connection after 60 idle seconds.
        max_message: The most bytes in one message. A client that sends more is hung up on.
        clock: Seconds since some fixed moment.
    """

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        *,
        advertise: str | None = None,
        access: Access | None = None,
        tls: TLS | None = None,
        client: Client | None = None,
        keep: float = 600.0,
        max_connections: int = 2000,
        silence: float = 120.0,
        max_message: int = MAX_MESSAGE,
        clock: Callable[[], float] = uptime,
    ) -> None:
        self.host, self.port = host, port
        self.advertise = advertise or host
        self._access = access or Access()
        self._context = tls.for_server() if tls else None
        self._client = client or Client(tls=tls if tls and tls.authority else None, server=lambda: self)
        self._codec = Codec(self._refer, self._client.resolve)
        self._keep, self._table = keep, objects.ObjectTable(keep=keep, clock=clock)
        self._max_connections, self._max_message, self._silence = max_connections, max_message, silence
        self._warn = RareWarnings(log)
        self._every, self._next_tick = min(max(keep, 1.0), 10.0, silence / 4), 0.0
        self._lock = threading.RLock()
        self._connections: set[Connection] = set()
        self._listener: Listener | None = None
        self._closed = False
        self._guard = ForkGuard(self._in_child)

    def start(self) -> "Server":
        """Listen. Doing so again does nothing.

        Raises:
            OSError: The port cannot be had.
            RuntimeError: The server is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self!r} is closed")
            if self._listener is None:
                self._listener = Listener(
                    self.host, self.port, accepted=self._accepted, tick=self._tick, every=self._every
                )
                self.port = self._listener.port
                if self.advertise in ("", "0.0.0.0", "::"):
                    self.advertise = own_host()
                self._table.host, self._table.port = self.advertise, self.port
                self._listener.start()
        return self

    def serve(self, target: Any, name: str | None = None) -> str:
        """Serve an object, a function or a class until `unserve` or `close`, and return its address.

        From now on it travels by reference. Of a class, its public class and static methods can be called, and the
        class itself: that makes an instance here and lends it.

        Args:
            target: What to serve.
            name: The object's id, by default one that nobody can guess. Others can guess a name.

        Raises:
            ValueError: Something else has that name, or it cannot be part of an address.
        """
        self.start()
        return str(self._table.add(target, name))

    def lend(self, target: Any, keep: float = 0.0) -> Address:
        """Serve an object for as long as it is used, and `keep` seconds more; return its address."""
        self.start()
        return self._table.lend(target, keep)

    def unserve(self, target: Any) -> None:
        """Serve an object no longer: its address is refused from now on. Leave alone one that is not served."""
        self._table.remove(target)

    def lend_alone(self, target: Any, address: Address | None, error: Exception) -> Address:
        """Return a new address for an object, which nobody can guess; until then calls to `address` raise `error`."""
        if address is not None:
            self._table.bar(address.object_id, error)
        return self._table.alias(target)

    def take_back(self, alone: Address, address: Address | None) -> None:
        """Refuse the address of `lend_alone` from now on, and calls to `address` no longer."""
        self._table.remove_alias(alone)
        if address is not None:
            self._table.bar(address.object_id, None)

    def close(self) -> None:
        """Stop at once: clients get an error, waiting calls are cancelled. Methods that run, run to their end."""
        with self._lock:
            self._closed = True
            self._table.clear()
            connections, listener = list(self._connections), self._listener
        for connection in connections:
            connection.abort()
        if listener is not None:
            listener.close()
        self._client.close()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server {self.advertise or '*'}:{self.port} serving {len(self._table)}>"

    def _refer(self, value: Any) -> str | None:
        return str(self.lend(value)) if objects.goes_by_reference(value) else self._client.refer(value)

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        why = self._refusal(sock, peer[0])
        if why:
            self._warn(why, "refused %s: %s", peer[0], why)
            sock.close()
            return
        connection = Connection(sock, Role.SERVER, self._max_message)
        with self._lock:
            self._connections.add(connection)
            if self._closed:  # `close` has not seen this one
                connection.abort()
        try:
            name = f"client {peer[0]}:{peer[1]}"
            threading.Thread(target=self._converse, args=(connection, peer[0]), name=name, daemon=True).start()
        except RuntimeError as exc:
            self._warn("no thread", "refused %s: %s", peer[0], exc)
            self._forget(connection)

    def _refusal(self, sock: socket.socket, host: str) -> str:
        """Return why a client is not let in, if there is a reason."""
        if not self._access.admits(host):
            return "not on the access list"
        if len(self._connections) >= self._max_connections:
            return "too many connections"
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # The system gives the lowest number that is free, so this one says how many are in use by all of the process.
        if most != resource.RLIM_INFINITY and sock.fileno() >= most - min(256, most // 4):
            return "too few file descriptors are left"
        return ""

    def _tick(self) -> None:
        """Let go of what nobody uses. Called now and then by the listener."""
        now = uptime()
        if now < self._next_tick:
            return  # it is called for each client that comes, too
        self._next_tick = now + self._every
        self._table.let_go()
        self._client.tidy()
        with self._lock:
            waiting = [connection for connection in self._connections if _waits_for_a_call(connection)]
        silent = [connection for connection in waiting if now - connection.since > self._silence]
        for connection in silent:
            connection.abort()

    def _converse(self, connection: Connection, peer: str) -> None:
        try:
            session = Session(
                connection, peer, table=self._table, codec=self._codec, watching=self._watching, warn=self._warn
            )
            session.run(self._context)
        finally:
            self._forget(connection)

    def _watching(self, connection: Connection, gone: Callable[[], object]) -> AbstractContextManager[None]:
        assert self._listener is not None
        return self._listener.watching(connection.sock, gone)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _in_child(self) -> None:
        """Let go of the copies of our parent's sockets: its port and its clients are not ours."""
        self._closed, self._lock = True, threading.RLock()
        if self._listener is not None:
            self._listener.close_in_child()
        for connection in list(self._connections):
            connection.close()


def _waits_for_a_call(connection: Connection) -> bool:
    """Return whether it is the client's turn, and not because it keeps what it was given or listens to a stream."""
    return connection.protocol.state in (ConversationState.OPENING, ConversationState.IDLE)

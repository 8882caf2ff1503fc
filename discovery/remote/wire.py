"""One connection: the protocol over a connected socket."""

import select
import socket
import ssl
from math import inf

from discovery.clock import uptime
from discovery.remote.protocol import MAX_MESSAGE, Kind, Message, Protocol, Role

__all__ = ["STALL", "Connection"]

STALL = 30.0
"""Seconds without a byte, within a message, after which its sender is given up."""

SLOWEST = 10_000
"""Bytes a second that the other side must send or take, where a server hangs up on those who are silent."""

_OPTIONS = [
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    # A machine that vanishes without a word is noticed in about 15 s, also by a side that only waits for it.
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 3),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 15_000),
]


class Connection:
    """Send and receive whole messages over a connected socket. For one thread at a time; `abort` is for any.

    Every method raises OSError for whatever the network does, TimeoutError among them, and `BadMessage` for bytes that
    no honest peer sends.

    Args:
        sock: A connected socket. The connection closes it.
        role: The side that this is.
        limit: The most bytes that the body of a message may have, in either direction.
    """

    def __init__(self, sock: socket.socket, role: Role, limit: int = MAX_MESSAGE) -> None:
        self.sock = sock
        self.protocol = Protocol(role, limit)
        self.since = uptime()  # when the other side's turn began; later by the time that what has been sent may take
        self._timeout = sock.gettimeout()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        for level, name, value in _OPTIONS:
            if hasattr(socket, name):
                sock.setsockopt(level, getattr(socket, name), value)

    def accept_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """Continue in TLS, as the server. The client has `timeout` seconds for its part."""
        self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self._timeout = self.sock.gettimeout()
        self._set_timeout(timeout)
        self.sock.do_handshake()

    def send(self, kind: Kind, body: bytes = b"", timeout: float | None = None) -> None:
        """Send one message, whole, within `timeout` seconds (None: however long that takes).

        Raises:
            CannotTravel: The body is longer than the limit. Nothing has been sent.
        """
        data = self.protocol.send(kind, body)
        self.since = uptime() + len(data) / SLOWEST
        if timeout != self._timeout:
            self._set_timeout(timeout)
        self.sock.sendall(data)

    def receive(self, timeout: float | None = None, *, whole: float = inf) -> Message:
        """Wait for one message: `timeout` seconds for its beginning, then `STALL` seconds for each piece.

        After a TimeoutError you may call this again; nothing that has arrived is lost.

        Args:
            whole: Seconds for all of it, in however many pieces it arrives.
        """
        protocol = self.protocol
        end = inf if whole == inf else uptime() + whole
        while True:
            wait = STALL if protocol.partial else timeout
            if end != inf:
                wait = min(whole if wait is None else wait, max(end - uptime(), 0.001))  # 0 would mean not to block
            if wait != self._timeout:
                self._set_timeout(wait)
            try:
                data = self.sock.recv(protocol.wanted)
            except TimeoutError as exc:
                if exc.errno is None:
                    raise
                raise ConnectionResetError(f"the other side has vanished: {exc}") from exc  # says the kernel
            if not data:
                raise ConnectionResetError("the other side closed the connection")
            message = protocol.receive(data)
            if message is not None:
                return message
            self.since += len(data) / SLOWEST

    @property
    def readable(self) -> bool:
        """Whether something has arrived, or the other side has closed the connection."""
        return bool(self._poll.poll(0))

    def abort(self) -> None:
        """End the connection from any thread: a `receive` that waits raises OSError at once."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not TLS's own, which is for the thread that reads
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Close the socket; in the one thread that uses it."""
        self.sock.close()

    def _set_timeout(self, timeout: float | None) -> None:
        self.sock.settimeout(timeout)  # a system call, so only where it is another one
        self._timeout = timeout

"""One connection: Pyro5's messages over a socket. The only file that imports Pyro5.

Of Pyro5 we use the wire format and the form of its addresses. Its daemon, proxy and serializers stay out: their
settings are one global object per process, the daemon tells everybody every object's id and lets 80 clients in, a
compressed message is inflated before anybody asks how large it becomes, and serializers bend bytes, tuples and keys.
"""

import socket
import ssl
import zlib
from typing import NamedTuple

from Pyro5 import core, protocol
from Pyro5.errors import PyroError

from discovery.errors import BadAddress, BadMessage, CannotTravel

__all__ = ["CALL", "ERROR", "GREETING", "HELD", "MAX_MESSAGE", "RESULT", "STREAM", "Address", "Connection", "Message"]

GREETING: int = protocol.MSG_CONNECTOK
CALL: int = protocol.MSG_INVOKE
RESULT: int = protocol.MSG_RESULT
ERROR: int = protocol.FLAGS_EXCEPTION
STREAM: int = protocol.FLAGS_ITEMSTREAMRESULT
HELD = 1 << 8
"""An answer with this flag is ours only once we have confirmed it, by an empty call with the same flag."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes in one message, at most, where nothing else is asked for."""

STALL = 30.0
"""Seconds without a byte, within a message, after which its sender is given up."""

_OUR_ENCODING = 80  # Pyro5 numbers its own from 1
_COMPRESSED: int = protocol.FLAGS_COMPRESSED
_HEADER: int = protocol._header_size
_OPTIONS = [
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    # A machine that vanishes without a word is noticed in about 15 s, also by who only waits for it.
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 3),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 15_000),
]


class Address(NamedTuple):
    """Where an object is; as text `PYRO:id@host:port`."""

    object_id: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"PYRO:{self.object_id}@{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read the text form; `BadAddress` names what cannot be read."""
        try:
            uri = core.URI(text)
        except (PyroError, ValueError, TypeError) as exc:
            raise BadAddress(f"not of the form PYRO:id@host:port: {text!r}") from exc
        if uri.protocol != "PYRO" or not uri.host or not 0 < uri.port < 65536:
            raise BadAddress(f"not of the form PYRO:id@host:port: {text!r}")
        return cls(uri.object, uri.host, uri.port)


class Message(NamedTuple):
    """What arrived."""

    kind: int
    flags: int
    body: bytes | bytearray


class Connection:
    """Sends and receives whole messages over a connected socket; for one thread at a time, `abort` for any.

    Whatever the network does is an OSError; `BadMessage` is what no honest peer would send.
    """

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self.sock = sock
        self._limit = limit
        for level, name, value in _OPTIONS:
            if hasattr(socket, name):
                sock.setsockopt(level, getattr(socket, name), value)

    def agree_on_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """Go on in TLS, as the server; the client has so many seconds for its part."""
        self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock.settimeout(timeout)
        self.sock.do_handshake()

    def send(self, kind: int, body: bytes = b"", flags: int = 0) -> None:
        """Send one message, whole; `CannotTravel` before anything is sent when it is too large."""
        if len(body) > self._limit:
            raise CannotTravel(f"a message of {len(body)} bytes, of {self._limit} that are allowed")
        try:
            data = protocol.SendingMessage(kind, flags, 0, _OUR_ENCODING, body).data
        except PyroError as exc:
            raise CannotTravel(str(exc)) from None
        self.sock.sendall(data)

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for one message: `timeout` seconds for its beginning, then `STALL` for each piece (TimeoutError)."""
        self.sock.settimeout(timeout)
        try:
            header = protocol.ReceivingMessage(bytes(self._exactly(_HEADER)))
        except PyroError as exc:
            raise BadMessage(f"not one of our messages: {exc}") from None
        size = header.data_size
        if header.serializer_id != _OUR_ENCODING or header.annotations_size:
            raise BadMessage("a message in another encoding than ours")
        if size > self._limit:
            raise BadMessage(f"a message of {size} bytes, of {self._limit} that are allowed")
        body = self._exactly(size) if size else b""
        return Message(header.type, header.flags, self._inflated(body) if header.flags & _COMPRESSED else body)

    def _inflated(self, body: bytes | bytearray) -> bytes:
        """We never ask for it, but a process in which Pyro5 itself is set to compress sends so."""
        inflate = zlib.decompressobj()
        try:
            whole = inflate.decompress(body, self._limit + 1)
        except zlib.error as exc:
            raise BadMessage(f"wrongly compressed: {exc}") from None
        if len(whole) > self._limit:
            raise BadMessage(f"a message that inflates to more than the {self._limit} bytes that are allowed")
        return whole

    def _exactly(self, size: int) -> bytes | bytearray:
        piece = self.sock.recv(size)
        if len(piece) == size:
            return piece
        gathered = bytearray(piece)  # grows with what has come, whatever the header promised
        self.sock.settimeout(STALL)
        while piece and len(gathered) < size:
            piece = self.sock.recv(min(size - len(gathered), 1 << 20))
            gathered += piece
        if not piece:
            raise ConnectionResetError("the other side closed the connection")
        return gathered

    def abort(self) -> None:
        """End it from any thread: whoever waits in `receive` gets an OSError at once."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not TLS's own, which is for the thread that reads
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Let go of the socket; in the one thread that uses it."""
        self.sock.close()

"""Sharing a tuple space: `RingServer` serves it on a port, and announces it on the local network."""

import logging
import secrets

from discovery.beacon import Beacon
from discovery.errors import MulticastUnavailable
from discovery.remote.client import Client
from discovery.remote.protocol import MAX_MESSAGE
from discovery.remote.security import TLS, Access
from discovery.remote.server import Server
from discovery.rings.board import Board
from discovery.tuples.space import TupleSpace

__all__ = ["PORT", "RingServer"]

PORT = 7647
"""The port of Rinda's rings, too. (Theirs is UDP, ours TCP, so the two can share a machine.)"""

ANYWHERE = ("", "0.0.0.0", "::")
OBJECT_ID = "ring"
"""The id of a ring's tuple space at its server. It is the same for all, so the port is enough to find the ring."""

log = logging.getLogger(__name__)


class RingServer:
    """Shares a tuple space on a port, and announces it on the local network.

    It listens from `start` or `with` on, until `close`. Renewers in other processes get five seconds to answer.

    Args:
        space: What is shared. By default a new one, which is closed with the server.
        port: 0 is any free one.
        host: The address of the interface to listen on, and to announce the ring on; by default all of them.
        access, tls, max_message: As for `remote.Server`.
        announce: Whether to announce the ring. If that fails, it is a warning.
    """

    def __init__(
        self,
        space: TupleSpace | None = None,
        port: int = PORT,
        *,
        host: str = "",
        access: Access | None = None,
        tls: TLS | None = None,
        max_message: int = MAX_MESSAGE,
        announce: bool = True,
    ) -> None:
        self.space = TupleSpace() if space is None else space
        self.identity = secrets.token_urlsafe(16)
        self._own_space = space is None
        self._announce, self._host = announce, host
        self._beacon: Beacon | None = None
        trusted = tls if tls is not None and tls.authority is not None else None
        client = Client(tls=trusted, timeout=5.0, connect_timeout=2.0, server=lambda: self._server)
        self._server = Server(host, port, access=access, tls=tls, client=client, max_message=max_message)

    @property
    def port(self) -> int:
        """The port on which it listens, once it does."""
        return self._server.port

    def start(self) -> "RingServer":
        """Listen and announce. Raise OSError when the port cannot be had."""
        self._server.serve(Board(self.space, self.identity), OBJECT_ID)
        if self._announce:
            self._beacon = Beacon([self._host] if self._host not in ANYWHERE else None)
            try:
                self._beacon.start().announce("ring", {"port": str(self.port)}, port=self.port)
            except MulticastUnavailable as exc:
                log.warning("%r cannot announce itself, and is found by its host's name only: %s", self, exc)
        return self

    def close(self) -> None:
        """Stop at once. Clients that wait get an error."""
        if self._beacon is not None:
            self._beacon.close()
        self._server.close()
        if self._own_space:
            self.space.close()

    def __enter__(self) -> "RingServer":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RingServer on port {self.port} of {self.space!r}>"

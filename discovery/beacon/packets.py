"""What a socket receives, before zeroconf sees it: packets that were heard before are recognized by their bytes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

Said = tuple[tuple[str, bytes], ...]
"""Names of announcements, and their texts."""

MAX_PACKET = 9000
"""Bytes that are read of a packet. zeroconf ignores packets of more than 8966."""
MAX_KEPT = 4 << 20
"""Bytes of packets that are kept. When there are more, all are parsed once more."""


_SO_MEMINFO = 55  # Linux: nine numbers of four bytes, of which the last counts the packets that were dropped
_BATCH = 50  # packets that are read before the loop does something else


def overflows(sock: socket.socket) -> int:
    """Return how many packets were lost because the socket's buffer was full; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)[32:], sys.byteorder)
    except OSError:
        return 0


class Packets:
    """What known packets say."""

    def __init__(self) -> None:
        self._said: dict[bytes, Said] = {}
        self._size = 0

    def keep(self, data: bytes, said: Said) -> None:
        """Remember what a packet says."""
        if data not in self._said:
            self._size += len(data)
        if self._size > MAX_KEPT:
            self._said, self._size = {}, len(data)
        self._said[data] = said

    def said(self, data: bytes) -> Said:
        """Return what a packet says; nothing if it is not known."""
        return self._said.get(data, ())


class Gate(asyncio.DatagramProtocol):
    """Read all packets that have come, and pass on those that are not known.

    A loop reads one packet each time it has waited, which takes several times as long as to recognize it. When many
    come at once, the socket's buffer would overflow meanwhile.

    Args:
        sock: the socket, as a copy that is closed here.
        inner: gets the packets that are not known.
        admits: called with the bytes of each packet and its sender's address; returns whether it may come in.
        known: called with the bytes of those; returns whether they are known, and does what follows from them.
        learn: called with the bytes of a packet and a function that passes it on.
    """

    def __init__(
        self,
        sock: socket.socket,
        inner: asyncio.DatagramProtocol,
        admits: Callable[[bytes, str], bool],
        known: Callable[[bytes], bool],
        learn: Callable[[bytes, Callable[[], None]], None],
    ) -> None:
        self._sock, self._inner, self._admits = sock, inner, admits
        self._known, self._learn = known, learn

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Called by the loop for the first packet of those that have come."""
        self._take(data, addr)
        for _ in range(_BATCH):
            try:
                more = self._sock.recvfrom(MAX_PACKET)
            except OSError:  # there are no more; any other error is the loop's to find
                break
            self._take(*more)

    def _take(self, data: bytes, addr: Any) -> None:
        if self._admits(data, addr[0]) and not self._known(data):
            self._learn(data, lambda: self._inner.datagram_received(data, addr))

    def error_received(self, exc: Exception) -> None:
        """Called by the loop after a failure."""
        self._inner.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop when the socket is closed."""
        self._sock.close()
        self._inner.connection_lost(exc)

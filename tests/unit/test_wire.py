"""One connection over a real pair of sockets, with a peer that misbehaves."""

import errno
import socket
from collections.abc import Iterator

import pytest

from discovery.remote.protocol import HEADER, MAGIC, VERSION, Kind, Role
from discovery.remote.wire import Connection

GREETING = HEADER.pack(MAGIC, VERSION, Kind.GREETING, 0)


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's socket and the client's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield server, client


def test_half_a_message_does_not_prolong_the_time_for_the_whole(line: tuple[socket.socket, socket.socket]) -> None:
    """A peer that begins its greeting and falls silent is given up in time, and not after the longer `STALL`."""
    server, client = line
    connection = Connection(client, Role.CLIENT)
    server.sendall(GREETING[:3])
    with pytest.raises(TimeoutError):
        connection.receive(0.05, whole=0.05)
    assert connection.protocol.partial
    server.sendall(GREETING[3:])
    assert connection.receive(whole=30.0).kind is Kind.GREETING  # nothing that had arrived is lost


class Vanished(socket.socket):
    """A socket of which the kernel says that nobody answers at the other side any more."""

    def recv(self, *_: int) -> bytes:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")


def test_a_peer_that_has_vanished_is_not_one_that_is_late(line: tuple[socket.socket, socket.socket]) -> None:
    """The kernel's ETIMEDOUT is a TimeoutError for Python; here the connection is lost, with nothing to wait for."""
    _, client = line
    with Vanished(fileno=client.detach()) as vanished, pytest.raises(ConnectionResetError, match="vanished"):
        Connection(vanished, Role.CLIENT).receive(30.0)

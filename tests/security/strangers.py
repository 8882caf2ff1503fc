"""Connections as strangers make them."""

import socket

from discovery.remote import Server
from discovery.remote.protocol import Role
from discovery.remote.wire import Connection
from tests.waiting import DEADLINE


def stranger(server: Server) -> Connection:
    """A connection to a server that has been greeted, and on which anything may be sent."""
    connection = Connection(socket.create_connection(("127.0.0.1", server.port), DEADLINE), Role.CLIENT)
    connection.receive(DEADLINE)
    return connection

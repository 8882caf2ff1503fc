"""Objects called from other processes: plain data goes by value, what is served goes by reference.

    with Server() as server:                       # here
        address = server.serve(Hello())

    hello = connect(address)                       # there
    hello.say_hello()

What arrives is never unpickled or evaluated, and of a served object nothing exists but its public methods. An address
holds an unguessable id, and no server tells which ids it has: who was not given an address cannot call. (Without TLS,
whoever can read the network can read addresses too.) The idea, and the words by value and by reference, are DRb's.
"""

import os
import threading
from typing import Any

from discovery.client import Client, Proxy, RemoteStream, address_of
from discovery.encoding import Unknown, by_value
from discovery.security import TLS, Access
from discovery.server import Pending, Server, Stream
from discovery.shelf import by_reference
from discovery.wire import Address

__all__ = [
    "TLS",
    "Access",
    "Address",
    "Client",
    "Pending",
    "Proxy",
    "RemoteStream",
    "Server",
    "Stream",
    "Unknown",
    "address_of",
    "by_reference",
    "by_value",
    "connect",
    "default_client",
    "default_server",
    "serve",
]


def serve(target: Any, name: str | None = None) -> str:
    """Serve an object on this process's default server, and return its address.

    That server listens on every interface from the first use on. For an access list, TLS or a port of your choice, make
    a `Server` of your own.
    """
    return default_server().serve(target, name)


def connect(address: Address | str) -> Proxy:
    """A proxy for the object at that address, with default settings (no TLS, calls may take for ever)."""
    return default_client.proxy(address)


def default_server() -> Server:
    """The server behind `serve`; also lends what the default client sends by reference."""
    global _default_server
    with _lock:
        if _default_server is None:
            _default_server = Server(client=default_client)
        return _default_server


def _forked() -> None:
    global _default_server, _lock
    _default_server, _lock = None, threading.Lock()


_lock = threading.Lock()
_default_server: Server | None = None
default_client = Client(server=default_server)
os.register_at_fork(after_in_child=_forked)

"""The client and the server that a process has by default, behind `serve` and `connect`."""

import threading
from typing import Any

from discovery.fork import ForkGuard
from discovery.remote.address import Address
from discovery.remote.client import Client
from discovery.remote.proxy import Proxy
from discovery.remote.server import Server

__all__ = ["connect", "default_client", "default_server", "serve"]


def serve(target: Any, name: str | None = None) -> str:
    """Serve an object on this process's default server, and return its address; see `Server.serve`.

    That server listens on every interface from the first use on. For an access list, TLS or a port of your choice, make
    a `Server` of your own.
    """
    return default_server().serve(target, name)


def connect(address: Address | str) -> Proxy:
    """Return a proxy for the object at that address, with default settings: no TLS, calls may take for ever.

    Raises:
        BadAddress: The text is no address.
    """
    return default_client.proxy(address)


def default_server() -> Server:
    """Return the server behind `serve`, which also lends what the default client sends by reference."""
    global _default_server
    with _lock:
        if _default_server is None:
            _default_server = Server(client=default_client)
        return _default_server


def _in_child() -> None:
    global _default_server, _lock
    _default_server, _lock = None, threading.Lock()


_lock = threading.Lock()
_default_server: Server | None = None
default_client = Client(server=default_server)
_guard = ForkGuard(_in_child)

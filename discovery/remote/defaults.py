"""The client and the server that a process has by default, behind `serve` and `connect`."""

import os
import threading
from typing import Any

from discovery.remote.client import Client, Proxy
from discovery.remote.server import Server
from discovery.remote.wire import Address

__all__ = ["connect", "default_client", "default_server", "serve"]


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

"""Tuples and services: who and what is there.

Each part has a module or a package of its own:

- `discovery.tuples`: tuple spaces, matched by template, with expiry (what Rinda's tuple space is).
- `discovery.remote`: objects called from other processes (what DRb is).
- `discovery.rings`: tuple spaces shared over the network and found by multicast (what Rinda's ring and RingyDingy are).
- `discovery.registry`: services registered, found by URL, called and borrowed (what Distribunaut is).
- `discovery.beacon`: small announcements over multicast DNS.
- `discovery.signals`: waiting for signals on the main thread.

The names that most programs need are here; each is imported when it is first used (PEP 562), so that importing
`discovery` costs nothing. Every error is in `discovery.errors`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from discovery.beacon import Beacon
    from discovery.errors import DiscoveryError
    from discovery.registry import Distributed, Registry, distributable
    from discovery.remote import Client, Server, connect, serve
    from discovery.rings import RingFinger, RingServer
    from discovery.tuples import TupleSpace

__all__ = [
    "Beacon",
    "Client",
    "DiscoveryError",
    "Distributed",
    "Registry",
    "RingFinger",
    "RingServer",
    "Server",
    "TupleSpace",
    "connect",
    "distributable",
    "serve",
]

_HOMES = {
    "Beacon": "beacon",
    "Client": "remote",
    "DiscoveryError": "errors",
    "Distributed": "registry",
    "Registry": "registry",
    "RingFinger": "rings",
    "RingServer": "rings",
    "Server": "remote",
    "TupleSpace": "tuples",
    "connect": "remote",
    "distributable": "registry",
    "serve": "remote",
}


def __getattr__(name: str) -> Any:
    """Import a name from the module that defines it, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"discovery.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

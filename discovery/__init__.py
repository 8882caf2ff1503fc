"""Tuples and services: who and what is there.

Five rooms, each with a page of its own names:

- `discovery.tuples`: tuple spaces, matched by template, with expiry (what Rinda's tuple space is).
- `discovery.remote`: objects called from other processes (what DRb is).
- `discovery.rings`: tuple spaces shared over the network and found by multicast (what Rinda's ring and RingyDingy are).
- `discovery.registry`: services registered, found by URL, called and borrowed (what Distribunaut is).
- `discovery.beacon`: small announcements over multicast DNS.

The names that most programs need are here. Every error is in `discovery.errors`.
"""

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

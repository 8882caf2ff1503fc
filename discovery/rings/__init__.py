"""Rings: tuple spaces shared over the network, which any process can find. The idea is Rinda's.

    with RingServer(TupleSpace()) as server: ...           # on one machine
    ring = RingFinger.primary()                            # on any other: a space to read, take and write

`Registration`, `find` and `services` keep and find named services in rings. The idea is RingyDingy's.
"""

from discovery.rings.finder import BROADCAST, RingFinger
from discovery.rings.registration import ANY_SERVICE, Registration, ServiceTuple, find, services
from discovery.rings.server import PORT, RingServer
from discovery.rings.space import RemoteEntry, RemoteEvents, RemoteRequest, RemoteSpace

__all__ = [
    "ANY_SERVICE",
    "BROADCAST",
    "PORT",
    "Registration",
    "RemoteEntry",
    "RemoteEvents",
    "RemoteRequest",
    "RemoteSpace",
    "RingFinger",
    "RingServer",
    "ServiceTuple",
    "find",
    "services",
]

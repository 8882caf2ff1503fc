"""Objects called from other processes: plain data goes by value, what is served goes by reference.

    with Server() as server:                       # here
        address = server.serve(Hello())

    hello = connect(address)                       # there
    hello.say_hello()

What arrives is never unpickled or evaluated, and of a served object nothing exists but its public methods. An address
holds an unguessable id, and no server tells which ids it has: who was not given an address cannot call. (Without TLS,
whoever can read the network can read addresses too.) The idea, and the words by value and by reference, are DRb's.
"""

from discovery.remote.client import Client, Proxy, RemoteStream, address_of
from discovery.remote.defaults import connect, default_client, default_server, serve
from discovery.remote.encoding import Unknown, by_value
from discovery.remote.objects import by_reference
from discovery.remote.security import TLS, Access
from discovery.remote.server import Pending, Server, Stream
from discovery.remote.wire import Address

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

"""Objects called from other processes: plain data goes by value, what is served goes by reference.

    with Server() as server:                       # here
        address = server.serve(Hello())

    hello = connect(address)                       # there
    hello.say_hello()

What arrives is never unpickled or evaluated, and only public methods of served objects can be called. An address is
`remote://HOST:PORT/ID`. Nobody can guess the id, and no server tells which ids it has: to call an object you must have
been given its address. (Without TLS, anybody who can read the network can read addresses too.) The idea, and the words
by value and by reference, are DRb's.
"""

from discovery.remote.address import Address
from discovery.remote.answers import Pending, Stream
from discovery.remote.client import Client, RemoteStream
from discovery.remote.defaults import connect, default_client, default_server, serve
from discovery.remote.encoding import Unknown, by_value
from discovery.remote.objects import by_reference
from discovery.remote.proxy import Proxy, address_of, within
from discovery.remote.security import TLS, Access
from discovery.remote.server import Server

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
    "within",
]

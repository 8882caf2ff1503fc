"""Tuples and services: who and what is there.

A tuple space holds tuples that are matched by template and may expire. A tuple is *alive* until its expiry has passed
on the clock of the process that keeps the space, or, where a renewer keeps it, until that has no answer or says no.
"""

from discovery.beacon import Announcement, Beacon, Sighting
from discovery.entry import Entry, Expiry, Renewer, SimpleRenewer
from discovery.errors import (
    BadAccessRule,
    BadAddress,
    BadAnnouncement,
    BadMessage,
    BadTemplate,
    BadTime,
    BadTuple,
    CallTimeout,
    CannotTravel,
    ConnectionLost,
    DiscoveryError,
    MulticastUnavailable,
    NoSuchMethod,
    NoSuchObject,
    RemoteError,
    RequestCanceled,
    RequestExpired,
    RingNotFound,
    UnknownClass,
)
from discovery.registration import Registration, find, services
from discovery.remote import TLS, Access, Client, Proxy, Server, by_reference, by_value, connect, serve
from discovery.remotespace import RemoteSpace
from discovery.ring import RingFinger, RingServer
from discovery.template import Template
from discovery.tuplespace import TupleSpace
from discovery.waiting import Event, EventStream, Request

__all__ = [
    "TLS",
    "Access",
    "Announcement",
    "BadAccessRule",
    "BadAddress",
    "BadAnnouncement",
    "BadMessage",
    "BadTemplate",
    "BadTime",
    "BadTuple",
    "Beacon",
    "CallTimeout",
    "CannotTravel",
    "Client",
    "ConnectionLost",
    "DiscoveryError",
    "Entry",
    "Event",
    "EventStream",
    "Expiry",
    "MulticastUnavailable",
    "NoSuchMethod",
    "NoSuchObject",
    "Proxy",
    "Registration",
    "RemoteError",
    "RemoteSpace",
    "Renewer",
    "Request",
    "RequestCanceled",
    "RequestExpired",
    "RingFinger",
    "RingNotFound",
    "RingServer",
    "Server",
    "Sighting",
    "SimpleRenewer",
    "Template",
    "TupleSpace",
    "UnknownClass",
    "by_reference",
    "by_value",
    "connect",
    "find",
    "serve",
    "services",
]

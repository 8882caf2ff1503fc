"""Tuples and services: who and what is there.

A tuple space holds tuples that are matched by template and may expire. A tuple is *alive* until its expiry has passed
on the clock of the process that keeps the space, or, where a renewer keeps it, until that has no answer or says no.
"""

from discovery.beacon import Announcement, Beacon, Sighting
from discovery.distributed import Distributed, default_registry, distributable, use_registry
from discovery.entry import Entry, Expiry, Renewer, SimpleRenewer
from discovery.errors import (
    BadAccessRule,
    BadAddress,
    BadAnnouncement,
    BadMessage,
    BadTemplate,
    BadTime,
    BadTuple,
    BadURL,
    CallTimeout,
    CannotTravel,
    ConnectionLost,
    DiscoveryError,
    LoanLost,
    MulticastUnavailable,
    NoSuchMethod,
    NoSuchObject,
    RemoteError,
    RequestCanceled,
    RequestExpired,
    RingNotFound,
    ServiceNotFound,
    ServiceOnLoan,
    ServiceTaken,
    UnknownClass,
)
from discovery.finder import ServiceProxy
from discovery.loan import Loan
from discovery.offer import Service
from discovery.registration import Registration, find, services
from discovery.registry import Registry
from discovery.remote import TLS, Access, Client, Proxy, Server, by_reference, by_value, connect, serve
from discovery.remotespace import RemoteSpace
from discovery.ring import RingFinger, RingServer
from discovery.template import Template
from discovery.tuplespace import TupleSpace
from discovery.url import ServiceURL
from discovery.view import ServiceChange, Watch
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
    "BadURL",
    "Beacon",
    "CallTimeout",
    "CannotTravel",
    "Client",
    "ConnectionLost",
    "DiscoveryError",
    "Distributed",
    "Entry",
    "Event",
    "EventStream",
    "Expiry",
    "Loan",
    "LoanLost",
    "MulticastUnavailable",
    "NoSuchMethod",
    "NoSuchObject",
    "Proxy",
    "Registration",
    "Registry",
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
    "Service",
    "ServiceChange",
    "ServiceNotFound",
    "ServiceOnLoan",
    "ServiceProxy",
    "ServiceTaken",
    "ServiceURL",
    "Sighting",
    "SimpleRenewer",
    "Template",
    "TupleSpace",
    "UnknownClass",
    "Watch",
    "by_reference",
    "by_value",
    "connect",
    "default_registry",
    "distributable",
    "find",
    "serve",
    "services",
    "use_registry",
]

"""Tuples and services: who and what is there.

A tuple space holds tuples that are matched by template and may expire. A tuple is *alive* until its expiry has passed
on the clock of the process that keeps the space, or, where a renewer keeps it, until that has no answer or says no.
"""

from discovery.beacon import Announcement, Beacon, Sighting
from discovery.entry import Entry, Expiry, Renewer, SimpleRenewer
from discovery.errors import (
    BadAnnouncement,
    BadTemplate,
    BadTime,
    BadTuple,
    DiscoveryError,
    MulticastUnavailable,
    RequestCanceled,
    RequestExpired,
)
from discovery.template import Template
from discovery.tuplespace import TupleSpace
from discovery.waiting import Event, EventStream, Request

__all__ = [
    "Announcement",
    "BadAnnouncement",
    "BadTemplate",
    "BadTime",
    "BadTuple",
    "Beacon",
    "DiscoveryError",
    "Entry",
    "Event",
    "EventStream",
    "Expiry",
    "MulticastUnavailable",
    "Renewer",
    "Request",
    "RequestCanceled",
    "RequestExpired",
    "Sighting",
    "SimpleRenewer",
    "Template",
    "TupleSpace",
]

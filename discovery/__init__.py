"""Tuples and services: who and what is there.

A tuple space holds tuples that are matched by template and may expire. A tuple is *alive* until its expiry has passed
on the clock of the process that keeps the space, or, where a renewer keeps it, until that has no answer or says no.
"""

from discovery.entry import Entry, Expiry, Renewer, SimpleRenewer
from discovery.errors import BadTemplate, BadTime, BadTuple, DiscoveryError, RequestCanceled, RequestExpired
from discovery.template import Template
from discovery.tuplespace import TupleSpace
from discovery.waiting import Event, EventStream, Request

__all__ = [
    "BadTemplate",
    "BadTime",
    "BadTuple",
    "DiscoveryError",
    "Entry",
    "Event",
    "EventStream",
    "Expiry",
    "Renewer",
    "Request",
    "RequestCanceled",
    "RequestExpired",
    "SimpleRenewer",
    "Template",
    "TupleSpace",
]

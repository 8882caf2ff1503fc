"""Tuple spaces: tuples that are written, matched by template, and that may expire.

A tuple is *alive* until its expiry has passed on the clock of the process that keeps the space. A tuple that has a
renewer is alive until the renewer says no, or does not answer in time.
"""

from discovery.tuples.entry import Entry, Expiry, Renewer, SimpleRenewer
from discovery.tuples.requests import BatchRequest, EventStream, Request, TupleEvent, TupleEventKind
from discovery.tuples.space import TupleSpace
from discovery.tuples.template import Template

__all__ = [
    "BatchRequest",
    "Entry",
    "EventStream",
    "Expiry",
    "Renewer",
    "Request",
    "SimpleRenewer",
    "Template",
    "TupleEvent",
    "TupleEventKind",
    "TupleSpace",
]

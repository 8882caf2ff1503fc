"""Tuple spaces: tuples that are written, matched by template, and that may expire.

A tuple is *alive* until its expiry has passed on the clock of the process that keeps the space. Where a renewer keeps
it, it is alive until the renewer does not answer or says no.
"""

from discovery.tuples.entry import Entry, Expiry, Renewer, SimpleRenewer
from discovery.tuples.requests import EventStream, Request, TupleEvent, TupleEventKind
from discovery.tuples.space import TupleSpace
from discovery.tuples.template import Template

__all__ = [
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

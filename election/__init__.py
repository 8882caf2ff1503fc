"""Leases and leader election over any store that can compare and swap a small cell.

    register = open_register("memcached://10.0.0.5:11211")
    with Candidate(register, "billing").campaign() as term:
        while term.valid:
            bill_next(fence=term.fence)

**Promised**: of all candidates of one name, at most one has a `term.valid` that is true at any moment, and `term.fence`
is larger than in every earlier term. This holds whatever the network does, however long a process pauses, and also when
the store restarts, is flushed or evicts the record.

**Assumed**: clocks may show any time, but their rates differ by at most `LeasePolicy.drift` (1 %). All candidates of a
name use the same ttl, drift and store. Nobody else deletes or edits the cells. For `fence` to grow after a record was
lost, wall clocks must not be set back beyond the last election.

**Not promised**: that a process does nothing after its lease has ended. It may be paused after it has looked at `valid`
and before it acts. `fence` is for that case: the place where the effect lands refuses a smaller number (`FenceGuard`).

docs/leases.md says how to choose the times, and docs/design.md why the promise holds.
"""

from election.candidate import Candidate, look
from election.cell import ask_to_resign
from election.errors import (
    BadPolicy,
    BadStoreURL,
    ElectionError,
    LeadershipLost,
    NotElected,
    StaleFence,
    StoreUnavailable,
)
from election.events import Event
from election.fence import FenceGuard
from election.lease import LeasePolicy
from election.register import Register
from election.stores import open_register
from election.term import LeaseTerm

__all__ = [
    "BadPolicy",
    "BadStoreURL",
    "Candidate",
    "ElectionError",
    "Event",
    "FenceGuard",
    "LeadershipLost",
    "LeasePolicy",
    "LeaseTerm",
    "NotElected",
    "Register",
    "StaleFence",
    "StoreUnavailable",
    "ask_to_resign",
    "look",
    "open_register",
]

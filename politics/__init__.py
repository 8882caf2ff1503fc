"""Run many identical daemons, of which one does the work.

    class PorkSpender(TokenWorker):
        group = "pork-spending"
        iteration_length = 10

        def perform(self, term: Term) -> None:
            ...

    PorkSpender(servers=["10.0.0.5:11211"]).process()

The package `election` says what is promised of the leader, and what is not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from election import BadPolicy, BadStoreURL, ElectionError, Event, LeadershipLost, StoreUnavailable
    from politics.group.peers import Peer
    from politics.leading import lead, run_while_leading
    from politics.worker.scheduler import Scheduler
    from politics.worker.term import Term
    from politics.worker.token_worker import TokenWorker

__all__ = [
    "BadPolicy",
    "BadStoreURL",
    "ElectionError",
    "Event",
    "LeadershipLost",
    "Peer",
    "Scheduler",
    "StoreUnavailable",
    "Term",
    "TokenWorker",
    "lead",
    "run_while_leading",
]

__version__ = "0.1.0"

_HOMES = {
    "BadPolicy": "election",
    "BadStoreURL": "election",
    "ElectionError": "election",
    "Event": "election",
    "LeadershipLost": "election",
    "Peer": "politics.group.peers",
    "Scheduler": "politics.worker.scheduler",
    "StoreUnavailable": "election",
    "Term": "politics.worker.term",
    "TokenWorker": "politics.worker.token_worker",
    "lead": "politics.leading",
    "run_while_leading": "politics.leading",
}


def __getattr__(name: str) -> Any:
    """Import a name from the module that defines it, and keep it.

    Raises:
        ImportError: something else is imported in the place of one of our packages; the message says what.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from politics.neighbours import check_neighbours

    check_neighbours()
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Run many identical daemons, of which one does the work.

    class PorkSpender(TokenWorker):
        group = "pork-spending"
        iteration_length = 10

        def perform(self, term: Term) -> None:
            ...

    PorkSpender(servers=["10.0.0.5:11211"]).process()

The package `election` says what is promised of the leader, and what is not.
"""

from election import BadPolicy, BadStoreURL, ElectionError, LeadershipLost, StoreUnavailable
from politics.group.peers import Peer
from politics.worker.term import Term
from politics.worker.token_worker import TokenWorker

__all__ = [
    "BadPolicy",
    "BadStoreURL",
    "ElectionError",
    "LeadershipLost",
    "Peer",
    "StoreUnavailable",
    "Term",
    "TokenWorker",
]

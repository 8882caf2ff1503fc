"""One leader works: `TokenWorker`, and the slots into which its work is cut."""

from politics.worker.term import Term
from politics.worker.token_worker import TokenWorker, process_all

__all__ = ["Term", "TokenWorker", "process_all"]

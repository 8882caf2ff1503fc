"""One leader works: `TokenWorker`, and `Scheduler` with one for each of many jobs."""

from politics.worker.scheduler import Scheduler
from politics.worker.term import Term
from politics.worker.token_worker import TokenWorker, process_all

__all__ = ["Scheduler", "Term", "TokenWorker", "process_all"]

"""Budgets of CPU time for attacks: an order of magnitude above what an attack costs, and below what it did cost."""

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def cpu(seconds: float) -> Iterator[None]:
    """Fail if the block takes more CPU time of this process, whatever else the machine is busy with."""
    began = time.process_time()
    yield
    spent = time.process_time() - began
    assert spent < seconds, f"{spent:.2f} s of CPU time, of {seconds} s that are allowed"


def least(work: Callable[[], object], times: int = 3) -> float:
    """Return the least CPU time that some work took in several runs."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)

"""On which processors a server and its client run, so that a row means the same each time."""

import contextlib
import os
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def pinned(servers: int, clients: int) -> Iterator[Callable[[], None]]:
    """Start servers on one core; after a call of what this yields, this process goes on on the other one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {servers})
    try:
        yield lambda: os.sched_setaffinity(0, {clients})
    finally:
        os.sched_setaffinity(0, before)


def layouts() -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Where server and client run: on one core (SC), and on two (XC), if there are two."""
    if not hasattr(os, "sched_getaffinity"):
        yield from (("SC", None), ("XC", None))
        return
    cores = sorted(os.sched_getaffinity(0))
    yield "SC", (cores[-1], cores[-1])
    yield "XC", (cores[0], cores[-1]) if len(cores) > 1 else None

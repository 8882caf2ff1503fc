"""A `Scheduler` as its users write it. Only the type checkers read this file."""

from collections.abc import Mapping
from typing import assert_type

from politics import Event, Scheduler, Term
from politics.worker.dispatcher import ScheduledJob

jobs = Scheduler("shop", servers=["10.0.0.5:11211"], lease_ttl=2, threads=4, on_event=print)


@jobs.cron("0 3 * * *", timezone="Europe/Berlin", catch_up="all", deadline=60, jitter=5, name="billing")
def bill(term: Term) -> int:
    """A job that can be called by itself."""
    return term.fence


@jobs.every(0.5, on_error="retry")
async def drain(term: Term) -> None:
    """An async one."""


def test(term: Term) -> None:
    """A job stays the function that it was."""
    assert_type(bill(term), int)


assert_type(jobs.jobs, Mapping[str, ScheduledJob])
assert_type(jobs.running, bool)
with jobs as running:
    assert_type(running, Scheduler)
jobs.stop(grace=1)


class Shop(Scheduler):
    """A scheduler with a hook."""

    def on_event(self, event: Event) -> None:
        """Something happened."""

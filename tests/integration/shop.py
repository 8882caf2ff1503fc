"""A scheduler whose jobs keep a diary, one JSON line for each begin and end, and for each event.

    python -m tests.integration.shop DIARY '{"store": "memcached://…", "jobs": {"bill": {"every": 1, "work": "rest"}}}'

`group` is its name. `jobs` names jobs with their options. Of these `every` or `cron` is the schedule, and `work` one of
the works below. What is left goes to `Scheduler`.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from politics import Event, Scheduler, Term
from tests.integration.worker import Diary


def rest(term: Term, seconds: float) -> None:
    """Take some time, and stop when asked."""
    term.lost.wait(seconds)
    term.check()


def ignore(_term: Term, seconds: float) -> None:
    """Take some time, whatever is asked."""
    time.sleep(seconds)


def fail(_term: Term, _seconds: float) -> None:
    """Raise an error."""
    raise ValueError("out of stock")


def leave(_term: Term, _seconds: float) -> None:
    """End the process."""
    sys.exit(3)


def fork(_term: Term, _seconds: float) -> None:
    """Fork a child, which returns from the work as well."""
    if pid := os.fork():
        os.waitpid(pid, 0)


WORKS = {work.__name__: work for work in (rest, ignore, fail, leave, fork)}


def make(diary: Diary, jobs: dict[str, dict[str, Any]], group: str = "shop", **options: Any) -> Scheduler:
    """Return the scheduler with its jobs."""

    def on_event(event: Event) -> None:
        if event.tick or event.kind.startswith("store"):
            fields = {name: value for name, value in event.fields.items() if name not in ("event", "group")}
            diary.tell(event.group.rpartition("/")[2], str(event.kind), **fields)

    scheduler = Scheduler(group, on_event=on_event, **{"lease_ttl": 1.0} | options)
    for name, about in jobs.items():
        work, seconds, cron = about.pop("work", "rest"), about.pop("seconds", 0.0), about.pop("cron", None)
        add = scheduler.every(about.pop("every", 1), name=name, **about)
        if cron:
            add = scheduler.cron(cron, name=name, **about)
        add(of(diary, name, work, seconds))
    return scheduler


def of(diary: Diary, name: str, work: str, seconds: float) -> Callable[[Term], object]:
    """Return the function of one job."""

    def perform(term: Term) -> None:
        assert term.tick
        about = {"tick": term.tick.timestamp(), "takeover": term.takeover, "fence": term.fence}
        diary.tell(name, "begin", **about)
        try:
            WORKS[work](term, seconds)
        finally:
            diary.tell(name, "end", **about)

    async def perform_async(term: Term) -> None:
        diary.tell(name, "begin", takeover=term.takeover)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            diary.tell(name, "cancelled", left=term.remaining())
            raise

    return perform_async if work == "sleep" else perform


def main() -> None:
    """Run it until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = json.loads(sys.argv[2])
    make(Diary(Path(sys.argv[1])), **options).run()


if __name__ == "__main__":
    main()

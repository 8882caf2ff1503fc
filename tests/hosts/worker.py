"""A worker on one of the hosts: its work is a row of appends to a file behind a fence.

    python -m tests.hosts.worker DIARY NAME '{"store": "memcached://…", "group": "pork", "seconds": 0.5}'

How long the work of a slot takes is random; it is `seconds` on average.
"""

import json
import logging
import random
import sys
from pathlib import Path

from election import FenceGuard, StaleFence
from politics import Term
from tests.integration.worker import STEP, WORKS, Diarist, Diary, DiaryHandler, now


def spend_with_a_fence(worker: Diarist, term: Term) -> None:
    """Check, rest, append. A worker that is paused while it rests comes back with an outdated fence."""
    end = now() + random.Random(f"{worker.name} {term.iteration}").uniform(0, 2) * worker.seconds
    guard, folder = FenceGuard(worker.group), worker.diary.path.parent
    while now() < end:
        term.check()
        term.lost.wait(STEP)
        try:
            with guard.locked(folder, term.fence), (folder / "effects").open("a") as file:
                file.write(f"{term.fence} {term.iteration} {worker.name}\n")
            worker.tell("effect", slot=term.iteration, fence=term.fence)
        except StaleFence:
            worker.tell("fenced off", slot=term.iteration, fence=term.fence)


WORKS["fenced"] = spend_with_a_fence

if __name__ == "__main__":
    diary, name, options = Diary(Path(sys.argv[1])), sys.argv[2], json.loads(sys.argv[3])
    logging.basicConfig(level=logging.INFO, handlers=[DiaryHandler(diary, name)])
    try:
        Diarist(diary, name, work="fenced", **options).process()
    finally:
        diary.tell(name, "exit")

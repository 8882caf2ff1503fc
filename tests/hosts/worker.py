"""A worker on one of the hosts: its work is a row of appends to a file that refuses an outdated fence.

    python -m tests.hosts.worker DIARY NAME '{"store": "memcached://…", "group": "pork", "seconds": 0.5}'

How long the work of a slot takes is drawn by lot; it is `seconds` on average.
"""

import fcntl
import json
import logging
import os
import random
import sys
from pathlib import Path

from politics import Term
from tests.integration.worker import STEP, WORKS, Diarist, Diary, DiaryHandler, now


def append(path: Path, fence: int, line: str) -> bool:
    """Append `fence` and the line to the file, unless its last line has a larger fence; in one piece."""
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
        last = file.readlines()[-1:] or [b"0"]
        if fence < int(last[0].split()[0]):
            return False
        file.write(f"{fence} {line}\n".encode())
        return True


def spend_with_a_fence(worker: Diarist, term: Term) -> None:
    """Check, rest, append: whoever is paused while it rests comes back with an outdated fence."""
    end = now() + random.Random(f"{worker.name} {term.iteration}").uniform(0, 2) * worker.seconds
    sink = worker.diary.path.with_name("effects")
    while now() < end:
        term.check()
        term.lost.wait(STEP)
        landed = append(sink, term.fence, f"{term.iteration} {worker.name}")
        worker.tell("effect" if landed else "fenced off", slot=term.iteration, fence=term.fence)


WORKS["fenced"] = spend_with_a_fence

if __name__ == "__main__":
    diary, name, options = Diary(Path(sys.argv[1])), sys.argv[2], json.loads(sys.argv[3])
    logging.basicConfig(level=logging.INFO, handlers=[DiaryHandler(diary, name)])
    try:
        Diarist(diary, name, work="fenced", **options).process()
    finally:
        diary.tell(name, "exit")

"""A worker that keeps a diary: what it claims, what it does and what it logs, one JSON line each.

    python -m tests.integration.worker DIARY NAME '{"store": "memcached://…", "group": "pork", "work": "steps"}'

The tests' own process uses the same class. Times are seconds on CLOCK_BOOTTIME, which all processes of a machine share.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from election import LeasePolicy
from politics import LeadershipLost, Term, TokenWorker

STEP = 0.02


def now() -> float:
    """The machine-wide clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Diary:
    """A file that many processes append whole lines to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tell(self, who: str, event: str, **fields: Any) -> None:
        """Write one line; `t` says when, unless it is given."""
        line = {"t": now(), "who": who, "pid": os.getpid(), "event": event} | fields
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")


class Diarist(TokenWorker):
    """Does one of the works below, and writes down every moment at which it claims to lead."""

    def __init__(
        self,
        diary: Diary,
        name: str,
        *,
        work: str = "steps",
        seconds: float = 0.0,
        poll_every: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._candidate.policy = LeasePolicy(self.lease_ttl, poll_every=poll_every)
        self.diary, self.name, self.work, self.seconds = diary, name, work, seconds
        self.over = threading.Event()

    def tell(self, event: str, **fields: Any) -> None:
        """One line of the diary."""
        self.diary.tell(self.name, event, **fields)

    def claim(self, term: Term, event: str = "claim") -> None:
        """Write down until when leadership is proven, if it is."""
        t = now()  # before the question, so that no delay makes the claim longer than it is
        if left := term.remaining():
            self.tell(event, t=t, group=self.group, fence=term.fence, until=t + left)

    def on_elected(self, term: Term) -> None:
        """Claim, and go on claiming until it is over, also while no work runs."""
        self.claim(term, "elected")
        self.over = threading.Event()
        threading.Thread(target=self.go_on_claiming, args=(term, self.over), daemon=True).start()

    def go_on_claiming(self, term: Term, over: threading.Event) -> None:
        while not over.wait(STEP) and term.valid:
            self.claim(term)
        self.tell("over", fence=term.fence)

    def on_lost(self, term: Term) -> None:
        self.over.set()
        self.tell("lost", fence=term.fence)

    def perform(self, term: Term) -> None:
        self.claim(term)
        self.tell("slot", slot=term.iteration, takeover=term.takeover, fence=term.fence)
        try:
            WORKS[self.work](self, term)
        except LeadershipLost as exc:
            self.tell("refused", slot=term.iteration, valid=term.valid, left=term.remaining(), why=str(exc))
            raise
        self.claim(term)
        self.tell("done", slot=term.iteration, fence=term.fence)


def steps(worker: Diarist, term: Term) -> None:
    """Check, do a little and rest, for `seconds`."""
    end = now() + worker.seconds
    while now() < end:
        effect(worker, term)
        term.lost.wait(STEP)


def effect(worker: Diarist, term: Term, **fields: Any) -> None:
    """Something that only a leader may do. It counts from the moment before it was allowed."""
    t = now()
    term.check()
    worker.tell("effect", t=t, slot=term.iteration, fence=term.fence, **fields)


def spend(worker: Diarist, term: Term) -> None:
    """Spend up to five pieces of the pork that lies in files beside the diary."""
    for file in sorted(worker.diary.path.parent.glob("*.pork"))[:5]:
        effect(worker, term, piece=file.name)
        file.unlink()
        term.lost.wait(STEP)


def ignore(worker: Diarist, term: Term) -> None:
    """Work on for `seconds`, whatever happens."""
    end = now() + worker.seconds
    while (left := end - now()) > 0:
        threading.Event().wait(left)


def fail(worker: Diarist, term: Term) -> None:
    """Raise."""
    raise ValueError("the pork is off")


def leave(worker: Diarist, term: Term) -> None:
    """End the process."""
    sys.exit(3)


def confess(worker: Diarist, term: Term) -> None:
    """In a fork of the leader: say what it believes."""
    raised = ""
    try:
        term.check()
    except LeadershipLost as exc:
        raised = str(exc)
    lost = term.lost.wait(10)
    worker.tell("child", valid=term.valid, left=term.remaining(), lost=lost, raised=raised, fence=term.fence)


def fork(worker: Diarist, term: Term) -> None:
    """Fork a child that ends in the middle of the work, then work for `seconds`."""
    if not (child := os.fork()):
        confess(worker, term)
        os._exit(0)
    os.waitpid(child, 0)
    steps(worker, term)


def fork_and_return(worker: Diarist, term: Term) -> None:
    """Fork a child that forgets to end itself, then work for `seconds`."""
    if not (child := os.fork()):
        return
    worker.tell("forked", child=child, status=os.waitpid(child, 0)[1])
    steps(worker, term)


def fork_by_multiprocessing(worker: Diarist, term: Term) -> None:
    """The same as `fork`, the way that most people do it."""
    child = multiprocessing.get_context("fork").Process(target=confess, args=(worker, term))
    child.start()
    child.join()
    steps(worker, term)


def linger(tell_ready: Connection) -> None:
    """Say that we are here, and stay."""
    tell_ready.send("ready")
    threading.Event().wait(60)


def terminate_a_fork(worker: Diarist, term: Term) -> None:
    """Fork a child and end it by SIGTERM, then work for `seconds`."""
    ready, tell_ready = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=linger, args=(tell_ready,))
    child.start()
    ready.recv()  # CPython drops what a child is sent before it has begun
    child.terminate()
    child.join(5)
    worker.tell("terminated", status=child.exitcode)
    child.kill()
    steps(worker, term)


def take_the_signal(worker: Diarist, term: Term) -> None:
    """Be the thread that the kernel hands SIGTERM to, and wait for what comes of it."""
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    term.lost.wait(worker.seconds)


WORKS = {
    work.__name__: work
    for work in (
        steps, spend, ignore, fail, leave, take_the_signal,
        fork, fork_and_return, fork_by_multiprocessing, terminate_a_fork,
    )
}  # fmt: skip


class DiaryHandler(logging.Handler):
    """Writes what is logged into the diary."""

    def __init__(self, diary: Diary, name: str) -> None:
        super().__init__(logging.INFO)
        self.diary, self.who = diary, name

    def emit(self, record: logging.LogRecord) -> None:
        self.diary.tell(self.who, "log", level=record.levelname, text=record.getMessage())


def main(kind: type[Diarist]) -> None:
    """Run a worker of this kind with the arguments of the command line."""
    diary, name, options = Diary(Path(sys.argv[1])), sys.argv[2], json.loads(sys.argv[3])
    logging.basicConfig(level=logging.INFO, handlers=[DiaryHandler(diary, name)])
    try:
        kind(diary, name, **options).process()
    finally:
        diary.tell(name, "exit")


if __name__ == "__main__":
    main(Diarist)

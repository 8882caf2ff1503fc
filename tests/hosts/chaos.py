"""Random faults from a seed, on several hosts, and a report on what became of the promise: `make chaos MINUTES=5`.

    python -m tests.hosts.chaos --minutes 5 --seed 7 --store redis
    python -m tests.hosts.chaos                         each line of the input names a fault, each is answered in JSON

The seed decides which faults there are, whom they hit and for how long. What comes of them is up to the machine.
"""

import argparse
import contextlib
import json
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.hosts.cluster import Cluster
from tests.hosts.faults import faults
from tests.hosts.kinds import KINDS
from tests.hosts.network import INSIDE, require
from tests.hosts.report import BOUND, SEVERAL, TTL, Injection, study
from tests.integration.harness import ROOT
from tests.integration.worker import Diary, now
from tests.waiting import SOON, until

HOLD = 1.8 * TTL
"""Seconds that a single fault lasts: long enough for a successor, if there is to be one."""


class Chaos:
    """Injects faults into a cluster, one or two at a time, and waits after each until somebody leads."""

    def __init__(self, cluster: Cluster, rng: random.Random, over: threading.Event) -> None:
        self.cluster, self.rng, self.over = cluster, rng, over
        self.faults = faults(cluster.kind)
        self.injections: list[Injection] = []

    def inject(self, kind: str, *kinds: str, hold: float) -> Injection:
        """Inject the first fault and a little later the others, mend them after `hold` seconds, wait for a leader."""
        began = now()
        with contextlib.ExitStack() as suffered:
            suffered.enter_context(self.suffer(kind))
            for other in kinds:
                self.over.wait(self.rng.uniform(0, TTL))
                suffered.enter_context(self.suffer(other))
            self.over.wait(hold)
        fault = self.faults[kind]
        amnesia = fault.amnesia or (bool(kinds) and self.cluster.kind.forgets)
        spared = fault.spares and not kinds
        injection = Injection(SEVERAL if kinds else kind, began, now(), fault.hides, amnesia, spared)
        self.injections.append(injection)
        until(lambda: self.cluster.led_since(injection.ended), f"a leader after {kind} {' '.join(kinds)}")
        return injection

    @contextlib.contextmanager
    def suffer(self, kind: str) -> Iterator[None]:
        """One fault, which the diary tells of."""
        diary = Diary(self.cluster.diary)
        diary.tell("chaos", "fault", kind=kind)
        with self.faults[kind].inject(self.cluster):
            yield
            diary.tell("chaos", "mended", kind=kind)

    def rounds(self, seconds: float) -> None:
        """Faults of every kind in a random order, a third of them in company, until `seconds` are over."""
        end, bag = now() + seconds, list[str]()
        while now() < end and not self.over.is_set():
            if not bag:
                bag = self.rng.sample(sorted(self.faults), len(self.faults))
            kind = bag.pop()
            store = self.faults[kind].store
            others = [name for name, other in self.faults.items() if name != kind and not (store and other.store)]
            company = [self.rng.choice(others)] if self.rng.random() < 1 / 3 else []
            self.inject(kind, *company, hold=self.rng.uniform(0, 2.5 * TTL))
            # Time for everybody to find out that the network works again: a call to the store may take half a second.
            self.over.wait(self.rng.uniform(0.6, 1.2))


def inside(folder: Path, seed: int, minutes: float, store: str) -> int:
    """The whole of a run, in a world of its own. The end of the input ends it early, whatever it is doing."""
    rng, over, lines = random.Random(seed), threading.Event(), queue.SimpleQueue[str]()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
        lines.put("")
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    options = {
        "iteration_length": rng.choice([0.5, 2.0, 6.0]) if minutes else 0.5,
        "seconds": rng.choice([0.2, 1.0, 3.0]) if minutes else 0.2,
        "sticky": rng.random() < 0.5 if minutes else True,
        "on_failover": rng.choice(["rerun", "skip"]) if minutes else "rerun",
    }
    trouble = []
    (folder / "effects").touch()
    with Cluster(folder, rng, KINDS[store], **options) as cluster:
        chaos = Chaos(cluster, rng, over)
        try:
            if minutes:
                chaos.rounds(60 * minutes)
            else:
                for line in iter(lines.get, ""):
                    answer(chaos, line)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as exc:
            trouble.append(f"{type(exc).__name__}: {exc}")
    report = study(cluster.events, chaos.injections)
    report.trouble += trouble
    report.left_behind += cluster.left
    fences = [int(line.split()[0]) for line in (folder / "effects").open()]
    if fences != sorted(fences):
        report.overlaps.append("an effect has landed behind one with a larger fence")
    if minutes:
        print(f"seed {seed}, {store}, {json.dumps(options)}\n{report}", flush=True)
    else:
        print(json.dumps({"broken": report.broken}), flush=True)
    return bool(report.broken)


def answer(chaos: Chaos, kind: str) -> None:
    """Inject one fault, and say in JSON what came of it.

    It begins when the leader has renewed its lease, so that the others have seen what it does. Otherwise the fault
    before it would still be at work.
    """
    calm = now()
    until(lambda: chaos.cluster.led_since(calm), "a leader who renews")
    fence = chaos.cluster.fence
    injection = chaos.inject(kind, hold=HOLD)
    report = study(chaos.cluster.events, [injection], BOUND + SOON)
    moved = chaos.cluster.fence != fence
    print(json.dumps({"moved": moved, "broken": report.broken, "late": report.late}), flush=True)


@contextlib.contextmanager
def world(
    seed: int, minutes: float = 0.0, keep: bool = False, store: str = "memcached"
) -> Iterator["subprocess.Popen[str]"]:
    """Such a run in a world of its own, which is ended when this context is left, or this process ends.

    Raises:
        AssertionError: this system does not let us make hosts.
    """
    require()
    folder = tempfile.mkdtemp(prefix="politics-hosts-")
    run = ["-m", "tests.hosts.chaos", f"--seed={seed}", f"--minutes={minutes}", f"--inside={folder}"]
    run.append(f"--store={store}")
    pipes = {"stdin": subprocess.PIPE, "stdout": None if minutes else subprocess.PIPE}
    # In a session of its own, so that Ctrl-C reaches us only: then we end its input, and it reports.
    process = subprocess.Popen([*INSIDE, sys.executable, *run], cwd=ROOT, text=True, start_new_session=True, **pipes)
    with process:
        try:
            yield process
        except KeyboardInterrupt:
            assert process.stdin
            process.stdin.close()
            process.wait(30)
            raise
        finally:
            process.kill()
            if process.wait() == 1 or keep:
                print(f"the diary of this run is kept in {folder}", flush=True)
            else:
                shutil.rmtree(folder)


def main() -> int:
    """The command line; returns the exit status: 1 when the promise was broken."""
    parser = argparse.ArgumentParser(description="Several hosts, one leader, and every fault that we know of.")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--store", choices=KINDS, default="memcached")
    parser.add_argument("--keep", action="store_true", help="keep the diary, also when no promise was broken")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return inside(given.inside, given.seed, given.minutes, given.store)
    print(f"seed {given.seed}, {given.store}: about {given.minutes:g} minutes", flush=True)
    try:
        with world(given.seed, given.minutes, given.keep, given.store) as process:
            return process.wait()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Several real `celery beat` with a real broker, of which one sends: killed, stopped, paused, and their servers too."""

import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from election import look, open_register
from tests.processes import Process
from tests.redis_server import RedisServer
from tests.waiting import until

APP = """
import json, os
from celery import Celery
app = Celery("shop", broker=os.environ["BROKER"])
app.conf.update(
    result_expires=None,
    worker_hijack_root_logger=False,
    beat_schedule={{name: {{"task": name, "schedule": step}} for name, step in {steps}.items()}},
    **json.loads(os.environ.get("SETTINGS", "{{}}")),
)
"""
STEPS = {"quick": 0.3, "middle": 0.5, "slow": 1.1}
LEADER = "politics.integrations.celery:LeaderScheduler"


class Beats:
    """The beats of one test, their broker and their store."""

    def __init__(self, folder: Path, broker: RedisServer, store: str) -> None:
        self.broker, self.store, self.folder = broker, store, folder
        self.running: list[Process] = []
        self.write(STEPS)

    def write(self, steps: dict[str, float], more: str = "") -> None:
        """Write the app with these intervals, each of a task of the same name."""
        (self.folder / "shop.py").write_text(APP.format(steps=steps) + more)

    def start(self, *words: str, settings: str = '{"politics_lease_ttl": 1.0}') -> Process:
        """Start one, and wait until it is a candidate."""
        words = words or ("beat", "-S", LEADER)
        path = f"{self.folder}{os.pathsep}{Path.cwd()}"
        env = {"BROKER": self.broker.url, "POLITICS_STORE": self.store, "SETTINGS": settings, "PYTHONPATH": path}
        command = [sys.executable, "-m", "celery", "--workdir", self.folder, "-A", "shop", *words, "-l", "INFO"]
        self.running.append(Process(*command, env=env))
        self.running[-1].line("Starting..." if "beat" in words else "ready.")
        return self.running[-1]

    def sender(self, *others: Process) -> Process:
        """Wait until one of them leads that is none of these, and return it."""

        def found() -> Process | None:
            with contextlib.closing(open_register(self.store)) as register:
                record = look(register, "shop.beat")
            pid = record.pid if record and record.state == "held" else 0
            return next((beat for beat in self.running if beat.popen.pid == pid and beat not in others), None)

        return until(found, "a beat that sends")

    def sent(self, name: str = "quick") -> int:
        """How many ticks of an entry were sent."""
        return sum(task["task"] == name for task in self.broker.tasks())

    def wait_for_more(self, count: int = 3, name: str = "quick") -> None:
        """Wait until so many more ticks were sent."""
        enough = self.sent(name) + count
        until(lambda: self.sent(name) >= enough, f"{count} more ticks of {name}")

    def verify(self, doubles: int, steps: dict[str, float] = STEPS) -> None:
        """Check that no tick of any entry is missing, and that only so many were sent twice."""
        ticks = Counter((task["task"], datetime.fromisoformat(task["politics_tick"])) for task in self.broker.tasks())
        assert max(ticks.values()) <= 2
        assert sum(count - 1 for count in ticks.values()) <= doubles
        last = max(when for _, when in ticks)
        starts = set()
        for name, step in steps.items():
            times = sorted(when for entry, when in ticks if entry == name)
            starts.add(times[0] - timedelta(seconds=step))
            assert times == [times[0] + timedelta(seconds=step) * n for n in range(len(times))]
            assert times[-1] + timedelta(seconds=step) >= last
        assert len(starts) == 1

    def end(self) -> None:
        """Kill them all."""
        for beat in self.running:
            beat.kill()
            beat.result()
            assert beat.popen.stdout
            beat.popen.stdout.close()


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    """A Redis for this test alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def beats(tmp_path: Path, broker: RedisServer, old_store: str) -> Iterator[Beats]:
    """Beats with an SQLite store."""
    stage = Beats(tmp_path, broker, old_store)
    try:
        yield stage
    finally:
        stage.end()


def test_killed_again_and_again(beats: Beats) -> None:
    """When the beat that sends is killed at any moment, another goes on: nothing is missing, one tick may be double."""
    for _ in range(3):
        beats.start()
    rng = random.Random()
    for _ in range(4):
        victim = beats.sender()
        beats.wait_for_more(rng.randrange(1, 4))
        victim.kill()
        beats.start()
    beats.sender()
    beats.wait_for_more()
    for beat in beats.running:
        beat.kill()
    beats.verify(doubles=5)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_stopped(beats: Beats, how: signal.Signals) -> None:
    """A beat that is told to end hands over at once, long before its lease is over, and no tick is sent twice."""
    long = '{"politics_lease_ttl": 600.0}'
    for _ in range(3):
        beats.start(settings=long)
    for _ in range(2):
        sender = beats.sender()
        beats.wait_for_more()
        sender.popen.send_signal(how)
        assert sender.result()[0] == 0
    last = beats.sender()
    beats.wait_for_more()
    assert last.stop() == 0
    beats.verify(doubles=0)

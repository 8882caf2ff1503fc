"""Several real `celery beat` with a real broker, of which one sends: killed, stopped, paused, and their servers too."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from election import look, open_register
from tests.commands import politics
from tests.memcached import Memcached
from tests.processes import Process, python, suspend
from tests.redis_server import RedisServer
from tests.waiting import until

APP = """
import json, os
from celery import Celery
app = Celery("{app}", broker=os.environ["BROKER"])
app.conf.update(
    result_expires=None,
    beat_schedule={{name: {{"task": name, "schedule": step}} for name, step in {steps}.items()}},
    **json.loads(os.environ.get("SETTINGS", "{{}}")),
)
"""
STEPS = {"quick": 0.3, "middle": 0.5, "slow": 1.1}
_apps = (f"shop-{os.getpid()}-{number}" for number in itertools.count(1))
LEADER = "politics.integrations.celery:LeaderScheduler"


class Beats:
    """The beats of one test, their broker and their store."""

    def __init__(self, folder: Path, broker: RedisServer, store: str, steps: dict[str, float] = STEPS) -> None:
        self.broker, self.store, self.folder, self.steps = broker, store, folder, steps
        self.app = next(_apps)
        self.running: list[Process] = []
        (self.folder / "shop.py").write_text(APP.format(app=self.app, steps=steps))

    def start(self, *words: str, settings: str = '{"politics_lease_ttl": 1.0}') -> Process:
        """Start one, and wait until it is a candidate."""
        words = words or ("beat", "-S", LEADER)
        self.running.append(Process(*self.command(*words), env=self.environment(settings)))
        self.running[-1].line("Starting..." if "beat" in words else "ready.")
        return self.running[-1]

    def command(self, *words: str) -> list[str]:
        """A command line of Celery."""
        return [sys.executable, "-m", "celery", "--workdir", str(self.folder), "-A", "shop", *words, "-l", "INFO"]

    def environment(self, settings: str) -> dict[str, str]:
        """What the app reads."""
        path = f"{self.folder}{os.pathsep}{Path.cwd()}"
        return {"BROKER": self.broker.url, "POLITICS_STORE": self.store, "SETTINGS": settings, "PYTHONPATH": path}

    def sender(self, *others: Process) -> Process:
        """Wait until one of them leads that is none of these, and return it."""

        def found() -> Process | None:
            pid = self.leader()
            return next((beat for beat in self.running if beat.popen.pid == pid and beat not in others), None)

        return until(found, "a beat that sends")

    def leader(self) -> int:
        """The process that leads; 0 if nobody does."""
        with contextlib.closing(open_register(self.store)) as register:
            record = look(register, f"{self.app}.beat")
        return record.pid if record and record.state == "held" else 0

    def ticks(self, name: str) -> list[datetime]:
        """The ticks of an entry that were sent and are in the queue."""
        return [datetime.fromisoformat(task["politics_tick"]) for task in self.broker.tasks() if task["task"] == name]

    def wait_for_more(self, count: int = 3) -> None:
        """Wait until so many more ticks were sent of the entry that has the most."""
        enough = len(self.ticks("quick")) + count
        until(lambda: len(self.ticks("quick")) >= enough, f"{count} more ticks")

    def verify(self, doubles: int, tasks: list[dict[str, Any]] | None = None) -> None:
        """Check that no tick of any entry is missing, and that only so many were sent twice."""
        tasks = tasks or self.broker.tasks()
        ticks = Counter((task["task"], datetime.fromisoformat(task["politics_tick"])) for task in tasks)
        assert max(ticks.values()) <= 2
        assert sum(count - 1 for count in ticks.values()) <= doubles
        last = max(when for _, when in ticks)
        starts = set()
        for name, step in self.steps.items():
            times = sorted(when for entry, when in ticks if entry == name)
            starts.add(times[0] - timedelta(seconds=step))
            assert times == [times[0] + timedelta(seconds=step) * n for n in range(len(times))]
            assert times[-1] + timedelta(seconds=step) >= last
        assert len(starts) == 1

    def end(self) -> None:
        """End them all."""
        for beat in self.running:
            if beat.popen.poll() is None and "worker" in beat.popen.args:
                beat.stop()  # takes what it started with it
            beat.kill()
            beat.result()
            assert beat.popen.stdout
            beat.popen.stdout.close()


MakeBeats = Callable[..., Beats]


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    """A Redis for this test alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def make_beats(tmp_path: Path, broker: RedisServer) -> Iterator[MakeBeats]:
    """Make the beats of this test, with a store."""
    with contextlib.ExitStack() as stack:

        def make(*options: Any) -> Beats:
            beats = Beats(tmp_path, broker, *options)
            stack.callback(beats.end)
            return beats

        yield make


@pytest.fixture
def beats(make_beats: MakeBeats, old_store: str) -> Beats:
    """Beats that share a file."""
    return make_beats(old_store)


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


def test_killed_among_many(make_beats: MakeBeats, old_memcached: Memcached) -> None:
    """Of three hundred entries that are due at once none is missing when their sender dies among them."""
    beats = make_beats(old_memcached.url, {f"entry {number}": 2.0 for number in range(300)})
    for _ in range(3):
        beats.start()
    for number in (1, 2):
        until(lambda number=number: beats.broker.client.llen("celery") >= number * 300 + 100, "a third of the entries")
        beats.sender().kill()
    until(lambda: beats.broker.client.llen("celery") >= 1200, "another round")
    for beat in beats.running:
        beat.kill()
    with contextlib.closing(open_register(beats.store)) as register:
        cell = register.read(f"{beats.app}.beat")
    assert cell
    assert len(cell.data) < 512
    ticks = Counter((task["task"], task["politics_tick"]) for task in beats.broker.tasks())
    rounds = sorted({tick for _, tick in ticks})
    for tick in rounds[:-1]:
        assert {name for name, when in ticks if when == tick} == set(beats.steps)
    assert sum(ticks.values()) - len(ticks) <= 2


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


def test_paused(make_beats: MakeBeats, old_memcached: Memcached) -> None:
    """A beat that was paused for longer than its lease sends no more than what was under way."""
    beats = make_beats(old_memcached.url)
    for _ in range(2):
        beats.start()
    paused = beats.sender()
    beats.wait_for_more()
    suspend(paused.popen)
    other = beats.sender(paused)
    beats.wait_for_more()
    paused.popen.send_signal(signal.SIGCONT)
    paused.line("this beat stands by")
    beats.wait_for_more()
    other.kill()
    beats.sender(other)
    beats.wait_for_more()
    beats.verify(doubles=2)


def test_asked(beats: Beats) -> None:
    """`politics resign` has another beat send, long before the lease is over."""
    for _ in range(2):
        beats.start(settings='{"politics_lease_ttl": 600.0}')
    first = beats.sender()
    beats.wait_for_more()
    assert politics("resign", f"{beats.app}.beat", "--store", beats.store).status == 0
    beats.sender(first)
    beats.wait_for_more()
    beats.verify(doubles=0)


@pytest.mark.parametrize("with_sender", [False, True], ids=["memcached", "memcached and the sender"])
def test_restarted_store(make_beats: MakeBeats, own_memcached: Memcached, with_sender: bool) -> None:
    """When memcached forgets all, the sender goes on; if it dies at the same moment, another does, from memory."""
    beats = make_beats(own_memcached.url)
    for _ in range(3):
        beats.start()
    for _ in range(2):
        sender = beats.sender()
        beats.wait_for_more()
        if with_sender:
            sender.kill()
        own_memcached.restart()
        beats.start()
        beats.wait_for_more()
    for beat in beats.running:
        beat.kill()
    beats.verify(doubles=4 if with_sender else 0)


def test_broker_away(beats: Beats, broker: RedisServer) -> None:
    """What was due while the broker was away is sent when it is back."""
    for _ in range(2):
        beats.start()
    beats.wait_for_more()
    before = max(beats.ticks("quick"))
    broker.stop()
    for beat in beats.running:
        beat.line("sending is put off")
    broker.start()
    beats.wait_for_more(6)
    ticks, step = sorted(set(beats.ticks("quick"))), timedelta(seconds=STEPS["quick"])
    assert ticks[0] <= before + 2 * step  # one may have been sent before the broker was gone, with all that it held
    assert ticks == [ticks[0] + step * n for n in range(len(ticks))]


BAD = """
from celery.beat import BeatLazyFunc
bad = {
    "unknown type": {"args": [object()]},
    "headers": {"options": {"headers": ["no mapping"]}},
    "file": {"args": [BeatLazyFunc(open, "/does/not/exist")]},
    "queue": {"options": {"queue": "refused"}},
}
app.conf.beat_schedule = app.conf.beat_schedule | {
    name: {"task": name, "schedule": 0.7, **about} for name, about in bad.items()
}
"""


def test_entries_that_cannot_be_sent(beats: Beats, broker: RedisServer) -> None:
    """They are logged and left out. The others are neither held up by them nor sent twice."""
    with (beats.folder / "shop.py").open("a") as file:
        file.write(BAD)
    broker.client.set("refused", "no list")  # so Redis refuses what is put into this queue
    for _ in range(2):
        beats.start()
    beats.wait_for_more(20)
    for beat in beats.running:
        beat.stop()
    beats.verify(doubles=0)
    text = "".join(beat.result()[1] for beat in beats.running)
    for name in ("unknown type", "headers", "file", "queue"):
        assert f"{beats.app}.beat: {name} is left out" in text


RECORDING = """
import redis
queue = redis.Redis.from_url(os.environ["BROKER"])
def record(task):
    queue.rpush("done", json.dumps({"task": task.name, "politics_tick": task.request.headers["politics_tick"]}))
for name in app.conf.beat_schedule:
    app.task(record, name=name, bind=True)
"""


def test_embedded(beats: Beats, broker: RedisServer) -> None:
    """Of several `celery worker -B` one sends, and another goes on when it ends, or when the beat in it is killed."""
    with (beats.folder / "shop.py").open("a") as file:
        file.write(RECORDING)
    for number in range(3):
        beats.start("worker", "-B", "--scheduler", LEADER, "--pool", "solo", "-n", f"worker{number}")

    def done() -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in broker.client.lrange("done", 0, -1)]

    def wait_for_more() -> None:
        enough = len(done()) + 5
        until(lambda: len(done()) >= enough, "more tasks that are done")

    wait_for_more()
    first = until(beats.leader)
    parent = int(subprocess.run(["ps", "-o", "ppid=", "-p", str(first)], capture_output=True, check=True).stdout)
    next(worker for worker in beats.running if worker.popen.pid == parent).stop()
    second = until(lambda: (pid := beats.leader()) != first and pid)
    wait_for_more()
    os.kill(second, signal.SIGKILL)
    until(lambda: beats.leader() not in (0, first, second), "a third beat that sends")
    wait_for_more()
    until(lambda: not broker.tasks(), "all tasks to be done")
    beats.verify(doubles=1, tasks=done())


def test_wrapped(beats: Beats) -> None:
    """The entries come from the scheduler that is named; what was sent counts by the record, not by its file."""
    settings = '{"politics_lease_ttl": 1.0, "politics_beat_scheduler": "celery.beat:PersistentScheduler"}'
    for number in range(2):
        beats.start("beat", "-S", LEADER, "-s", str(beats.folder / f"schedule{number}"), settings=settings)
    for _ in range(2):
        sender = beats.sender()
        beats.wait_for_more()
        sender.stop()
        beats.start("beat", "-S", LEADER, "-s", str(beats.folder / "schedule0"), settings=settings)
    beats.sender()
    beats.wait_for_more()
    beats.verify(doubles=0)
    assert (beats.folder / "schedule0").exists() or list(beats.folder.glob("schedule0*"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('{"politics_lease_ttl": 0}', "lease_ttl must be between 0.1 and 3600, not 0"),
        ('{"politics_lease_ttl": "long"}', "lease_ttl must be a number of seconds, not 'long'"),
        ('{"politics_catch_up": -1}', "politics_catch_up must be between 0 and"),
        ('{"politics_catch_up": true}', "politics_catch_up must be between 0 and"),
        ('{"politics_store": "nonsense://"}', "nonsense"),
        ('{"politics_beat_scheduler": "' + LEADER + '"}', "politics_beat_scheduler must name another scheduler"),
        ('{"politics_group": "' + "x" * 81 + '"}', "80 bytes"),
    ],
)
def test_wrong_settings(beats: Beats, settings: str, sentence: str) -> None:
    """A setting that cannot be is named at the start."""
    beat = Process(*beats.command("beat", "-S", LEADER), env=beats.environment(settings))
    beats.running.append(beat)
    status, text = beat.result()
    assert status != 0
    assert sentence in text


def test_without_celery() -> None:
    """Without Celery the import says what to install."""
    with python("import sys; sys.modules['celery'] = None; import politics.integrations.celery") as process:
        assert "the scheduler for Celery needs a library: pip install celery" in process.result()[1]

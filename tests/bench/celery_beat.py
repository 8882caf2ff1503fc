"""How soon another `celery beat` sends when the one that sends is killed."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from election import look, open_register
from tests.bench.election import Row, server

TTL = 2.0
EVERY = 0.05
APP = f"""
import os
from celery import Celery
app = Celery("bench", broker=os.environ["BROKER"])
app.conf.update(result_expires=None, politics_lease_ttl={TTL})
app.conf.beat_schedule = {{"quick": {{"task": "quick", "schedule": {EVERY}}}}}
"""


def handover(folder: Path, broker: int) -> float:
    """Seconds from the SIGKILL of the beat that sends until another has sent."""
    import redis

    queue = redis.Redis(port=broker)
    queue.delete("celery")
    store = f"sqlite:///{folder / secrets.token_hex(4)}.db"
    env = {**os.environ, "BROKER": f"redis://127.0.0.1:{broker}/0", "POLITICS_STORE": store, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "celery", "--workdir", str(folder), "-A", "bench_app", "beat"]
    command += ["-S", "politics.integrations.celery:LeaderScheduler"]
    beats = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        while not queue.llen("celery"):
            time.sleep(0.01)
        time.sleep(TTL)  # the standby has long seen the lease
        record = look(open_register(store), "bench.beat")
        assert record
        sender = next(beat for beat in beats if beat.pid == record.pid)
        sender.send_signal(signal.SIGKILL)
        struck = time.monotonic()
        sender.wait()
        before = queue.llen("celery")
        while queue.llen("celery") == before:
            time.sleep(0.002)
        return time.monotonic() - struck
    finally:
        for beat in beats:
            beat.kill()
            beat.wait()
        queue.close()


def rows() -> Iterator[Row]:
    """One row: the worst of five."""
    what = "worst handover of 5 of a Celery beat after SIGKILL / lease"
    try:
        import celery  # noqa: F401
        import redis  # noqa: F401
    except ImportError:
        yield what, "missing: celery and redis are not installed", "", "<= 1.3"
        return
    command = ("redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "")
    with TemporaryDirectory() as folder, server(*command) as port:
        Path(folder, "bench_app.py").write_text(APP)
        worst = max(handover(Path(folder), port) for _ in range(5))
    yield what, f"{worst:.2f} s", f"{worst / TTL:.2f}", "<= 1.3"


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

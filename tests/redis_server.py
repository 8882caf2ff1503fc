"""A Redis of the test's own, on a free port: a store, and the broker of task queues."""

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.processes import free_port, suspend
from tests.waiting import DEADLINE, SOON, until


class RedisServer:
    """Start it, stop it, start it again on the same port.

    It keeps nothing on disk, unless it is given a `folder`: then it writes everything into a log there. `options` go on
    the command line.
    """

    def __init__(self, *options: str, folder: Path | None = None) -> None:
        program = shutil.which("redis-server")
        assert program, "the tests need redis-server: install it with your package manager (apt-get install redis)"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.other_url = f"redis://127.0.0.1:{self.port}/1"
        kept = ["--appendonly", "yes"] if folder else []
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")  # never one in which somebody has left a dump
        self._command = [
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(folder or self._folder.name), *kept, *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = Redis(port=self.port, socket_timeout=SOON, retry=None)

    def start(self) -> "RedisServer":
        """Start it and wait until it answers."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers, f"an answer of {' '.join(self._command)}")
        return self

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, f"it ended at once: {' '.join(self._command)}"
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it by its process id, if it runs, and wait until it is gone."""
        self.client.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(DEADLINE)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port, with what it keeps in its folder."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it be silent, with open connections, until `thaw`."""
        assert self._process is not None
        suspend(self._process)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def tasks(self) -> list[dict[str, Any]]:
        """The headers of all of Celery's messages that wait in the queue, oldest first."""
        return [json.loads(message)["headers"] for message in reversed(self.client.lrange("celery", 0, -1))]

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

"""A Redis of the test's own, on a free port: a store, and the broker of task queues."""

import contextlib
import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.processes import free_port
from tests.served import Served
from tests.waiting import SOON


class RedisServer(Served):
    """It keeps nothing on disk, unless it is given a `folder`: then it writes everything into a log there.

    `options` go on the command line.
    """

    def __init__(self, *options: str, folder: Path | None = None) -> None:
        program = shutil.which("redis-server")
        assert program, "the tests need redis-server: install it with your package manager (apt-get install redis)"
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.other_url = f"redis://127.0.0.1:{port}/1"
        kept = ["--appendonly", "yes"] if folder else []
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")  # never one in which somebody has left a dump
        command = [
            program, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(folder or self._folder.name), *kept, *options,
        ]  # fmt: skip
        super().__init__(port, command)
        self.client: Any = Redis(port=port, socket_timeout=SOON, retry=None)

    def answers(self) -> bool:
        """Whether it answers a ping."""
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and the client's connection."""
        self.client.close()
        super().stop(how)

    def tasks(self) -> list[dict[str, Any]]:
        """The headers of all of Celery's messages that wait in the queue, oldest first."""
        return [json.loads(message)["headers"] for message in reversed(self.client.lrange("celery", 0, -1))]

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

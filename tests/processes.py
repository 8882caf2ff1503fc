"""Other processes for tests: started, awaited by what they print, and killed at the end."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[1]
"""The folder in which `python -m tests.something` works."""


def suspend(process: subprocess.Popen[Any]) -> None:
    """Stop a process with SIGSTOP, and wait until it has stopped: until then it may answer, or write."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def free_port() -> int:
    """Return a port of this machine that nobody uses, and that stays free while nobody asks for it.

    The system gives ports of another range to those who do not ask for a number. So nobody gets this one by chance
    while a server that uses it is restarted.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


class Process:
    """A child whose output can be awaited line by line. `env` is added to our environment."""

    def __init__(self, *command: object, env: dict[str, str] | None = None) -> None:
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        assert self.popen.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def line(self, containing: str = "", timeout: float = DEADLINE) -> str:
        """Return the first line with that text in it, as soon as it is there."""

        def found() -> str | None:
            return next((line for line in self.lines if containing in line), None)

        with self._news:
            line = self._news.wait_for(found, timeout)
        assert line is not None, f"no line with {containing!r} in {self.lines}"
        return line

    def kill(self) -> None:
        """Send SIGKILL, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(DEADLINE)

    def stop(self) -> int:
        """Ask it to stop, also if it was paused, and return its exit status."""
        self.popen.send_signal(signal.SIGCONT)
        self.popen.terminate()
        return self.popen.wait(DEADLINE)

    def result(self, timeout: float = DEADLINE) -> tuple[int, str]:
        """Wait for the end, and return the exit status and all that was printed."""
        code = self.popen.wait(timeout)
        self._reader.join(timeout)
        return code, "\n".join(self.lines)


@contextlib.contextmanager
def python(code: str, *args: str) -> Iterator[Process]:
    """Run a piece of Python in a process of its own, killed at the end."""
    with running(sys.executable, "-c", code, *args) as process:
        yield process


@contextlib.contextmanager
def running(*command: object, env: dict[str, str] | None = None) -> Iterator[Process]:
    """Run a command, killed at the end."""
    process = Process(*command, env=env)
    try:
        yield process
    finally:
        process.kill()
        process._reader.join(DEADLINE)
        if process.popen.stdout:
            process.popen.stdout.close()

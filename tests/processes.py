"""Other processes for tests: started, awaited by what they print, and killed at the end."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

DEADLINE = 10.0
"""Seconds after which a test gives up waiting for something."""


class Process:
    """A child whose output can be awaited line by line."""

    def __init__(self, *command: str) -> None:
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
        """The first line with that text in it, as soon as it is there."""

        def found() -> str | None:
            return next((line for line in self.lines if containing in line), None)

        with self._news:
            line = self._news.wait_for(found, timeout)
        assert line is not None, f"no line with {containing!r} in {self.lines}"
        return line

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(DEADLINE)

    def result(self, timeout: float = DEADLINE) -> tuple[int, str]:
        """Wait for the end: the exit code, and all that was printed."""
        code = self.popen.wait(timeout)
        self._reader.join(timeout)
        return code, "\n".join(self.lines)


@contextlib.contextmanager
def python(code: str, *args: str) -> Iterator[Process]:
    """Run a piece of Python in a process of its own, killed at the end."""
    with running(sys.executable, "-u", "-c", code, *args) as process:
        yield process


@contextlib.contextmanager
def running(*command: str) -> Iterator[Process]:
    """Run a command, killed at the end."""
    process = Process(*command)
    try:
        yield process
    finally:
        process.kill()
        process._reader.join(DEADLINE)
        if process.popen.stdout:
            process.popen.stdout.close()


def until(condition: Callable[[], object], timeout: float = DEADLINE) -> None:
    """Wait for something that offers no event to wait for; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        pause.wait(0.005)

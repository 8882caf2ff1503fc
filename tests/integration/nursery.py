"""Processes that are forked from one which has imported everything, so that a hundred cost little more than one."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

NURSERY = """
import os, signal, sys
{code}
children = set()
def reap():
    for child in list(children):
        if os.waitpid(child, os.WNOHANG)[0]:
            children.discard(child)
for line in sys.stdin:
    command, *of = line.split()
    if command == "start":
        child = os.fork()
        if child == 0:
            try:
                run(*sys.argv[1:])
                os._exit(0)
            finally:
                os._exit(1)
        children.add(child)
        print(child, flush=True)
    elif command == "running":
        reap()
        print(*children, flush=True)
    else:
        reap()
        if int(of[0]) in children:  # so its id is not yet another's
            os.kill(int(of[0]), signal.SIGKILL)
            os.waitpid(int(of[0]), 0)
            children.discard(int(of[0]))
        print("killed", flush=True)
for child in children:
    os.kill(child, signal.SIGKILL)
"""


class Nursery:
    """A process that forks others. For one thread."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen

    def start(self) -> int:
        """Fork a process that calls `run`, and return its id."""
        return int(self._ask("start"))

    def kill(self, child: int) -> None:
        """SIGKILL, unless it has ended, and wait until it is gone."""
        self._ask(f"kill {child}")

    def running(self) -> list[int]:
        """Return the ids of those that have not ended."""
        return [int(child) for child in self._ask("running").split()]

    def _ask(self, command: str) -> str:
        assert self._popen.stdin
        assert self._popen.stdout
        self._popen.stdin.write(f"{command}\n")
        self._popen.stdin.flush()
        answer = self._popen.stdout.readline()
        assert answer, "the nursery has died"
        return answer


@contextlib.contextmanager
def nursery(code: str, *args: str) -> Iterator[Nursery]:
    """Make a nursery for code that defines `run(*args)`, which starts its threads itself. At the end all are killed."""
    command = [sys.executable, "-c", NURSERY.format(code=code), *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        yield Nursery(popen)
        assert popen.stdin
        popen.stdin.close()

"""`examples/web`: of the worker processes of a web server, exactly one runs the background task."""

import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.processes import Process, free_port, running
from tests.waiting import DEADLINE, until

WEB = Path(__file__).parents[2] / "examples" / "web"
BIN = Path(sys.executable).parent
LEASE = 2.0
SERVERS = {
    "uvicorn": [BIN / "uvicorn", "--app-dir", WEB, "app:app", "--workers", "4", "--port"],
    "gunicorn with uvicorn": [
        *(BIN / "gunicorn", "--chdir", WEB, "app:app", "--workers", "4"),
        *("--worker-class", "uvicorn_worker.UvicornWorker", "--bind"),
    ],
    "gunicorn": [BIN / "gunicorn", "--chdir", WEB, "app:app", "--workers", "4", "--worker-class", "asgi", "--bind"],
}


class Journal:
    """What the workers' background tasks have written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[tuple[int, str, int]]:
        """Of each line the process, what it did, and its fence; not of one that is just being written."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        parts = [line.split() for line in lines if line.endswith("\n")]
        return [(int(pid), what, int(fence)) for pid, what, fence in parts]

    def pids(self) -> list[int]:
        """The processes that have begun the task, in their order."""
        return [pid for pid, what, _ in self.entries() if what == "begins"]

    def verify(self) -> None:
        """Verify that nobody did anything after somebody else had begun, whose fence is larger."""
        fences = [fence for _, _, fence in self.entries()]
        assert fences == sorted(fences)


def children(parent: int) -> set[int]:
    """The processes that another has started, and their own."""
    found = set[int]()
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, task.read_text().split()):
            found |= {pid} | children(pid)
    return found


def answers(port: int) -> bytes | None:
    """What the page says; None while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE) as response:
            return bytes(response.read())
    except OSError:
        return None


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")
@pytest.mark.parametrize("server", SERVERS)
def test_one_worker_process_runs_the_task(server: str, old_store: str, tmp_path: Path) -> None:
    """The one is killed, and another goes on; told to stop, all end at once, and the task has cleaned up."""
    journal, port = Journal(tmp_path / "journal.txt"), free_port()
    env = {"POLITICS_STORE": old_store, "WEB_JOURNAL": str(journal.path), "WEB_LEASE": str(LEASE)}
    command = SERVERS[server]
    address = port if command[-1] == "--port" else f"127.0.0.1:{port}"
    with running(*command, address, env=env) as process:
        first = until(journal.pids)[0]
        assert b"hello" in until(lambda: answers(port))
        assert first in children(process.popen.pid)
        os.kill(first, signal.SIGKILL)
        until(lambda: len(journal.pids()) > 1, "another worker that goes on")
        second = journal.pids()[1]
        assert second != first
        until(lambda: sum(pid == second for pid, _, _ in journal.entries()) > 3)
        assert b"hello" in until(lambda: answers(port))
        workers = children(process.popen.pid)
        assert stop(process) in (0, -signal.SIGTERM)
        until(lambda: not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "the end of all processes")
    journal.verify()
    assert len({pid for pid, _, _ in journal.entries()}) >= 2
    assert journal.entries()[-1][1] == "ends", "the task of the last leader was cancelled, and cleaned up"
    assert "Traceback" not in "\n".join(process.lines)


def stop(process: Process) -> int:
    """Ask the server to stop, and return its exit status."""
    status = process.stop()
    process._reader.join(DEADLINE)
    return status

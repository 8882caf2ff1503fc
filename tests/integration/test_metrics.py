"""`politics run --metrics-port`, scraped while workers race."""

import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import politics
from tests.waiting import DEADLINE, until

POLITICS = (sys.executable, "-c", "from politics.cli import main; main()")
WORKER = """
from politics import TokenWorker
class Mailer(TokenWorker):
    group, iteration_length, lease_ttl, sticky = "mailer", 3600, 1.0, True
    seen = False
    def on_event(self, event):
        if not self.seen:
            self.seen = True
            print("own hook", flush=True)
    def perform(self, term):
        term.lost.wait()
        term.check()
"""

Run = Callable[..., "Server"]


class Server:
    """One worker and its port."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"mailer: metrics on port (\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("it serves no metrics")

    def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, name: str) -> float:
        """One sample."""
        found = re.search(rf"^politics_{name}\{{.*\}} (.*)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, f"there is no {name}"
        return float(found[1])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run workers around one file, and end them after the test."""
    (tmp_path / "mailer.py").write_text(WORKER)
    processes = []

    def start() -> Server:
        command = [*POLITICS, "run", "mailer.py:Mailer", "--store", "sqlite:///leases.db", "--metrics-port", "0"]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True))
        return Server(processes[-1])

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_leader_and_a_standby_and_a_takeover(run: Run) -> None:
    """One is the leader by its own account, the other is healthy too; when the first is killed, the other says so."""
    first = run()
    until(lambda: first.get("/leader") == (200, "leading\n"), "a leader")
    second = run()
    until(lambda: second.metric("fence") == first.metric("fence"), "a standby that knows its leader")
    assert second.get("/leader") == (503, "standing by\n")
    assert first.get("/healthz")[0] == second.get("/healthz")[0] == 200
    assert first.get("/nonsense")[0] == 404
    assert (first.metric("is_leader"), second.metric("is_leader")) == (1, 0)
    assert 0 < first.metric("lease_remaining_seconds") < 1
    assert second.metric("leaderless_seconds") == 0
    until(lambda: first.metric("renewal_seconds_count") > 0, "a renewal")
    first.process.kill()
    until(lambda: second.metric("takeovers_total") == 1, "a takeover")
    assert second.get("/leader")[0] == 200
    second.process.send_signal(signal.SIGTERM)
    said, _ = second.process.communicate(timeout=DEADLINE)
    assert said == "own hook\n"
    assert second.process.returncode == 0


def refused(folder: Path, port: object) -> str:
    """The error of a command that is wrong usage, as one line."""
    (folder / "mailer.py").write_text(WORKER)
    ended = politics("run", "mailer.py:Mailer", "--store", "memory://", "--metrics-port", port, cwd=folder)
    assert ended.status == 2
    return ended.said


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """And so is one that cannot be."""
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--metrics-port {port} of --metrics-host 127.0.0.1 cannot be used: Address already in use" in refused(
            tmp_path, port
        )
    assert "--metrics-port" in refused(tmp_path, 65536)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a command that serves metrics needs the library."""
    monkeypatch.delitem(sys.modules, "politics.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert "pip install prometheus-client" in refused(tmp_path, 0)

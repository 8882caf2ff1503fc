"""Strangers at the port of the metrics: silent ones, slow ones, many, and one who never reads."""

import contextlib
import os
import re
import resource
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from politics.metrics import CONNECTIONS, Metrics, serve
from tests.processes import running
from tests.waiting import SOON, until


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server with the metrics of one group."""
    with serve([Metrics("mailer")], "127.0.0.1", 0, lambda: True) as port:
        yield port


def healthy(port: int) -> bool:
    """Whether a monitor gets its answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=SOON) as answer:
        return bool(answer.status == 200)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.0\r\nX: "], ids=["silent", "half a request"])
def test_connections_to_the_metrics_port_take_a_few_descriptors(port: int, said: bytes) -> None:
    """Of three hundred connections a few are kept, those that came last; a monitor is answered meanwhile."""
    before, threads = descriptors(), threading.active_count()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(300)]
        for client in clients:
            with contextlib.suppress(OSError):  # it has been hung up on
                client.sendall(said)
        assert healthy(port)
        until(lambda: descriptors() - before - len(clients) <= CONNECTIONS, "the end of the oldest connections")
        until(lambda: threading.active_count() - threads <= CONNECTIONS, "the end of their threads")
        assert healthy(port)
    until(lambda: descriptors() <= before, "the end of all connections")


WORKER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
from politics import TokenWorker
from politics.cli import main

class Reader(TokenWorker):
    group, iteration_length, announce = "reader", 0.2, False
    def perform(self, term):
        with open(__file__) as itself, open(__file__) as again:
            print("read", flush=True)

if __name__ == "__main__":
    sys.argv = ["politics", "run", f"{__file__}:Reader", "--store", "memory://", "--metrics-port", "0"]
    main()
"""


def test_silent_clients_of_the_metrics_port_take_nothing_from_the_work(tmp_path: Path) -> None:
    """A process with a hundred descriptors goes on working under three hundred connections."""
    program = tmp_path / "reader.py"
    program.write_text(WORKER)
    with running(sys.executable, program) as process, contextlib.ExitStack() as stack:
        found = re.search(r"metrics on port (\d+)", process.line("metrics on port"))
        assert found
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", int(found[1]))))
        assert healthy(int(found[1]))
        before = process.lines.count("read")
        until(lambda: process.lines.count("read") >= before + 3, "three more slots")
        assert not [line for line in process.lines if "failed" in line or "Too many" in line]


def test_a_silent_client_of_the_metrics_port_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time-out, also when nobody else comes."""
    monkeypatch.setattr("politics.metrics.TIMEOUT", 0.1)
    with (
        serve([Metrics("mailer")], "127.0.0.1", 0, lambda: True) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.settimeout(SOON)
        assert client.recv(1) == b""


def test_without_descriptors_the_metrics_server_waits_and_does_not_spin(port: int) -> None:
    """A connection that cannot be accepted costs next to no CPU time, and is answered when it can be."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client, contextlib.ExitStack() as stack:
        client.settimeout(SOON)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 10, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    stack.callback(os.close, os.dup(0))
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            begun = time.process_time()
            threading.Event().wait(1.0)
            assert time.process_time() - begun < 0.1
        finally:
            stack.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert client.recv(100).startswith(b"HTTP/1.0 200")


def test_the_metrics_port_is_open_on_this_machine_only(port: int) -> None:
    """Unless another address is named: at any other of this machine nobody listens."""
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=SOON):
        pass
    with serve([Metrics("mailer")], "0.0.0.0", 0, lambda: True) as everywhere:
        socket.create_connection(("127.0.0.2", everywhere), timeout=SOON).close()

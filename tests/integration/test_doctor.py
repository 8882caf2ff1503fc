"""`politics doctor` in front of real stores, and of things that only look like one."""

import contextlib
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from election import Candidate, LeasePolicy, look, open_register
from election.clock import wall_ms
from election.record import State
from election.stores.memcached import MemcachedRegister
from politics import TokenWorker
from politics.cli import doctor as command
from tests.commands import Result, politics
from tests.memcached import Memcached
from tests.waiting import DEADLINE, until

Finding = dict[str, str]


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but one compares clocks, which takes seconds; and nobody names a store for all."""
    monkeypatch.setattr(command, "WATCHED", 0.0)
    monkeypatch.delenv("POLITICS_STORE", raising=False)


def run(*options: str, **environment: str) -> Result:
    """Run the doctor; by default nobody on the network is heard, so that other tests are not."""
    return politics("doctor", *options, **{"POLITICS_INTERFACES": "203.0.113.1"} | environment)


def doctor(*options: str, **environment: str) -> tuple[int, list[Finding]]:
    """Exit status and findings."""
    ended = run("--json", *options, **environment)
    assert ended.out, ended.err
    return ended.status, json.loads(ended.out)


def of_level(level: str, findings: list[Finding], about: str = "") -> str:
    """The texts of that level, of those that are about this."""
    return "\n".join(each["text"] for each in findings if each["level"] == level and about in each["subject"])


def test_ctrl_c_ends_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted doctor does not wait for the servers that it still measures."""
    stopped, begun = [], threading.Event()

    def server(register: MemcachedRegister, _seconds: float, stop: threading.Event) -> None:
        if register.port == 1:
            assert begun.wait(DEADLINE)
            raise KeyboardInterrupt
        begun.set()
        stopped.append(stop.wait(DEADLINE))

    monkeypatch.setattr(command.probe, "server", server)
    assert run("--servers", "127.0.0.1:1,127.0.0.1:2").status == 130
    assert stopped == [True]


def test_a_sound_server_and_one_that_is_not_there(memcached: Memcached, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers: of one it says how fast it is and what is ours in it, of the other that nobody can lead."""
    monkeypatch.setattr(command, "WATCHED", 3.2)
    with (
        contextlib.closing(open_register(memcached.url)) as register,
        Candidate(register, "doctor", LeasePolicy(ttl=0.5)).campaign(),
    ):
        status, findings = doctor("--servers", f"{memcached.address},127.0.0.1:1")
    fine = of_level("fine", findings, memcached.address)
    for text in ("answers in", "is version 1.", "items are ours", "runs as fast as ours, within"):
        assert text in fine
    assert "; 0 of its" not in fine
    assert "does not answer" in of_level("danger", findings, "127.0.0.1:1")
    assert of_level("danger", findings, memcached.address) == ""
    assert status == 1


def test_a_server_with_a_past(own_memcached: Memcached) -> None:
    """Evictions and flushes cost time and no safety; counters that were set back hide losses."""
    own_memcached.fill()
    own_memcached.ask("flush_all")
    status, findings = doctor("--store", own_memcached.url, "--lease-ttl", "1")
    assert status == 0
    said = of_level("advice", findings, "memcached")
    assert "items for lack of memory" in said
    assert "was flushed 1 times" in said
    for number in range(9):
        own_memcached.ask(f"set item{number} 0 0 1\r\nx")
    own_memcached.ask("stats reset")
    status, findings = doctor("--store", own_memcached.url)
    assert status == 1
    assert "stats reset" in of_level("danger", findings)


def test_an_sqlite_file_old_and_new(tmp_path: Path) -> None:
    """A file that is just made is fine and says that a first election waits; one that cannot be made is not."""
    status, findings = doctor("--store", f"sqlite:///{tmp_path}/leases.db")
    assert status == 0
    assert "can be written" in of_level("fine", findings, "sqlite")
    assert "younger than a lease of 10 s" in of_level("advice", findings, "sqlite")
    (tmp_path / "file").touch()
    status, findings = doctor("--store", f"sqlite:///{tmp_path}/file/leases.db")
    assert status == 1
    assert "cannot be used" in of_level("danger", findings)


def test_a_store_that_nobody_named(tmp_path: Path) -> None:
    """The default elects a leader of each machine; a variable is a name."""
    status, findings = doctor(XDG_STATE_HOME=str(tmp_path))
    assert status == 0
    assert "each machine has its own leader" in of_level("advice", findings, "store")
    status, findings = doctor(POLITICS_STORE="memory://")
    assert status == 1
    assert "each process leads" in of_level("danger", findings, "store")


def test_lines_for_people(tmp_path: Path) -> None:
    """One line for each finding, with its remedy."""
    ended = run("--store", f"sqlite:///{tmp_path}/leases.db")
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert all(line.startswith(("fine    ", "advice  ")) for line in lines)
    assert any(line.endswith("-> nothing: it passes") for line in lines)


@pytest.fixture
def pretend() -> Iterator[Callable[[dict[str, Any]], str]]:
    """Listen, and answer each command as a dictionary says; what is not in it closes the connection."""
    servers = []

    def listen(answers: dict[str, Any]) -> str:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    answer = answers.get(line.decode().split()[0])
                    if answer is None:
                        return
                    self.wfile.write(answer.encode() + b"\r\n")

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"127.0.0.1:{server.server_address[1]}"

    yield listen
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ({}, "closed the connection"),
        ({"version": "ERROR", "stats": "ERROR", "ms": "ERROR", "1": "ERROR"}, "calls itself 'ERROR'"),
        ({"version": "VERSION mcrouter 41.0", "stats": "STAT cmd_get 7\r\nEND", "ms": "ERROR"}, "'mcrouter 41.0'"),
        ({"version": "VERSION 1.6.18", "stats": "ERROR", "ms": "ERROR"}, "is not memcached itself"),
    ],
)
def test_a_proxy_in_the_way(pretend: Callable[[dict[str, Any]], str], answers: dict[str, Any], text: str) -> None:
    """What answers oddly is not trusted with leases."""
    status, findings = doctor("--servers", pretend(answers))
    assert status == 1
    assert text in of_level("danger", findings)


def test_a_balancer_in_the_way(memcached: Memcached, own_memcached: Memcached) -> None:
    """One address with two servers behind it would have two leaders."""
    ports = [memcached.port, own_memcached.port]

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            ports.append(ports.pop(0))
            server = socket.create_connection(("127.0.0.1", ports[0]))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    def pump(one: socket.socket, other: socket.socket) -> None:
        with one, other, contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        status, findings = doctor("--servers", f"127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
    assert status == 1
    assert "2 different servers behind one address" in of_level("danger", findings)


def test_a_leader_with_a_schedule_and_a_wrong_clock(old_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is more than a minute ahead of ours is a danger, with exit status 1."""
    monkeypatch.setattr("election.cell.wall_ms", lambda: wall_ms() + 90_000)
    options: dict[str, Any] = {"group": "bills", "store": old_store, "lease_ttl": 0.5, "announce": False}
    worker = TokenWorker(schedule="@yearly", **options)
    worker.start(lambda term: None)
    with contextlib.closing(open_register(old_store)) as register:
        until(lambda: (found := look(register, "bills")) and found.state is State.HELD, "a leader")
    status, findings = doctor("--store", old_store)
    worker.stop()
    assert status == 1
    assert re.search(r"leader \S+ is (89|90) s ahead of ours", of_level("danger", findings, "wall clock of bills"))

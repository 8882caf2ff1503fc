"""A worker as a program of its own: what its end tells others, and what it tells people and the service manager."""

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from election import look, open_register
from election.record import State
from politics import Term, TokenWorker
from tests.processes import python, running
from tests.waiting import DEADLINE, until

PROGRAM = """
import sys, threading
from politics import TokenWorker

class Mailer(TokenWorker):
    group, lease_ttl, iteration_length, announce = "mailer", 600.0, 3600.0, False
    grace = 20.0

    def perform(self, term):
        print("works", flush=True)
        term.lost.wait()
        term.check()

worker = Mailer(store=sys.argv[1])
"""
AND_EXITS = """
begun = threading.Event()
worker.on_elected = lambda term: begun.set()
worker.start()
assert begun.wait(60)
"""


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """What a service manager has: a socket that hears of its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(address)
        yield manager


def test_a_worker_hands_over_when_the_interpreter_exits(old_store: str) -> None:
    """Without `stop()`, the next leader need not wait for the lease to end."""
    with python(PROGRAM + AND_EXITS, old_store) as process:
        assert process.result()[0] == 0
    with contextlib.closing(open_register(old_store)) as register:
        record = look(register, "mailer")
    assert record is not None
    assert (record.state, record.note["work"]) == (State.OPEN, "running")


def test_the_exit_of_the_interpreter_does_not_wait_for_ever(old_store: str) -> None:
    """Work that does not listen has `grace` seconds, and then the lease is given up."""
    program = PROGRAM.replace("term.lost.wait()", "threading.Event().wait()").replace("20.0", "0.2")
    with python(program + AND_EXITS, old_store) as process:
        code, said = process.result()
    assert (code, "its lease is given up" in said) == (0, True)
    with contextlib.closing(open_register(old_store)) as register:
        record = look(register, "mailer")
    assert record is not None
    assert record.state is State.OPEN


def test_a_worker_runs_for_a_with_block(old_store: str) -> None:
    """It is started at its beginning, and has handed over at its end."""
    terms: list[Term] = []

    class Mailer(TokenWorker):
        group, announce = "block", False

        def perform(self, term: Term) -> None:
            terms.append(term)
            term.lost.wait()

    with Mailer(store=old_store) as worker:
        until(lambda: terms, "the work")
        assert worker.running
    assert not worker.running
    assert not terms[0].valid


def test_without_a_log_one_line_says_that_it_was_elected(old_store: str) -> None:
    """For people who start the first example; with a log configured, the log says it, and nothing else does."""
    for setup, lines in (("", 1), ("import logging; logging.basicConfig(level='INFO')\n", 0)):
        with python(f"{setup}{PROGRAM}worker.process()", old_store) as process:
            process.line("works")
            assert process.stop() == 0
            said = process.result()[1]
        assert said.count("mailer: elected leader (fence ") == 1
        assert said.count("For more, call logging.basicConfig(level=logging.INFO)") == lines


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(old_store: str, tmp_path: Path, abstract: bool) -> None:
    """That we are ready, that we live, often enough, and that we stop; the socket is a path or an abstract name."""
    name = f"@{tmp_path}/notify" if abstract else str(tmp_path / "notify")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "worker.process()")
    with listening(name.replace("@", "\0")) as manager:
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        with running(sys.executable, program, old_store, env=environment) as process:
            process.line("works")
            assert manager.recv(100) == b"READY=1"
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            process.popen.send_signal(signal.SIGTERM)
            heard = b"WATCHDOG=1"
            while heard == b"WATCHDOG=1":
                heard = manager.recv(100)
            assert heard == b"STOPPING=1"
            assert process.result()[0] == 0


def test_a_watchdog_for_another_process_gets_no_sign_of_life(old_store: str, tmp_path: Path) -> None:
    """The variables may be inherited; what is not a number counts as none, and a socket that is gone harms nobody."""
    program, name = tmp_path / "program.py", str(tmp_path / "notify")
    program.write_text(PROGRAM + "worker.process()")
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with listening(name) as manager, running(sys.executable, program, old_store, env=environment) as process:
        process.line("works")
        assert process.stop() == 0
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]
    environment["WATCHDOG_USEC"] = "soon"
    with running(sys.executable, program, old_store, env=environment) as process:
        process.line("works")
        assert process.stop() == 0

"""`run_while_leading`: what has a start and a stop runs on the leader, and nowhere else."""

import contextlib
import http.server
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import politics.leading.started
from election import BadPolicy, BadStoreURL, Event, ask_to_resign, open_register
from election.clock import SystemClock
from election.testing import FaultyStore
from politics.leading import WhileLeading
from tests.processes import running
from tests.waiting import DEADLINE, until

TTL = 1.0

PROGRAM = """
import logging, os, sys, threading, time
from politics import run_while_leading

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
store, path, ttl = sys.argv[1:]
stopped = threading.Event()

def write(what):
    with open(path, "a") as journal:
        journal.write(f"{os.getpid()} {what}\\n")

def work():
    while not stopped.wait(0.02):
        write("works")

def start():
    global thread
    stopped.clear()
    thread = threading.Thread(target=work)
    thread.start()
    write("starts")

def stop():
    stopped.set()
    thread.join()
    write("stops")

print("begins", flush=True)
run_while_leading("scheduler", start, stop, store=store, lease_ttl=float(ttl))
print("ends", flush=True)
"""


def entries(path: Path) -> list[tuple[int, str]]:
    """Of each line the process, and what it did; not of one that is just being written."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [(int(pid), what) for pid, what in (line.split() for line in lines if line.endswith("\n"))]


def test_one_of_three_processes_runs_it(old_store: str, tmp_path: Path) -> None:
    """One that is killed is replaced, and one that is told to stop has stopped before the next one starts."""
    path = tmp_path / "journal.txt"

    def starts() -> list[int]:
        return [pid for pid, what in entries(path) if what == "starts"]

    with contextlib.ExitStack() as stack:
        command = (sys.executable, "-c", PROGRAM, old_store, path, TTL)
        programs = {each.popen.pid: each for each in (stack.enter_context(running(*command)) for _ in range(3))}
        first = until(starts)[0]
        programs[first].kill()
        until(lambda: len(starts()) == 2)
        second = starts()[1]
        assert programs[second].stop() == 0
        programs[second].line("ends")
        until(lambda: len(starts()) == 3)
        third = starts()[2]
        assert programs[third].stop() == 0
    assert len({first, second, third}) == 3
    done = entries(path)
    assert done.index((second, "stops")) < done.index((third, "starts"))
    for before, after in ((first, second), (second, third)):
        begun = done.index((after, "starts"))
        assert (before, "works") not in done[begun:]


class Thing:
    """Something that is started and stopped, and remembers it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.start_fails = self.stop_fails = 0
        self.on_stop: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Begin, or fail."""
        self.calls.append("start")
        if self.start_fails:
            self.start_fails -= 1
            raise ZeroDivisionError("start")

    def stop(self) -> None:
        """End, or fail."""
        self.on_stop()
        self.calls.append("stop")
        if self.stop_fails:
            raise ZeroDivisionError("stop")


def leading(thing: Thing, **options: Any) -> WhileLeading:
    """What runs the thing."""
    return WhileLeading("scheduler", thing.start, thing.stop, **{"lease_ttl": TTL} | options)


def test_it_runs_beside_another_main_loop(old_store: str) -> None:
    """In a block: it is stopped, and the lease handed over, when the block is left; and it can be begun again."""
    thing, before = Thing(), threading.active_count()
    runner = leading(thing, store=old_store)
    for number in range(2):
        with runner:
            until(lambda number=number: len(thing.calls) == 2 * number + 1)
            assert runner.leads
            with pytest.raises(RuntimeError, match="runs already"):
                runner.start()
        assert not runner.leads
    runner.stop()
    assert thing.calls == ["start", "stop"] * 2
    until(lambda: threading.active_count() <= before)


def test_it_is_stopped_and_started_again_when_somebody_asks_for_the_lease(old_store: str) -> None:
    """The lease is held until `stop` has returned."""
    thing, held = Thing(), list[bool]()
    runner = leading(thing, store=old_store)
    thing.on_stop = lambda: held.append(runner.leads)
    with contextlib.closing(open_register(old_store)) as register, runner:
        until(lambda: runner.leads)
        ask_to_resign(register, "scheduler")
        until(lambda: thing.calls == ["start", "stop", "start"])
    assert held == [True, True]


def test_a_start_that_does_not_return_is_stopped_too(old_store: str) -> None:
    """As a server's `serve_forever` returns when its `shutdown` is called."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    with server, contextlib.closing(open_register(old_store)) as register:
        runner = WhileLeading("scheduler", server.serve_forever, server.shutdown, store=old_store, lease_ttl=TTL)
        with runner:
            until(lambda: runner.leads)
            ask_to_resign(register, "scheduler")
            until(lambda: not runner.leads)
        assert not runner.leads


def test_a_start_that_returns_is_not_stopped_before(old_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody asks for the lease while it is just being started."""
    thing = Thing()
    monkeypatch.setattr(politics.leading.started, "SETTLE", DEADLINE)

    def start() -> None:
        if not thing.calls:
            thing.calls.append("starting")
            with contextlib.closing(open_register(old_store)) as register:
                ask_to_resign(register, "scheduler")
            until(lambda: (lead := runner._standing.lead) and lead.lost.is_set())
        thing.start()

    runner = WhileLeading("scheduler", start, thing.stop, store=old_store, lease_ttl=TTL)
    with runner:
        until(lambda: len(thing.calls) == 4)
    assert thing.calls == ["starting", "start", "stop", "start", "stop"]


def test_a_start_that_fails_is_tried_again(old_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the lease is handed over in between, and `stop` is not called for what did not start."""
    thing, events = Thing(), list[Event]()
    thing.start_fails = 2
    with leading(thing, store=old_store, on_event=events.append):
        until(lambda: len(thing.calls) == 3)
    assert thing.calls == ["start", "start", "start", "stop"]
    assert [str(event.kind) for event in events].count("elected") == 3
    assert caplog.text.count("scheduler: failed, and hands over") == 2


def test_a_start_that_fails_because_it_is_stopped_leaves_stop_its_time(old_store: str) -> None:
    """The lease is held until `stop` has returned, also if that makes `start` raise."""
    stopping, held = threading.Event(), list[bool]()

    def serve() -> None:
        stopping.wait()
        raise ConnectionResetError("closed")

    def stop() -> None:
        stopping.set()
        threading.Event().wait(TTL / 2)
        held.append(runner.leads)

    runner = WhileLeading("scheduler", serve, stop, store=old_store, lease_ttl=TTL)
    with runner:
        until(lambda: runner.leads)
    assert held == [True]


def test_a_stop_that_fails_ends_the_process(old_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows what still runs: the process does not campaign any more, and ends with what runs in it."""
    thing = Thing()
    thing.stop_fails = True
    runner = leading(thing, store=old_store)
    asker = threading.Thread(target=ask, args=(old_store, lambda: thing.calls))
    asker.start()
    with pytest.raises(SystemExit, match="stop failed, so it may still run"):
        runner.process()
    asker.join()
    assert thing.calls == ["start", "stop"]
    assert "ZeroDivisionError: stop" in caplog.text


def ask(store: str, ready: Callable[[], object]) -> None:
    """Ask for the lease once something is so."""
    until(ready)
    with contextlib.closing(open_register(store)) as register:
        ask_to_resign(register, "scheduler")


def test_it_is_stopped_while_a_third_of_the_lease_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """The store falls silent: `stop` is called early enough to return before anybody else may start."""
    caplog.set_level(logging.INFO, "politics")
    thing, held = Thing(), list[bool]()
    register = FaultyStore(SystemClock()).link()
    runner = leading(thing, store=register, lease_ttl=3.0)
    thing.on_stop = lambda: held.append(runner.leads)
    with runner:
        until(lambda: thing.calls)
        register.cut = True
        until(lambda: thing.calls == ["start", "stop"])
        assert held == [True]
        register.cut = False
        until(lambda: len(thing.calls) == 3)
    assert "not renewed, " in caplog.text
    assert "two may have run" not in caplog.text


def test_a_stop_that_outlasts_the_lease_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As an error, since another may have started meanwhile."""
    thing, register = Thing(), FaultyStore(SystemClock()).link()
    runner = leading(thing, store=register)
    thing.on_stop = lambda: until(lambda: not runner.leads)
    with runner:
        until(lambda: thing.calls)
        register.cut = True
        until(lambda: "two may have run" in caplog.text)
        register.cut = False


def test_a_stop_that_outlasts_grace_ends_with_the_process(old_store: str) -> None:
    """The exit status says so."""
    program = PROGRAM.replace("thread.join()", "time.sleep(3600)").replace("lease_ttl=", "grace=0.2, lease_ttl=")
    with running(sys.executable, "-c", program, old_store, "/dev/null", TTL) as process:
        process.line("elected leader")
        assert process.stop() == 124
        assert "its lease is given up" in process.result()[1]


def test_mistakes_are_named() -> None:
    """The times and the name when it is made, the store when it begins."""
    with pytest.raises(BadPolicy, match="lease_ttl"):
        leading(Thing(), lease_ttl=-1)
    with pytest.raises(BadPolicy, match="grace"):
        leading(Thing(), grace=-1)
    with pytest.raises(BadStoreURL):
        leading(Thing(), store="nonsense://").process()
    with pytest.raises(TypeError, match="there is no option stor: there are store, servers, lease_ttl, on_event"):
        leading(Thing(), stor="memory://")
    with pytest.raises(BadPolicy, match="start of 'scheduler' is an async function, and nobody awaits it"):
        WhileLeading("scheduler", coroutine, print)


async def coroutine() -> None:
    """What nobody awaits."""


def test_what_fails_in_the_background_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A store that cannot be used ends it, and nobody would learn of that otherwise."""
    with leading(Thing(), store="sqlite:////dev/null/leases.db"):
        until(lambda: "scheduler: does not campaign any more: scheduler: the store /dev/null/leases.db" in caplog.text)

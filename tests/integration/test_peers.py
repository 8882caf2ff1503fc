"""Members of a group hear of each other: real processes, real multicast on loopback."""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from election import open_register
from election.stores.memory import MemoryRegister
from politics import Peer, TokenWorker
from politics.group.directory import listening
from politics.settings import HEARTBEAT
from tests.commands import politics
from tests.integration.conftest import MakeStage
from tests.memcached import Memcached
from tests.processes import python, running
from tests.waiting import DEADLINE, until

TENTH = HEARTBEAT / 10
WORKER = """
import logging, sys
from politics import TokenWorker

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
group, *stores = sys.argv[1:]
*others, worker = [TokenWorker(group=group + "+" * n, store=store, lease_ttl=1) for n, store in enumerate(stores)]
for other in others:
    other.start(lambda term: None)
worker.process(lambda term: None)
"""
FORKING = """
import os, signal, sys  # each line is one write, as two processes share the output
from politics import TokenWorker

def work(term):
    if not (child := os.fork()):
        os.write(1, f"child hears {worker.peers()}\\n".encode())
        signal.alarm(60)
        signal.pause()
    os.write(1, f"child is {child}\\n".encode())
    term.lost.wait()

worker = TokenWorker(group=sys.argv[1], store=sys.argv[2], lease_ttl=1)
worker.process(work)
"""


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    """All hearts beat ten times as fast, here and in the processes that a test starts."""
    monkeypatch.setenv("POLITICS_HEARTBEAT", str(TENTH))


@pytest.fixture
def group() -> str:
    """A group of this test alone."""
    return f"herd {os.getpid()} {os.urandom(4).hex()}"


@pytest.fixture
def worker() -> Iterator[Callable[..., TokenWorker]]:
    """Start workers in threads of the test."""
    started: list[TokenWorker] = []

    def start(**options: Any) -> TokenWorker:
        started.append(TokenWorker(**{"lease_ttl": 1.0} | options))
        started[-1].start(lambda term: None)
        return started[-1]

    yield start
    for each in started:
        each.stop()


def pids(peers: tuple[Peer, ...] | list[Peer]) -> set[int]:
    return {peer.pid for peer in peers}


def status(*options: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, output and complaints of `politics status`."""
    return politics("status", *options, **environment)


def row(group: str, *options: str) -> dict[str, Any]:
    """What `politics status --json` says of one group."""
    (found,) = [row for row in json.loads(status("--json", *options)[1]) if row["group"] == group]
    return dict(found)


def test_peers_are_seen_and_the_dead_forgotten(group: str, old_memcached: Memcached) -> None:
    """All members hear of each other and of one leader; a killed one is forgotten, though a fork of it lives."""
    with listening() as heard, python(FORKING, group, old_memcached.url) as leader:
        assert leader.line("child hears") == "child hears ()"
        child = int(leader.line("child is").split()[-1])
        try:
            with python(WORKER, group, old_memcached.url) as standby:

                def ours() -> list[Peer]:
                    return [peer for peer in heard() if peer.group == group]

                both = {leader.popen.pid, standby.popen.pid}
                until(lambda: pids(ours()) == both and all(peer.store for peer in ours()), "both, with their store")
                assert pids([peer for peer in ours() if peer.leads]) == {leader.popen.pid}
                assert len({peer.store for peer in ours()}) == 1
                leader.kill()
                until(lambda: pids(ours()) == {standby.popen.pid}, "the dead to be forgotten")
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_worker_knows_its_peers(group: str, worker: Callable[..., TokenWorker]) -> None:
    """Others of its group in any process, not itself, no other group; none before it starts and after it stops."""
    one, two = (worker(group=group, store="memory://peers") for _ in range(2))
    worker(group=f"{group}+", store="memory://peers")
    until(lambda: one.peers() and two.peers(), "each other")
    assert len({*one.peers(), *two.peers()}) == 2
    assert {(peer.group, peer.pid) for peer in one.peers()} == {(group, os.getpid())}
    two.stop()
    assert two.peers() == ()
    until(lambda: one.peers() == (), "the goodbye")
    two.start(lambda term: None)
    until(one.peers, "the return")


def test_a_polite_handover_is_quicker_than_a_look(make_stage: MakeStage, tmp_path: Path) -> None:
    """Standbys look at the store every minute; when the leader stops they are nudged and look at once."""
    store = f"sqlite:///{tmp_path}/store.db"
    with contextlib.closing(open_register(store)) as register:
        register.identity()
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db, db:
        db.execute("UPDATE store SET born = -1000")  # old enough for an election at once
    stage = make_stage(store, lease_ttl=60.0, poll_every=60.0)
    stage.start()
    leader, _ = stage.elected()
    (standby,) = stage.start()
    with listening() as heard:
        until(lambda: {leader.pid, standby.pid} <= pids(heard()), "both")
        at = leader.send(signal.SIGTERM)
        assert stage.elected(after=at)[0] is standby
        until(lambda: leader.pid not in pids(heard()), "the goodbye")


@pytest.mark.parametrize("heartbeat", [TENTH, HEARTBEAT], ids=["a tenth", "real values"])
def test_a_split_store_is_reported_by_both(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heartbeat: float
) -> None:
    """Each logs one error that names the other, and status and doctor show it, whichever store they look at."""
    monkeypatch.setenv("POLITICS_HEARTBEAT", str(heartbeat))
    one, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other"))
    with python(WORKER, group, one) as first, python(WORKER, group, other) as second:
        for process, peer in ((first, second), (second, first)):
            assert f":{peer.popen.pid} uses another store" in process.line("ERROR", timeout=40)
        found = row(group)
        assert found["split"]
        assert {member["pid"] for member in found["members"]} == {first.popen.pid, second.popen.pid}
        assert len({member["store"] for member in found["members"]}) == 2
        assert "SPLIT" in status(group, "--store", one)[1]
        ended = politics("doctor", "--store", one)
        assert ended.status == 1
        assert f"peers of {group}: use 2 stores" in ended.out
        assert [process.lines.count(process.line("ERROR")) for process in (first, second)] == [1, 1]


def test_a_restarted_store_is_no_split(
    group: str, own_memcached: Memcached, worker: Callable[..., TokenWorker]
) -> None:
    """It has a new identity, which all of its users soon name; nobody is accused meanwhile."""
    with python(WORKER, group, own_memcached.url) as first, python(WORKER, group, own_memcached.url) as second, \
            listening() as heard:  # fmt: skip

        def named() -> set[str]:
            return {peer.store for peer in heard() if peer.group == group}

        before = until(lambda: named() if len(named()) == 1 and "" not in named() else None, "a store")
        own_memcached.restart()
        newcomer = worker(group=group, store=own_memcached.url)
        until(lambda: len(newcomer.peers()) == 2 and len(named()) == 1 and named() != before, "another store")
        assert [line for process in (first, second) for line in process.lines if "SPLIT" in line] == []


def test_who_does_not_announce_is_not_heard(group: str, worker: Callable[..., TokenWorker]) -> None:
    """`announce=False` leads all the same, says nothing and hears nobody."""
    elected = threading.Event()

    class Silent(TokenWorker):
        announce = False

        def on_elected(self, term: object) -> None:
            elected.set()

    silent = Silent(group=group, store="memory://peers", lease_ttl=1.0, sticky=True)
    silent.start(lambda term: None)
    assert elected.wait(DEADLINE)
    loud = worker(group=group, store="memory://peers")
    with listening() as heard:
        us = until(lambda: [peer for peer in heard() if peer.group == group], "the other")
    assert [peer.leads for peer in us] == [False]
    assert silent.peers() == loud.peers() == ()
    silent.stop()


def test_without_multicast_there_is_one_warning_and_an_election(group: str, old_memcached: Memcached) -> None:
    """Two workers of one process lead their groups, and stop as promptly as ever."""
    command = ("env", "POLITICS_INTERFACES=203.0.113.1", sys.executable, "-uc", WORKER)
    with running(*command, group, old_memcached.url, old_memcached.url) as process:
        process.line(f"{group}: elected leader")
        process.line(f"{group}+: elected leader")
        process.line("peers are not heard")
        process.popen.terminate()
        code, said = process.result()
    assert code == 0
    assert said.count("WARNING") == 1
    assert "203.0.113.1" in said


def test_a_store_that_never_says_who_it_is_holds_nobody_up(group: str, worker: Callable[..., TokenWorker]) -> None:
    """The worker is elected, announced without a store, and stops."""
    release = threading.Event()

    class Stuck(MemoryRegister):
        def identity(self) -> str:
            release.wait()
            return "stuck"

    try:
        stuck = worker(group=group, store=Stuck())
        with listening() as heard:
            until(lambda: [peer for peer in heard() if peer.group == group and not peer.store], "the announcement")
        stuck.stop()
        assert not stuck.peers()
    finally:
        release.set()


def test_status_shows_all_groups_of_the_network(group: str, old_memcached: Memcached) -> None:
    """Two groups on memcached, which cannot list them; looked for there, elsewhere, and where nobody answers."""
    with python(WORKER, group, old_memcached.url, old_memcached.url) as process:
        process.line(f"{group}+: elected leader")
        here = ("--store", old_memcached.url)
        for name in (group, f"{group}+"):
            found = row(name, *here)
            (member,) = found["members"]
            assert (member["pid"], member["store"][:10]) == (process.popen.pid, "memcached:")
            assert (found["split"], found["elsewhere"]) == (False, False)
            assert found["state"] in ("led", "open")
        assert row(group, "--store", "memory://")["elsewhere"]
        code, said, complaint = status(group, "--store", "memcached://127.0.0.1:1")
        assert (code, len(complaint.splitlines())) == (0, 1)
        assert "unreachable" in said
        assert f":{process.popen.pid}" in said
        code, said, complaint = status(group, *here, POLITICS_INTERFACES="203.0.113.1")
        assert (code, len(complaint.splitlines())) == (0, 1)
        assert group in said
        assert "203.0.113.1" in complaint
    assert status("nobody's", "--store", "memcached://127.0.0.1:1")[0] == 1

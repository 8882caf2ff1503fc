"""Forged members of a group: what they cost the store and the honest members."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from discovery.beacon import new_name
from politics import Peer, TokenWorker
from politics.group.directory import of_this_process
from politics.group.peers import KIND, MAX_PEERS
from tests.memcached import Memcached
from tests.packets import GROUP, announcement, packet, sender
from tests.waiting import until

RATE = 800
"""Forged packets a second."""


@pytest.fixture
def worker(own_memcached: Memcached) -> Iterator[TokenWorker]:
    """One worker, which leads and has heard its store's name."""
    elected = threading.Event()

    class Worker(TokenWorker):
        group, sticky, lease_ttl = f"herd {os.urandom(4).hex()}", True, 1.0

        def on_elected(self, term: object) -> None:
            elected.set()

    worker = Worker(store=own_memcached.url)
    worker.start(lambda term: None)
    assert elected.wait(30)
    yield worker
    worker.stop()


def forged(worker: TokenWorker, number: int, revision: int = 1, name: str = "") -> bytes:
    """A member of the worker's group that is on another store."""
    peer = Peer(worker.group, f"forged{number}", "mallory", number, "memcached:another")
    return packet([announcement(name or new_name(KIND), peer.properties(), revision=revision)])


def flood(packets: list[bytes]) -> float:
    """Send them evenly; return the seconds that it took."""
    begun = time.monotonic()
    with sender() as sock:
        for number, data in enumerate(packets):
            sock.sendto(data, GROUP)
            threading.Event().wait(max(0.0, begun + number / RATE - time.monotonic()))
    return time.monotonic() - begun


def test_forged_members_do_not_make_workers_ask_the_store(worker: TokenWorker, own_memcached: Memcached) -> None:
    """Each names another store, and there are 800 a second: no connection is opened, and no question asked for each."""
    until(lambda: int(own_memcached.stats()["total_items"]) > 0, "a lease")
    before = own_memcached.stats()
    seconds = flood([forged(worker, number) for number in range(2 * RATE)])
    until(lambda: len(worker.peers()) >= MAX_PEERS - 1, "the forged members")
    after = own_memcached.stats()
    grown = {key: int(after[key]) - int(before[key]) for key in ("total_connections", "cmd_get", "cmd_set")}
    assert grown["total_connections"] <= 3  # ours, for these statistics
    assert grown["cmd_get"] + grown["cmd_set"] <= 20 * (seconds + 5)
    assert worker.running


def test_forged_members_of_a_group_are_bounded(worker: TokenWorker) -> None:
    """A thousand are kept, ourselves among them, whatever comes."""
    flood([forged(worker, number) for number in range(MAX_PEERS + 300)])
    until(lambda: of_this_process().heard.count(worker.group) == MAX_PEERS, "the forged members")
    assert len(worker.peers()) == MAX_PEERS - 1


def test_forged_ends_of_a_term_do_not_flood_the_store(worker: TokenWorker, own_memcached: Memcached) -> None:
    """Each may mean that the lease is free, so a standby looks: fifty times a second at most."""
    standby = TokenWorker(group=worker.group, store=own_memcached.url, lease_ttl=1.0)
    standby.start(lambda term: None)
    try:
        until(worker.peers, "each other")
        name, before = new_name(KIND), own_memcached.stats()
        seconds = flood([forged(worker, 1, revision, name) for revision in range(2 * RATE)])
        after = own_memcached.stats()
        assert int(after["total_connections"]) - int(before["total_connections"]) <= 3
        assert int(after["cmd_get"]) - int(before["cmd_get"]) <= 60 * (seconds + 2)
    finally:
        standby.stop()

"""What every store has to do, the fakes included: one linearizable compare-and-swap cell per name."""

import contextlib
import json
import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable

import pytest

from election import Register, StoreUnavailable, open_register
from election.register import Cell, Swap
from tests.contract.conftest import SERVERS, Stores
from tests.waiting import until

WORKERS, TIMES = 4, 40


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"test {uuid.uuid4().hex}"


def increment(register: Register, name: str, times: int) -> None:
    """Count to `times` in a cell in which others count too, each for itself.

    On a busy machine a store may not answer in time. Whether the write landed shows in the cell: nobody else changes
    our own count. It is never less than what was confirmed, or an update was lost.
    """
    me, confirmed = uuid.uuid4().hex, 0
    while confirmed < times:
        with contextlib.suppress(StoreUnavailable):
            cell = register.read(name)
            counts = json.loads(cell.data) if cell else {}
            found = counts.get(me, 0)
            assert found >= confirmed, "an update was lost"
            confirmed = found
            if found < times:
                data = json.dumps(counts | {me: found + 1}).encode()
                if register.swap(name, data, cell.version if cell else None) is not None:
                    confirmed = found + 1


def total(cell: Cell | None) -> int:
    """Return what all have counted together."""
    assert cell is not None
    return sum(json.loads(cell.data).values())


def increment_at(url: str, name: str, times: int) -> None:
    """The same in a process of its own."""
    register = open_register(url)
    increment(register, name, times)
    register.close()


def in_fork(work: Callable[[], bool]) -> bool:
    """What `work` says in a forked child; False if it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_empty(stores: Stores, name: str) -> None:
    """A cell that nobody wrote is not there."""
    assert stores.client().read(name) is None


def test_create(stores: Stores, name: str) -> None:
    """What one client creates, another reads, with the very version that the write returned if they can be compared."""
    one, two = stores.client(), stores.client()
    version = one.swap(name, b"first", None)
    assert version is not None
    assert one.read(name) == Cell(b"first", version)
    cell = two.read(name)
    assert cell is not None
    assert cell.data == b"first"


def test_create_once(stores: Stores, name: str) -> None:
    """A cell that is there cannot be created, by whomever."""
    one, two = stores.client(), stores.client()
    assert one.swap(name, b"first", None) is not None
    assert two.swap(name, b"second", None) is None
    assert one.swap(name, b"third", None) is None
    assert one.read(name).data == b"first"  # type: ignore[union-attr]


def test_swap(stores: Stores, name: str) -> None:
    """A swap on the version that is there succeeds, also with a version that was read by this client."""
    one, two = stores.client(), stores.client()
    version = one.swap(name, b"first", None)
    version = one.swap(name, b"second", version)
    assert version is not None
    cell = two.read(name)
    assert cell is not None
    assert two.swap(name, b"third", cell.version) is not None
    assert one.read(name).data == b"third"  # type: ignore[union-attr]


def test_stale_version(stores: Stores, name: str) -> None:
    """A swap on a version that is no longer there changes nothing."""
    one, two = stores.client(), stores.client()
    old = one.swap(name, b"first", None)
    cell = two.read(name)
    assert cell is not None
    assert two.swap(name, b"second", cell.version) is not None
    assert one.swap(name, b"third", old) is None
    assert one.read(name).data == b"second"  # type: ignore[union-attr]


def test_version(stores: Stores, name: str) -> None:
    """A version that is read alone is that of the write that is there, and changes with each write."""
    one, two = stores.client(), stores.client()
    assert one.version(name) is None
    first = one.swap(name, b"first", None)
    assert one.version(name) == first == one.read(name).version  # type: ignore[union-attr]
    assert two.version(name) == two.read(name).version  # type: ignore[union-attr]
    assert two.swap(name, b"first", two.version(name)) is not None
    assert one.version(name) not in (first, None)


def test_versions(stores: Stores, name: str) -> None:
    """The versions of many cells, of which some are not there, are those that are read one by one, in this order."""
    one, two = stores.client(), stores.client()
    assert one.versions([]) == []
    names = [f"{name} {number}" for number in range(1100)]
    one.swap_many([Swap(each, b"", None) for each in names[::2]])
    for client in (one, two):
        found = client.versions(names[::-1])[::-1]
        assert [version is None for version in found] == [False, True] * 550
        assert found[:50] == [client.version(each) for each in names[:50]]
        assert None not in client.swap_many(
            [Swap(*pair) for pair in zip(names, [b"next"] * 1100, found, strict=True)][:50:2]
        )


def test_swap_many(stores: Stores, name: str) -> None:
    """Each of many swaps is one by itself: those that may succeed do, and the answers are in the order of the swaps."""
    one, two = stores.client(), stores.client()
    assert one.swap_many([]) == []
    old = one.swap(name + "stale", b"", None)
    assert one.swap(name + "stale", b"newer", old) is not None
    there = one.swap(name + "there", b"", None)
    swaps = [
        Swap(name + "new", b"1", None),
        Swap(name + "stale", b"2", old),
        Swap(name + "there", b"3", there),
        Swap(name + "there", b"4", None),
    ]
    answers = one.swap_many(swaps)
    assert [answer is None for answer in answers] == [False, True, False, True]
    assert one.version(name + "new") == answers[0]
    assert one.version(name + "there") == answers[2]
    cells = [two.read(swap.name) for swap in swaps[:3]]
    assert [cell and cell.data for cell in cells] == [b"1", b"newer", b"3"]


def test_swap_very_many(stores: Stores, name: str) -> None:
    """A thousand cells are created in one call, and changed in another, each once."""
    register = stores.client()
    versions = register.swap_many([Swap(f"{name} {n}", b"x" * 900, None) for n in range(1000)])
    assert None not in versions
    swaps = [Swap(f"{name} {n}", b"%d" % n, version) for n, version in enumerate(versions)]
    assert None not in register.swap_many(swaps)
    assert register.swap_many(swaps) == [None] * 1000
    cell = register.read(f"{name} 777")
    assert cell is not None
    assert cell.data == b"777"


def test_many_swaps_of_one_cell_have_one_winner(stores: Stores, name: str) -> None:
    """Of several threads that swap a cell at once, exactly one succeeds, or none if the store did not answer one."""
    clients = [stores.client() for _ in range(WORKERS)]
    swaps = [Swap(f"{name} {n}", b"", None) for n in range(50)]
    answers: list[list[object]] = []

    def race(client: Register) -> None:
        answers.append(client.swap_many(swaps))

    threads = [threading.Thread(target=race, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for cell in zip(*answers, strict=True):
        unknown = any(isinstance(answer, StoreUnavailable) for answer in cell)
        won = sum(answer is not None and not isinstance(answer, StoreUnavailable) for answer in cell)
        assert won == 1 or (won == 0 and unknown)


def test_versions_are_never_used_twice(stores: Stores, name: str) -> None:
    """The same bytes, written again and again, get a new version each time (the ABA problem)."""
    register = stores.client()
    version = register.swap(name, b"a", None)
    seen = [version]
    for data in (b"b", b"a") * 5:
        version = register.swap(name, data, version)
        assert version is not None
        seen.append(version)
    assert len(set(seen)) == len(seen)
    assert all(register.swap(name, b"late", old) is None for old in seen[:-1])


def test_versions_are_not_interchangeable(stores: Stores, name: str) -> None:
    """The version of one cell opens no other."""
    register = stores.client()
    one, other = register.swap(name, b"1", None), register.swap(name + " 2", b"1", None)
    assert one != other
    assert register.swap(name, b"2", other) is None


@pytest.mark.parametrize("odd", ["Zürich ☃", "a b", "%2F/../x?y#z", "x" * 72, "é" * 36, "'; --", '"\\'])
def test_unusual_names(stores: Stores, odd: str) -> None:
    """Any printable name of up to 80 bytes names a cell of its own."""
    register, name = stores.client(), uuid.uuid4().hex[:8] + odd
    assert register.swap(name, b"mine", None) is not None
    assert register.read(name).data == b"mine"  # type: ignore[union-attr]
    assert register.read(name[:-1]) is None


@pytest.mark.parametrize("data", [b"", b"x" * 1024, bytes(range(256)), b"\r\nEND\r\n"])
def test_any_bytes(stores: Stores, name: str, data: bytes) -> None:
    """Up to 1 KB of any bytes come back unchanged."""
    register = stores.client()
    assert register.swap(name, data, None) is not None
    assert register.read(name).data == data  # type: ignore[union-attr]


def test_names(stores: Stores, name: str) -> None:
    """A store lists the names that have a cell, or says that it cannot."""
    register = stores.client()
    register.swap(name, b"", None)
    names = register.names()
    assert names is None or name in list(names)


def test_identity(stores: Stores, name: str) -> None:
    """Two clients name the same store if they share their cells, and another one if they do not."""
    one, two, other = stores.client(), stores.client(), stores.other()
    assert one.identity() == two.identity() == one.identity()
    assert one.identity() != other.identity()


def test_shard(stores: Stores, name: str) -> None:
    """The shard of a name is the same for everybody, keeps that name's cell, and is its own shard."""
    one, two = stores.client(), stores.client()
    assert one.swap(name, b"here", None) is not None
    shard = two.shard(name)
    assert shard.read(name).data == b"here"  # type: ignore[union-attr]
    assert shard.shard(name) is shard


@pytest.mark.parametrize("stores", ["sqlite", "memcached", "sharded", *SERVERS], indirect=True)
def test_remembers(stores: Stores) -> None:
    """No store claims to remember longer than it exists."""
    assert not stores.client().remembers(10**9)


def test_close(stores: Stores, name: str) -> None:
    """A register that was closed opens again, and closing it twice does no harm."""
    register = stores.client()
    register.close()
    register.swap(name, b"kept", None)
    register.close()
    register.close()
    assert register.read(name).data == b"kept"  # type: ignore[union-attr]


def test_fork(stores: Stores, name: str) -> None:
    """A forked child and its parent can both go on using the register that they have in common."""
    register = stores.client()
    version = register.swap(name, b"parent", None)

    def child() -> bool:
        seen = register.read(name)
        return seen is not None and register.swap(name + "child", b"child", None) is not None

    assert in_fork(child)
    assert register.swap(name, b"parent again", version) is not None


def test_fork_while_busy(stores: Stores, name: str) -> None:
    """A child that is forked while other threads use the register is locked out by none of their locks, ever."""
    register, stop = stores.client(), threading.Event()
    register.swap(name, b"", None)

    def busy() -> None:
        while not stop.is_set():
            with contextlib.suppress(StoreUnavailable):
                register.swap(name + "busy", b"", None)
                register.close()

    def child() -> bool:
        return until(swaps)

    def swaps() -> bool:
        with contextlib.suppress(StoreUnavailable):  # a lock of another process, which passes
            cell = register.read(name)
            return cell is not None and register.swap(name, b"", cell.version) is not None
        return False

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert all(in_fork(child) for _ in range(10))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_threads_lose_no_update(stores: Stores, name: str) -> None:
    """N threads that each add 1 M times, half of them on one shared client, end at N times M."""
    shared = stores.client()
    clients = [shared if number % 2 else stores.client() for number in range(WORKERS)]
    threads = [threading.Thread(target=increment, args=(client, name, TIMES)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(shared.read(name)) == WORKERS * TIMES


@pytest.mark.parametrize("stores", ["sqlite", "memcached", *SERVERS], indirect=True)
def test_processes_lose_no_update(stores: Stores, name: str) -> None:
    """N processes that each add 1 M times end at N times M."""
    url = stores.url
    assert url
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=increment_at, args=(url, name, TIMES)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    register = open_register(url)
    cell = register.read(name)
    register.close()
    assert [worker.exitcode for worker in workers] == [0] * WORKERS
    assert total(cell) == WORKERS * TIMES


def test_a_version_says_in_which_generation_it_was_read_or_written(stores: Stores, name: str) -> None:
    """The same for all who use the store, and something that a record has room for; "" if it brings nothing back."""
    one, another = stores.client(), stores.client()
    written = one.swap(name, b"first", None)
    read = another.read(name)
    assert read is not None
    rewritten = another.swap(name, b"second", read.version)
    versions = [written, read.version, rewritten, one.version(name), one.versions([name])[0]]
    generations = {one.generation(version) for version in versions} | {another.generation(read.version)}
    assert len(generations) == 1
    assert all(len(each) <= 64 and each.isascii() and each.isprintable() for each in generations)

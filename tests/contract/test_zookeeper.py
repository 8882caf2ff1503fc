"""What only ZooKeeper does: sessions that end, nodes that are deleted and made again, ACLs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from election import BadStoreURL, Register, StoreUnavailable, open_register
from election.register import Swap
from tests.contract.test_register import increment, total
from tests.processes import python
from tests.proxy import Proxy, certificate
from tests.waiting import until
from tests.zookeeper_server import ZooKeeper

pytestmark = pytest.mark.xdist_group("zookeeper")


@contextlib.contextmanager
def client(url: str) -> Iterator[Register]:
    """A register that is closed at the end."""
    with contextlib.closing(open_register(url)) as register:
        yield register


@contextlib.contextmanager
def stranger(server: ZooKeeper) -> Iterator[Any]:
    """A client of ZooKeeper's that knows nothing of us."""
    kazoo = KazooClient(server.address)
    kazoo.start()
    try:
        yield kazoo
    finally:
        kazoo.stop()
        kazoo.close()


@pytest.fixture
def own_zookeeper() -> Iterator[ZooKeeper]:
    """A ZooKeeper for this test alone."""
    with ZooKeeper() as server:
        yield server


def answers(register: Register) -> bool:
    """Whether the store answers."""
    with contextlib.suppress(StoreUnavailable):
        return register.read("a") is not None
    return False


def test_a_swap_whose_answer_is_lost_is_sent_once(zookeeper: ZooKeeper) -> None:
    """A connection that breaks after a swap was forwarded is an unknown outcome: no other server gets the swap."""
    with (
        Proxy(zookeeper.port) as one,
        Proxy(zookeeper.port) as two,
        stranger(zookeeper) as kazoo,
        client(f"zookeeper://127.0.0.1:{one.port},127.0.0.1:{two.port}/once") as register,
    ):
        version = register.swap("a", b"1", None)
        one.loss = 1.0  # the other one would answer that the swap lost
        with pytest.raises(StoreUnavailable):
            register.swap("a", b"2", version)
        one.loss = 0.0
        cell = register.read("a")
        assert cell is not None
        assert cell.data == b"2"
        assert kazoo.exists("/once/cells/a").version == 1


def test_a_connection_that_was_closed_meanwhile_costs_nothing(zookeeper: ZooKeeper) -> None:
    """A connection that is known to be lost is made again before a swap is sent."""
    with Proxy(zookeeper.port) as proxy, client(f"zookeeper://127.0.0.1:{proxy.port}/cut") as register:
        version = register.swap("a", b"1", None)
        line = register._line  # type: ignore[attr-defined]
        proxy.cut()
        until(lambda: not line.client.connected)
        assert register.swap("a", b"2", version) is not None


def test_a_restart_keeps_the_cells_and_the_versions(own_zookeeper: ZooKeeper) -> None:
    """A version from before a restart still counts, and the generation is the same."""
    with client(own_zookeeper.url) as register:
        version = register.swap("a", b"1", None)
        own_zookeeper.restart()
        until(lambda: answers(register))
        new = register.swap("a", b"2", version)
        assert new is not None
        assert register.generation(new) == register.generation(version)


def test_a_frozen_server_is_left_for_another(zookeeper: ZooKeeper) -> None:
    """A read that one address does not answer goes to the next; a swap is unknown, and the next one goes there."""
    with (
        Proxy(zookeeper.port) as one,
        Proxy(zookeeper.port) as two,
        client(f"zookeeper://127.0.0.1:{one.port},127.0.0.1:{two.port}/frozen?timeout=0.5") as register,
    ):
        version = register.swap("a", b"1", None)
        one.requests.clear()
        assert register.version("a") == version
        two.requests.clear()
        one.requests.set()
        with pytest.raises(StoreUnavailable):
            register.swap("a", b"2", version)
        assert register.version("a") is not None


def test_silence_is_unavailable(own_zookeeper: ZooKeeper) -> None:
    """A frozen server is no answer within the time limit, for reads and for swaps, and mends by itself."""
    with client(f"{own_zookeeper.url}?timeout=0.3") as register:
        version = register.swap("a", b"1", None)
        own_zookeeper.freeze()
        calls: list[Callable[[], object]] = [lambda: register.read("a"), lambda: register.swap("a", b"2", version)]
        for call in calls:
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert not caught.value.permanent
        own_zookeeper.thaw()
        assert until(lambda: answers(register))


def test_a_node_that_was_deleted_and_made_again_is_another(zookeeper: ZooKeeper) -> None:
    """The version of a node opens no other node of that name, though ZooKeeper counts from 0 again."""
    with client(f"{zookeeper.url}/again") as register, stranger(zookeeper) as kazoo:
        old = [register.swap("a", b"1", None)]
        old.append(register.swap("a", b"2", old[0]))
        kazoo.delete("/again/cells/a", recursive=True)
        assert register.read("a") is None
        new = register.swap("a", b"1", None)
        new = register.swap("a", b"2", new)
        assert [register.swap("a", b"late", version) for version in old] == [None, None]
        assert register.swap("a", b"3", new) is not None


def test_what_a_stranger_wrote_can_be_read_and_replaced(zookeeper: ZooKeeper) -> None:
    """A node that we did not write has a version too, once; and names that are none of ours are not listed."""
    with client(f"{zookeeper.url}/strange") as register, stranger(zookeeper) as kazoo:
        register.swap("a", b"1", None)
        kazoo.set("/strange/cells/a", b"\xff/../x")
        kazoo.create("/strange/cells/%07", b"")
        cell = register.read("a")
        assert cell is not None
        assert cell.data == b"\xff/../x"
        version = register.swap("a", b"2", cell.version)
        assert version is not None
        assert register.swap("a", b"late", cell.version) is None
        assert register.swap("a", b"3", version) is not None
        assert list(register.names() or ()) == ["a"]


@pytest.mark.parametrize("name", [".", "..", "a/b", "%2F", "zookeeper"])
def test_every_name_is_one_node(zookeeper: ZooKeeper, name: str) -> None:
    """What means something in a path of ZooKeeper's does not in a name."""
    with client(f"{zookeeper.url}/names") as register:
        assert register.swap(name, b"", None) is not None
        assert name in list(register.names() or ())


def test_an_old_state_is_another_generation(own_zookeeper: ZooKeeper, tmp_path: Path) -> None:
    """A process that has seen more than the servers know begins another generation, for all."""
    with client(own_zookeeper.url) as register:
        version = register.swap("a", b"saved", None)
        version = register.swap("a", b"saved", version)
        own_zookeeper.save(tmp_path / "saved")
        later = register.swap("a", b"lost", version)
        own_zookeeper.restore(tmp_path / "saved")
        until(lambda: answers(register))
        cell = register.read("a")
        assert cell is not None
        assert cell.data == b"saved"
        assert register.generation(cell.version) != register.generation(version)
        swaps = [Swap("a", b"late", version), Swap("a", b"late", later), Swap("b", b"new", None)]
        assert [answer is None for answer in register.swap_many(swaps)] == [True, True, False]
        assert not register.remembers(100)
        with client(own_zookeeper.url) as another:
            assert another.version("a") == cell.version


def test_a_generation_that_another_begins_counts_at_once(zookeeper: ZooKeeper) -> None:
    """Whoever deletes the node of the generation begins another one for all who are connected already."""
    with client(f"{zookeeper.url}/begin") as register, stranger(zookeeper) as kazoo:
        version = register.swap("a", b"", None)
        kazoo.delete("/begin/generation", recursive=True)
        assert register.swap("a", b"late", version) is None
        assert register.generation(register.version("a")) != register.generation(version)


def test_users(zookeeper: ZooKeeper) -> None:
    """Nodes belong to the user who made them; others are refused for good, and no password is shown."""
    with client(f"zookeeper://app:hidden@{zookeeper.address}/users") as register:
        assert register.swap("a", b"1", None) is not None
        assert register.version("a") is not None
    for url in (f"zookeeper://app:secret@{zookeeper.address}/users", f"{zookeeper.url}/users"):
        with client(url) as register, pytest.raises(StoreUnavailable) as caught:
            register.read("a")
        assert caught.value.permanent
        assert "the nodes belong to another user, or the password is another one" in str(caught.value)
        assert "secret" not in str(caught.value) + repr(register.__dict__)


def test_watch(own_zookeeper: ZooKeeper) -> None:
    """News come for each change of a cell, there or not, and for all when the session was lost and is back."""
    with client(own_zookeeper.url) as one, client(own_zookeeper.url) as two:
        heard: dict[str, threading.Event] = {name: threading.Event() for name in "abc"}
        hints: dict[str, Any] = {name: one.watch(name, event.set) for name, event in heard.items()}
        until(lambda: all(each.live for each in hints.values()))
        assert heard["a"].wait(10)  # who watches as the session comes up is told
        version = None
        for data in (b"1", b"2", b"3"):
            until(lambda: quiet(heard["a"]), "the last of the news")
            version = two.swap("a", data, version)
            assert heard["a"].wait(10)
        hints["c"].close()
        own_zookeeper.stop()
        until(lambda: not hints["a"].live)
        heard["c"].clear()
        own_zookeeper.start()
        until(lambda: hints["a"].live)
        until(lambda: answers(two))
        until(lambda: quiet(heard["a"]), "the last of the news")
        assert two.swap("a", b"4", version) is not None
        assert heard["a"].wait(10)
        assert not heard["c"].is_set()
        for each in hints.values():
            each.close()
            each.close()
        until(lambda: not any(thread.name == "store hints" for thread in threading.enumerate()))


def quiet(event: threading.Event) -> bool:
    """Whether nothing has set it for a while."""
    event.clear()
    return not event.wait(0.2)


def test_tls(own_zookeeper: ZooKeeper, tmp_path: Path) -> None:
    """The server's certificate is checked, and ours is shown; a server that is not believed is no store."""
    ours, context = certificate(tmp_path)
    with Proxy(own_zookeeper.port, context) as proxy:
        url = f"zookeeper://127.0.0.1:{proxy.port}?cert={ours}&key={tmp_path}/key.pem"
        with client(f"{url}&ca={ours}") as register:
            assert register.swap("a", b"1", None) is not None
            hints = register.watch("a", lambda: None)
            assert hints is not None
            until(lambda: hints.live)
        for wrong in (url, f"zookeeper://127.0.0.1:{proxy.port}?ca={ours}"):
            with client(wrong) as register, pytest.raises(StoreUnavailable):
                register.read("a")


def test_no_update_is_lost_while_the_server_is_killed(own_zookeeper: ZooKeeper) -> None:
    """Several count in one cell while the server is killed and started again; all that was confirmed is there."""
    registers = [open_register(own_zookeeper.url) for _ in range(3)]
    threads = [threading.Thread(target=increment, args=(register, "count", 100)) for register in registers]
    for thread in threads:
        thread.start()
    for _ in range(3):
        own_zookeeper.restart()
    for thread in threads:
        thread.join()
    assert total(registers[0].read("count")) == 300
    for register in registers:
        register.close()


def test_leaving_by_fork_or_at_the_end(own_zookeeper: ZooKeeper) -> None:
    """A process that ends with its register open ends at once, as does a child of it that used it too."""
    code = """
import os, sys
from election import open_register
register = open_register(sys.argv[1])
register.swap("a", b"", None)
register.watch("a", lambda: None)
pid = os.fork()
register.read("a")
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    with python(code, own_zookeeper.url) as process:
        assert process.result() == (0, "")


def test_watching_again_and_again_costs_one_watch(zookeeper: ZooKeeper) -> None:
    """A cell that is watched many times by one register has one watch in the server."""
    with client(f"{zookeeper.url}/often") as register:
        first, last = threading.Event(), threading.Event()
        kept = register.watch("a", first.set)
        until(lambda: kept is not None and kept.live)
        for _ in range(50):
            hints = register.watch("a", lambda: None)
            assert hints is not None
            hints.close()
        register.watch("b", last.set)  # the thread that listens has done all that came before
        until(lambda: watched(register).keys() >= {"/often/cells/a", "/often/cells/b"})
        assert {path: len(watches) for path, watches in watched(register).items() if watches} == {
            "/often/cells/a": 1,
            "/often/cells/b": 1,
        }


def watched(register: Any) -> Any:
    """The watches that kazoo keeps for the register's stream."""
    return register._listener._run._stream._line.client._data_watchers


@pytest.mark.parametrize(
    "url",
    [
        "zookeeper://",
        "zookeeper://host:x",
        "zookeeper://a,,b",
        "zookeeper://h?timeout=nan",
        "zookeeper://h?ca=/x",
        "zookeeper://h?x=1",
        "zookeeper://h/../x",
        "zookeeper://h/a//b",
    ],
)
def test_a_url_that_makes_no_sense(url: str) -> None:
    """Hosts, ports, time limits, files and options that cannot be are named before anything is connected."""
    with pytest.raises(BadStoreURL):
        open_register(url)

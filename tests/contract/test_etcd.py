"""What only etcd does: members that come and go, snapshots that bring an old state back, and users."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from election import BadStoreURL, Register, StoreUnavailable, open_register
from election.register import Swap
from election.stores.etcd import EtcdRegister
from election.stores.etcd.generation import Generation, MemberState, restored
from tests.contract.test_register import increment, total
from tests.etcd_server import Etcd, cluster
from tests.processes import python
from tests.proxy import Proxy, certificate
from tests.waiting import until


@contextlib.contextmanager
def client(url: str) -> Iterator[Register]:
    """A register that is closed at the end."""
    with contextlib.closing(open_register(url)) as register:
        yield register


@pytest.fixture
def own_etcd() -> Iterator[Etcd]:
    """An etcd for this test alone."""
    with Etcd() as server:
        yield server


def puts(server: Etcd, name: str) -> int:
    """How often the cell `name` was written."""
    found = json.loads(server.control("get", f"politics/cells/{name}", "-w", "json"))
    return int(found["kvs"][0]["version"])


def test_a_swap_whose_answer_is_lost_is_sent_once(own_etcd: Etcd) -> None:
    """A connection that breaks after a swap was forwarded is an unknown outcome: no other member gets the swap."""
    with (
        Proxy(own_etcd.port) as one,
        Proxy(own_etcd.port) as two,
        client(f"etcd://127.0.0.1:{one.port},127.0.0.1:{two.port}") as register,
    ):
        version = register.swap("a", b"1", None)
        one.loss = 1.0  # the other one would answer that the swap lost
        with pytest.raises(StoreUnavailable):
            register.swap("a", b"2", version)
        one.loss = 0.0
        cell = register.read("a")
        assert cell is not None
        assert cell.data == b"2"
        assert puts(own_etcd, "a") == 2


def test_a_connection_that_was_closed_meanwhile_costs_nothing(own_etcd: Etcd) -> None:
    """Where the server has closed the connection before a swap was sent, the swap goes out on a new one, once."""
    with Proxy(own_etcd.port) as proxy, client(f"etcd://127.0.0.1:{proxy.port}") as register:
        version = register.swap("a", b"1", None)
        proxy.cut()
        assert register.swap("a", b"2", version) is not None
        assert puts(own_etcd, "a") == 2


def test_a_restart_keeps_the_cells_and_the_versions(own_etcd: Etcd) -> None:
    """A version from before a restart still counts, and the generation is the same."""
    with client(own_etcd.url) as register:
        version = register.swap("a", b"1", None)
        own_etcd.restart()
        until(lambda: answers(register))
        new = register.swap("a", b"2", version)
        assert new is not None
        assert register.generation(new) == register.generation(version)


def answers(register: Register) -> bool:
    """Whether the store answers."""
    with contextlib.suppress(StoreUnavailable):
        return register.read("a") is not None
    return False


def test_a_frozen_member_is_left_for_another(own_etcd: Etcd) -> None:
    """A read that one address does not answer goes to the next; a swap is unknown, and the next one goes there."""
    with (
        Proxy(own_etcd.port) as one,
        Proxy(own_etcd.port) as two,
        client(f"etcd://127.0.0.1:{one.port},127.0.0.1:{two.port}?timeout=0.5") as register,
    ):
        version = register.swap("a", b"1", None)
        one.requests.clear()
        assert register.version("a") == version
        two.requests.clear()
        one.requests.set()
        with pytest.raises(StoreUnavailable):
            register.swap("a", b"2", version)
        assert register.version("a") is not None


def test_silence_is_unavailable(own_etcd: Etcd) -> None:
    """A frozen server is no answer within the time limit, for reads and for swaps, and mends by itself."""
    with client(f"{own_etcd.url}?timeout=0.3") as register:
        version = register.swap("a", b"1", None)
        own_etcd.freeze()
        calls: list[Callable[[], object]] = [lambda: register.read("a"), lambda: register.swap("a", b"2", version)]
        for call in calls:
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert not caught.value.permanent
        own_etcd.thaw()
        assert until(lambda: answers(register))


@pytest.mark.parametrize("survivor", [True, False])
def test_a_restored_snapshot_is_another_generation(own_etcd: Etcd, tmp_path: Path, survivor: bool) -> None:
    """A snapshot that is restored, even twice, under the same name begins another generation for old and new clients.

    No old version opens a cell then, not even one that the snapshot holds.
    """
    with client(own_etcd.url) as old:
        version = old.swap("a", b"saved", None)
        own_etcd.save(tmp_path / "snapshot")
        later = old.swap("a", b"lost", version)
        if not survivor:
            old.close()
        seen = {old.generation(version)}
        for _ in range(2):
            own_etcd.restore(tmp_path / "snapshot")
            with client(own_etcd.url) as new:
                cell = (old if survivor else new).read("a")
                assert cell is not None
                assert cell.data == b"saved"
                assert cell.version[1] == version[1]
                assert new.generation(cell.version) not in seen
                seen.add(new.generation(cell.version))
                for register in (old, new):
                    assert register.swap("a", b"late", version) is None
                    assert register.swap("a", b"late", later) is None
                    assert register.version("a") == cell.version
                    assert not register.remembers(100)


def test_swaps_of_another_generation_are_refused_together(own_etcd: Etcd, tmp_path: Path) -> None:
    """Among many swaps those with an old version are refused, and the others happen."""
    with client(own_etcd.url) as register:
        old = register.swap_many([Swap(name, b"", None) for name in "abc"])
        own_etcd.save(tmp_path / "snapshot")
        register.swap("d", b"", None)
        own_etcd.restore(tmp_path / "snapshot")
        new = register.version("b")
        swaps = [Swap("a", b"", old[0]), Swap("b", b"", new), Swap("c", b"", old[2]), Swap("d", b"", None)]
        assert [answer is None for answer in register.swap_many(swaps)] == [True, False, True, False]


def test_a_generation_that_another_begins_counts_at_once(own_etcd: Etcd) -> None:
    """Whoever begins another generation begins it for all who are connected already."""
    with client(own_etcd.url) as register:
        version = register.swap("a", b"", None)
        assert register.remembers(0)
        own_etcd.control("put", "politics/generation", Generation("0" * 32, "1", 0).dump().decode())
        assert register.swap("a", b"late", version) is None
        assert register.generation(register.version("a")) != register.generation(version)
        own_etcd.control("put", "politics/generation", "nonsense")
        assert register.read("a") is not None


KEPT = Generation("a" * 32, "1", 5)


@pytest.mark.parametrize(
    ("kept", "first", "second", "seen", "expected"),
    [
        (None, MemberState("1", 100, 110), MemberState("1", 100, 110), 0, True),
        (KEPT, MemberState("1", 100, 110), MemberState("1", 100, 110), 0, False),
        (KEPT, MemberState("1", 100, 105), MemberState("1", 100, 105), 100, False),
        (KEPT, MemberState("1", 100, 104), MemberState("1", 100, 104), 0, False),  # an entry that is not counted yet
        (KEPT, MemberState("1", 100, 5), MemberState("1", 100, 5), 0, True),
        (KEPT, MemberState("1", 100, 110), MemberState("1", 100, 110), 101, True),
        (KEPT, MemberState("2", 100, 110), MemberState("2", 100, 110), 0, True),
        (KEPT, MemberState("1", 100, None), MemberState("1", 100, None), 0, False),
    ],
)
def test_restored(
    kept: Generation | None, first: MemberState, second: MemberState, seen: float, expected: bool
) -> None:
    """A cluster has gone back if it is another one, if its revision has, or if its log is too short for it."""
    assert restored(kept, first, second, seen) is expected


def test_a_cluster_outlives_a_member() -> None:
    """With three members, the death of any one costs an answer at most; without a majority nothing is answered."""
    with cluster(3) as members:
        addresses = ",".join(member.address for member in members)
        with client(f"etcd://{addresses}?timeout=2") as register:
            version = register.swap("a", b"1", None)
            for member in members:
                member.stop()
                until(lambda: answers(register))
                assert register.version("a") == version
                member.start()
            members[0].stop()
            members[1].stop()
            with pytest.raises(StoreUnavailable):
                register.read("a")


def test_users(own_etcd: Etcd) -> None:
    """A user that may read and write below the prefix is enough; a wrong password will not mend, and is not shown."""
    for command in (
        "user add root:secret", "user grant-role root root", "user add app:hidden%word", "role add app",
        "role grant-permission app readwrite politics/ politics0", "user grant-role app app", "auth enable",
    ):  # fmt: skip
        own_etcd.control(*command.split())
    with client(f"etcd://app:hidden%25word@{own_etcd.address}") as register:
        assert register.swap("a", b"1", None) is not None
        assert register.remembers(0)
        assert list(register.names() or ()) == ["a"]
        hints = register.watch("a", lambda: None)
        assert hints is not None
        until(lambda: hints.live)
    for url in (
        f"etcd://app:hidden@{own_etcd.address}",
        own_etcd.url,
        f"etcd://app:hidden%25word@{own_etcd.address}/x",
    ):
        with client(url) as register, pytest.raises(StoreUnavailable) as caught:
            register.read("a")
        assert caught.value.permanent
        assert "hidden" not in str(caught.value) + repr(register.__dict__)


def test_a_token_that_has_expired_is_renewed(own_etcd: Etcd) -> None:
    """A server that no longer knows our token, as after a restart, is signed in to again."""
    for command in ("user add root:secret", "user grant-role root root", "auth enable"):
        own_etcd.control(*command.split())
    with client(f"etcd://root:secret@{own_etcd.address}") as register:
        version = register.swap("a", b"1", None)
        assert isinstance(register, EtcdRegister)
        assert register._line
        register._line._headers["Authorization"] = "unknown.1"
        assert register.swap("a", b"2", version) is not None


def test_watch(own_etcd: Etcd) -> None:
    """News come for the cell that changed, and for all when the stream was lost and is back; closed ones hear none."""
    with client(own_etcd.url) as one, client(own_etcd.url) as two:
        heard: dict[str, threading.Event] = {name: threading.Event() for name in "abc"}
        hints = {name: one.watch(name, event.set) for name, event in heard.items()}
        assert all(each is not None for each in hints.values())
        until(lambda: all(each and each.live for each in hints.values()))
        assert heard["a"].wait(10)  # who watches as the stream comes up is told
        heard["a"].clear()
        version = two.swap("a", b"1", None)
        assert heard["a"].wait(10)
        heard["a"].clear()
        heard["b"].clear()
        version = two.swap("a", b"1", version)
        assert heard["a"].wait(10)
        assert not heard["b"].is_set()
        hints["c"].close()  # type: ignore[union-attr]
        heard["a"].clear()
        own_etcd.stop()
        until(lambda: not hints["a"].live)  # type: ignore[union-attr]
        own_etcd.start()
        until(lambda: hints["a"].live)  # type: ignore[union-attr]
        for event in heard.values():
            event.clear()
        assert until(lambda: answers(two))
        assert two.swap("a", b"2", version) is not None
        assert heard["a"].wait(10)
        assert not heard["c"].is_set()
        for each in hints.values():
            each.close()  # type: ignore[union-attr]
            each.close()  # type: ignore[union-attr]
        until(lambda: not any(thread.name == "store hints" for thread in threading.enumerate()))


def test_a_full_database_says_so() -> None:
    """A server that has reached its quota refuses a new store in it, with its reason; an old one is still read."""
    with Etcd("--quota-backend-bytes", "200000") as server, client(server.url) as one, client(server.other_url) as two:
        version = one.swap("a", b"", None)
        with contextlib.suppress(AssertionError):
            for number in range(100):
                server.control("put", str(number), "x" * 50_000)
        with pytest.raises(StoreUnavailable, match="space exceeded") as caught:
            two.read("a")
        assert not caught.value.permanent
        assert one.version("a") == version


def test_what_is_no_etcd_is_unavailable() -> None:
    """A server that answers something else is no store, and no reason to fail otherwise."""
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        b"\0",
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(server: socket.socket = server, answer: bytes = answer) -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        with connection:
                            connection.recv(1 << 16)
                            connection.sendall(answer)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            with client(f"etcd://127.0.0.1:{server.getsockname()[1]}") as register, pytest.raises(StoreUnavailable):
                register.read("a")
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_tls(own_etcd: Etcd, tmp_path: Path) -> None:
    """The server's certificate is checked, and ours is shown; a server that is not believed is no store."""
    ours, context = certificate(tmp_path)
    with Proxy(own_etcd.port, context) as proxy:
        url = f"etcds://127.0.0.1:{proxy.port}?cert={ours}&key={tmp_path}/key.pem"
        with client(f"{url}&ca={ours}") as register:
            assert register.swap("a", b"1", None) is not None
            hints = register.watch("a", lambda: None)
            assert hints is not None
            until(lambda: hints.live)
        for wrong in (url, f"etcds://127.0.0.1:{proxy.port}?ca={ours}"):
            with client(wrong) as register, pytest.raises(StoreUnavailable):
                register.read("a")


def test_no_update_is_lost_while_the_server_is_killed(own_etcd: Etcd) -> None:
    """Several count in one cell while the server is killed and started again; all that was confirmed is there."""
    registers = [open_register(own_etcd.url) for _ in range(3)]
    threads = [threading.Thread(target=increment, args=(register, "count", 100)) for register in registers]
    for thread in threads:
        thread.start()
    for _ in range(3):
        own_etcd.restart()
    for thread in threads:
        thread.join()
    assert total(registers[0].read("count")) == 300
    for register in registers:
        register.close()


def test_leaving_by_fork_or_at_the_end(own_etcd: Etcd) -> None:
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
    with python(code, own_etcd.url) as process:
        assert process.result() == (0, "")


@pytest.mark.parametrize(
    "url",
    [
        "etcd://",
        "etcd://host:0",
        "etcd://a,,b",
        "etcd://h?timeout=0",
        "etcd://h?ca=/x",
        "etcds://h?ca=/x",
        "etcd://h?prefix=x",
    ],
)
def test_a_url_that_makes_no_sense(url: str) -> None:
    """Hosts, ports, time limits, files and options that cannot be are named before anything is connected."""
    with pytest.raises(BadStoreURL):
        open_register(url)

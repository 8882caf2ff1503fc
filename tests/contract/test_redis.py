"""What only Redis does: it comes back with old cells, becomes a replica, evicts, and tells who subscribes."""

import contextlib
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from election import BadStoreURL, Register, StoreUnavailable, open_register
from election.register import Cell, Swap
from election.stores import redis as adapter
from tests.certificates import make_certificates
from tests.processes import ROOT, free_port, running
from tests.proxy import Proxy
from tests.redis_server import RedisServer
from tests.waiting import SOON, until

pytestmark = pytest.mark.xdist_group("redis")


@contextlib.contextmanager
def client(url: str) -> Iterator[Register]:
    """A register that is closed at the end."""
    with contextlib.closing(open_register(url)) as register:
        yield register


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis for this test alone, which keeps nothing on disk."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for this test alone, which keeps its data."""
    with RedisServer(folder=tmp_path) as server:
        yield server


def read(register: Register, name: str = "a") -> Cell:
    """The cell, once the store answers."""

    def found() -> Cell | None:
        with contextlib.suppress(StoreUnavailable):
            return register.read(name)
        return None

    return until(found)


def refused(url: str) -> str:
    """Why a store is refused for good."""
    with client(url) as register:
        with pytest.raises(StoreUnavailable) as caught:
            register.read("a")
        assert caught.value.permanent
        return str(caught.value)


def test_a_restart_keeps_cells_and_begins_another_generation(durable: RedisServer) -> None:
    """Cells, versions and the store's name outlive kill -9, but no version of before is accepted after it."""
    with client(durable.url) as register:
        old = register.swap("a", b"1", None)
        identity = register.identity()
        assert register.remembers(0)
        durable.restart()
        cell = read(register)
        assert cell.data == b"1"
        assert cell.version[1] == old[1]
        assert register.generation(cell.version) != register.generation(old)
        assert register.swap("a", b"late", old) is None
        assert register.swap_many([Swap("a", b"late", old), Swap("b", b"", None)])[0] is None
        assert not register.remembers(1000)
        assert register.identity() == identity
        assert register.swap("a", b"2", cell.version) is not None


def test_older_data_are_another_generation(durable: RedisServer, tmp_path: Path) -> None:
    """Where an older copy of the data comes back, no version opens a cell that was read before."""
    with client(durable.url) as register:
        saved = register.swap("a", b"saved", None)
        durable.stop()
        shutil.copytree(tmp_path / "appendonlydir", tmp_path / "copy")
        durable.start()
        later = register.swap("a", b"lost", read(register).version)
        durable.stop()
        shutil.rmtree(tmp_path / "appendonlydir")
        (tmp_path / "copy").rename(tmp_path / "appendonlydir")
        durable.start()
        cell = read(register)
        assert cell.data == b"saved"
        assert register.generation(cell.version) not in map(register.generation, (saved, later))
        assert [register.swap("a", b"late", version) for version in (saved, later)] == [None, None]


def test_a_master_that_was_a_replica_meanwhile_is_another_generation(tmp_path: Path, durable: RedisServer) -> None:
    """Who was connected through both changes of the role swaps nothing into the data that came with them."""
    server = durable
    (tmp_path / "other").mkdir()
    with (
        RedisServer("--repl-diskless-sync-delay", "0", folder=tmp_path / "other") as other,
        client(server.url) as register,
        client(other.url) as elsewhere,
    ):
        assert elsewhere.swap("a", b"other", None) is not None
        old = register.swap("a", b"1", None)
        assert register.remembers(0)
        server.client.replicaof("127.0.0.1", other.port)
        until(lambda: server.client.info("replication")["master_link_status"] == "up")
        assert register.swap("a", b"2", old) is None
        with pytest.raises(StoreUnavailable, match="role is slave"):
            register.swap("a", b"2", old)
        assert "role is slave" in refused(server.url)
        server.client.replicaof("no", "one")
        new = read(register)
        assert new.data == b"other"
        assert register.generation(new.version) != register.generation(old)
        assert register.swap("a", b"late", old) is None


def test_a_living_connection_is_not_believed_after_a_change_of_role(server: RedisServer) -> None:
    """Nobody has used the connection meanwhile: the script itself finds that the data are others."""
    with client(server.url) as register, client(server.url) as second:
        old = register.swap("a", b"1", None)
        assert second.remembers(0)
        server.client.replicaof("127.0.0.1", 1)
        server.client.replicaof("no", "one")
        stale = register.read("a")
        assert stale is not None
        assert stale.version == old
        assert register.swap("a", b"late", old) is None
        cell = register.read("a")
        assert cell is not None
        assert register.swap("a", b"2", cell.version) is not None
        assert not second.remembers(-1)
        assert second.remembers(-1)


def test_what_is_lost_is_not_remembered(server: RedisServer) -> None:
    """It remembers for as long as this process has known it, and begins anew after a flush in any database."""
    with client(server.url) as register:
        assert not register.remembers(1000)
        assert until(lambda: register.remembers(0.05))
        for flush in ("FLUSHALL", "FLUSHDB", "SWAPDB 0 1"):
            server.client.execute_command(*flush.split())
            assert not register.remembers(0)
            assert until(lambda: register.remembers(0.01))
        server.client.eval("redis.call('FLUSHDB')", 0)
        assert not register.remembers(0)


def test_counters_that_were_reset_are_not_believed(server: RedisServer) -> None:
    """Who sets the counters to zero may have hidden a flush, so that nothing is remembered before a restart."""
    with client(server.url) as register:
        assert until(lambda: register.remembers(0))
        server.client.config_resetstat()
        assert not register.remembers(0)
        assert not register.remembers(0)


def test_an_eviction_is_not_forgotten() -> None:
    """A cell that was evicted is gone, and the store says so."""
    evicting = RedisServer("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random")
    with evicting as server, client(server.url) as register:
        assert register.swap("a", b"", None) is not None
        assert until(lambda: register.remembers(0))
        for number in range(3000):
            server.client.set(number, b"x" * 1000)
        assert not register.remembers(0)


def test_a_full_server_loses_nothing() -> None:
    """Without eviction a swap is refused, the cell stays as it was, and waiting may mend it."""
    with RedisServer() as server, client(server.url) as register:
        version = register.swap("a", b"1", None)
        server.client.config_set("maxmemory", 100_000)
        with pytest.raises(StoreUnavailable, match="maxmemory") as caught:
            register.swap("a", b"2", version)
        assert not caught.value.permanent
        assert read(register) == Cell(b"1", version)
        assert register.remembers(0)


def test_a_busy_server_is_unavailable() -> None:
    """While another's script runs for ever, nothing is answered; afterwards all is as before."""
    with RedisServer("--busy-reply-threshold", "20") as server, client(server.url) as register:
        version = register.swap("a", b"1", None)

        def block() -> None:
            with contextlib.suppress(RedisError):
                server.client.eval("while true do end", 0)

        thread = threading.Thread(target=block)
        thread.start()

        def busy() -> bool:
            try:
                return register.read("a") is None
            except StoreUnavailable as exc:
                return "BUSY" in str(exc) and not exc.permanent

        assert until(busy)
        killer = Redis(port=server.port, socket_timeout=SOON)
        killer.script_kill()
        killer.close()
        thread.join()
        assert read(register) == Cell(b"1", version)


def test_a_swap_whose_answer_is_lost_is_sent_once(server: RedisServer) -> None:
    """A connection that breaks after a swap was forwarded is an unknown outcome, and nothing is sent again."""
    with Proxy(server.port) as proxy, client(f"redis://127.0.0.1:{proxy.port}/0") as register:
        version = register.swap("a", b"1", None)
        proxy.loss = 1.0
        for swap in (lambda: register.swap("a", b"2", version), lambda: register.read("a")):
            with pytest.raises(StoreUnavailable) as caught:
                swap()
            assert not caught.value.permanent
        many = register.swap_many([Swap(name, b"", None) for name in "bcd"])
        assert all(isinstance(answer, StoreUnavailable) for answer in many)
        proxy.loss = 0.0
        assert read(register).data == b"2"
        # Of the three, none was sent: the connection could not even be made.
        assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_of_many_swaps_those_that_were_answered_are_known(server: RedisServer) -> None:
    """What is no cell in the middle of many ends the answers there; the swaps before it are known to have landed."""
    server.client.hset("politics:c", "field", "value")
    with client(server.url) as register:
        answers = register.swap_many([Swap(name, b"", None) for name in "abcd"])
        assert [isinstance(answer, StoreUnavailable) for answer in answers] == [False, False, True, True]
        assert [register.version(name) for name in "ab"] == answers[:2]


def test_a_server_that_is_gone_or_silent(server: RedisServer) -> None:
    """Every call raises StoreUnavailable and names the address; a late answer is not a later call's."""
    with client(f"{server.url}?timeout=0.1") as register:
        version = register.swap("a", b"one", None)
        server.freeze()
        calls: list[Callable[[], object]] = [
            lambda: register.swap("a", b"two", version),
            lambda: register.read("a"),
            lambda: register.versions(["a", "b"]),
            lambda: register.remembers(1),
            lambda: register.names(),
            register.identity,
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{server.port}") as caught:
                call()
            assert not caught.value.permanent
        server.thaw()
        cell = read(register)
        assert cell.data in (b"one", b"two")
        assert (register.swap("a", b"three", version) is None) == (cell.data == b"two")
        server.stop()
        for call in calls:
            with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{server.port}"):
                call()


def test_an_interrupted_call_leaves_no_answer_behind(server: RedisServer) -> None:
    """What Ctrl-C has cut off is not taken for the answer of the next call."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with client(f"{server.url}?timeout=10") as register:
        assert register.swap("a", b"1", None) is not None
        server.freeze()
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                register.read("a")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        server.thaw()
        assert register.read("b") is None


def test_scripts_that_were_flushed_are_loaded_again(server: RedisServer) -> None:
    """A server that has forgotten the script refuses one swap, which is known not to be lost."""
    with client(server.url) as register:
        version = register.swap("a", b"1", None)
        server.client.script_flush()
        with pytest.raises(StoreUnavailable):
            register.swap("a", b"2", version)
        assert register.swap("a", b"2", version) is not None


def test_what_others_have_written(server: RedisServer) -> None:
    """A value that is no cell is read as it is and can be replaced; another kind of value is named as such."""
    with client(server.url) as register:
        for value in (b"x", b"x" * 16, b"x" * 100_000):
            server.client.set("politics:a", value)
            cell = read(register)
            assert cell.data == value[16 : 16 + 1025]
            assert register.version("a") == cell.version
            assert register.swap("a", b"", None) is None
            assert register.swap("a", b"ours", cell.version) is not None
        server.client.set("politics:a", b"")
        assert register.read("a") is None
        assert register.swap("a", b"ours", None) is not None
        server.client.rpush("politics:b", "x")
        server.client.set(b"politics:\xff", "x")
        server.client.set("politics:" + "x" * 81, "x")
        assert list(register.names()) == ["a", "b"]
        with pytest.raises(StoreUnavailable, match="WRONGTYPE") as caught:
            register.read("b")
        assert caught.value.permanent


def test_a_cluster_and_a_sentinel_are_refused(tmp_path: Path) -> None:
    """Whatever fails over by itself, or keeps nothing, is refused at the first use, with what to do instead."""
    with RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()), folder=tmp_path) as cluster:
        assert "single server" in refused(cluster.url)
    port = free_port()
    (tmp_path / "sentinel.conf").write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")
    with running("redis-server", tmp_path / "sentinel.conf", "--sentinel") as sentinel:
        sentinel.line("Sentinel ID")
        assert "name the master itself" in until(lambda: refused(f"redis://127.0.0.1:{port}"))


PERMISSIONS = (
    "resetchannels ~politics:* &politics:* +info +script|load +evalsha +get +set +getrange +scan +publish "
    "+psubscribe +ping +select"
)


def test_a_user_with_few_permissions(server: RedisServer) -> None:
    """The permissions in docs/stores.md are enough; without the one to publish, nothing is written either."""
    assert PERMISSIONS in " ".join(Path(ROOT, "docs/stores.md").read_text().split())
    server.client.execute_command("ACL", "SETUSER", "app", "on", ">hidden word", *PERMISSIONS.split())
    with client(f"redis://app:hidden%20word@127.0.0.1:{server.port}/2") as register:
        version = register.swap("a", b"1", None)
        assert version is not None
        assert register.remembers(0)
        assert list(register.names()) == ["a"]
        assert register.identity() == register.identity()
        hints = register.watch("a", lambda: None)
        assert hints is not None
        until(lambda: hints.live)
        server.client.execute_command("ACL", "SETUSER", "app", "resetchannels")
        with pytest.raises(StoreUnavailable) as caught:
            until(lambda: register.swap("a", b"2", version))
        assert caught.value.permanent
        assert read(register).data == b"1"
        assert "hidden" not in str(caught.value)
    for user in ("app:hidden", "nobody:hidden"):
        why = refused(f"redis://{user}@127.0.0.1:{server.port}/2")
        assert "username-password" in why
        assert "hidden" not in why
    server.client.config_set("requirepass", "secret")
    assert "Authentication required" in refused(server.url)
    with client(server.url.replace("redis://", "redis://:secret@")) as register:
        assert register.read("a") is None
    server.client.connection_pool.connection_kwargs["password"] = "secret"


def test_a_database_that_does_not_exist(server: RedisServer) -> None:
    """It is named as the reason, and no waiting is of use."""
    assert "DB index is out of range" in refused(server.url.replace("/0", "/99"))


def test_a_unix_socket(tmp_path: Path) -> None:
    """A server of this machine is reached over its socket, in the database that the option names."""
    path = tmp_path / "redis.sock"
    local_url = f"redis+unix://{path}?db=1"
    with (
        RedisServer("--unixsocket", str(path)) as server,
        client(local_url) as local,
        client(server.other_url) as other,
    ):
        version = local.swap("a", b"", None)
        assert other.version("a") == version
        assert local.identity() == other.identity()


def test_tls(tmp_path: Path) -> None:
    """The server's certificate is checked, the name in it too; what does not fit is refused for good."""
    make_certificates(tmp_path)
    port = free_port()
    files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
    options = [part for name, file in files.items() for part in (f"--tls-{name}-file", str(tmp_path / file))]
    with RedisServer("--tls-port", str(port), *options, "--tls-auth-clients", "no"):
        with client(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/ca.pem") as register:
            assert register.swap("a", b"1", None) is not None
            heard = threading.Event()
            hints = register.watch("a", heard.set)
            assert hints is not None
            until(lambda: hints.live)
        assert "certificate verify failed" in refused(f"rediss://127.0.0.1:{port}/0").lower()
        why = refused(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}/ca.pem")
        assert "Hostname mismatch" in why


class Ear:
    """Counts the hints about one cell."""

    def __init__(self, register: Register, name: str) -> None:
        self.count = 0
        self.hints: Any = register.watch(name, self.hear)

    def hear(self) -> None:
        self.count += 1


def test_hints(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each swap is heard of by those who watch its cell, over many idle periods, and again after the server is back."""
    monkeypatch.setattr(adapter, "IDLE", 0.05)
    with client(server.url) as register, client(server.url) as writer:
        one, two = Ear(register, "a"), Ear(register, "b c")
        until(lambda: one.hints.live and two.hints.live)
        until(lambda: one.count and two.count)
        connections = server.client.info("stats")["total_connections_received"]
        pings = server.client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        until(lambda: server.client.info("commandstats")["cmdstat_ping"]["calls"] > pings + 5)
        assert one.hints.live
        assert server.client.info("stats")["total_connections_received"] == connections
        before = one.count, two.count
        assert writer.swap("b c", b"", None) is not None
        assert until(lambda: two.count > before[1])
        assert writer.swap("b c", b"", None) is None
        assert one.count == before[0]
        server.freeze()
        until(lambda: not one.hints.live)
        server.thaw()
        until(lambda: one.hints.live)
        server.restart()
        until(lambda: two.hints.live)
        before = one.count, two.count
        assert until(lambda: _swaps(writer, "b c"))
        assert until(lambda: two.count > before[1])
        for ear in (one, two):
            ear.hints.close()
            ear.hints.close()
        until(lambda: not any(thread.name == "store hints" for thread in threading.enumerate()))


def _swaps(register: Register, name: str) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return register.swap(name, b"", None) is not None
    return False


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://", "one host"),
        ("redis://a,b", "one host"),
        ("redis://a/x", "'x' is not the number of a database"),
        ("redis://a?db=x", "db"),
        ("redis://a:x", "port"),
        ("redis://u:pa/ss@a", "in a password as % and its number"),
        ("redis://a?timeout=0", "timeout"),
        ("redis://a?ssl_ca_certs=x", "unknown option ssl_ca_certs"),
        ("redis://a?retry_on_timeout=1", "unknown option retry_on_timeout"),
        ("redis://a?password=pass", "unknown option password"),
        ("redis+unix:///", "path of a socket"),
        ("redis+unix://a/b", "path of a socket"),
    ],
)
def test_bad_urls(url: str, why: str) -> None:
    """A URL that makes no sense is refused with the reason, and never shows a password."""
    with pytest.raises(BadStoreURL, match=why) as caught:
        open_register(url)
    assert "pa/ss" not in str(caught.value)
    assert "=pass" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*0\r\n", b"-\r\n"]
)
def test_what_is_no_redis_is_unavailable(answer: bytes) -> None:
    """A server that answers something else is no store, and no reason to fail otherwise."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    while connection.recv(1 << 16):
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{listening.getsockname()[1]}"
        with client(url) as register, pytest.raises(StoreUnavailable):
            register.read("a")
        thread.join()

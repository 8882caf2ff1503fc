"""What only PostgreSQL does: it comes back with what it had, is copied and promoted, and others lock its tables."""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from election import BadStoreURL, Register, StoreUnavailable, open_register
from election.register import Cell, Swap
from election.stores.postgresql import notifications
from election.stores.postgresql import register as adapter
from tests.commands import politics
from tests.contract.test_register import TIMES, WORKERS, increment, total
from tests.postgresql_server import PostgreSQLServer, as_postgres, program
from tests.processes import running
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.xdist_group("postgresql")

QUICK = "timeout=0.4"


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"test {uuid.uuid4().hex}"


@pytest.fixture
def database(postgresql: PostgreSQLServer) -> Iterator[str]:
    """A database without our table."""
    made = f"db_{uuid.uuid4().hex[:8]}"
    postgresql.sql(f"CREATE DATABASE {made}")
    yield made
    postgresql.sql(f"DROP DATABASE {made} WITH (FORCE)")


@pytest.fixture
def opened() -> Iterator[Callable[[str], Register]]:
    """Open registers that are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(contextlib.closing(open_register(url)))


Opened = Callable[[str], Register]


def refused(register: Register) -> StoreUnavailable:
    """The error of a first use."""
    with pytest.raises(StoreUnavailable) as caught:
        register.read("x")
    return caught.value


def settled(register: Register, name: str) -> Cell | None:
    """What is read once the server answers again."""

    def read() -> list[Cell | None]:
        with contextlib.suppress(StoreUnavailable):
            return [register.read(name)]
        return []

    return until(read, "an answer")[0]


class Proxy:
    """Stands between a client and a server, and cuts their connection once it has passed on the next request.

    It gives each connection another process id, as poolers do, if `pools`.
    """

    def __init__(self, port: int, *, pools: bool = False) -> None:
        self._port, self._pools, self.cuts = port, pools, False
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, server = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client, server:
            while data := client.recv(1 << 16):
                cut = self.cuts and data.startswith(b"Q")
                self.requests += data.startswith(b"Q")
                server.sendall(data)
                if cut:
                    server.recv(1)  # it has begun to answer
                    client.shutdown(socket.SHUT_RDWR)
                    return

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16, socket.MSG_PEEK):
                if self.cuts:
                    return
                data = server.recv(1 << 16)
                key = data.find(b"K\x00\x00\x00\x0c")
                if self._pools and key >= 0:
                    data = data[: key + 5] + b"\x00\x00\x30\x39" + data[key + 9 :]
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def test_kill_loses_nothing(postgresql: PostgreSQLServer, name: str) -> None:
    """A server that is killed again and again while clients count in one cell loses nothing that it confirmed."""
    registers = [open_register(postgresql.url) for _ in range(WORKERS)]
    threads = [threading.Thread(target=increment, args=(each, name, TIMES)) for each in registers]
    for thread in threads:
        thread.start()

    def goes_on(before: Cell | None) -> bool:
        return settled(registers[0], name) != before or not any(each.is_alive() for each in threads)

    for _ in range(3):
        until(functools.partial(goes_on, settled(registers[0], name)))
        postgresql.restart()
    for thread in threads:
        thread.join()
    assert total(settled(registers[0], name)) == WORKERS * TIMES
    for register in registers:
        register.close()


def test_a_restart_begins_another_generation(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """After a restart the cell is there, in another generation, and no earlier version opens it."""
    one, two = opened(postgresql.url), opened(postgresql.url)
    old = one.swap(name, b"kept", None)
    assert one.generation(old) == two.generation(two.version(name)) != ""
    postgresql.restart()
    cell = settled(one, name)
    assert cell is not None
    assert cell.data == b"kept"
    assert one.generation(cell.version) != one.generation(old)
    assert settled(two, name) == cell
    assert two.swap(name, b"late", old) is None
    assert not one.remembers(3600)
    assert one.swap(name, b"next", cell.version) is not None


def test_it_remembers_what_it_has_seen(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """A process remembers for as long as it has itself seen this table on this run of the server, and no longer."""
    register = opened(postgresql.url)
    assert not register.remembers(0.2)
    until(lambda: register.remembers(0.2))
    postgresql.restart()
    assert settled(register, name) is None
    assert not register.remembers(3600)


def test_a_swap_is_sent_once(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """A swap whose answer is cut off was sent once: it landed, and whether it did is unknown."""
    with Proxy(postgresql.port) as proxy:
        register = opened(postgresql.url.replace(str(postgresql.port), str(proxy.port)))
        version = register.swap(name, b"first", None)
        before, proxy.cuts = proxy.requests, True
        with pytest.raises(StoreUnavailable) as caught:
            register.swap(name, b"second", version)
        assert not caught.value.permanent
        assert proxy.requests == before + 1
        proxy.cuts = False
        found = until(lambda: (cell := register.read(name)) and cell.data == b"second" and cell)
        assert register.swap(name, b"third", found.version) is not None


def test_a_silent_server(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """A server that is silent is unavailable in time for reads, swaps, many swaps and new connections."""
    old, new = opened(f"{postgresql.url_of('postgres')}&{QUICK}"), opened(f"{postgresql.url_of('postgres')}&{QUICK}")
    version = old.swap(name, b"", None)
    postgresql.freeze()
    try:
        for work in (lambda: old.swap(name, b"late", version), lambda: old.read(name), lambda: new.version(name)):
            with pytest.raises(StoreUnavailable, match="timed out"):
                work()
        answers = new.swap_many([Swap(f"{name} {number}", b"", None) for number in range(300)])
        assert {type(answer) for answer in answers} == {StoreUnavailable}
    finally:
        postgresql.thaw()
    assert settled(old, name) is not None


def test_an_interrupted_call(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """What an interrupted call waited for is never taken for the answer of a later one."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    register = opened(postgresql.url)
    register.swap_many([Swap(name, b"one", None), Swap(name + "two", b"two", None)])
    before = signal.signal(signal.SIGALRM, interrupt)
    postgresql.freeze()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            register.read(name)
    finally:
        postgresql.thaw()
        signal.signal(signal.SIGALRM, before)
    assert register.read(name + "two").data == b"two"  # type: ignore[union-attr]


def test_a_locked_table(postgresql: PostgreSQLServer, opened: Opened, database: str, name: str) -> None:
    """Whoever waits for a lock of others gives up in time, and leaves nobody behind who waits in the server."""
    register = opened(f"{postgresql.url_of(database)}&{QUICK}")
    version = register.swap(name, b"", None)
    with postgresql.connection(database) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE politics_cells IN ACCESS EXCLUSIVE MODE")
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                register.swap(name, b"late", version)
            assert not caught.value.permanent
        waiting = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        until(lambda: not postgresql.sql(waiting))
        other.execute("ROLLBACK")
    assert settled(register, name) == Cell(b"", version)


def test_many_swaps_in_any_order(postgresql: PostgreSQLServer, database: str, name: str) -> None:
    """Two clients that swap the same cells in opposite orders never wait for each other, and no swap fails."""
    postgresql.sql(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    names = [f"{name} {number}" for number in range(60)]

    def work(order: list[str], failures: list[object]) -> None:
        with contextlib.closing(open_register(postgresql.url_of(database))) as register:
            for _ in range(15):
                versions = register.versions(order)
                answers = register.swap_many([Swap(*each) for each in zip(order, [b""] * 60, versions, strict=True)])
                failures += [answer for answer in answers if isinstance(answer, StoreUnavailable)]

    failures: list[object] = []
    threads = [threading.Thread(target=work, args=(order, failures)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(
    "setting", ["default_transaction_isolation = 'serializable'", "bytea_output = 'escape'", "search_path = ours"]
)
def test_settings_of_the_user(postgresql: PostgreSQLServer, database: str, name: str, setting: str) -> None:
    """What an administrator has set for the user changes neither what a swap promises nor what is read."""
    postgresql.sql("CREATE SCHEMA ours", database)
    postgresql.sql(f"ALTER DATABASE {database} SET {setting}")
    registers = [open_register(postgresql.url_of(database)) for _ in range(2)]
    threads = [threading.Thread(target=increment, args=(each, name, TIMES)) for each in registers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(registers[0].read(name)) == 2 * TIMES
    assert registers[0].swap(name + "bytes", bytes(range(256)), None)
    assert registers[1].read(name + "bytes").data == bytes(range(256))  # type: ignore[union-attr]
    for register in registers:
        register.close()


def test_a_confirmed_swap_is_on_the_disk(postgresql: PostgreSQLServer, database: str, name: str) -> None:
    """With `synchronous_commit = off` for the database, a swap that was confirmed survives a kill all the same."""
    postgresql.sql(f"ALTER DATABASE {database} SET synchronous_commit = off")
    postgresql.sql("ALTER SYSTEM SET wal_writer_delay = '10s'")
    postgresql.restart()
    with contextlib.closing(open_register(postgresql.url_of(database))) as register:
        register.read(name)  # makes the table
        versions = [register.swap(name, b"", None)]
        versions += register.swap_many([Swap(name + "many", b"", None)])
        postgresql.stop()
        postgresql.start()
        assert settled(register, name) is not None
        assert [version[1] for version in register.versions([name, name + "many"])] == [each[1] for each in versions]
    postgresql.sql("ALTER SYSTEM RESET wal_writer_delay")


def test_fsync_off_is_refused(postgresql: PostgreSQLServer, opened: Opened) -> None:
    """A server that does not write to its disk is refused, and the reason is given."""
    postgresql.sql("ALTER SYSTEM SET fsync = off")
    postgresql.sql("SELECT pg_reload_conf()")
    try:
        until(lambda: postgresql.sql("SHOW fsync") == [("off",)])
        trouble = refused(opened(postgresql.url))
    finally:
        postgresql.sql("ALTER SYSTEM RESET fsync")
        postgresql.sql("SELECT pg_reload_conf()")
        until(lambda: postgresql.sql("SHOW fsync") == [("on",)])
    assert trouble.permanent
    assert "fsync = off" in str(trouble)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("CREATE UNLOGGED TABLE politics_cells (name bytea PRIMARY KEY, data bytea, version bytea)", "unlogged"),
        ("CREATE VIEW politics_cells AS SELECT 1", "no ordinary table"),
        ("CREATE TABLE politics_cells (name bytea, data bytea, version bytea)", "constraint"),
        ("CREATE TABLE politics_cells (name bytea PRIMARY KEY, data bytea)", "version"),
        ("CREATE TABLE politics_cells (name text PRIMARY KEY, data bytea, version bytea)", "text"),
    ],
)
def test_another_table_is_refused(
    postgresql: PostgreSQLServer, opened: Opened, database: str, made: str, says: str
) -> None:
    """A table of the name that is not ours, or that keeps nothing, is refused with the reason."""
    postgresql.sql(made, database)
    register = opened(postgresql.url_of(database))
    with pytest.raises(StoreUnavailable, match=says) as caught:
        assert register.read("x") or register.swap("x", b"", None)
    assert caught.value.permanent


def test_a_table_that_is_made_unlogged(postgresql: PostgreSQLServer, opened: Opened, database: str, name: str) -> None:
    """A table that stops to keep anything while it is used is another generation, and then refused."""
    register = opened(postgresql.url_of(database))
    old = register.swap(name, b"", None)
    postgresql.sql("ALTER TABLE politics_cells SET UNLOGGED", database)
    assert register.swap(name, b"", old) is None
    register.version(name)
    assert "unlogged" in str(refused(register))
    postgresql.sql("ALTER TABLE politics_cells SET LOGGED", database)
    assert register.swap(name, b"", register.version(name)) is not None


def test_a_password(postgresql: PostgreSQLServer, opened: Opened, database: str) -> None:
    """The right password opens the store, also one with any characters; a wrong one is an error that lasts."""
    user, password = f"user_{uuid.uuid4().hex[:8]}", "p@ss:w/rd#?%"
    access = postgresql.folder / "pg_hba.conf"
    before = access.read_text()
    postgresql.sql(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'")
    access.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{before}")
    postgresql.sql("SELECT pg_reload_conf()")
    url = postgresql.url_of(database, user)
    until(lambda: "no password supplied" in str(refused(opened(url))))
    assert opened(url.replace(user, f"{user}:{quote(password, safe='')}")).read("x") is None
    trouble = refused(opened(url.replace(user, f"{user}:hunter2")))
    assert trouble.permanent
    assert "password authentication failed" in str(trouble)
    assert "hunter2" not in str(trouble)
    access.write_text(before)
    postgresql.sql("SELECT pg_reload_conf()")


def test_an_old_server_is_refused(
    postgresql: PostgreSQLServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is older than what we need is refused; here it is we who need more."""
    monkeypatch.setattr(adapter, "OLDEST", 99)
    trouble = refused(opened(postgresql.url))
    assert trouble.permanent
    assert "use 99 or later" in str(trouble)


def test_rights(postgresql: PostgreSQLServer, opened: Opened, database: str, name: str) -> None:
    """A user without CREATE is told what is missing, and needs no more than three rights to the table."""
    user = f"user_{uuid.uuid4().hex[:8]}"
    postgresql.sql(f"CREATE ROLE {user} LOGIN")
    register = opened(postgresql.url_of(database, user))
    trouble = refused(register)
    assert trouble.permanent
    assert "SELECT, INSERT and UPDATE on politics_cells, and CREATE" in str(trouble)
    owner = opened(postgresql.url_of(database))
    version = owner.swap(name, b"", None)
    postgresql.sql(f"GRANT SELECT, INSERT, UPDATE ON politics_cells TO {user}", database)
    assert register.swap(name, b"mine", version) is not None
    assert register.swap(name + "new", b"", None) is not None
    assert register.identity() == owner.identity()
    assert list(register.names()) == [name, name + "new"]  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_encodings(postgresql: PostgreSQLServer, opened: Opened, encoding: str) -> None:
    """Names are any text, whatever the encoding of the database."""
    database = f"db_{encoding.lower()}"
    postgresql.sql(f"CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}'")
    register = opened(postgresql.url_of(database))
    assert register.swap("Zürich ☃", b"\xff", None) is not None
    assert register.read("Zürich ☃").data == b"\xff"  # type: ignore[union-attr]
    assert register.names() == ["Zürich ☃"]


def test_many_make_the_table_at_once(postgresql: PostgreSQLServer, opened: Opened, database: str, name: str) -> None:
    """Of many clients that find no table at the same moment, all can use the one that is then there."""
    registers = [opened(postgresql.url_of(database)) for _ in range(16)]
    gate, won = threading.Barrier(16), list[object]()

    def use(register: Register) -> None:
        gate.wait()
        won.append(register.swap(name, b"", None))

    threads = [threading.Thread(target=use, args=(each,)) for each in registers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 16
    assert sum(each is not None for each in won) == 1


@pytest.mark.parametrize("how", ["truncated", "restored"])
def test_a_restored_table(
    postgresql: PostgreSQLServer, opened: Opened, database: str, name: str, tmp_path: Path, how: str
) -> None:
    """A table that was replaced under a connection, with the same rows, is another generation."""
    register = opened(postgresql.url_of(database))
    old = register.swap(name, b"backup", None)
    where = ["-h", "127.0.0.1", "-p", postgresql.port, "-U", "postgres", "-d", database]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        clean = ["--clean"] if how == "restored" else ["--data-only"]
        postgresql.run("pg_dump", *where, *clean, "-f", f"{folder}/dump")
        if how == "truncated":
            postgresql.sql("TRUNCATE politics_cells", database)
        postgresql.run("psql", "-v", "ON_ERROR_STOP=1", *where, "-f", f"{folder}/dump")
    cell = register.read(name)
    assert cell is not None
    assert cell.data == b"backup"
    assert register.generation(cell.version) != register.generation(old)
    assert register.swap(name, b"late", old) is None
    assert register.swap(name, b"next", cell.version) is not None


def test_promotion(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """A standby is refused, and passed over among several hosts. Once promoted it is another generation."""
    primary = opened(postgresql.url)
    old = primary.swap(name, b"replicated", None)
    folder = Path(tempfile.mkdtemp(prefix="politics-postgresql-"))
    if as_postgres():
        shutil.chown(folder, "postgres", "postgres")
    postgresql.run(
        "pg_basebackup", "-h", "127.0.0.1", "-p", postgresql.port, "-U", "postgres", "-D", folder, "-R", "-c", "fast",
        "--no-sync",
    )  # fmt: skip
    with PostgreSQLServer(folder=folder) as standby:
        alone = opened(standby.url)
        trouble = refused(alone)
        assert "standby" in str(trouble)
        assert not trouble.permanent
        hosts = f"127.0.0.1:{standby.port},127.0.0.1:{postgresql.port}"
        assert opened(f"postgresql://postgres@{hosts}/postgres?timeout=10").version(name) == old
        subprocess.run(
            [program("pg_ctl"), "promote", "-D", str(folder)], check=True, capture_output=True, cwd="/",
            timeout=DEADLINE, **as_postgres(),
        )  # fmt: skip
        cell = settled(alone, name)
        assert cell is not None
        assert cell.data == b"replicated"
        assert alone.generation(cell.version) != primary.generation(old)
        assert alone.swap(name, b"late", old) is None


def test_hints(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """Whoever watches a cell hears of each swap there, of a loss of the stream and of its return, until it closes."""
    one, two = opened(postgresql.url), opened(postgresql.url)
    news, others = threading.Semaphore(0), threading.Semaphore(0)
    hints, silent = two.watch(name, news.release), two.watch(name + "other", others.release)
    assert hints is not None
    assert silent is not None
    until(lambda: hints.live and silent.live)
    assert news.acquire(timeout=DEADLINE)  # it listens now
    assert others.acquire(timeout=DEADLINE)
    version = one.swap(name, b"", None)
    assert version is not None
    assert news.acquire(timeout=DEADLINE)
    assert not others.acquire(blocking=False)
    assert one.swap(name, b"", None) is None
    assert one.swap_many([Swap(name, b"", version)]) != [None]
    assert news.acquire(timeout=DEADLINE)
    assert not news.acquire(blocking=False)
    postgresql.stop()
    assert news.acquire(timeout=DEADLINE)
    assert not hints.live
    postgresql.start()
    until(lambda: hints.live)
    assert news.acquire(timeout=DEADLINE)
    hints.close()
    hints.close()
    assert not hints.live
    assert silent.live
    silent.close()
    until(lambda: not [each for each in threading.enumerate() if each.name == "store hints"])


def test_no_hints_from_a_frozen_server(
    postgresql: PostgreSQLServer, opened: Opened, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is silent because its server is frozen is found out."""
    monkeypatch.setattr(notifications, "BEAT", 0.1)
    register, news = opened(f"{postgresql.url_of('postgres')}&{QUICK}"), threading.Semaphore(0)
    hints = register.watch(name, news.release)
    assert hints is not None
    until(lambda: hints.live)
    assert news.acquire(timeout=DEADLINE)
    postgresql.freeze()
    try:
        until(lambda: not hints.live)
        assert news.acquire(timeout=DEADLINE)
    finally:
        postgresql.thaw()
    until(lambda: hints.live)


def test_poolers(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """Through a pooler swaps work and hints are not live."""
    with Proxy(postgresql.port, pools=True) as proxy:
        register = opened(postgresql.url.replace(str(postgresql.port), str(proxy.port)))
        before = proxy.requests
        hints = register.watch(name, lambda: None)
        assert hints is not None
        until(lambda: proxy.requests > before + 6)  # it has tried more than once
        assert not hints.live
        assert register.swap(name, b"", None) is not None


def test_a_fork_leaves_hints_alone(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """What a forked child closes, and its end, change nothing for the hints of its parent; it may have its own."""
    register, news = opened(postgresql.url), threading.Semaphore(0)
    hints = register.watch(name, news.release)
    assert hints is not None
    until(lambda: hints.live)
    assert news.acquire(timeout=DEADLINE)
    pid = os.fork()
    if pid == 0:
        try:
            assert not hints.live
            hints.close()
            register.close()
            own = register.watch(name, lambda: None)
            assert own is not None
            until(lambda: own.live)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert register.swap(name, b"", None) is not None
    assert news.acquire(timeout=DEADLINE)
    assert hints.live


def test_passwords_are_never_shown(postgresql: PostgreSQLServer, opened: Opened) -> None:
    """A refused password is an error that lasts, and no error and no repr has it."""
    for url, lasts in [
        (f"postgresql://nobody:hunter2@127.0.0.1:{postgresql.port}/postgres", True),
        (f"postgres://127.0.0.1:{postgresql.port}/nowhere?user=postgres&password=hunter2", True),
        (f"postgresql://postgres:hunter2@127.0.0.1:{postgresql.port}/postgres?sslmode=require", True),
        ("postgresql://postgres:hunter2@127.0.0.1:1/postgres", False),
    ]:
        register = opened(url)
        trouble = refused(register)
        assert trouble.permanent == lasts, trouble
        assert "hunter2" not in f"{trouble}{trouble.__cause__}{register!r}"


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("u:hunter2%zz@h/d", "percent-encoded"),
        ("u:hun:ter2/x@h/d", "%2F"),
        ("u:12/hunter2@h/d", "%2F"),
        ("h/d?password=hunter2&colour=blue", "unknown option colour"),
        ("h/d?timeout=0", "timeout=0"),
        ("h/d?timeout=soon", "soon"),
    ],
)
def test_bad_urls(rest: str, says: str) -> None:
    """What libpq cannot read, or reads otherwise than it was meant, is an error without the password."""
    with pytest.raises(BadStoreURL, match=says) as caught:
        open_register(f"postgresql://{rest}")
    assert "hunter2" not in str(caught.value)


def test_commands(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """The doctor says whether the store can be used, and status which it is, both without the password."""
    url = postgresql.url.replace("postgres@", "postgres:hunter2@")
    opened(url).swap(name, b"", None)
    seen = politics("status", name, "--store", url)
    assert "postgres:***@127.0.0.1" in seen.out
    alone = {"POLITICS_INTERFACES": "203.0.113.1"}
    well = politics("doctor", "--store", url, **alone)
    for text in (
        "answers a read in",
        "answers a swap that is refused in",
        "is the store postgresql:",
        "generation",
        "sends hints",
    ):
        assert text in well.said
    assert opened(url).names() == opened(postgresql.url).names()
    ill = politics("doctor", "--store", url.replace("/postgres?", "/nowhere?"), **alone)
    assert ill.status == 1
    assert 'database "nowhere" does not exist' in ill.said
    assert "hunter2" not in seen.said + well.said + ill.said


def test_a_killed_leader_is_replaced(postgresql: PostgreSQLServer, name: str) -> None:
    """Of two processes one leads; when it is killed, or the server is, the other one leads, with a larger fence."""
    command = [sys.executable, "-m", "politics", "lock", name, "--store", postgresql.url, "--ttl", "2"]
    work = ["--", "sh", "-c", "echo fence $POLITICS_FENCE; exec sleep 600"]
    with running(*command, *work) as one:
        first = int(one.line("fence").split()[1])
        with running(*command, *work) as two:
            two.line("waiting")
            postgresql.restart()
            one.kill()
            assert int(two.line("fence").split()[1]) > first
            # Not killed: its watchdog may not know of the command yet, which has just begun.
            two.stop()


def test_a_stop_of_the_server(postgresql: PostgreSQLServer, opened: Opened, name: str) -> None:
    """A server that is stopped in good order and started again is used as soon as it answers."""
    register = opened(postgresql.url)
    version = register.swap(name, b"", None)
    postgresql.stop(signal.SIGINT)
    assert not refused(register).permanent
    postgresql.start()
    cell = settled(register, name)
    assert cell is not None
    assert cell.version[1] == version[1]

"""A PostgreSQL of the test's own, on a free port, with two databases."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from tests.processes import free_port, suspend
from tests.served import Served
from tests.waiting import DEADLINE, SOON, until

SETTINGS = (
    "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=400", "shared_buffers=16MB",
    "autovacuum=off", "max_wal_size=256MB", "checkpoint_timeout=1h", "wal_level=replica", "max_wal_senders=2",
    "logging_collector=off", "log_min_messages=fatal",
)  # fmt: skip


def program(name: str) -> str:
    """Where a program of PostgreSQL is; Debian keeps them away from the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    assert found, f"the tests need {name}: install it with your package manager (apt-get install postgresql)"
    return found


def as_postgres() -> dict[str, Any]:
    """What makes a subprocess run as the user `postgres`: the server refuses to run as root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


def _running(pids: list[int]) -> bool:
    """Whether one of these processes is there, and not only waits for its parent to ask how it ended."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True).stdout
    states = dict(line.split(maxsplit=1) for line in listed.splitlines())
    return any(not states.get(str(pid), "Z").startswith("Z") for pid in pids)


class PostgreSQLServer(Served):
    """It keeps its data when it is killed.

    `folder`: data that are there already; otherwise an empty server is made. `more` are settings.
    """

    def __init__(self, *more: str, folder: Path | None = None) -> None:
        port = free_port()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="politics-postgresql-"))
        settings = [part for each in (*SETTINGS, *more) for part in ("-c", each)]
        super().__init__(port, [program("postgres"), "-D", str(self.folder), "-p", str(port), *settings])
        if folder is None:
            if os.getuid() == 0:
                owner = pwd.getpwnam("postgres")
                os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            options = ["-U", "postgres", "-E", "UTF8", "--no-locale", "-A", "trust", "--no-sync", "--no-instructions"]
            self.run("initdb", "-D", self.folder, *options)

    def run(self, name: str, *options: object) -> None:
        """Run a program of PostgreSQL to its end."""
        command = [program(name), *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=DEADLINE, **as_postgres())
        assert done.returncode == 0, done.stderr

    def url_of(self, database: str, user: str = "postgres") -> str:
        """What `open_register` wants, for one database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?timeout={SOON:g}"

    @property
    def url(self) -> str:
        """What `open_register` wants."""
        return self.url_of("postgres")

    @property
    def other_url(self) -> str:
        """The same for another store on this server."""
        return self.url_of("other")

    def launch(self) -> None:
        """Start it, whatever the last one has left behind."""
        assert self._process is None, "it runs already"
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL, cwd="/", **as_postgres())

    def answers(self) -> bool:
        """Whether it takes connections; the other database is there then."""
        with contextlib.suppress(psycopg.OperationalError):
            if not self.sql("SELECT 1 FROM pg_database WHERE datname = 'other' OR pg_is_in_recovery()"):
                self.sql("CREATE DATABASE other")
            return True
        return False

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Do one statement on a connection of its own and return the rows."""
        with self.connection(database) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def connection(self, database: str = "postgres") -> contextlib.closing[Any]:
        """A connection of its own, in which each statement commits unless you begin a transaction."""
        where = f"host=127.0.0.1 port={self.port} user=postgres dbname={database} connect_timeout={SOON:g}"
        return contextlib.closing(psycopg.connect(where, autocommit=True))

    def processes(self) -> list[int]:
        """The process ids of the server, its children included."""
        assert self._process is not None
        parent = self._process.pid
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = (map(int, line.split()) for line in listed.splitlines())
        return [parent, *(pid for pid, of in pairs if of == parent)]

    def send(self, how: signal.Signals) -> None:
        """Send a signal to each process of the server, its parent first."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, if it runs, and wait until it is gone: SIGKILL for all its processes, others for the parent."""
        if self._process is not None:
            ended = list[int]()
            if how == signal.SIGKILL:
                suspend(self._process)  # it starts no more children
                ended = self.processes()
                self.send(how)
            else:
                self.thaw()
                self._process.send_signal(how)
            self._process.wait(DEADLINE)
            self._process = None
            # It does not start while one of its old children is there.
            until(lambda: not _running(ended), f"the end of {ended}")

    def freeze(self) -> None:
        """Let it be silent, with open connections, until `thaw`."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

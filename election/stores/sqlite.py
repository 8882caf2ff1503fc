"""Cells in an SQLite file: elects a leader of this machine."""

import contextlib
import os
import secrets
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.register import Cell

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (name TEXT PRIMARY KEY, data BLOB NOT NULL, version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS store (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, born REAL NOT NULL);
"""


class _Connection:
    """One open file, and a lock that keeps its users apart."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_SCHEMA)
        newborn = (f"sqlite:{uuid.uuid4().hex}", SystemClock().now())
        self.db.execute("INSERT OR IGNORE INTO store VALUES (1, ?, ?)", newborn)
        self.inode = os.stat(path).st_ino


class SQLiteRegister:
    """Cells in the table `cells` of one file, shared by the processes of this machine (not over a network drive)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path) or os.fspath(path).endswith(os.sep):
            raise ValueError("the path of a file is missing")
        self.path = Path(path).expanduser().absolute()
        self._connection: _Connection | None = None
        self._opening = threading.Lock()
        self._left_behind: list[_Connection] = []

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection
            if connection is None or connection.pid != os.getpid() or not self._same_file(connection):
                connection = self._reopen(connection)
            with connection.lock:
                yield connection.db
        except (sqlite3.Error, OSError) as exc:
            raise StoreUnavailable(f"the store {self.path} cannot be used: {exc}") from exc

    def _reopen(self, old: _Connection | None) -> _Connection:
        if old is not None and old.pid != os.getpid():
            # SQLite forbids a child even to close what it has inherited, and another thread may have held our lock.
            self._left_behind.append(old)
            self._opening = threading.Lock()
        with self._opening:
            if self._connection is old:
                self._connection = _Connection(self.path)
            assert self._connection is not None
            return self._connection

    def _same_file(self, connection: _Connection) -> bool:
        # Without this, a leader would go on renewing in a file that somebody has deleted, unseen by everybody else.
        try:
            return os.stat(self.path).st_ino == connection.inode
        except FileNotFoundError:
            return False

    def _one(self, sql: str, *values: Any) -> Any:
        with self._open() as db:
            return db.execute(sql, values).fetchone()

    def identity(self) -> str:
        """The random name that the file was given when it was made."""
        return str(self._one("SELECT identity FROM store")[0])

    def shard(self, name: str) -> "SQLiteRegister":
        """Itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """The row, or None."""
        row = self._one("SELECT data, version FROM cells WHERE name = ?", name)
        return Cell(bytes(row[0]), row[1]) if row else None

    def swap(self, name: str, data: bytes, expected: str | None) -> str | None:
        """One statement, so one transaction. Versions are random: none is ever used twice, not even in a new file."""
        version = secrets.token_hex(8)
        if expected is None:
            done = self._one("INSERT OR IGNORE INTO cells VALUES (?, ?, ?) RETURNING 1", name, data, version)
        else:
            sql = "UPDATE cells SET data = ?, version = ? WHERE name = ? AND version = ? RETURNING 1"
            done = self._one(sql, data, version, name, expected)
        return version if done else None

    def remembers(self, seconds: float) -> bool:
        """Whether the file is older than that: a younger one may have taken the place of one that was deleted."""
        # A restart of the machine sets its clock back to zero and ends all that may have held a lease, so that a file
        # from "the future" is old enough.
        born = float(self._one("SELECT born FROM store")[0])
        return abs(SystemClock().now() - born) > seconds

    def names(self) -> Iterable[str]:
        """All of them, sorted."""
        with self._open() as db:
            return [row[0] for row in db.execute("SELECT name FROM cells ORDER BY name")]

    def close(self) -> None:
        """Close the file, if this process opened it."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.pid == os.getpid():
            with connection.lock:
                connection.db.close()

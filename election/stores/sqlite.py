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
from election.forks import fork_detector
from election.register import Cell

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (name TEXT PRIMARY KEY, data BLOB NOT NULL, version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS store (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, born REAL NOT NULL);
"""


class SQLiteRegister:
    """Cells in the table `cells` of one file, shared by the processes of this machine (not over a network drive)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path) or os.fspath(path).endswith(os.sep):
            raise ValueError("the path of a file is missing")
        self.path = Path(path).expanduser().absolute()
        self._left_behind: list[sqlite3.Connection | None] = []
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if self._forked():
            # SQLite forbids a child even to close what it has inherited, and another thread may have held our lock.
            self._left_behind.append(self._db)
            self._begin()
        try:
            with self._lock:
                # Otherwise a leader would go on renewing in a file that somebody has deleted, where nobody sees it.
                if self._db is not None and self._found() != self._file:
                    self._close()
                yield self._db or self._connect()
        except (sqlite3.Error, OSError) as exc:
            raise StoreUnavailable(f"the store {self.path} cannot be used: {exc}") from exc

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._file = self._found()
        self._db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            # Before anything is written: SQLite finds its log by the path, so that of the new file would be spoilt.
            if self._found() != self._file:
                raise OSError("it was replaced while it was opened")
            # SQLite does not wait for this lock; the process that has it is just doing the same.
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("PRAGMA journal_mode=WAL")
            # Otherwise a power cut could undo a takeover, and its fence would be given out again.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            newborn = (f"sqlite:{uuid.uuid4().hex}", SystemClock().now())
            self._db.execute("INSERT OR IGNORE INTO store VALUES (1, ?, ?)", newborn)
        except BaseException:
            self._close()
            raise
        return self._db

    def _found(self) -> tuple[int, int] | None:
        """Return which file is at our path now."""
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _one(self, sql: str, *values: Any) -> Any:
        with self._open() as db:
            return db.execute(sql, values).fetchone()

    def identity(self) -> str:
        """Return the random name that the file got when it was made."""
        return str(self._one("SELECT identity FROM store")[0])

    def shard(self, name: str) -> "SQLiteRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the row, or None."""
        row = self._one("SELECT CAST(data AS BLOB), version FROM cells WHERE name = ?", name)
        return Cell(bytes(row[0]), row[1]) if row else None

    def swap(self, name: str, data: bytes, expected: str | None) -> str | None:
        """Swap in one statement, so in one transaction. Versions are random: none is used twice, even in a new file."""
        version = secrets.token_hex(8)
        if expected is None:
            done = self._one("INSERT OR IGNORE INTO cells VALUES (?, ?, ?) RETURNING 1", name, data, version)
        else:
            sql = "UPDATE cells SET data = ?, version = ? WHERE name = ? AND version = ? RETURNING 1"
            done = self._one(sql, data, version, name, expected)
        return version if done else None

    def remembers(self, seconds: float) -> bool:
        """Return whether the file is older than that. A younger one may have replaced one that was deleted."""
        # A restart of the machine sets its clock back to zero and ends all that may have held a lease, so that a file
        # from "the future" is old enough.
        born = float(self._one("SELECT born FROM store")[0])
        return abs(SystemClock().now() - born) > seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted."""
        with self._open() as db:
            return [row[0] for row in db.execute("SELECT name FROM cells ORDER BY name")]

    def close(self) -> None:
        """Close the file, if this process opened it."""
        if not self._forked():
            with self._lock:
                self._close()

"""Cells in an SQLite file: elects a leader of this machine."""

import contextlib
import ctypes
import errno
import math
import os
import re
import secrets
import sqlite3
import struct
import threading
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.record import MAX_BYTES
from election.register import Cell, Register, identity_of, name_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (name TEXT PRIMARY KEY, data BLOB NOT NULL, version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS store (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, born REAL NOT NULL);
CREATE TABLE IF NOT EXISTS generation (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, file TEXT NOT NULL);
"""
# `generation` is a table of its own, and not two columns of `store`: versions of this library that know nothing of it
# insert whole rows there, and may use the same file. `file` says which file it was when it got that name.
_GENERATION = "(SELECT substr(CAST(name AS BLOB), 1, 99) FROM generation WHERE CAST(file AS TEXT) GLOB ?)"

_AT_FDCWD, _STATX_BTIME = -100, 0x800

Version = tuple[str, bytes]
"""The generation, and the version of the row."""

MANY = 998
"""Names in one statement at most: older versions of SQLite refuse more."""

_PERMANENT = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


class SQLiteRegister(Register):
    """Cells in the table `cells` of one file, shared by the processes of this machine (not over a network drive)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path) or os.fspath(path).endswith(os.sep):
            raise ValueError("the path of a file is missing")
        try:
            self.path = Path(path).expanduser().absolute()
        except RuntimeError as exc:
            raise ValueError(
                f"{os.fspath(path)!r} needs a home directory, and there is none: write the whole path"
            ) from exc
        self._left_behind: list[sqlite3.Connection | None] = []
        self._begin()
        with _forks:
            _registers.add(self)

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._birth = self._generation = ""

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if self._forked():
            # Where the fork was not announced to us, or nobody could wait for us: SQLite forbids a child even to close
            # what it has inherited, and another thread may have held our lock.
            self._left_behind.append(self._db)
            self._begin()
        try:
            with self._lock:
                # Otherwise a leader would go on renewing in a file that somebody has deleted, where nobody sees it.
                if self._db is not None and self._found() != self._file:
                    self._close()
                yield self._db or self._connect()
        except (sqlite3.Error, OSError) as exc:
            raise StoreUnavailable(f"the store {self.path} cannot be used: {exc}", permanent=self._lasts(exc)) from exc

    def _lasts(self, exc: sqlite3.Error | OSError) -> bool:
        """Return whether an error comes again until somebody changes the file, its folder or the path."""
        if isinstance(exc, OSError):
            return exc.errno in _PERMANENT
        code = getattr(exc, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_CANTOPEN:  # it says no more than that: of its log, of descriptors
            return self.path.is_dir() or not os.access(self.path.parent, os.W_OK | os.X_OK)
        return code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_NOTADB)

    def _connect(self) -> sqlite3.Connection:
        for folder in reversed([each for each in self.path.parents if not each.exists()]):
            folder.mkdir(0o700, exist_ok=True)
        # Who may only read the file can lock it, and then nobody leads.
        self.path.touch(0o600)
        self._file, self._birth = self._found(), _birth_of(self.path)
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
            self._describe(self._db)
        except BaseException:
            self._close()
            raise
        return self._db

    def _describe(self, db: sqlite3.Connection) -> None:
        """Find out which generation the file is in. One that was copied, restored or never described begins another.

        It is a copy if it was described for another file: of another device, inode or, where the system knows it,
        moment of birth. Inodes are used again, but not while somebody has the file open.
        """
        self._generation = self._described(db)
        if not self._generation:
            db.execute("BEGIN IMMEDIATE")
            try:
                self._generation = self._described(db) or self._begin_generation(db)
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    def _described(self, db: sqlite3.Connection) -> str:
        """Return the generation, "" if the file has to be described anew."""
        known = db.execute("SELECT 1 FROM store").fetchone()
        return _name_of(db.execute(f"SELECT {_GENERATION}", (self._mark,)).fetchone()[0]) if known else ""

    def _begin_generation(self, db: sqlite3.Connection) -> str:
        """Describe the file; return its generation. What it remembers begins now, and a copy is a store of its own."""
        name, identity, now = secrets.token_hex(8), f"sqlite:{uuid.uuid4().hex}", SystemClock().now()
        if db.execute("SELECT 1 FROM generation").fetchone():
            db.execute("DELETE FROM store")
        db.execute("INSERT INTO store VALUES (1, ?, ?) ON CONFLICT DO UPDATE SET born = excluded.born", (identity, now))
        db.execute("INSERT OR REPLACE INTO generation VALUES (1, ?, ?)", (name, f"{self._inode}:{self._birth}"))
        return name

    @property
    def _mark(self) -> str:
        """A pattern for the column `file` of a file that is described. A process may not be able to see its birth."""
        return f"{self._inode}:{self._birth or '*'}"

    @property
    def _inode(self) -> str:
        return ":".join(map(str, self._file or ()))

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

    def _rows(self, columns: str, where: str, *values: Any) -> list[Any]:
        """Return rows of a table, and before the columns of each the generation in which it was read."""
        sql = f"SELECT {_GENERATION}, {columns} FROM {where}"
        with self._open() as db:
            for _ in range(2):
                rows = db.execute(sql, (self._mark, *values)).fetchall()
                if all(_name_of(row[0]) == self._generation for row in rows):
                    return [(self._generation, *row[1:]) for row in rows]
                self._describe(db)  # somebody has put another content into this very file
            raise OSError("its content is being replaced")

    def identity(self) -> str:
        """Return the random name that the file got when it was made or, a copy, when it was first used."""
        raw: bytes = self._about("CAST(identity AS BLOB)")
        return identity_of("sqlite", raw.removeprefix(b"sqlite:"))

    def shard(self, name: str) -> "SQLiteRegister":
        """Return itself."""
        return self

    def generation(self, version: Version) -> str:
        """Return the name that the file had got by then; it gets another when it is copied, restored or replaced."""
        return version[0]

    def read(self, name: str) -> Cell | None:
        """Return the row, or None."""
        # What is longer than a record is none, so that its beginning is enough.
        columns = "substr(CAST(data AS BLOB), 1, ?), CAST(version AS BLOB)"
        for generation, data, version in self._rows(columns, "cells WHERE name = ?", MAX_BYTES + 1, name):
            return Cell(data or b"", (generation, version))
        return None

    def version(self, name: str) -> Version | None:
        """Return the version in the row, or None."""
        return self.versions([name])[0]

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Return the versions in the rows, which one statement reads for `MANY` of them."""
        found: dict[str, Version] = {}
        for begin in range(0, len(names), MANY):
            some = names[begin : begin + MANY]
            where = f"cells WHERE name IN ({','.join('?' * len(some))})"
            for generation, name, version in self._rows("name, CAST(version AS BLOB)", where, *some):
                found[name] = generation, version
        return [found.get(name) for name in names]

    def swap(self, name: str, data: bytes, expected: Version | None) -> Version | None:
        """Swap in one statement, so in one transaction. Versions are random: none is used twice, even in a new file."""
        version = secrets.token_hex(8)
        with self._open() as db:
            generation, known = expected or (self._generation, b"")
            here = f"{_GENERATION} = ?"
            if expected is None:
                sql = f"INSERT OR IGNORE INTO cells SELECT ?, ?, ? WHERE {here} RETURNING 1"
                done = db.execute(sql, (name, data, version, self._mark, generation.encode())).fetchone()
            else:
                sql = f"UPDATE cells SET data = ?, version = ? WHERE name = ? AND CAST(version AS BLOB) = ? AND {here}"
                values = (data, version, name, known, self._mark, generation.encode())
                done = db.execute(f"{sql} RETURNING 1", values).fetchone()
            if not done:
                self._describe(db)  # perhaps because it is in another generation
        return (generation, version.encode()) if done else None

    def remembers(self, seconds: float) -> bool:
        """Return whether the file is older than that. A younger one may have replaced one that was deleted."""
        # A restart of the machine sets its clock back to zero and ends all that may have held a lease, so that a file
        # from "the future" is old enough.
        born = self._about("born")
        # A file that somebody has edited is not believed.
        return isinstance(born, float) and math.isfinite(born) and abs(SystemClock().now() - born) > seconds

    def _about(self, column: str) -> Any:
        """Return what the file says of itself."""
        rows = self._rows(column, "store")
        if not rows:
            self.close()  # the next call describes the file anew
            raise StoreUnavailable(f"the store {self.path} cannot be used: somebody has emptied its table `store`")
        return rows[0][1]

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""
        with self._open() as db:
            rows = db.execute("SELECT CAST(name AS BLOB) FROM cells ORDER BY name").fetchall()
        return list(filter(None, (name_of(row[0]) for row in rows)))

    def close(self) -> None:
        """Close the file, if this process opened it."""
        if not self._forked():
            with self._lock:
                self._close()


def connect(parts: SplitResult, options: dict[str, str]) -> SQLiteRegister:
    """Return the register for `///path`."""
    return SQLiteRegister(parts.netloc + parts.path.removeprefix("/"))


def _birth_of(path: Path) -> str:
    """Return when the file was born, to the nanosecond; "" if the system does not tell."""
    if born := getattr(os.stat(path), "st_birthtime_ns", None) or getattr(os.stat(path), "st_birthtime", None):
        return str(born)
    # Python does not ask Linux for it. This is `struct statx`: `stx_mask` is its beginning, `stx_btime` is at byte 80.
    found = ctypes.create_string_buffer(256)
    try:
        failed = ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, found)
    except (AttributeError, OSError, TypeError):
        return ""
    known = not failed and struct.unpack_from("=I", found)[0] & _STATX_BTIME
    return "{}.{:09}".format(*struct.unpack_from("=qI", found, 80)) if known else ""


def _name_of(raw: bytes | None) -> str:
    """Return what names a generation; "" for what we would not have written."""
    return raw.decode() if raw and re.fullmatch(rb"[0-9a-f]{16}", raw) else ""


# SQLite keeps in the process's memory who has locked which file. A child inherits that, but not the locks. It would
# believe in locks of its own that the kernel does not know: another process could then take the file's log away under
# it, with all that the child writes. Or it would wait for ever for one that another thread of its parent had. So no
# file is open while a process forks. Both sides open it again when they need it.
_registers: weakref.WeakSet[SQLiteRegister] = weakref.WeakSet()
_forks = threading.RLock()
_waiting: list[threading.Lock] = []
LONGEST_WAIT = 5.0
"""Seconds for which a fork waits for an answer of the file that another thread is waiting for."""


def _before_fork() -> None:
    _forks.acquire()
    for register in _registers:
        lock = register._lock
        # Not for ever: this very thread may have it, and fork in a signal handler.
        if not register._forked() and lock.acquire(timeout=LONGEST_WAIT):
            _waiting.append(lock)
            with contextlib.suppress(sqlite3.Error):
                register._close()


def _after_fork() -> None:
    while _waiting:
        _waiting.pop().release()
    _forks.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)

"""Where effects land: refuse those of a leader that does not know yet that there is a later one.

The idea is Martin Kleppmann's ("How to do distributed locking", 2016): a lease alone cannot stop a process that was
paused between its last look at the lease and its write, but the place that it writes to can.
"""

import contextlib
import fcntl
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt

from election.clock import Clock, SystemClock
from election.errors import BadPolicy, BadRecord, StaleFence
from election.record import check_name
from election.retries import retrying

log = logging.getLogger("election")

_CREATE = (
    "CREATE TABLE IF NOT EXISTS {} (name VARCHAR(80) PRIMARY KEY, fence BIGINT NOT NULL, admitted BIGINT NOT NULL)"
)
_SELECT = "SELECT fence FROM {} WHERE name = [name]"
_INSERT = "INSERT INTO {} (name, fence, admitted) VALUES ([name], 0, 0)"
# Counting changes the row each time: some drivers count the rows that an UPDATE changes, not those that it finds.
_ADMIT = "UPDATE {} SET fence = [fence], admitted = admitted + 1 WHERE name = [name] AND fence <= [fence]"

_MARKS = {"qmark": "?", "format": "%s", "numeric": ":{number}", "named": ":{name}", "pyformat": "%({name})s"}
_DIGITS = 20


class FenceGuard:
    """Remembers the largest fence that has had an effect on `name`, and refuses every smaller one.

    The number is kept beside the effect and compared in one step with it: in a row of the same database (`check`), or
    in a file under a lock (`locked`). Equal numbers pass, since one leader has many effects. Numbers of different
    leases cannot be compared, so each lease needs a name of its own here.

    A guard has no state of its own, and its constructor does no I/O. It may be used from any thread.

    Args:
        name: what is guarded; printable, at most 80 bytes. The lease's own name is a good one.
        table: the SQL table with a row for each name.
        paramstyle: how the database's driver marks parameters (PEP 249), if the connection does not tell, as behind a
            wrapper: "qmark", "format", "numeric", "named" or "pyformat".

    Raises:
        BadPolicy: one of these cannot work; the message names it.
    """

    def __init__(self, name: str, *, table: str = "politics_fences", paramstyle: str | None = None) -> None:
        self.name = check_name(name)
        if not re.fullmatch(r"\w+(\.\w+)?", table):
            raise BadPolicy(f"table must be a plain SQL name, not {table!r}")
        if paramstyle is not None and paramstyle not in _MARKS:
            raise BadPolicy(f"paramstyle must be one of {', '.join(_MARKS)}, not {paramstyle!r}")
        self.table, self.paramstyle = table, paramstyle

    def prepare(self, connection: Any, *, clock: Clock | None = None) -> None:
        """Make the table and the row for `name` where they are missing, and commit. Doing it again changes nothing.

        What fails is rolled back and tried again, four times in all within half a second: somebody else may just be
        making the same table, or hold a lock.

        Args:
            connection: as for `check`.
            clock: for tests.

        Raises:
            BadPolicy: how the driver marks parameters is unknown (see `paramstyle`); this is not tried again.
            The driver's own errors, of the last try.
        """

        def make() -> None:
            try:
                self._execute(connection, _CREATE)
                if self._largest(connection) is None:
                    self._execute(connection, _INSERT, name=self.name)
                connection.commit()
            except Exception:
                connection.rollback()
                raise

        def say(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome:
                log.info("%s: the fence table is not ready, trying again: %s", self.name, state.outcome.exception())

        retrying(
            clock or SystemClock(),
            first=0.05,
            longest=0.2,
            retry=retry_if_exception(lambda exc: isinstance(exc, Exception) and not isinstance(exc, BadPolicy)),
            wake=threading.Event(),
            stop=stop_after_attempt(4),
            before_sleep=say,
        )(make)

    def check(self, connection: Any, fence: int) -> None:
        """Refuse `fence` if a larger one has been here; otherwise remember it, in the connection's open transaction.

        Call it before the effect, in the same transaction, and commit both together. The database then makes a later
        leader's check wait until this transaction is over, and rolls both back together.

        Args:
            connection: any DB-API 2.0 connection (sqlite3, psycopg, PyMySQL …) that does not commit each statement
                by itself. For SQLite this is checked, for others it is not.

        Raises:
            StaleFence: a larger one has been seen: roll back.
            BadPolicy: `fence` is no number, the row is missing (see `prepare`), or there is no transaction.
            The driver's own errors: nothing is known; roll back.
        """
        admitted = self._execute(connection, _ADMIT, name=self.name, fence=_number(fence)) == 1
        if admitted and not getattr(connection, "in_transaction", True):
            raise BadPolicy("check() must share a transaction with the effect, and this connection commits at once")
        if not admitted:
            largest = self._largest(connection)
            if largest is None:
                raise BadPolicy(f"{self.table} has no row for {self.name!r}: call prepare(connection) once")
            raise StaleFence(self.name, fence, largest)

    @contextlib.contextmanager
    def locked(self, folder: str | os.PathLike[str], fence: int) -> Iterator[None]:
        """Refuse `fence` if a larger one has been here; otherwise remember it, and hold the lock during the block.

            with guard.locked("/srv/ledger", term.fence):
                append_to_the_ledger()

        The number and the lock are one small file in `folder`, which must be on the machine's own disk, or on a network
        file system with working locks. A later leader waits for an effect that has begun, even if the process that has
        begun it is stopped.

        Raises:
            StaleFence: a larger one has been seen; the block is not entered.
            BadPolicy: `fence` is no number.
            BadRecord: the file holds something that is not a number of ours; delete it by hand.
            OSError: the file cannot be used.
        """
        path = Path(folder) / f"{quote(self.name, safe='')}.fence"
        number = _number(fence)
        # Who may only read the file can lock it.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._admit(file, path, number)
            yield
        finally:
            # Not left to close(): a forked child may have a copy of the file, which would keep the lock.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def _admit(self, file: int, path: Path, fence: int) -> None:
        found = os.pread(file, 2 * _DIGITS, 0)
        if found and not re.fullmatch(rb"[0-9]{%d}\n" % _DIGITS, found):
            raise BadRecord(f"{path} holds something that is not a fence of ours: {found!r}")
        largest = int(found or 0)
        if fence < largest:
            raise StaleFence(self.name, fence, largest)
        if not found or fence > largest:
            # Always of the same length, so that one small write replaces it whole.
            os.pwrite(file, b"%0*d\n" % (_DIGITS, fence), 0)
            os.fsync(file)
        if not found:
            _sync_folder(path.parent)

    def _largest(self, connection: Any) -> int | None:
        row = self._execute(connection, _SELECT, fetch=True, name=self.name)
        return int(row[0]) if row else None

    def _execute(self, connection: Any, statement: str, fetch: bool = False, **values: Any) -> Any:
        """Run a statement, its [parameters] marked as the driver wants; return the first row, or the number of rows."""
        style = self.paramstyle or _paramstyle(connection)
        names = re.findall(r"\[(\w+)\]", statement)
        for number, name in enumerate(names, 1):
            statement = statement.replace(f"[{name}]", _MARKS[style].format(number=number, name=name), 1)
        by_name = style in ("named", "pyformat")
        parameters = {name: values[name] for name in names} if by_name else tuple(values[name] for name in names)
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(statement.format(self.table), parameters)
            return cursor.fetchone() if fetch else cursor.rowcount

    def __repr__(self) -> str:
        return f"<FenceGuard {self.name!r} table={self.table}>"


def _number(fence: object) -> int:
    if isinstance(fence, bool) or not isinstance(fence, int) or not 0 <= fence < 2**63:
        raise BadPolicy(f"a fence is a whole number, as term.fence, not {fence!r}")
    return fence


def _paramstyle(connection: Any) -> str:
    """Return the `paramstyle` of the module that the connection comes from, or of the package around it."""
    place = type(connection).__module__
    while place:
        if style := getattr(sys.modules.get(place), "paramstyle", None):
            return str(style)
        place = place.rpartition(".")[0]
    raise BadPolicy(f"the paramstyle of {type(connection).__name__} is unknown: pass FenceGuard(…, paramstyle=…)")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

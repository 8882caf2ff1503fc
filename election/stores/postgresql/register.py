"""Cells in a table of PostgreSQL: each swap is one statement, which compares the version of a row.

Each call is one message in the simple protocol: a transaction that needs nothing of the session. So it does not matter
which session of a pooler gets it. The message goes out once; there is no retry here, and none in libpq.
"""

import contextlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.record import MAX_BYTES
from election.register import BatchRegister, Cell, Hints, Swap, identity_of, name_of
from election.stores.hints import HintListener
from election.stores.postgresql.notifications import Notifications, channel_of
from election.stores.postgresql.session import PostgreSQLSession, Row, Settings, attempts, parse, place

TABLE = (
    "CREATE TABLE IF NOT EXISTS politics_cells (name bytea PRIMARY KEY, data bytea NOT NULL, version bytea NOT NULL)"
)
OLDEST = 13
"""The oldest version of PostgreSQL: earlier ones count `statement_timeout` for a whole message."""
MANY = 256
"""Swaps in one transaction at most."""
IDENTITY = b""
"""The row that has the name of the store. It is no lease: their names are not empty."""

# A restart of the server, a promoted replica and a restored backup have another start time. A table that was dropped,
# truncated or restored has another file; its path begins with the database's number. All of it costs no round trip.
_GENERATION = (
    "encode(substr(sha256(timestamptz_send(pg_postmaster_start_time()) || "
    "textsend(pg_relation_filepath(tableoid))), 1, 8), 'hex')"
)
# Notified at the commit, which `synchronous_commit = off` must not report before it is on the disk.
_NOTE = (
    "SELECT generation, pg_notify('{channel}', ''), CASE current_setting('synchronous_commit') "
    "WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END FROM swapped"
)
_SERVER = (
    "SELECT pg_is_in_recovery(), current_setting('fsync'), current_setting('server_version_num'), relpersistence, "
    f"relkind, {_GENERATION} FROM (SELECT to_regclass('politics_cells') AS tableoid) AS t "
    "LEFT JOIN pg_class AS c ON c.oid = t.tableoid"
)
Version = tuple[str, bytes]
"""The generation, and the random version of the row in it."""


class PostgreSQLRegister(BatchRegister):
    """Cells in the table `politics_cells` of one database, which is made when it is missing."""

    def __init__(self, url: str, timeout: float = 1.0) -> None:
        self._settings = parse(url)
        self.timeout = timeout
        connect = float(self._settings.get("connect_timeout") or 0)
        self._connect_timeout = connect if connect > 0 else timeout
        self._listener = HintListener(lambda: Notifications(self._open))
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._session: PostgreSQLSession | None = None
        self._clock = SystemClock()
        self._seen: tuple[str | None, float] = (None, 0.0)
        self._stale = False

    def __repr__(self) -> str:
        return f"<PostgreSQLRegister at {place(self._settings)}>"

    @contextlib.contextmanager
    def _use(self) -> Iterator[PostgreSQLSession]:
        if self._forked():
            self._begin()  # psycopg leaves a parent's connection alone
        with self._lock:
            try:
                if self._stale:
                    # Another server behind a pooler, or another table, which may be one that we refuse.
                    self._close()
                self._session = self._session or self._open()
                yield self._session
            except BaseException:
                # Ctrl-C included: an answer that is still on its way must never be taken for the next one's.
                self._close()
                raise

    def _open(self) -> PostgreSQLSession:
        """Return a new session with the first of the hosts, and of their addresses, that will do."""
        troubles = list[StoreUnavailable]()
        for settings in attempts(self._settings):
            try:
                session = PostgreSQLSession(settings, self._connect_timeout, self.timeout)
                try:
                    self._check(session, settings)
                except BaseException:
                    session.close()
                    raise
                return session
            except StoreUnavailable as exc:
                troubles.append(exc)
        text = "; ".join(dict.fromkeys(map(str, troubles)))
        raise StoreUnavailable(text, permanent=all(trouble.permanent for trouble in troubles)) from troubles[-1]

    def _check(self, session: PostgreSQLSession, settings: Settings) -> None:
        """Make the table if it is missing, and refuse a server that does not keep what it confirms.

        Raises:
            StoreUnavailable: with the reason.
        """
        (found,) = session.ask(_SERVER)[0]
        if found[0] == b"f" and found[3] is None:
            try:
                session.ask(TABLE)
                (found,) = session.ask(_SERVER)[0]
            except StoreUnavailable:
                # Of several that do this at once, all but one may fail: the table is there for all.
                (found,) = session.ask(_SERVER)[0]
                if found[3] is None:
                    raise
        recovery, fsync, number, persistence, kind, generation = [each and each.decode() for each in found]
        version = int(number or 0) // 10000
        reasons = [
            (recovery != "f", "is a standby, which cannot be written: name the primary, or all hosts of the cluster"),
            (version < OLDEST, f"is version {version}: use {OLDEST} or later"),
            (fsync != "on", "has fsync = off, so a power cut undoes what it has confirmed: set fsync = on"),
            (persistence != "p", "has an unlogged or temporary table politics_cells, which a crash empties: drop it"),
            (kind != "r" or not generation, "has a politics_cells that is no ordinary table: drop or rename it"),
        ]
        for wrong, text in reasons:
            if wrong:
                # A standby may be promoted.
                lasts = recovery == "f"
                raise StoreUnavailable(f"PostgreSQL at {place(settings)} {text}", permanent=lasts)

    def _close(self) -> None:
        session, self._session, self._stale = self._session, None, False
        if session is not None:
            session.close()

    def _ask(self, *statements: str) -> list[list[Row]]:
        with self._use() as session:
            return session.ask(*statements)

    def _version(self, generation: bytes | None, version: bytes | None) -> Version:
        found = (generation or b"").decode()
        if found != self._seen[0]:
            self._stale = self._seen[0] is not None
            self._seen = found, self._clock.now()
        return found, version or b""

    def identity(self) -> str:
        """Return a random name, kept in a row of the table."""
        cell = self._cell(IDENTITY)
        if cell is None:
            self._ask(f"{_insert(IDENTITY, uuid.uuid4().hex.encode(), b'1')} SELECT 1")
            cell = self._cell(IDENTITY)
        return identity_of("postgresql", cell.data if cell else b"")

    def read(self, name: str) -> Cell | None:
        """Return the row, or None."""
        return self._cell(name.encode())

    def _cell(self, key: bytes) -> Cell | None:
        # What is longer than a record is none, so that its beginning is enough.
        data = f"encode(substr(data, 1, {MAX_BYTES + 1}), 'hex')"
        rows = self._ask(f"SELECT {data}, {_GENERATION}, encode(version, 'hex') {_where(key)}")[0]
        for found, generation, version in rows:
            return Cell(bytes.fromhex((found or b"").decode()), self._version(generation, version))
        return None

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Return the versions of the rows, which one statement reads for all of them."""
        if not names:
            return []
        keys = ", ".join(_bytes(name.encode()) for name in names)
        rows = self._ask(
            f"SELECT encode(name, 'hex'), {_GENERATION}, encode(version, 'hex') FROM politics_cells "
            f"WHERE name = ANY (ARRAY[{keys}])"
        )[0]
        found = {row[0]: self._version(row[1], row[2]) for row in rows}
        return [found.get(name.encode().hex().encode()) for name in names]

    def swap_many(self, swaps: Sequence[Swap]) -> list[Version | StoreUnavailable | None]:
        """Do `MANY` swaps in each transaction: each of them succeeds or is refused, or nothing is known of any.

        Versions are random: none is used twice.
        """
        answers: list[Version | StoreUnavailable | None] = []
        for begin in range(0, len(swaps), MANY):
            some = swaps[begin : begin + MANY]
            try:
                with self._use() as session:
                    answers += self._swap(session, some)
            except StoreUnavailable as exc:
                return answers + [exc] * (len(swaps) - len(answers))
        return answers

    def _swap(self, session: PostgreSQLSession, swaps: Sequence[Swap]) -> list[Version | None]:
        # Each transaction locks its rows in the order of their names, so that no two wait for each other.
        order = sorted(range(len(swaps)), key=lambda number: swaps[number].name.encode())
        versions = [secrets.token_hex(8).encode() for _ in swaps]
        statements = [_statement(swaps[number], versions[number]) for number in order]
        answers: list[Version | None] = [None] * len(swaps)
        for number, rows in zip(order, session.ask(*statements), strict=True):
            if rows:
                answers[number] = self._version(rows[0][0], versions[number])
        return answers

    def generation(self, version: Version) -> str:
        """Return a hash of what changes with the server's start and the table's file."""
        return version[0]

    def watch(self, name: str, news: Callable[[], object]) -> Hints:
        """Listen to the notification that each swap sends as it commits."""
        return self._listener.watch(name, news)

    def remembers(self, seconds: float) -> bool:
        """Return whether this process has seen this very table on this very run of the server for that long."""
        ((row,),) = self._ask(f"SELECT {_GENERATION} FROM (SELECT to_regclass('politics_cells') AS tableoid) AS t")
        generation, _ = self._version(row[0], None)
        return generation != "" and self._clock.now() - self._seen[1] > seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""
        rows = self._ask("SELECT encode(name, 'hex') FROM politics_cells ORDER BY name")[0]
        return list(filter(None, (name_of(bytes.fromhex((row[0] or b"").decode())) for row in rows)))

    def close(self) -> None:
        """Close the connections, if this process opened them, and end all hints."""
        self._listener.close()
        if not self._forked():
            with self._lock:
                self._close()


def _bytes(raw: bytes) -> str:
    """Return bytes as SQL, whatever the encoding of the database."""
    return f"decode('{raw.hex()}', 'hex')"


def _where(key: bytes) -> str:
    return f"FROM politics_cells WHERE name = {_bytes(key)}"


def _insert(key: bytes, data: bytes, version: bytes) -> str:
    return (
        f"WITH swapped AS (INSERT INTO politics_cells (name, data, version) VALUES ({_bytes(key)}, {_bytes(data)}, "
        f"{_bytes(version)}) ON CONFLICT (name) DO NOTHING RETURNING {_GENERATION} AS generation)"
    )


def _statement(swap: Swap, version: bytes) -> str:
    """Return the statement of a swap, which returns a row if it succeeds.

    If two meet, the second one waits for the first, and then compares the row that the first has written.
    """
    key, note = swap.name.encode(), _NOTE.format(channel=channel_of(swap.name))
    raw = bytes.fromhex(version.decode())
    if swap.expected is None:
        return f"{_insert(key, swap.data, raw)} {note}"
    generation, expected = swap.expected
    return (
        f"WITH swapped AS (UPDATE politics_cells SET data = {_bytes(swap.data)}, version = {_bytes(raw)} "
        f"WHERE name = {_bytes(key)} AND version = {_bytes(bytes.fromhex(expected.decode()))} "
        f"AND {_GENERATION} = '{generation}' RETURNING {_GENERATION} AS generation) {note}"
    )

"""Sessions with PostgreSQL over psycopg's binding of libpq: each message goes out once, and each wait has an end."""

import select
import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo

from election.errors import StoreUnavailable

Row = list[bytes | None]
Settings = dict[str, Any]

# No rights; no such database, schema or column; a table of another shape.
_PERMANENT = ("28", "3D", "3F", "42501", "42P10", "42703", "42804", "42883")
# What libpq says before there is a session has no code. In other languages we wait for what will not come.
_TEXTS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied",
          "certificate verify failed", "does not support SSL")  # fmt: skip


def parse(url: str) -> Settings:
    """Return the settings in a URL as libpq reads it.

    Raises:
        ValueError: it cannot; the message has no part of the URL in which there may be a password.
    """
    try:
        settings: Settings = {"fallback_application_name": "politics", **conninfo_to_dict(url)}
    except (psycopg.Error, UnicodeError) as exc:
        text, _, quoted = str(exc).partition(': "')
        option = quoted.rstrip().rstrip('"') if text == "invalid URI query parameter" else ""
        raise ValueError(f"unknown option {option}" if option.isidentifier() else text) from None
    ports = str(settings.get("port", "")).split(",")
    if not all(port.isdecimal() or not port for port in ports) or "@" in str(settings.get("dbname", "")):
        # libpq has taken a part of the password for something else, and would tell.
        raise ValueError("write each of : / @ ? # in a password as % and its number: %3A %2F %40 %3F %23")
    return settings


def place(settings: Settings) -> str:
    """Return `host:port/database`, for messages."""
    host = settings.get("host") or settings.get("hostaddr") or "localhost"
    return f"{host}:{settings.get('port') or 5432}/{settings.get('dbname') or ''}"


def attempts(settings: Settings) -> list[Settings]:
    """Return the settings for each host, and for each of its addresses.

    Raises:
        StoreUnavailable: no host has an address.
    """
    try:
        return conninfo_attempts(settings)
    except (psycopg.Error, OSError) as exc:
        raise _unavailable(exc, settings) from exc


class PostgreSQLSession:
    """One connection to one host, which is used by one thread at a time.

    Args:
        settings: one of `attempts`.
        connect: seconds for connecting.
        timeout: seconds for each answer.

    Raises:
        StoreUnavailable: so do all methods. Close the session then.
    """

    def __init__(self, settings: Settings, connect: float, timeout: float) -> None:
        self._settings, self._timeout = settings, timeout
        # The server gives up first, also if it waits for a lock: nothing is left waiting there when we have gone.
        self._before = (
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
            f"SET LOCAL statement_timeout = {max(1, int(timeout * 900))}; "
        )
        try:
            steps = generators.connect(make_conninfo("", **settings))
            self._pg: pq.abc.PGconn = _wait(steps, -1, time.monotonic() + connect)
        except (psycopg.Error, OSError) as exc:
            raise _unavailable(exc, settings) from exc
        self._heard = set[str]()
        # For those that come with the answer of a statement.
        self._pg.notify_handler = self._hear

    def _hear(self, note: pq.PGnotify) -> None:
        self._heard.add(note.relname.decode())

    @property
    def pid(self) -> int:
        """The process id of the server's process for us, as we were told when we connected."""
        return self._pg.backend_pid

    def fileno(self) -> int:
        """Return the socket, which can be read when a notification has come."""
        return self._pg.socket

    def ask(self, *statements: str) -> list[list[Row]]:
        """Do these statements in one transaction, and return the rows of each. An error undoes them all.

        They are one message of the simple protocol, and need nothing of the session: it may be a pooler's.
        """
        try:
            self._pg.send_query((self._before + "; ".join(statements)).encode())
            results = _wait(generators.execute(self._pg), self._pg.socket, time.monotonic() + self._timeout)
        except (psycopg.Error, OSError) as exc:
            raise _unavailable(exc, self._settings) from exc
        for result in results:
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                error = psycopg.errors.error_from_result(result)
                raise _unavailable(error, self._settings) from error
        return [
            [[one.get_value(row, column) for column in range(one.nfields)] for row in range(one.ntuples)]
            for one in results[2:]
        ]

    def heard(self) -> set[str]:
        """Return the channels that were notified since the last call; does not wait."""
        try:
            self._pg.consume_input()
            while note := self._pg.notifies():
                self._hear(note)
        except (psycopg.Error, OSError) as exc:
            raise _unavailable(exc, self._settings) from exc
        found, self._heard = self._heard, set()
        return found

    def close(self) -> None:
        """End the session. A statement that is under way may still be done."""
        self._pg.finish()


def _wait(steps: Generator[Any, Any, Any], fileno: int, until: float) -> Any:
    """Do what a generator of psycopg waits for. libpq itself waits for an answer without end.

    Raises:
        TimeoutError: it has not ended by `until`.
    """
    try:
        step = next(steps)
        while True:
            # While it connects it says which socket; that may change.
            fileno, wanted = step if isinstance(step, tuple) else (fileno, step)
            poll = select.poll()
            poll.register(fileno, (wanted & 1 and select.POLLIN) | (wanted & 2 and select.POLLOUT))
            found = poll.poll(max(0.0, until - time.monotonic()) * 1000)
            if not found:
                raise TimeoutError("timed out")
            event = found[0][1]
            if event & ~(select.POLLIN | select.POLLOUT):  # libpq finds out what is wrong
                step = steps.send(wanted)
            else:
                step = steps.send((event & select.POLLIN and 1) | (event & select.POLLOUT and 2))
    except StopIteration as end:
        return end.value


def _unavailable(exc: Exception, settings: Settings) -> StoreUnavailable:
    said = exc.diag.message_primary if isinstance(exc, psycopg.Error) else None  # without the statement
    text = " ".join((said or str(exc)).split()) or type(exc).__name__
    state = getattr(exc, "sqlstate", None)
    lasts = state.startswith(_PERMANENT) if state else any(each in text for each in _TEXTS)
    if state == "42501":
        text += " (it takes SELECT, INSERT and UPDATE on politics_cells, and CREATE on its schema while it is missing)"
    return StoreUnavailable(f"PostgreSQL at {place(settings)} cannot be used: {text}", permanent=lasts)

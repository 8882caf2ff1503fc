"""memcached's meta commands over one socket: they return the version of what was just read or written."""

import functools
import hashlib
import itertools
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from urllib.parse import quote

from election.forks import fork_detector
from election.register import Cell, Swap
from election.stores.access import ServerAccess, StoreRefused

# Only for tidiness: no rule relies on memcached's own expiry, whose ticks are a second long.
EXPIRY = 30 * 24 * 3600
MANY = 256
"""Swaps or questions that are under way at once.

Their answers fit into a socket's buffer, so neither side waits for the other."""
LONGEST = 1 << 21
"""Bytes of an answer at most: an item of the largest size that memcached has by default, and what goes with it."""
LONGEST_KEY = 250

Version = tuple[int, bytes]

connections = itertools.count(1)
"""Numbers for connections, each of which is used once."""


class MemcachedConnection:
    """One socket and a lock that keeps its users apart. `number` changes with each new socket."""

    def __init__(self, host: str, port: int, timeout: float, access: ServerAccess | None = None) -> None:
        self.address, self.timeout, self.access = (host, port), timeout, access or ServerAccess()
        self.forked = fork_detector()
        self.lock = threading.Lock()
        self.number = 0
        self.answer = b""
        self.socket: socket.socket | None = None

    def open(self) -> socket.socket:
        """Return the socket, connected."""
        if self.socket is None:
            made = self.access.connect(*self.address, self.timeout)
            try:
                # The kernel's own time limits: Python's cost one more system call for each call. OpenSSL would take
                # them for a broken connection, or wait again.
                if not self.access.tls:
                    limit = struct.pack("@ll", *divmod(max(1, round(self.timeout * 1e6)), 1_000_000))  # zero: no limit
                    made.settimeout(None)
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            except BaseException:
                made.close()
                raise
            self.number, self.socket = next(connections), made
        return self.socket

    def close(self) -> None:
        """Close the socket, if there is one; the next `open` makes another."""
        made, self.socket = self.socket, None
        if made is not None:
            made.close()

    def ask(self, command: bytes, complete: Callable[[bytes], bool]) -> bytes:
        """Send `command` and return its answer, as soon as it is `complete`. What has arrived is in `answer`.

        Raises:
            OSError: no complete answer within the time limit.
            ValueError: the answer is too long.
        """
        made, self.answer, until = self.open(), b"", 0.0
        made.sendall(command)
        while True:
            try:
                more = made.recv(1 << 16)
            except BlockingIOError as exc:
                raise TimeoutError("timed out") from exc
            if not more:
                raise ConnectionError("it closed the connection")
            self.answer += more
            if complete(self.answer):
                return self.answer
            # An answer that comes in many small pieces has no more time than one that comes at once.
            until = until or time.monotonic() + self.timeout
            if time.monotonic() > until:
                raise TimeoutError("timed out")
            if len(self.answer) > LONGEST:
                raise ValueError("the answer is too long")


def is_line(answer: bytes) -> bool:
    """Return whether the answer's last line is complete."""
    return answer.endswith(b"\r\n")


def is_value(answer: bytes) -> bool:
    """Return whether a value is complete, or something else that is a line."""
    return end_of(answer, 0) > 0


def end_of(answers: bytes, begin: int) -> int:
    """Return where the answer that begins at `begin` ends: a value, or a line; 0 if it is not complete."""
    end = answers.find(b"\r\n", begin) + 2
    if end < 2 or not answers.startswith(b"VA ", begin):
        return end if end >= 2 else 0
    size = answers[begin + 3 : end - 2].split(b" ", 1)[0]
    if size.isdigit():
        end += int(size[:9]) + 2
    return end if len(answers) >= end else 0


def is_list(answer: bytes) -> bool:
    """Return whether a list is complete, or something else that is a line."""
    return answer.endswith(b"END\r\n") or (is_line(answer) and not answer.startswith(b"STAT "))


# A version, or that there is none: the item is missing, or the swap was refused.
_VERSION = re.compile(rb"(?:HD c(\d{1,20})|EN|(?:NS|EX|NF)(?: c\d{1,20})?)\r\n").fullmatch
_VALUE = re.compile(rb"VA (\d{1,9}) c(\d{1,20})\r\n(.*)\r\n", re.S).fullmatch


def _unexpected(answer: bytes) -> ValueError:
    if answer.startswith(b"CLIENT_ERROR unauthenticated"):
        return StoreRefused("it wants a password: memcached://user:password@host")
    return ValueError(f"an answer that memcached 1.6.10 or later would not give: {answer[:60]!r}")


def identity(connection: MemcachedConnection) -> bytes:
    """Return the random name of the server, which its first user has made."""
    ours = uuid.uuid4().hex.encode()
    connection.ask(b"ms politics-identity %d ME T0\r\n%b\r\n" % (len(ours), ours), is_line)
    answer = connection.ask(b"mg politics-identity v c\r\n", is_value)
    if found := _VALUE(answer):
        return found[3]
    raise _unexpected(answer)


def stats(connection: MemcachedConnection) -> bytes:
    """Return what the server counts: lines of `STAT name value`."""
    return connection.ask(b"stats\r\n", is_list)


def read(connection: MemcachedConnection, name: str) -> Cell | None:
    """Return the item and its version, or None."""
    return cell_in(connection.ask(get_command(key(name)), is_value), connection.number)


def get_command(key: bytes) -> bytes:
    """Return the command that asks for an item and its version."""
    return b"mg %b v c\r\n" % key


def cell_in(answer: bytes, connection: int) -> Cell | None:
    """Return the item that an answer on this connection tells of, or None.

    Raises:
        ValueError: it is no answer to that question.
    """
    if answer == b"EN\r\n":
        return None
    found = _VALUE(answer)
    if found is None or len(found[3]) != int(found[1]):
        raise _unexpected(answer)
    return Cell(found[3], (connection, found[2]))


def version(connection: MemcachedConnection, name: str) -> Version | None:
    """Return the item's version alone, or None."""
    return version_in(connection.ask(b"mg %b c\r\n" % key(name), is_line), connection.number)


def versions(connection: MemcachedConnection, names: Sequence[str]) -> list[Version | None]:
    """Ask for the versions of at most `MANY` items in one write."""
    asked = b"".join([b"mg %b c\r\n" % key(name) for name in names])
    answer = connection.ask(asked, lambda answer: is_line(answer) and answer.count(b"\n") >= len(names))
    return [
        version_in(line, connection.number) for _, line in zip(names, answer.splitlines(keepends=True), strict=True)
    ]


def version_in(answer: bytes, connection: int) -> Version | None:
    """Return the version that an answer on this connection tells of; None if it refuses, or there is none.

    Raises:
        ValueError: it is no answer to that question.
    """
    if found := _VERSION(answer):
        return (connection, found[1]) if found[1] else None
    raise _unexpected(answer)


def _set(connection: MemcachedConnection, name: str, data: bytes, expected: Version | None) -> bytes | None:
    """Return the command of a swap; None if `expected` cannot be compared."""
    if expected is not None and (expected[0] != connection.number or connection.socket is None):
        return None
    return set_command(key(name), data, expected)


def set_command(key: bytes, data: bytes, expected: Version | None) -> bytes:
    """Return the command that writes an item over the version `expected`, or only if there is none (None)."""
    if expected is None:
        return b"ms %b %d ME c T%d\r\n%b\r\n" % (key, len(data), EXPIRY, data)
    return b"ms %b %d C%b c T%d\r\n%b\r\n" % (key, len(data), expected[1], EXPIRY, data)


def swap(connection: MemcachedConnection, name: str, data: bytes, expected: Version | None) -> Version | None:
    """Write the item if it has the version `expected`, or is missing (None); return its new version, or None."""
    command = _set(connection, name, data, expected)
    if command is None:
        return None
    return version_in(connection.ask(command, is_line), connection.number)


def swap_many(connection: MemcachedConnection, swaps: Sequence[Swap]) -> tuple[list[Version | None], Exception | None]:
    """Send at most `MANY` swaps in one write. Return the answers as far as they are known, and why not further."""
    commands = [_set(connection, *swap) for swap in swaps]
    sent = [command for command in commands if command is not None]
    known: list[Version | None] = []
    trouble: Exception | None = None
    connection.answer = b""
    try:
        if sent:
            connection.ask(b"".join(sent), lambda answer: is_line(answer) and answer.count(b"\n") >= len(sent))
    except OSError as exc:
        trouble = exc
    answers = connection.answer.splitlines(keepends=True)
    if len(answers) > len(sent):
        raise ValueError("there are more answers than questions")
    following = iter(answers)
    try:
        for command in commands:
            known.append(None if command is None else version_in(next(following, b""), connection.number))
    except ValueError as exc:
        trouble = trouble or exc
    if trouble:
        connection.close()
    return known, trouble


_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


@functools.lru_cache(maxsize=4096)
def key(name: str, prefix: bytes = b"politics:") -> bytes:
    """Return memcached's key for a cell. With a longer prefix a long name may not fit in, and is hashed."""
    # `quote` would change nothing of a plain name, and takes five times as long to find that out.
    found = prefix + (name if _PLAIN(name) else quote(name, safe="")).encode()
    return found if len(found) <= LONGEST_KEY else prefix + b"#" + hashlib.sha256(found).hexdigest().encode()

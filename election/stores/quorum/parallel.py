"""Questions to several memcacheds at once, and the wait for as many answers as are needed."""

import errno
import hashlib
import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence

from election.register import Cell
from election.retries import backoff
from election.stores import meta
from election.stores.quorum.cells import REFUSED, SILENT, Answer, Read, Request, Sight, Write, decode
from election.stores.quorum.rules import Round

PATIENCE = 0.005
"""Seconds that the others have at least, after enough have answered, in a round that is worth some patience."""
UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


class Asked:
    """One round for one name, and what has been answered so far. Late answers are still written in here."""

    __slots__ = ("answers", "name", "round")

    def __init__(self, name: str, round_: Round) -> None:
        self.name, self.round = name, round_
        self.answers: list[Answer] = [SILENT] * len(round_.requests)


class Link:
    """One socket that never blocks, and who waits for its answers, which come in the order of the questions.

    A name is looked up in a thread of its own, since that may take long, and again before each attempt to connect: so a
    host behind a name can be replaced.
    """

    def __init__(self, number: int, host: str, port: int, timeout: float) -> None:
        self.place, self.address, self.timeout = number, f"{host}:{port}", timeout
        self.prefix = prefix_of(self.address)
        self.number = 0
        """Names the connection: versions of an earlier one cannot be compared any more."""
        self.socket: socket.socket | None = None
        self.connected = False
        self.trouble = ""
        """Why it did not answer; empty once it has answered again."""
        self.owed: deque[tuple[Asked, bool, float]] = deque()
        """The round, whether it was read, and when the answer counts as missing."""
        self._host, self._port = host, port
        self._unsent = self._received = b""
        self._failures, self._again = 0, 0.0
        self._found: list[tuple[int, tuple[str, int]]] = []
        self._others: list[tuple[int, tuple[str, int]]] = []
        self._lookup: threading.Thread | None = None
        self._is_name = not _is_number(host)

    @property
    def idle(self) -> bool:
        """Whether it is connected and owes nothing."""
        return self.connected and not self.owed

    @property
    def connecting(self) -> bool:
        """Whether it is about to be connected."""
        return self.socket is not None and not self.connected

    @property
    def waits_to_send(self) -> bool:
        """Whether to wait until the socket takes more."""
        return not self.connected or bool(self._unsent)

    def begin(self, now: float, urgent: bool) -> None:
        """Begin to connect if it is time to; look up the name before. Does not wait, but for the first look-up."""
        if self.socket is not None or (now < self._again and not urgent):
            return
        if not self._is_name:
            self._look_up()
        else:
            if self._lookup is None:
                lookup = threading.Thread(target=self._look_up, name="election-look-up", daemon=True)
                try:
                    lookup.start()
                except RuntimeError as exc:  # this process has too many, or the interpreter is about to exit
                    self.fail(exc)
                    return
                self._lookup = lookup
                lookup.join(0 if self._failures else self.timeout)
            if self._lookup.is_alive():
                return
        self._lookup, self._others = None, list(self._found)
        self._connect()

    def _look_up(self) -> None:
        try:
            infos = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._found = [(info[0], info[4]) for info in infos]  # type: ignore[misc]
        except (OSError, UnicodeError) as exc:  # UnicodeError: what cannot be a host's name
            self.trouble = getattr(exc, "strerror", None) or str(exc)  # what was found before may still be right

    def _connect(self) -> None:
        """Connect to the next of the addresses."""
        error = 0
        while self._others:
            family, address = self._others.pop(0)
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
            except OSError as exc:  # this process has too many
                return self.fail(exc)
            try:
                made.setblocking(False)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                error = made.connect_ex(address)
            except BaseException:
                made.close()
                raise
            if error in (0, *UNDER_WAY):
                self.number, self.socket, self.connected = next(meta.connections), made, error == 0
                return None
            made.close()
        return self.fail(OSError(error, os.strerror(error)) if error else OSError(self.trouble or "it has no address"))

    def fail(self, exc: Exception) -> None:
        """Close the connection, and try again later. Who waits for answers gets none."""
        self.close()
        self.trouble = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        self._failures += 1
        # Once at once: a server that was restarted is back already.
        wait = backoff(self._failures, random.random(), first=0.05, longest=5.0) if self._failures > 1 else 0.0
        self._again = time.monotonic() + wait

    def expire(self, now: float) -> None:
        """Close the connection if an answer is missing for too long; it may have come while nobody looked."""
        if self.owed and self.owed[0][2] <= now:
            self.receive()
        if self.owed and self.owed[0][2] <= now:
            self.fail(TimeoutError("timed out"))

    def close(self) -> None:
        """Close the connection, if there is one."""
        made, self.socket, self.connected = self.socket, None, False
        self._unsent = self._received = b""
        self.owed.clear()
        if made is not None:
            made.close()

    def send(self, rounds: Sequence[Asked], until: float) -> bool:
        """Send what these rounds ask this server, in one write; return whether it owes an answer to one of them."""
        commands, owed = [], []
        for asked in rounds:
            request = asked.round.requests[self.place]
            if request is None:
                continue
            command = self._command(asked.name, request) if self.socket is not None else None
            if command is None:  # it is not sent, so a write will never land
                asked.answers[self.place] = REFUSED if isinstance(request, Write) else SILENT
            else:
                commands.append(command)
                owed.append((asked, isinstance(request, Read), until))
        if commands:
            self.owed.extend(owed)
            self._unsent += b"".join(commands)
            if self.connected:
                self.flush()
        return bool(commands) and bool(self.owed)

    def _command(self, name: str, request: Request) -> bytes | None:
        key = meta.key(name, self.prefix)
        if isinstance(request, Write):
            cell, expected = request
            if expected is not None and expected[0] != self.number:
                return None
            return meta.set_command(key, cell.encode(), expected)
        return meta.get_command(key)

    def flush(self) -> None:
        """Send as much as the socket takes, once it is connected."""
        if self.socket is None:
            return
        try:
            if not self.connected:
                if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                self.connected = True
            if self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as exc:
            if self.connected or not self._others:
                self.fail(exc)
            else:
                self._next()

    def _next(self) -> None:
        """Go on with the next address of the same host; what was asked has not been sent yet."""
        owed, unsent = list(self.owed), self._unsent
        self.close()
        self._connect()
        if self.socket is not None:
            self.owed.extend(owed)
            self._unsent = unsent

    def receive(self) -> list[Asked]:
        """Take what has arrived; return the rounds of which something was answered."""
        if self.socket is None:
            return []
        told: list[Asked] = []
        try:
            more = self.socket.recv(1 << 18)
            if not more:
                raise ConnectionError("it closed the connection")
            received, begin = self._received + more, 0
            while self.owed and (end := meta.end_of(received, begin)):
                asked, is_read, _ = self.owed[0]
                asked.answers[self.place] = self._answer(received[begin:end], is_read)
                self.owed.popleft()
                told.append(asked)
                begin = end
            self._received = received[begin:]
            if len(self._received) > (meta.LONGEST if self.owed else 0):
                raise ValueError("it says more than it was asked")
            self._failures, self.trouble = 0, ""
        except BlockingIOError:
            pass
        except (OSError, ValueError) as exc:
            self.fail(exc)
        return told

    def _answer(self, answer: bytes, is_read: bool) -> Answer:
        if not is_read:
            version = meta.version_in(answer, self.number)
            return REFUSED if version is None else version
        cell: Cell | None = meta.cell_in(answer, self.number)
        return Sight(None, None) if cell is None else Sight(cell.version, decode(cell.data))


class Links:
    """The servers of one quorum. `ask` may be called from any thread; one round of questions is under way at a time."""

    def __init__(self, addresses: Sequence[tuple[str, int]], timeout: float) -> None:
        self.each = [Link(number, *address, timeout) for number, address in enumerate(addresses)]
        self.timeout = timeout
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._polled: dict[int, tuple[Link, int]] = {}
        self._wanted: list[tuple[int, bool]] = []

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._close_all()

    def drain(self) -> None:
        """Take answers that came after their round had ended."""
        with self._lock:
            try:
                for link in self.each:
                    if link.owed:
                        link.receive()
            except BaseException:
                self._close_all()
                raise

    def ask(self, rounds: Sequence[Asked], limit: float | None = None) -> float:
        """Send the questions of all rounds, and wait until each has enough answers; return the seconds that it took.

        All that goes to one server is one write. A round ends after `limit` seconds at the latest (None: the timeout).
        """
        with self._lock:
            try:
                return self._ask(rounds, self.timeout if limit is None else limit)
            except BaseException:
                # Ctrl-C included: nobody knows what is sent and what is read.
                self._close_all()
                raise

    def _close_all(self) -> None:
        for link in self.each:
            link.close()
        self._register()

    def _ask(self, rounds: Sequence[Asked], limit: float) -> float:
        begun = time.monotonic()
        latest = begun + limit
        urgent = not self._has_majority()
        waiting = []
        for link in self.each:
            link.expire(begun)
            if link.socket is None:
                link.begin(begun, urgent)
            if link.send(rounds, begun + self.timeout) or (urgent and link.connecting):
                waiting.append(link)
        self._register()
        missing = {asked for asked in rounds if REFUSED not in asked.answers or not asked.round.enough(asked.answers)}
        # Without a majority of connections nobody knows anything: then they are waited for, though nothing was sent.
        connects = urgent and not missing
        end = latest if missing or connects else begun
        while waiting:
            now = time.monotonic()
            if now >= end or (connects and self._has_majority()):
                break
            polled = self._polled
            for descriptor, event in self._poll.poll((end - now) * 1000):
                link, number = polled[descriptor]
                if link.number != number:
                    continue
                if event & select.POLLOUT or not link.connected:
                    link.flush()
                if event & ~select.POLLOUT:
                    told = missing.intersection(link.receive())
                    missing.difference_update([asked for asked in told if asked.round.enough(asked.answers)])
                    if told and not missing:
                        now = time.monotonic()
                        end = end_of_round(begun, now, latest) if any(each.round.patient for each in rounds) else now
            self._register()
            waiting = [link for link in waiting if link.owed or link.connecting]
        now = time.monotonic()
        for link in waiting:
            link.expire(now)
        return now - begun

    def _has_majority(self) -> bool:
        return 2 * sum(link.connected for link in self.each) > len(self.each)

    def _register(self) -> None:
        """Have the sockets polled that are there now, for what each waits for."""
        wanted = [(link.number if link.socket is not None else 0, link.waits_to_send) for link in self.each]
        if wanted == self._wanted:
            return
        for descriptor in self._polled:
            self._poll.unregister(descriptor)
        self._wanted, self._polled = wanted, {}
        for link in self.each:
            if link.socket is not None:
                descriptor = link.socket.fileno()
                self._poll.register(descriptor, select.POLLIN | (select.POLLOUT if link.waits_to_send else 0))
                self._polled[descriptor] = link, link.number


def end_of_round(begun: float, answered: float, latest: float) -> float:
    """Return until when the others have time, once enough have answered: as long again, but not beyond `latest`."""
    return min(answered + max(answered - begun, PATIENCE), latest)


def prefix_of(address: str) -> bytes:
    """Return how the keys of a server begin: so one server under two names never counts one cell twice.

    They go by the address, not by its place in the list, so that a cell of another list is found, and known as such.
    """
    return b"politics/%b:" % hashlib.sha256(address.encode()).hexdigest()[:8].encode()


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return True
        except OSError:
            continue
    return False

"""Hints of changes in PostgreSQL: a thread that listens to what swaps notify as they commit."""

import contextlib
import random
import select
import socket
import threading
from collections.abc import Callable, Iterable

from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.retries import backoff
from election.stores.libpq import Session

BEAT = 5.0
"""Seconds after which a listening session is asked whether it is still one."""


class Listener:
    """A thread and a connection that listen for all watched names of a register, while there are any."""

    def __init__(self, connect: Callable[[], Session]) -> None:
        self._connect = connect
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._hints = set[Hint]()
        self._thread: threading.Thread | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self.heard: frozenset[str] = frozenset()
        """The channels whose notifications arrive now."""

    def add(self, channel: str, news: Callable[[], object]) -> "Hint":
        hint = Hint(self, channel, news)
        with self._lock:
            self._hints.add(hint)
            if self._thread is None:
                self._bell = socket.socketpair()
                for end in self._bell:
                    end.setblocking(False)
                self._thread = threading.Thread(
                    target=self._run, args=(self._bell,), name="politics-hints", daemon=True
                )
                self._thread.start()
            self._ring()
        return hint

    def remove(self, hint: "Hint") -> None:
        if not self._forked():
            with self._lock:
                self._hints.discard(hint)
                self._ring()

    def close(self) -> None:
        with self._lock:
            self._hints.clear()
            self._ring()

    def live(self, hint: "Hint") -> bool:
        return not self._forked() and hint in self._hints and hint.channel in self.heard

    def _ring(self) -> None:
        if self._bell:
            with contextlib.suppress(OSError):  # it has rung often enough
                self._bell[1].send(b"!")

    def _run(self, bell: tuple[socket.socket, socket.socket]) -> None:
        failures = 0
        try:
            while self._wanted():
                try:
                    self._listen(bell[0])
                    failures = 0
                except StoreUnavailable:
                    failures = 1 if self.heard else failures + 1
                lost, self.heard = self.heard, frozenset()
                self._tell(lost)
                if failures:
                    self._pause(bell[0], backoff(failures, random.random(), first=0.1, longest=30.0))
        finally:
            # Also if `news` raises: nobody is to rely on hints that do not come.
            self.heard = frozenset()
            for end in bell:
                end.close()

    def _wanted(self) -> frozenset[str]:
        """Return the channels; if there are none, this thread ends."""
        with self._lock:
            if not self._hints:
                self._thread = self._bell = None
            return frozenset(hint.channel for hint in self._hints)

    def _listen(self, bell: socket.socket) -> None:
        with contextlib.closing(self._connect()) as session:
            while wanted := frozenset(hint.channel for hint in list(self._hints)):
                changes = [f"LISTEN {each}" for each in sorted(wanted - self.heard)]
                changes += [f"UNLISTEN {each}" for each in sorted(self.heard - wanted)]
                (row,) = session.ask(*changes, "SELECT pg_backend_pid(), pg_is_in_recovery()")[-1]
                # A pooler answers for sessions that it shares, and what they hear does not arrive here.
                if row != [b"%d" % session.pid, b"f"]:
                    raise StoreUnavailable("notifications do not pass a pooler")
                # What came before we listened is news too, and so is what came with this answer.
                news, self.heard = wanted - self.heard, wanted
                self._tell(news | session.heard())
                while not self._pause(bell, BEAT, session.fileno()):
                    self._tell(session.heard())

    @staticmethod
    def _pause(bell: socket.socket, seconds: float, fileno: int | None = None) -> bool:
        """Wait until the bell rings or time is up; return False if it was the socket `fileno`."""
        poll = select.poll()
        for each in (bell.fileno(), fileno):
            if each is not None:
                poll.register(each, select.POLLIN)
        ready = [each for each, _ in poll.poll(seconds * 1000)]
        if bell.fileno() in ready:
            bell.recv(4096)
            return True
        return not ready

    def _tell(self, channels: Iterable[str]) -> None:
        for hint in list(self._hints):
            if hint.channel in channels:
                hint.news()


class Hint:
    """What `watch` returns."""

    def __init__(self, listener: Listener, channel: str, news: Callable[[], object]) -> None:
        self._listener, self.channel, self.news = listener, channel, news

    @property
    def live(self) -> bool:
        return self._listener.live(self)

    def close(self) -> None:
        self._listener.remove(self)

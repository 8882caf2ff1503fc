"""Hints of changes in PostgreSQL: each swap notifies the channel of its cell as it commits."""

import contextlib
import hashlib
import select
import socket
from collections.abc import Callable, Iterator

from election.errors import StoreUnavailable
from election.stores.postgresql.session import PostgreSQLSession

BEAT = 5.0
"""Seconds after which a listening session is asked whether it is still one."""


def channel_of(name: str) -> str:
    """Return the channel that is notified of the cell `name`."""
    return f"politics_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


class Notifications:
    """The names of the cells of which a session of its own is notified, as a `HintStream`."""

    def __init__(self, connect: Callable[[], PostgreSQLSession]) -> None:
        self._connect = connect
        self._wanted = dict[str, str]()
        self._closed = False
        self._ring: socket.socket | None = None

    def __iter__(self) -> Iterator[list[str]]:
        """Yield the names that are listened to from now on, and those of which the session is notified."""
        bell, ring = socket.socketpair()
        with bell, ring, contextlib.closing(self._connect()) as session:
            ring.setblocking(False)
            self._ring = ring
            heard = dict[str, str]()
            while not self._closed:
                wanted = self._wanted.copy()
                changes = [f"LISTEN {each}" for each in sorted(wanted.keys() - heard.keys())]
                changes += [f"UNLISTEN {each}" for each in sorted(heard.keys() - wanted.keys())]
                (row,) = session.ask(*changes, "SELECT pg_backend_pid(), pg_is_in_recovery()")[-1]
                # A pooler answers for sessions that it shares, and what they hear does not arrive here.
                if row != [b"%d" % session.pid, b"f"]:
                    raise StoreUnavailable("notifications do not pass a pooler")
                # What came before we listened is news too, and so is what came with this answer.
                news, heard = wanted.keys() - heard.keys(), wanted
                while True:
                    yield [heard[each] for each in news | session.heard() if each in heard]
                    if _pause(bell, session.fileno()):
                        break
                    news = set()

    def want(self, name: str) -> None:
        """Listen to the channel of this cell too."""
        self._wanted[channel_of(name)] = name
        self._wake()

    def forget(self, name: str) -> None:
        """Listen to it no more."""
        self._wanted.pop(channel_of(name), None)
        self._wake()

    def close(self) -> None:
        """End the iteration, which closes the session."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._ring:
            with contextlib.suppress(OSError):  # it has rung often enough, or nobody listens any more
                self._ring.send(b"!")


def _pause(bell: socket.socket, session: int) -> bool:
    """Wait until the bell rings or it is time to ask; return False if the session has something to read."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    poll.register(session, select.POLLIN)
    ready = [each for each, _ in poll.poll(BEAT * 1000)]
    if bell.fileno() in ready:
        bell.recv(4096)
        return True
    return not ready

"""The thread of a server that lets clients in, and notices when one of them goes away while it waits."""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from discovery.clock import uptime

__all__ = ["Listener", "RareWarnings", "own_host"]

log = logging.getLogger(__name__)


class RareWarnings:
    """Warnings about strangers, who may cause thousands a second: one of each kind in ten seconds, and how many more.

    For any thread.
    """

    def __init__(self, log: logging.Logger, *, every: float = 10.0) -> None:
        self._log, self._every = log, every
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}  # when each is logged again, and how many were not

    def __call__(self, kind: str, text: str, *args: object) -> None:
        """Log it, unless one of that kind has just been logged."""
        now = uptime()
        with self._lock:
            silent, more = self._kinds.get(kind, (-inf, 0))
            if now < silent:
                self._kinds[kind] = silent, more + 1
                return
            self._kinds[kind] = now + self._every, 0
        if more:
            text, args = f"{text} (and %d more like this before)", (*args, more)
        self._log.warning(text, *args)


class Listener:
    """Listen on a port, in a thread of its own, from `start` until `close`.

    Args:
        host: The address of the interface to listen on; empty: all of them.
        port: The port; 0: any free one, which is in `port` afterwards.
        accepted: Called with the socket and the address of each client, on the listener's thread; must not block.
        tick: Called now and then on the same thread.
        every: At most so many seconds pass from one tick to the next.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        accepted: Callable[[socket.socket, Any], object],
        tick: Callable[[], object],
        every: float,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=512)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._accepted, self._tick, self._every = accepted, tick, every
        self._warn = RareWarnings(log)
        self._closed = False
        self._lock = threading.Lock()  # around changes of what the selector watches, while its list is read
        self._wake, self._woken = socket.socketpair()
        self._own = [self._listener, self._wake, self._woken]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name=f"server {self.port}", daemon=True)

    def start(self) -> None:
        """Begin to let clients in."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and tell each `watching` that its client has gone."""
        self._closed = True
        self._wake.close()  # which ends the thread
        self._thread.join()

    def close_in_child(self) -> None:
        """Let go of the copies that a forked child has: the port is its parent's."""
        self._closed = True
        for sock in self._own:
            sock.close()

    @contextlib.contextmanager
    def watching(self, sock: socket.socket, gone: Callable[[], object]) -> Iterator[None]:
        """Meanwhile, call `gone` as soon as anything arrives on a socket, which then has nothing to say.

        It is called at most once, on the listener's thread, and must not block.
        """
        selector = self._selector

        def forget() -> None:
            # It may be forgotten already, or the listener closed.
            with self._lock, contextlib.suppress(KeyError, ValueError, RuntimeError):
                selector.unregister(sock)

        def leave() -> None:
            forget()
            gone()

        with self._lock:
            selector.register(sock, selectors.EVENT_READ, leave)
        try:
            if self._closed:
                gone()
            yield
        finally:
            forget()

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(self._every):
                self._attend(key.data)
            self._tick()
        with self._lock:
            watched = list(self._selector.get_map().values())
        for key in watched:
            if key.fileobj not in self._own:
                self._attend(key.data)
        for sock in self._own:
            sock.close()
        self._selector.close()

    def _attend(self, action: Callable[[], object] | None) -> None:
        if action is not None:
            try:
                action()
            except Exception:  # the other clients must still be served
                log.exception("while attending to a client")

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except OSError as exc:
            self._warn("accept", "cannot accept a connection: %s", exc)
            time.sleep(0.05)  # out of file descriptors: the listener stays readable, and this must not spin
            return
        sock.setblocking(True)
        self._accepted(sock, peer)


def own_host() -> str:
    """Return the address under which others most likely reach this machine: that of the default route's interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation, and connecting a UDP socket sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"

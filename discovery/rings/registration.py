"""Services in rings: kept registered, found by name, listed by host. The idea is RingyDingy's.

with Registration(Logger()): ...                       # there, from one line
find("Logger").info("hello")                           # here
"""

import logging
import os
import socket
import threading
from math import inf
from typing import Any

from discovery.errors import DiscoveryError
from discovery.remote.proxy import Proxy, address_of
from discovery.rings.finder import RingFinger
from discovery.rings.space import RemoteEvents, RemoteSpace
from discovery.tuples.entry import SimpleRenewer

__all__ = ["ANY_SERVICE", "Registration", "ServiceTuple", "find", "services"]

log = logging.getLogger(__name__)

ServiceTuple = tuple[Any, Any, Any, Any]
"""How a service is written: `("name", its name, the object, what else there is to say about it)`."""

ANY_SERVICE: ServiceTuple = ("name", None, None, None)
"""The template of them all."""


class Registration:
    """Keeps a service in a ring, from `start` or `with` on until `close`, in a thread of its own.

    The service goes by reference. Its name is by default that of its class, its description "host_pid". When the ring
    goes away, or drops the tuple, the service is registered again as soon as a ring is found, which is tried every
    `retry` seconds; a tuple that somebody has taken is left to him. The ring asks every `period` seconds whether this
    process is still there, and drops the service when it gets no answer.
    """

    def __init__(
        self,
        service: Any,
        name: str = "",
        description: str = "",
        *,
        finger: RingFinger | None = None,
        period: float = 5.0,
        retry: float = 0.5,
    ) -> None:
        name = name or (service if isinstance(service, type) else type(service)).__name__
        self.tuple: ServiceTuple = ("name", name, service, description or f"{socket.gethostname()}_{os.getpid()}")
        self._finger = finger or RingFinger()
        self._period, self._retry = period, retry
        self._registered, self._stopped = threading.Event(), threading.Event()
        self._events: RemoteEvents | None = None
        self._thread = threading.Thread(target=self._keep, name=f"registration {name}", daemon=True)

    def start(self) -> "Registration":
        """Begin. Returns at once; see `wait`."""
        if not isinstance(self.tuple[2], Proxy):
            self._finger.client.lend(self.tuple[2], keep=inf)
        self._thread.start()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the service is registered, waiting up to so many seconds for that."""
        return self._registered.wait(timeout)

    def close(self) -> None:
        """Take the service out of the ring, and stop."""
        self._stopped.set()
        if self._events is not None:
            self._events.cancel()
        self._thread.join()

    def __enter__(self) -> "Registration":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registration of {self.tuple!r}, {'in a ring' if self._registered.is_set() else 'in none'}>"

    def _keep(self) -> None:
        while not self._stopped.is_set():
            try:
                self._stay_in(self._finger.lookup_ring_any(timeout=2.0))
            except (DiscoveryError, OSError) as exc:
                log.warning("%s is in no ring, which is tried again every %s s: %s", self.tuple[1], self._retry, exc)
            self._registered.clear()
            self._stopped.wait(self._retry)

    def _stay_in(self, ring: RemoteSpace) -> None:
        """Register, and return or raise when that is over."""
        _, name, _, description = self.tuple
        self._events = ring.notify("delete", ("name", name, None, description))  # first, so as to miss nothing
        entry = ring.write(self.tuple, SimpleRenewer(self._period))
        log.info("%s is registered in %r", name, ring)
        self._registered.set()
        if self._stopped.is_set():
            self._events.cancel()
        for event in self._events:
            if event.kind == "delete" and not entry.alive:
                log.warning("%s was dropped by %r", name, ring)
                return
        if self._stopped.is_set():
            entry.cancel()


def find(name: str, *, finger: RingFinger | None = None, timeout: float | None = 5) -> Any:
    """The object that is registered under a name: the oldest, in the ring that answers first.

    Waits up to `timeout` seconds for it (None: for ever). Raises `RingNotFound` and `RequestExpired`.
    """
    ring = (finger or RingFinger()).lookup_ring_any()
    return ring.read(("name", name, None, None), timeout)[2]


def services(finger: RingFinger | None = None, timeout: float = 2) -> dict[str, list[ServiceTuple]]:
    """All services of all rings that are found within `timeout` seconds, by the host on which each lives.

    Raises `RingNotFound`.
    """
    finger = finger or RingFinger()
    by_host: dict[str, list[ServiceTuple]] = {}
    for ring in list(finger.rings(timeout)) or [finger.lookup_ring_any(timeout)]:
        for service in ring.read_all(ANY_SERVICE):
            host = address_of(service[2]).host if isinstance(service[2], Proxy) else ring.address.host
            by_host.setdefault(host, []).append(service)
    return by_host

"""Services in rings: kept registered, found by name, listed by host. The idea is RingyDingy's.

with Registration(Logger()): ...                       # in one process
find("Logger").info("hello")                           # in another
"""

import logging
import os
import socket
import threading
from math import inf
from typing import Any

from discovery.clock import uptime
from discovery.errors import BadMessage, RequestCanceled, RequestExpired
from discovery.remote.proxy import Proxy, address_of
from discovery.retries import retrying
from discovery.rings.finder import RingFinger, Stop
from discovery.rings.space import RemoteEntry, RemoteEvents, RemoteSpace
from discovery.tuples.entry import SimpleRenewer

__all__ = ["ANY_SERVICE", "Registration", "ServiceTuple", "find", "services"]

log = logging.getLogger("discovery")

ServiceTuple = tuple[Any, Any, Any, Any]
"""How a service is written: `("name", its name, the object, its description)`."""

ANY_SERVICE: ServiceTuple = ("name", None, None, None)
"""The template that matches every service."""


class Registration:
    """Keeps a service in a ring, from `start` or `with` on until `close`, in a thread of its own.

    The service goes by reference. When the ring goes away, or drops the tuple, the service is registered again as soon
    as a ring is found. A tuple that somebody takes is not written again.

    Args:
        service: The object, function or class to register.
        name: Under which it is found; by default the name of its class.
        description: What people read of it; by default "host_pid".
        finger: Finds the ring; by default on the local network and on this machine.
        period: Seconds after which the ring asks again whether this process is still there. It drops the service
            when it gets no answer.
        retry: Seconds between two attempts to find a ring, at most. The first waits are shorter, and all are random,
            so that many services do not come back at the same moment.
    """

    def __init__(
        self,
        service: Any,
        name: str = "",
        description: str = "",
        *,
        finger: RingFinger | None = None,
        period: float = 5.0,
        retry: float = 5.0,
    ) -> None:
        name = name or (service if isinstance(service, type) else type(service)).__name__
        self.tuple: ServiceTuple = ("name", name, service, description or f"{socket.gethostname()}_{os.getpid()}")
        self._finger = finger or RingFinger()
        self._period, self._retry = period, retry
        self._registered, self._stopped = threading.Event(), Stop()
        self._entered: tuple[RemoteSpace, RemoteEntry, RemoteEvents] | None = None
        self._thread = threading.Thread(target=self._keep, name=f"registration {name}", daemon=True)

    def start(self) -> "Registration":
        """Begin. Return at once; `wait` waits until the service is registered."""
        if not isinstance(self.tuple[2], Proxy):
            self._finger.client.lend(self.tuple[2], keep=inf)
        self._thread.start()
        return self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds until the service is registered. Return whether it is."""
        return self._registered.wait(timeout)

    def close(self) -> None:
        """Take the service out of the ring, and stop."""
        self._stopped.set()
        if (entered := self._entered) is not None:
            entered[2].cancel()
        self._thread.join()

    def __enter__(self) -> "Registration":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registration of {self.tuple!r}, {'in a ring' if self._registered.is_set() else 'in none'}>"

    def _keep(self) -> None:
        while not self._stopped.is_set():
            retrying(self._stopped, longest=self._retry, failed=self._failed)(self._step)

    def _step(self) -> None:
        """Enter a ring; or, where that is done, stay in it until it is lost."""
        if self._stopped.is_set():
            return
        until = inf
        if self._entered is None:
            self._enter(self._finger.lookup_ring_any(timeout=2.0, stop=self._stopped))
            until = uptime() + self._retry  # if it is lost before, that is one more failure to find it
        assert self._entered is not None
        stays = False
        try:
            stays = self._stay(*self._entered, until)
        finally:
            if not stays:
                self._registered.clear()
                _, _, events = self._entered
                self._entered = None
                events.drop()

    def _stay(self, ring: RemoteSpace, entry: RemoteEntry, events: RemoteEvents, until: float) -> bool:
        """Wait for the loss of the ring. Return whether it is there at the time `until`, False at the end."""
        while not events.closed:
            try:
                event = events.get(None if until == inf else max(0.01, until - uptime()))
            except RequestExpired:
                return True
            if event.kind != "close" and not entry.alive:
                raise RequestExpired(f"{ring!r} has dropped it")
        if not self._stopped.is_set():
            raise RequestCanceled(f"{ring!r} was closed")
        entry.cancel()
        return False

    def _enter(self, ring: RemoteSpace) -> None:
        _, name, _, description = self.tuple
        events = ring.notify("delete", ("name", name, None, description))  # first, so as to miss nothing
        try:
            entry = ring.write(self.tuple, SimpleRenewer(self._period))
        except BaseException:
            events.drop()
            raise
        self._entered = ring, entry, events
        log.info("%s is registered in %r", name, ring)
        self._registered.set()
        if self._stopped.is_set():
            events.cancel()

    def _failed(self, error: BaseException, attempt: int) -> None:
        if attempt == 1:
            log.warning("%s is in no ring, and will be as soon as one is found: %s", self.tuple[1], error)


def find(name: str, *, finger: RingFinger | None = None, timeout: float | None = 5) -> Any:
    """Return the object that is registered under a name: the oldest one, in the ring that answers first.

    Args:
        finger: Finds the ring; by default on the local network and on this machine.
        timeout: Seconds to wait for the service; None is for ever.

    Raises:
        RingNotFound: no ring answers.
        RequestExpired: the ring has no such service within `timeout` seconds.
    """
    ring = (finger or RingFinger()).lookup_ring_any()
    return ring.read(("name", name, None, None), timeout)[2]


def services(finger: RingFinger | None = None, timeout: float = 2) -> dict[str, list[ServiceTuple]]:
    """Return all services of all rings that are found within `timeout` seconds, by the host on which each lives.

    Raises:
        RingNotFound: no ring answers.
    """
    finger = finger or RingFinger()
    by_host: dict[str, list[ServiceTuple]] = {}
    for ring in list(finger.rings(timeout)) or [finger.lookup_ring_any(timeout)]:
        for service in services_in(ring):
            host = address_of(service[2]).host if isinstance(service[2], Proxy) else ring.address.host
            by_host.setdefault(host, []).append(service)
    return by_host


def services_in(ring: RemoteSpace) -> list[ServiceTuple]:
    """Return what is registered in one ring. What cannot be sent is left out."""
    found = ring.read_all(ANY_SERVICE, skip=True)
    if not all(isinstance(service, tuple) and len(service) == 4 for service in found):
        raise BadMessage(f"{ring!r} lists what is no service")
    return found

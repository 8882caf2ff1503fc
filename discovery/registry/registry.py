"""The registry: services are registered, found by name, called and borrowed, with no server to run.

Every process announces what it offers, and keeps a view of what it has heard. A lookup asks nobody. The ideas are
Distribunaut's, on the tuples of Rinda.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from discovery import beacon
from discovery.errors import BadTime, DiscoveryError, ServiceNotFound
from discovery.fork import ForkGuard
from discovery.registry import offer, url
from discovery.registry.finder import Finder
from discovery.registry.loan import TTL, Loan
from discovery.registry.offer import Refused, Service
from discovery.registry.offering import Offering
from discovery.registry.ring_transport import RingTransport
from discovery.registry.transport import MulticastTransport, Properties, Transport
from discovery.registry.url import ServiceURL
from discovery.registry.view import ServiceView, Watch
from discovery.remote.client import Client
from discovery.remote.listener import own_host
from discovery.remote.security import TLS, Access
from discovery.remote.server import Server
from discovery.signals import SignalQueue
from discovery.tuples.entry import Expiry
from discovery.tuples.template import Fields

log = logging.getLogger("discovery")


class Registry:
    """This process's services, and its view of everybody's. Every method is for any thread.

    It begins with its first use, which raises `MulticastUnavailable`. A ring that is not there is looked for until it
    is, as one that is lost. It ends with `close`, with the
    block of a `with`, or with the interpreter. After a fork the child has to make its own.

    Args:
        app: Names this process's services; by default made of host and process id.
        interfaces: The addresses of the network interfaces to use; by default all.
        ring: "host:port" of a ring in which services are announced, in place of multicast.
        secret: The same for all who shall hear each other. Announcements are signed with it, and others are ignored
            and counted in `refused`.
        access: Who may call this process's services, see `Server`.
        tls: What both sides prove to each other, see `Server`.
        keep: Seconds for which an object that was sent by reference is kept after its last use.
        timeout: Seconds that a call may take; None: as long as its provider is there. `within(proxy, seconds)` sets
            it for one proxy.
        heartbeat: Seconds between two announcements of a service, 0.1 to 60. Others forget it three heartbeats after
            the last one.

    Raises:
        BadAddress: the ring is not of the form HOST or HOST:PORT.
        BadTime: the heartbeat is out of range, or the timeout is not more than 0 seconds.
    """

    def __init__(
        self,
        app: str = "",
        *,
        interfaces: Sequence[str] | None = None,
        ring: str | None = None,
        secret: str | bytes = b"",
        access: Access | None = None,
        tls: TLS | None = None,
        keep: float = 600.0,
        timeout: float | None = None,
        heartbeat: float = beacon.PERIOD,
    ) -> None:
        self.app = url.name(app or f"{socket.gethostname()}_{os.getpid()}", "an app")
        self.refused = 0
        if timeout is not None and not timeout > 0:
            raise BadTime(f"a call takes more than 0 seconds, so it cannot be done within {timeout!r}")
        self._secret = secret.encode(errors="surrogateescape") if isinstance(secret, str) else secret
        self._view = ServiceView()
        trusted = tls if tls is not None and tls.authority is not None else None
        self._client = Client(
            tls=trusted,
            timeout=timeout,
            connect_timeout=2.0,
            server=lambda: self._server,
            lost=lambda address: self._finder.lost(address),
        )
        host = interfaces[0] if interfaces and len(interfaces) == 1 else ""
        advertise = None if host else (list(interfaces or []) or [_own_host()])[0]
        self._server = Server(host, advertise=advertise, access=access, tls=tls, client=self._client, keep=keep)
        self._transport: Transport = (
            MulticastTransport(interfaces, self._heard, heartbeat)
            if ring is None
            else RingTransport(ring, Client(tls=trusted, timeout=10.0), self._heard, heartbeat)
        )
        self._finder = Finder(self._view, self._transport, self._client, max(1.0, heartbeat))
        self._closed = threading.Event()
        self._offering = Offering(self._view, self._server, self._transport, self._secret, self._closed)
        self._starting = threading.Lock()  # held while the ring is looked for
        self._lock = threading.Lock()
        self._started = False
        self._signals: SignalQueue | None = None
        self._guard = ForkGuard()

    def start(self) -> Registry:
        """Begin to listen. Again does nothing.

        Raises:
            MulticastUnavailable: this machine has no multicast; the message says what to do.
            DiscoveryError: it is closed, maybe meanwhile, or of another process.
        """
        if self._started:
            return self
        with self._starting:
            self._refuse_if_closed()
            if not self._started:
                self._transport.start()
                try:
                    with self._lock:  # `close` has happened, or will find it started
                        self._refuse_if_closed()
                        self._offering.begin()
                        self._started = True
                except BaseException:
                    self._transport.close()
                    raise
                _registries.add(self)
        return self

    def register(
        self,
        name: str,
        target: Any = None,
        description: str = "",
        *,
        url: str | None = None,
        expires: Expiry = None,
        shared: bool = False,
    ) -> str:
        """Offer a service, and return its `distributed://` url. Others know of it a few milliseconds later.

        A name is taken if somebody's offer of it was heard within `LISTEN` seconds. Those whom the network parts
        cannot know of each other.

        Args:
            name: Its name, unique within `app`.
            target: A class, an object or a function. Of a class, the public class and static methods can be called,
                and `proxy(…)` or `proxy.new(…)` makes an instance in this process, which is used by reference.
            description: What people read of it.
            url: In place of a target, any text that others shall find.
            expires: How long it is offered, as for `TupleSpace.write`.
            shared: Whether several may offer the same name. Then it is offered at once.

        Raises:
            ServiceTaken: somebody offers this name under this app, and it is not `shared`.
            BadURL: the name cannot be a name.
            BadAnnouncement: what is to be announced is too long, or cannot be printed.
            DiscoveryError: the registry was closed meanwhile.
        """
        if (target is None) == (url is None):
            raise TypeError(f"{name}: give either something to serve, or url=")
        where = ServiceURL(self.app, _checked(name))
        self.start()._offering.add(where, target, url, description, expires, shared)
        return str(where)

    def unregister(self, name: str) -> None:
        """Offer it no longer. Its address is refused, and a loan of it ends.

        Raises:
            ServiceNotFound: this registry does not offer it.
        """
        if not self._offering.remove(name):
            raise ServiceNotFound(f"{self!r} offers no {name!r}")

    def lookup(self, url: str, timeout: float | None = 1.0) -> Any:
        """Return the service of that url: a proxy, or the text of a `url=` service. Nobody is asked.

        Args:
            timeout: Seconds to wait for a service that is not known yet; None is for ever.

        Raises:
            ServiceNotFound: nobody offers it. `ServiceOnLoan` if somebody has borrowed it.
            BadURL: it is not of the form `distributed://app/Service`.
        """
        return self.start()._finder.find(ServiceURL.parse(url), url, timeout)

    def find(self, name: str, timeout: float | None = 1.0) -> Any:
        """Return a service of that name of any app, as `lookup` does: of several that are known, each in turn."""
        return self.start()._finder.find((None, _checked(name)), name, timeout)

    def services(self, template: Fields = (None, None, None, None)) -> list[Service]:
        """Return what is known now: `(app, service, url, description)`, in alphabetical order, those on loan too.

        A registry that has just begun knows little: it hears of the others within a second.
        """
        self.start()
        return sorted(known.service for known in self._view.offers(template))

    def on_loan(self, service: Service) -> bool:
        """Return whether somebody has borrowed that very service."""
        return any(known.on_loan for known in self._view.offers(service))

    def watch(self, template: Fields = (None, None, None, None)) -> Watch:
        """Return what is `added`, `changed` and `removed` from now on, beginning with what is known."""
        self.start()
        return self._view.watch(template)

    def borrow(self, url: str, ttl: float = TTL, timeout: float | None = 0.0) -> Loan:
        """Return a context manager: in its block nobody else can use the service.

        The loan is renewed as long as the block runs. It ends with the block, when this process dies, or `ttl` seconds
        after it was renewed last. Those who wait for it are served in the order in which they asked.

        Args:
            url: A `distributed://` url, or the name of a service of any app.
            ttl: Seconds that the loan lasts without being renewed, 0.1 to 3600.
            timeout: Seconds to wait until it is our turn; None is for ever. Unknown services are looked for for a
                second anyway.

        Raises:
            ServiceOnLoan: on entering, if it is not our turn within `timeout` seconds.
            ServiceNotFound: on entering, if nobody offers it.
            LoanLost: at the end of the block, if the loan had ended before.
        """
        wanted = ServiceURL.parse(url) if "://" in url else (None, _checked(url))
        return Loan(url, ttl, lambda: self.start()._finder.borrow(wanted, url, ttl, timeout))

    def serve_forever(self) -> None:
        """Block until SIGTERM, SIGINT or `close`, then close. For the main thread, which handles both meanwhile."""
        try:
            with SignalQueue(signal.SIGTERM, signal.SIGINT) as self._signals:
                self.start()
                if not self._closed.is_set():
                    self._signals.get()
        finally:
            self.close()

    def close(self) -> None:
        """Withdraw everything and stop. Again does nothing."""
        self._closed.set()
        if self._signals is not None:
            self._signals.put(0)
        with self._lock:
            started, self._started = self._started, False
        if started and not self._guard.forked:
            self._offering.close()
            self._transport.close()
        self._view.close()
        self._server.close()

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry of {self.app} on {self._transport.where}, offering {len(self._offering.offers)}>"

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set() or self._guard.forked:
            raise DiscoveryError(f"{self!r} is closed, or of another process")

    def _heard(self, name: str, properties: Properties | None) -> None:
        if properties is None:
            if name not in self._offering.announced:  # what is ours is known without a network
                self._finder.gone(self._view.drop(name))
            return None
        try:
            heard = offer.parse(name, properties, self._secret, time.time())
        except Refused as exc:
            self.refused += 1
            if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                log.warning("ignored an announcement: %s (%s ignored so far)", exc, self.refused)
            return None
        if name in self._offering.announced:
            return self._offering.hear(heard)
        return self._view.put(heard, certain=bool(self._secret))


def _checked(name: str) -> str:
    return url.name(name, "a service")


def _own_host() -> str:
    """Return the address under which others reach this machine, also where it has no default route."""
    found = own_host()
    return next(iter(beacon.own_addresses()), found) if found.startswith("127.") else found


@atexit.register
def _close_all() -> None:
    for registry in list(_registries):
        registry.close()


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()

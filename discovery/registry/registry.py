"""The registry: services are registered, found by name, called and borrowed, with no server to run.

Every process announces what it offers, and keeps a view of what it has heard; looking something up asks nobody.
The ideas are Distribunaut's, on the tuples of Rinda.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from math import inf
from typing import Any

from discovery import beacon
from discovery.errors import (
    DiscoveryError,
    ServiceNotFound,
    ServiceTaken,
)
from discovery.registry import offer, transport, url
from discovery.registry.finder import Finder
from discovery.registry.loan import TTL, Desk, Loan, Lot
from discovery.registry.offer import Offer, Refused, Service
from discovery.registry.url import ServiceURL
from discovery.registry.view import View, Watch
from discovery.remote.address import Address
from discovery.remote.client import Client
from discovery.remote.listener import own_host
from discovery.remote.security import TLS, Access
from discovery.remote.server import Server
from discovery.tuples.entry import Expiry
from discovery.tuples.requests import EventStream
from discovery.tuples.space import TupleSpace, uptime
from discovery.tuples.template import Fields

LISTEN = 0.4
"""Seconds for which a registry has listened before it decides that a name is free."""
CONTEST = 0.05
"""Seconds during which two who register the same at the same moment hear of each other."""
log = logging.getLogger("discovery")


class Registry:
    """This process's services, and its view of everybody's. Every method is for any thread.

    `app` names this process's services, by default after host and process. `interfaces` are the addresses of the
    interfaces to use, by default all. With `ring="host:port"` services are announced in a ring instead of by
    multicast. With a `secret`, the same for all, announcements are signed, and others are ignored and counted in
    `refused`. `access` and `tls` are those of `Server`; `keep` is for how many seconds after its last use an object
    that was sent by reference is kept.

    It begins with its first use, which raises `MulticastUnavailable` or `RingNotFound`, and ends with `close`, as a
    context manager, or when the interpreter ends. After a fork the child has to make its own.
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
    ) -> None:
        self.app = url.name(app or f"{socket.gethostname()}_{os.getpid()}", "an app")
        self.refused = 0
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._view = View()
        trusted = tls if tls is not None and tls.authority is not None else None
        self._client = Client(
            tls=trusted,
            connect_timeout=2.0,
            server=lambda: self._server,
            lost=lambda address: self._finder.lost(address),
        )
        host = interfaces[0] if interfaces and len(interfaces) == 1 else ""
        advertise = None if host else (list(interfaces or []) or [_own_host()])[0]
        self._server = Server(host, advertise=advertise, access=access, tls=tls, client=self._client, keep=keep)
        self._medium: transport.Medium = (
            transport.Multicast(interfaces, self._heard)
            if ring is None
            else transport.Ring(ring, Client(tls=trusted, timeout=10.0), self._heard)
        )
        self._finder = Finder(self._view, self._medium, self._client)
        self._desk = Desk(self._server)
        self._own: dict[str, Offer] = {}
        self._served: dict[str, Any] = {}
        self._expiring: TupleSpace | None = None
        self._lock, self._announcing = threading.RLock(), threading.Lock()  # to be taken in this order
        self._started = 0.0
        self._closed = threading.Event()
        self._pid = os.getpid()

    def start(self) -> Registry:
        """Begins to listen. Raises `MulticastUnavailable` and `RingNotFound`, which say what to do."""
        if self._started:
            return self
        with self._lock:
            if self._closed.is_set() or self._pid != os.getpid():
                raise DiscoveryError(f"{self!r} is closed, or of another process")
            if not self._started:
                self._medium.start()
                self._started = uptime()
                _registries.add(self)
                if self._secret:
                    threading.Thread(target=self._sign_again, name="registry signer", daemon=True).start()
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
        """Offers a class, an object or a function, or with `url` anything at all, and returns its `distributed://` url.

        Of a class, the public class and static methods can be called, and `proxy(…)` or `proxy.new(…)` makes an
        instance here, which is used by reference. `expires` is as for `TupleSpace.write`. Others know of it when this
        returns, or a few milliseconds later.

        Raises `ServiceTaken` when somebody already offers this name under this app, unless it is `shared`. (That is
        what was heard within `LISTEN` seconds: those whom the network parts cannot know.) `BadURL` and
        `BadAnnouncement` say what cannot be a name, or is too long.
        """
        if (target is None) == (url is None):
            raise TypeError(f"{name}: give either something to serve, or url=")
        where = ServiceURL(self.app, _checked(name))
        self.start()
        with self._lock:
            if not shared:
                self._closed.wait(max(0.0, self._started + LISTEN - uptime()))
                self._refuse_if_taken(where, "")
            if name in self._own:
                raise ServiceTaken(f"{where} is offered by this registry already")
            self._publish(where, target, url, description)
            try:
                if not shared:
                    self._closed.wait(CONTEST)
                    self._refuse_if_taken(where, self._own[name].name)
                self._expire(name, expires)
            except BaseException:
                self.unregister(name)
                raise
        return str(where)

    def unregister(self, name: str) -> None:
        """Offers it no longer; its address is refused, a loan of it ends. Raises `ServiceNotFound`."""
        with self._lock:
            if name not in self._own:
                raise ServiceNotFound(f"{self!r} offers no {name!r}")
            self._desk._remove(name)
            with self._announcing:
                mine = self._own.pop(name)
                self._medium.withdraw(mine.name)
                self._view.drop(mine.name)
            if (target := self._served.pop(name, None)) is not None:
                self._server.unserve(target)

    def lookup(self, url: str, timeout: float | None = 1.0) -> Any:
        """The service of that url: a proxy, or the text of a `url=` service. Asks nobody.

        What is not known yet is waited for, up to `timeout` seconds (None: for ever). Raises `ServiceNotFound`, or
        `ServiceOnLoan` where that is the reason; and `BadURL`.
        """
        app, service = ServiceURL.parse(url)
        return self.start()._finder.find((app, service, None, None), url, timeout)

    def find(self, name: str, timeout: float | None = 1.0) -> Any:
        """As `lookup`, for a service of that name of any app; each provider in turn."""
        return self.start()._finder.find((None, _checked(name), None, None), name, timeout)

    def services(self, template: Fields = (None, None, None, None)) -> list[Service]:
        """What is known now: `(app, service, url, description)`, in alphabetical order, those on loan too.

        A registry that has just begun knows little: it hears of the others within a second.
        """
        self.start()
        return sorted(known.service for known in self._view.offers(template))

    def on_loan(self, service: Service) -> bool:
        """Whether somebody has borrowed that very service."""
        return any(known.on_loan for known in self._view.offers(service))

    def watch(self, template: Fields = (None, None, None, None)) -> Watch:
        """What is `added`, `changed` and `removed` from now on, beginning with what is known."""
        self.start()
        return self._view.watch(template)

    def borrow(self, url: str, ttl: float = TTL, timeout: float | None = 0.0) -> Loan:
        """A context manager: for its block the service is ours alone.

        `url` is one, or the name of a service of any app. The loan is renewed as long as the block runs, and ends with
        it, or when this process dies, or `ttl` seconds after it was renewed last. Whoever has to wait is served in the
        order of asking. Entering raises `ServiceOnLoan` when it is not our turn within `timeout` seconds (None: wait
        for ever), and what `lookup` raises, which looks for a second.
        """
        app, service = ServiceURL.parse(url) if "://" in url else (None, _checked(url))
        template = (app, service, None, None)
        return Loan(url, ttl, lambda: self.start()._finder.borrow(template, url, ttl, timeout))

    def serve_forever(self) -> None:
        """Blocks until SIGTERM, SIGINT or `close`, then closes. For the main thread; meanwhile it handles both."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        earlier = {number: signal.signal(number, lambda *_: self._closed.set()) for number in numbers}
        try:
            self.start()
            while not self._closed.wait(0.2):  # a signal that another thread was given does not wake this one
                pass
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            self.close()

    def close(self) -> None:
        """Withdraws everything and stops. Again does nothing."""
        self._closed.set()
        with self._lock:
            started, self._started = self._started, 0.0
            if started and self._pid == os.getpid():
                for name in list(self._own):
                    self.unregister(name)
                self._medium.close()
            if self._expiring is not None:
                self._expiring.close()
            self._view.close()
            self._server.close()

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry of {self.app} on {self._medium.where}, offering {len(self._own)}>"

    # Offering

    def _publish(self, where: ServiceURL, target: Any, endpoint: str | None, description: str) -> None:
        self._server.start()
        address = None if target is None else Address.parse(self._server.serve(target))
        desk = self._server.lend(self._desk, keep=inf)
        service = Service(where.app, where.service, endpoint or str(address), description)
        try:
            self._announce(Offer(beacon.new_name(offer.KIND), service, str(desk)))
        except DiscoveryError:
            if target is not None:
                self._server.unserve(target)
            raise
        self._served[where.service] = target
        lent = endpoint if target is None else target
        self._desk._add(Lot(where.service, lent, address, lambda on_loan: self._lent(where.service, on_loan)))

    def _announce(self, mine: Offer) -> None:
        with self._announcing:
            properties = mine.properties(self._secret, time.time())
            offer.check(properties)
            self._medium.publish(mine.name, properties)
            self._own[mine.service.service] = mine
            self._view.put(mine)

    def _lent(self, name: str, on_loan: bool) -> int:
        mine = self._own[name].changed(on_loan)
        self._announce(mine)
        return mine.turn

    def _refuse_if_taken(self, where: ServiceURL, mine: str) -> None:
        """Of two who came at the same moment, the smaller announcement's name wins."""
        for other in self._view.offers((*where, None, None)):
            if other.name != mine and (not mine or other.name < mine):
                raise ServiceTaken(f"{where} is offered already, at {other.service.url}; shared=True joins it")

    def _expire(self, name: str, expires: Expiry) -> None:
        if expires is None:
            return
        if self._expiring is None:
            self._expiring = TupleSpace()
            events = self._expiring.notify("delete", (str, str))
            threading.Thread(target=self._end_the_expired, args=(events,), name="registry expiry", daemon=True).start()
        self._expiring.write((name, self._own[name].name), expires)

    def _end_the_expired(self, events: EventStream) -> None:
        for event in events:
            if event.kind == "delete":
                name, announced = event.tuple
                with self._lock:
                    if name in self._own and self._own[name].name == announced:
                        self.unregister(name)

    def _sign_again(self) -> None:
        while not self._closed.wait(offer.RESIGN):
            for name in list(self._own):
                with contextlib.suppress(KeyError):  # withdrawn meanwhile
                    self._lent(name, self._own[name].on_loan)

    def _heard(self, name: str, properties: transport.Properties | None) -> None:
        if properties is None:
            return self._view.drop(name)
        try:
            heard = offer.understand(name, properties, self._secret, time.time())
        except Refused as exc:
            self.refused += 1
            if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                log.warning("ignored an announcement by a stranger, %s (%s of them so far)", exc, self.refused)
            return None
        return self._view.put(heard)


def _checked(name: str) -> str:
    return url.name(name, "a service")


def _own_host() -> str:
    """The address under which others reach this machine, if it has no way out to tell by."""
    found = own_host()
    return next(iter(beacon.own_addresses()), found) if found.startswith("127.") else found


@atexit.register
def _close_all() -> None:
    for registry in list(_registries):
        registry.close()


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()

"""What this process offers: claimed, published, lent, changed, signed again and withdrawn."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from math import inf
from typing import Any

from discovery import beacon
from discovery.clock import uptime
from discovery.errors import DiscoveryError, ServiceNotFound, ServiceTaken
from discovery.registry.loan import Lendable, LoanQueue
from discovery.registry.offer import KIND, RESIGN, Offer, Service
from discovery.registry.transport import Transport
from discovery.registry.url import ServiceURL
from discovery.registry.view import ServiceView
from discovery.remote.address import Address
from discovery.remote.server import Server
from discovery.tuples.entry import Expiry
from discovery.tuples.requests import EventStream
from discovery.tuples.space import TupleSpace

LISTEN = 0.4
"""Seconds for which a registry has listened before it decides that a name is free."""
MANY = 200
"""Services that are heard in this time, from which on the registry listens until all have answered."""
CONTEST = 0.05
"""Seconds in which two who register the same name at the same moment hear of each other."""
log = logging.getLogger("discovery")


class Offering:
    """The services of one registry. For any thread; no lock is held while it listens.

    Args:
        closed: Set when the registry is closed, which ends every wait.
        listen: See `LISTEN`.
    """

    def __init__(
        self,
        view: ServiceView,
        server: Server,
        transport: Transport,
        secret: bytes,
        closed: threading.Event,
        listen: float = LISTEN,
    ) -> None:
        self.offers: dict[str, Offer] = {}
        self.announced: set[str] = set()  # the names of their announcements
        self.loans = LoanQueue(server)
        self.listen, self.contest = listen, CONTEST
        self._view, self._server, self._transport, self._secret = view, server, transport, secret
        self._closed, self._since = closed, 0.0
        self._claimed: set[str] = set()  # names that are being registered now
        self._served: dict[str, Any] = {}
        self._expiring: TupleSpace | None = None
        # To be taken in this order, with the lock of `loans` between them: what is offered; what is announced of it.
        self._lock, self._announcing = threading.Lock(), threading.Lock()

    def begin(self) -> None:
        """Note that the registry listens from now on, and sign the offers again from time to time."""
        self._since = uptime()
        if self._secret:
            threading.Thread(target=self._sign_again, name="registry signer", daemon=True).start()

    def add(
        self, where: ServiceURL, target: Any, endpoint: str | None, description: str, expires: Expiry, shared: bool
    ) -> None:
        """Offer a service; see `Registry.register`."""
        with self._claim(where):
            if not shared:
                self._wait(self._since + self.listen - uptime(), where)
                if len(self._view.offers((None,) * 4)) >= MANY:
                    self._wait(self._since + beacon.ANSWERED - uptime(), where)
                self._refuse_if_taken(where, "")
            mine = self._publish(where, target, endpoint, description)
            try:
                if not shared:
                    self._wait(self.contest, where)
                    self._refuse_if_taken(where, mine.name)
                if expires is not None:
                    self._expire(mine, expires)
            except BaseException:
                self._remove(mine)
                raise
            if not self._is_offered(mine):
                raise ServiceNotFound(f"{where} was unregistered while it was being registered")

    def remove(self, name: str) -> bool:
        """Offer it no longer. Return whether it was offered."""
        mine = self.offers.get(name)
        return mine is not None and self._remove(mine)

    def hear(self, heard: Offer) -> None:
        """Take what was announced in the name of an offer of ours. If it was not by us, announce ours again."""
        with self._announcing:
            mine = next((mine for mine in self.offers.values() if mine.name == heard.name), None)
            if mine is None:
                return
            if heard.forges(mine):
                self._announce(mine.changed(mine.on_loan))
            else:
                self._view.put(mine)  # a call may have failed since, and it was forgotten

    def close(self) -> None:
        """Withdraw everything, once `closed` is set."""
        with self._lock:  # nothing is added any more
            offers = list(self.offers.values())
            if self._expiring is not None:
                self._expiring.close()
        for mine in offers:
            self._remove(mine)

    @contextlib.contextmanager
    def _claim(self, where: ServiceURL) -> Iterator[None]:
        """Keep other threads of this process from registering the same name meanwhile."""
        with self._lock:
            if where.service in self.offers or where.service in self._claimed:
                raise ServiceTaken(f"{where} is offered by this registry already")
            self._claimed.add(where.service)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(where.service)

    def _wait(self, seconds: float, where: ServiceURL) -> None:
        if self._closed.wait(max(0.0, seconds)):
            raise _closed(where)

    def _refuse_if_taken(self, where: ServiceURL, mine: str) -> None:
        """Refuse a name that somebody else offers. Of two who came at the same moment the smaller announcement wins."""
        for other in self._view.providers(where):
            if other.name != mine and (not mine or other.name < mine):
                raise ServiceTaken(f"{where} is offered already, at {other.service.url}; shared=True joins it")

    def _publish(self, where: ServiceURL, target: Any, endpoint: str | None, description: str) -> Offer:
        with self._lock:
            if self._closed.is_set():
                raise _closed(where)
            self._server.start()
            address = None if target is None else Address.parse(self._server.serve(target))
            lender = self._server.lend(self.loans, keep=inf)
            service = Service(where.app, where.service, endpoint or str(address), description)
            mine = Offer(beacon.new_name(KIND), service, str(lender))
            try:
                with self._announcing:
                    self._announce(mine)
            except DiscoveryError:
                if target is not None:
                    self._server.unserve(target)
                raise
            self._served[where.service] = target
            lent = endpoint if target is None else target
            self.loans._add(
                Lendable(where.service, lent, address, lambda on_loan: self._change(where.service, on_loan))
            )
            return mine

    def _announce(self, mine: Offer) -> None:
        """Announce an offer, or its next revision. The lock for that is held."""
        self._transport.publish(mine.name, mine.properties(self._secret, time.time()))
        self.offers[mine.service.service] = mine
        self.announced.add(mine.name)
        self._view.put(mine)

    def _change(self, name: str, on_loan: bool | None) -> int:
        """Announce whether a service is on loan, None for as before. Return the revision, 0 if it was withdrawn."""
        with self._announcing:
            if (offer := self.offers.get(name)) is None:
                return 0
            offer = offer.changed(offer.on_loan if on_loan is None else on_loan)
            self._announce(offer)
            return offer.revision

    def _is_offered(self, mine: Offer) -> bool:
        offer = self.offers.get(mine.service.service)
        return offer is not None and offer.name == mine.name

    def _remove(self, mine: Offer) -> bool:
        name = mine.service.service
        with self._lock:
            if not self._is_offered(mine):
                return False
            self.loans._remove(name)
            with self._announcing:
                del self.offers[name]
                self.announced.discard(mine.name)
                self._transport.withdraw(mine.name)
                self._view.drop(mine.name)
            target = self._served.pop(name)
        if target is not None:
            self._server.unserve(target)
        return True

    def _expire(self, mine: Offer, expires: Expiry) -> None:
        with self._lock:
            if self._closed.is_set():
                raise DiscoveryError("the registry was closed")
            if self._expiring is None:
                expiring = TupleSpace()
                events, name = expiring.notify("delete", (str, str)), "registry expiry"
                threading.Thread(target=self._end_the_expired, args=(events,), name=name, daemon=True).start()
                self._expiring = expiring
        self._expiring.write((mine.service.service, mine.name), expires)  # which may ask a renewer

    def _end_the_expired(self, events: EventStream) -> None:
        for event in events:
            if event.kind == "delete":
                name, announced = event.tuple
                offer = self.offers.get(name)
                if offer is not None and offer.name == announced:
                    with _logged(f"cannot withdraw {name}, whose time is up"):
                        self._remove(offer)

    def _sign_again(self) -> None:
        while not self._closed.wait(RESIGN):
            for name in list(self.offers):
                with _logged(f"cannot sign {name} again"):
                    self._change(name, None)


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log what the block raises, on a thread that must live."""
    try:
        yield
    except Exception:
        log.exception("%s", what)


def _closed(where: ServiceURL) -> DiscoveryError:
    return DiscoveryError(f"the registry was closed while {where} was being registered")

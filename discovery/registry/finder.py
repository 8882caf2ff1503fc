"""Finding services in the view, calling them, and going on to the next provider when one is dead."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from discovery.clock import uptime
from discovery.errors import BadMessage, ConnectionLost, DiscoveryError, NoSuchObject, RequestExpired, ServiceNotFound
from discovery.registry.loan import PATIENCE, Borrowed
from discovery.registry.offer import Offer, remote_address
from discovery.registry.transport import Transport
from discovery.registry.view import ServiceView, Wanted
from discovery.remote.address import Address
from discovery.remote.client import Client
from discovery.remote.proxy import Proxy


class Finder:
    """What a registry knows of others, and how it reaches them. For any thread."""

    def __init__(self, view: ServiceView, transport: Transport, client: Client) -> None:
        self.view, self.transport, self.client = view, transport, client

    def find(self, wanted: Wanted, asked: str, timeout: float | None) -> Any:
        """Return a proxy, or the text of a `url=` service; see `Registry.lookup`."""
        try:
            url = self.view.pick(wanted, timeout).url
        except RequestExpired:
            raise self.view.missing(wanted, asked, self.transport.where) from None
        address = remote_address(url)
        return url if address is None else ServiceProxy(self, wanted, address)

    def call(self, proxy: ServiceProxy, method: str, args: Any, kwargs: Any) -> Any:
        """Call a method, and go on to other providers while it is certain that nobody has executed the call."""
        tried: set[Address] = set()
        while True:
            address = proxy._address
            try:
                return self.client.call(address, method, args, kwargs)
            except ConnectionLost as exc:
                if exc.maybe_executed:
                    text = f"{exc}; {method} may have been executed there, so nobody else was asked"
                    raise type(exc)(text, maybe_executed=True, value=exc.value) from exc
                error: DiscoveryError = exc
            except NoSuchObject as exc:
                if repr(address.object_id) not in str(exc):
                    raise  # the method's own
                self._suspect(lambda other, url=str(address): other.service.url == url)  # type: ignore[misc]
                error = exc
            tried.add(address)
            try:
                following = remote_address(self.view.pick(proxy._wanted, 0).url)
            except RequestExpired:
                raise error from None
            if following is None or following in tried:
                raise error
            proxy._address = following

    def lost(self, address: Address) -> None:
        """Send nobody to a server that does not answer, until it is heard again."""

        def there(offer: Offer) -> bool:
            other = remote_address(offer.service.url)
            return other is not None and (other.host, other.port) == (address.host, address.port)

        self._suspect(there)

    def _suspect(self, suspect: Callable[[Offer], bool]) -> None:
        for known in self.view.offers():
            if suspect(known):
                self.view.drop(known.name)
                self.transport.suspect(known.name)

    def borrow(self, wanted: Wanted, asked: str, ttl: float, timeout: float | None) -> Borrowed:
        """Borrow from the first provider that has one to lend; see `Registry.borrow`."""
        end = inf if timeout is None else uptime() + timeout
        offers = self._lenders(wanted)
        if not offers:
            with contextlib.suppress(RequestExpired):
                self.view.pick(wanted, 1.0)
            offers = self._lenders(wanted)
        error: DiscoveryError | None = None
        while offers:
            known = offers.pop(0)
            wait = 0.0 if offers else max(0.0, end - uptime())
            try:
                return self._ask(known, ttl, None if wait == inf else wait)
            except (ConnectionLost, ServiceNotFound) as exc:  # a loan that may have begun ends with the connection
                error = exc
                if isinstance(exc, ConnectionLost):
                    self._suspect(lambda other, name=known.name: other.name == name)  # type: ignore[misc]
        raise error or self.view.missing(wanted, asked, self.transport.where)

    def _lenders(self, wanted: Wanted) -> list[Offer]:
        """Return the offers of what can be borrowed, those that are not on loan first."""
        offers = [known for known in self.view.providers(wanted) if remote_address(known.lender)]
        random.shuffle(offers)
        return sorted(offers, key=lambda known: known.on_loan)

    def _ask(self, known: Offer, ttl: float, timeout: float | None) -> Borrowed:
        lender, asked = remote_address(known.lender), uptime()
        assert lender is not None
        patience = None if timeout is None else timeout + PATIENCE
        stream = self.client.stream(lender, "borrow", [known.service.service, ttl, timeout], within=PATIENCE)
        try:
            given = stream.next_batch(patience)
            if not isinstance(given, list) or [type(part) for part in given] != [str, int]:
                raise BadMessage(f"no loan: {given!r:.100}")
            address, revision = given
            if uptime() - asked > ttl / 3:  # the loan may have begun at any moment since
                asked = uptime()
                stream.next_batch(ttl)
        except TimeoutError as exc:
            stream.drop()
            if isinstance(exc, DiscoveryError):
                raise
            raise ConnectionLost(f"no answer from {known.service.url}", maybe_executed=True) from exc
        except BaseException:
            stream.drop()
            raise
        self.view.put(replace(known, on_loan=True, revision=revision))

        def give_back() -> None:
            back = self.client.call(lender, "give_back", [known.service.service, address], within=PATIENCE)
            if back > revision:  # otherwise somebody else has borrowed it already
                self.view.put(replace(known, on_loan=False, revision=back))

        own = remote_address(known.service.url) is not None
        return (self.client.proxy(address) if own else known.service.url), stream, asked, give_back


class ServiceProxy(Proxy):
    """A service that was looked up.

    When its provider cannot be reached, and the call has certainly not been executed, the next provider of the same
    name is called instead. Otherwise `ConnectionLost` says that the call may have been executed.
    """

    __slots__ = ("_finder", "_wanted")

    def __init__(self, finder: Finder, wanted: Wanted, address: Address) -> None:
        super().__init__(finder.client, address)
        self._finder, self._wanted = finder, wanted

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"only public methods can be called from afar, not {name!r}")
        return lambda *args, **kwargs: self._finder.call(self, name, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._finder.call(self, "__call__", args, kwargs)

"""Finding services in the view, calling them, and going on to the next provider when one is dead."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from discovery.errors import ConnectionLost, DiscoveryError, NoSuchObject, RequestExpired, ServiceNotFound
from discovery.registry.loan import PATIENCE, Borrowed
from discovery.registry.offer import Offer
from discovery.registry.transport import Medium
from discovery.registry.view import View
from discovery.remote.address import SCHEME, Address
from discovery.remote.client import Client
from discovery.remote.proxy import Proxy
from discovery.tuples.space import uptime

Template = tuple[str | None, str, None, None]
_address = functools.lru_cache(4096)(Address.parse)


class Finder:
    """What a registry knows of others, and how it gets there. For any thread."""

    def __init__(self, view: View, medium: Medium, client: Client) -> None:
        self.view, self.medium, self.client = view, medium, client

    def find(self, template: Template, wanted: str, timeout: float | None) -> Any:
        """See `Registry.lookup`."""
        try:
            service = self.view.pick(template, timeout)
        except RequestExpired:
            raise self.view.missing(template, wanted, self.medium.where) from None
        return self._target(service.url, template)

    def _target(self, endpoint: str, template: Template) -> Any:
        if not endpoint.startswith(SCHEME):
            return endpoint
        return ServiceProxy(self, template, _address(endpoint))

    def call(self, proxy: ServiceProxy, method: str, args: Any, kwargs: Any) -> Any:
        """Calls, and goes on to other providers while it is certain that nobody has executed the call."""
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
                self._doubt(lambda other, url=str(address): other.service.url == url)  # type: ignore[misc]
                error = exc
            tried.add(address)
            try:
                following = self._target(self.view.pick(proxy._template, 0).url, proxy._template)
            except RequestExpired:
                raise error from None
            if not isinstance(following, ServiceProxy) or following._address in tried:
                raise error
            proxy._address = following._address

    def lost(self, address: Address) -> None:
        """Nobody is sent to a server that does not answer, until it is heard anew."""
        there = str(address._replace(object_id=""))
        self._doubt(lambda other: other.service.url.startswith(there))

    def _doubt(self, doubtful: Callable[[Offer], bool]) -> None:
        for known in self.view.offers((None,) * 4):
            if doubtful(known):
                self.view.drop(known.name)
                self.medium.doubt(known.name)

    def borrow(self, template: Template, wanted: str, ttl: float, timeout: float | None) -> Borrowed:
        """See `Registry.borrow`."""
        end = inf if timeout is None else uptime() + timeout
        offers = self._lenders(template)
        if not offers:
            with contextlib.suppress(RequestExpired):
                self.view.pick(template, 1.0)
            offers = self._lenders(template)
        error: DiscoveryError = self.view.missing(template, wanted, self.medium.where)
        while offers:
            known = offers.pop(0)
            wait = 0.0 if offers else max(0.0, end - uptime())
            try:
                return self._ask(known, template, ttl, None if wait == inf else wait)
            except (ConnectionLost, ServiceNotFound) as exc:  # a loan that may have begun ends with the connection
                error = exc
                if isinstance(exc, ConnectionLost):
                    self._doubt(lambda other, name=known.name: other.name == name)  # type: ignore[misc]
        raise error

    def _lenders(self, template: Template) -> list[Offer]:
        """Those who have something to lend, who have it at home first."""
        offers = [known for known in self.view.offers(template) if known.desk.startswith(SCHEME)]
        random.shuffle(offers)
        return sorted(offers, key=lambda known: known.on_loan)

    def _ask(self, known: Offer, template: Template, ttl: float, timeout: float | None) -> Borrowed:
        desk, asked = _address(known.desk), uptime()
        patience = None if timeout is None else timeout + PATIENCE
        stream = self.client.stream(desk, "borrow", [known.service.service, ttl, timeout], within=PATIENCE)
        try:
            address, turn = stream.next_batch(patience)
            if uptime() - asked > ttl / 3:  # our turn may have begun any time ago
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
        self.view.put(replace(known, on_loan=True, turn=turn))

        def give_back() -> None:
            back = self.client.call(desk, "give_back", [known.service.service, address], within=PATIENCE)
            if back > turn:  # otherwise the next one has it already
                self.view.put(replace(known, on_loan=False, turn=back))

        own = known.service.url.startswith(SCHEME)
        return (self.client.proxy(address) if own else known.service.url), stream, asked, give_back


class ServiceProxy(Proxy):
    """A service that was looked up. When its provider cannot be reached, and the call has certainly not been executed,
    the next provider of the same name is called instead; otherwise `ConnectionLost` says that it may have been."""

    __slots__ = ("_finder", "_template")

    def __init__(self, finder: Finder, template: Template, address: Address) -> None:
        super().__init__(finder.client, address)
        self._finder, self._template = finder, template

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"only public methods can be called from afar, not {name!r}")
        return lambda *args, **kwargs: self._finder.call(self, name, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._finder.call(self, "__call__", args, kwargs)

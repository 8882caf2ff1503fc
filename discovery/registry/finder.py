"""Finding services in the view, calling them, and going on to the next provider when one is dead."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from discovery.clock import uptime
from discovery.errors import (
    BadMessage,
    CallTimeout,
    ConnectionLost,
    DiscoveryError,
    NoSuchObject,
    RequestCanceled,
    RequestExpired,
    ServiceNotFound,
)
from discovery.registry.loan import PATIENCE, Borrowed
from discovery.registry.offer import Offer, remote_address
from discovery.registry.transport import Transport
from discovery.registry.view import ServiceView, Wanted
from discovery.remote.address import Address
from discovery.remote.client import Call, Client
from discovery.remote.proxy import Proxy

Server = tuple[str, int]
log = logging.getLogger("discovery")


class Finder:
    """What a registry knows of others, and how it reaches them. For any thread.

    Args:
        patience: Seconds in which a provider that is no longer heard must answer. Otherwise the calls that wait for
            it end.
    """

    def __init__(self, view: ServiceView, transport: Transport, client: Client, patience: float) -> None:
        self.view, self.transport, self.client, self.patience = view, transport, client, patience
        # Calls and loans that wait for an answer: for which server, and what ends the wait. Each step on this
        # dictionary is one that no other thread interrupts, so it needs no lock.
        self._waiting: dict[object, tuple[Server, Callable[[], object]]] = {}
        self._asked: set[Server] = set()  # servers that are being asked whether they are there
        self._losses = 0

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
                return self._answer(address, method, args, kwargs, proxy._within)
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

        self._suspect(lambda offer: offer.server == address[1:])

    def _suspect(self, suspect: Callable[[Offer], bool]) -> None:
        for known in self.view.offers():
            if suspect(known):
                self.gone(self.view.drop(known.name))
                self.transport.suspect(known.name)

    def _answer(self, address: Address, method: str, args: Any, kwargs: Any, within: float | None) -> Any:
        losses = self._losses
        call = Call(self.client, address, method, args, kwargs, within=within)
        self._waiting[call] = address[1:], call.cancel
        try:
            if losses != self._losses:  # this server may be the one that was lost, before we waited
                self._ask_if_there(address[1:])
            answer = call.result()
            if call.held:
                call.confirm()
            return answer
        except CallTimeout:
            self._ask_if_there(address[1:])  # the method takes long, or its process is stopped
            raise
        except RequestCanceled:
            if call in self._waiting:
                raise  # the method's own
            raise _silent(address) from None
        finally:
            self._waiting.pop(call, None)

    def gone(self, offer: Offer | None) -> None:
        """Take note of an offer that is there no more. Return at once. Nothing is done while its provider has others.

        Its provider may have withdrawn it, and still be at work on a call. So it is asked whether it is there, and if
        it does not answer, all who wait for it are woken. The idle connections to it are closed: on such a connection
        a process that was stopped would be sent a call that it never answers.
        """
        server = offer.server if offer is not None else None
        if server is not None and not self.view.hears(server):
            self._losses += 1
            self.client.forget(Address("", *server))
            self._ask_if_there(server)

    def _ask_if_there(self, server: Server) -> None:
        if server in self._asked or not self._is_waited_for(server):
            return
        self._asked.add(server)
        try:
            threading.Thread(target=self._give_up_if_silent, args=(server,), name="registry probe", daemon=True).start()
        except RuntimeError as exc:
            self._asked.discard(server)
            log.warning("cannot ask %s:%s whether it is there: %s", *server, exc)

    def _is_waited_for(self, server: Server) -> bool:
        return any(waited == server for waited, _ in list(self._waiting.values()))

    def _give_up_if_silent(self, server: Server) -> None:
        """Ask a server whether it is there, and again while somebody waits for it and it is not heard."""
        losses = -1
        try:
            while losses != self._losses or not self.view.hears(server):
                losses = self._losses
                if not self._is_there(server):
                    for waiter, (waited, end) in list(self._waiting.items()):
                        if waited == server and self._waiting.pop(waiter, None) is not None:
                            end()
                if not self._is_waited_for(server):
                    break
                threading.Event().wait(self.patience)
        finally:
            self._asked.discard(server)
        if losses != self._losses or not self.view.hears(server):  # who began to wait meanwhile has asked nobody
            self._ask_if_there(server)

    def _is_there(self, server: Server) -> bool:
        address = Address("-", *server)  # there is no such object
        try:
            self.client.call(address, "-", within=self.patience)
        except ConnectionLost:
            self.lost(address)
            return False
        except Exception as exc:  # noqa: BLE001 - any answer shows that it is there
            log.debug("%s:%s is there: %s", *server, exc)
        return True

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
        self._waiting[stream] = lender[1:], stream.close
        try:
            given = stream.next_batch(patience)
            if self._waiting.pop(stream, None) is None:
                raise _silent(lender)
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
        finally:
            self._waiting.pop(stream, None)
        self.view.correct(replace(known, on_loan=True, revision=revision))

        def give_back() -> None:
            back = self.client.call(lender, "give_back", [known.service.service, address], within=PATIENCE)
            if back > revision:  # otherwise somebody else has borrowed it already
                self.view.correct(replace(known, on_loan=False, revision=back))

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


def _silent(address: Address) -> ConnectionLost:
    text = f"{address.host}:{address.port} is heard no longer and does not answer"
    return ConnectionLost(text, maybe_executed=True)

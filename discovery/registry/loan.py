"""Borrowing: the owner of a service lends it to one borrower at a time (`LoanQueue`), the borrower has a `Loan`.

The owner alone decides, since there is something to borrow exactly while the owner is alive. A loan lives as long as
the connection over which it was asked for, and ends earlier if its borrower does not renew it in time.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from discovery.clock import uptime
from discovery.errors import BadTime, DiscoveryError, LoanLost, RequestCanceled, ServiceNotFound, ServiceOnLoan
from discovery.remote.address import Address
from discovery.remote.answers import Stream
from discovery.remote.client import RemoteStream
from discovery.remote.proxy import Proxy, address_of
from discovery.remote.server import Server
from discovery.tuples.entry import seconds_or_forever

TTL = 10.0
"""Seconds that a loan lasts after it was renewed, unless the borrower asks for another time."""
MAX_TTL = 3600.0
"""Seconds that a borrower may ask for, at most."""
PATIENCE = 15.0
"""Seconds beyond its own timeout that a request to an owner may take."""
log = logging.getLogger("discovery")
Borrowed = tuple[Any, RemoteStream, float, Callable[[], None]]
"""What was borrowed, the stream on which it is renewed, when it was last asked for, and what gives it back."""


class Lendable:
    """One service that can be borrowed.

    Args:
        service: Its name.
        target: What is served, or the text of a url that is not ours.
        address: Where it is served; None for a url that is not ours.
        announce: Announces whether the service is on loan, and returns the revision of that change.
    """

    def __init__(self, service: str, target: Any, address: Address | None, announce: Callable[[bool], int]) -> None:
        self.service, self.target, self.address, self.announce = service, target, address, announce
        self.revision = 0
        self.holder: Borrower | None = None
        self.waiting: deque[Borrower] = deque()


class LoanQueue:
    """Who has borrowed each of our services, and who waits for it. Others can call `borrow` and `give_back`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._services: dict[str, Lendable] = {}
        self._lock = threading.RLock()

    def borrow(self, name: str, ttl: float, timeout: float | None) -> Borrower:
        """Return a stream: `[address, revision]` once it is the caller's turn, then `[revision]` for each renewal.

        Raises:
            BadTime: `ttl` is not from 0.1 to 3600 seconds, or `timeout` is no time.
            ServiceNotFound: no such service is lent here.
        """
        if not 0.1 <= seconds_or_forever(ttl) <= MAX_TTL:
            raise BadTime(f"a loan lasts from 0.1 to {MAX_TTL:g} seconds, not {ttl!r}")
        seconds = seconds_or_forever(timeout)
        with self._lock:
            if name not in self._services:
                raise ServiceNotFound(f"no {name!r} to borrow here, or no longer")
            return Borrower(self, self._services[name], ttl, seconds)

    def give_back(self, name: str, address: str) -> int:
        """End the loan with that address. Return the revision of the service afterwards."""
        with self._lock:
            service = self._services.get(name)
            if service is None:
                return 0
            if service.holder is not None and service.holder.given == address:
                self._end(service.holder)
            return service.revision

    def _add(self, service: Lendable) -> None:
        with self._lock:
            self._services[service.service] = service

    def _remove(self, name: str) -> None:
        """End the loan of that service, and tell those who wait for it."""
        with self._lock:
            service = self._services.pop(name)
            for borrower in [*service.waiting, *([service.holder] if service.holder else [])]:
                borrower.refuse(ServiceNotFound(f"{name} is offered no longer"))
            if service.holder is not None and service.holder.alone is not None:
                self._server.take_back(service.holder.alone, service.address)

    def _join(self, borrower: Borrower) -> None:
        with self._lock:
            borrower.service.waiting.append(borrower)
            self._next(borrower.service)

    def _next(self, service: Lendable) -> None:
        """Give a service that is free to the borrower who has waited longest. The lock is held."""
        while service.holder is None and service.waiting and self._services.get(service.service) is service:
            borrower = service.waiting.popleft()
            name = f"loan of {service.service}"
            try:  # first, so that no loan is without it; it goes on once we release the lock
                threading.Thread(target=self._expire, args=(borrower,), name=name, daemon=True).start()
            except RuntimeError as exc:
                borrower.refuse(DiscoveryError(f"{service.service} cannot be lent now: {exc}"))
                continue
            service.holder = borrower
            on_loan = ServiceOnLoan(f"{service.service} is on loan")
            borrower.alone = self._server.lend_alone(service.target, service.address, on_loan)
            borrower.given = str(borrower.alone)
            borrower.until = uptime() + borrower.ttl
            service.revision = service.announce(True)
            borrower.event.set()

    def _expire(self, borrower: Borrower) -> None:
        """End a loan that is not renewed in time."""
        with self._lock:  # it begins before this is released
            pass
        while (left := borrower.until - uptime()) > 0:
            if borrower.over.wait(left):
                return
        self._end(borrower)

    def _renew(self, borrower: Borrower) -> None:
        with self._lock:
            if borrower.over.is_set() or borrower.until <= uptime():
                raise LoanLost(f"the loan of {borrower.service.service} ended, as it was not renewed in time")
            borrower.until = uptime() + borrower.ttl

    def _end(self, borrower: Borrower) -> None:
        """End a loan, or leave the queue. Again does nothing."""
        service = borrower.service
        with self._lock:
            borrower.over.set()
            borrower.event.set()
            if borrower in service.waiting:
                service.waiting.remove(borrower)
            if service.holder is borrower:
                assert borrower.alone is not None
                self._server.take_back(borrower.alone, service.address)
                service.holder = None
                self._next(service)
                if service.holder is None and self._services.get(service.service) is service:
                    service.revision = service.announce(False)


class Borrower(Stream):
    """One who has borrowed a service or waits for it, as its owner sees it."""

    def __init__(self, queue: LoanQueue, service: Lendable, ttl: float, timeout: float) -> None:
        self.service, self.ttl, self._queue, self._timeout = service, ttl, queue, timeout
        self.event, self.over = threading.Event(), threading.Event()  # something happened; the loan is over
        self.error: DiscoveryError | None = None
        self.alone: Address | None = None
        self.given, self.until = "", 0.0
        self._told = False

    def next_batch(self) -> list[Any] | None:
        """Wait for our turn the first time, then renew the loan."""
        if self._told:
            self._queue._renew(self)
            return [self.service.revision]
        self._queue._join(self)
        self.event.wait(min(self._timeout, threading.TIMEOUT_MAX))
        if self.over.is_set():
            raise self.error or ServiceNotFound(f"{self.service.service} is offered no longer")
        with self._queue._lock:
            if self.service.holder is not self:
                self._queue._end(self)
                raise ServiceOnLoan(f"{self.service.service} is on loan")
            self._told = True
            return [self.given, self.service.revision]

    def refuse(self, error: DiscoveryError) -> None:
        """End it with this error, if it has not begun."""
        self.error = error
        self.over.set()
        self.event.set()

    def cancel(self) -> None:
        """End it, since the borrower has gone."""
        self._queue._end(self)


class Loan:
    """A service that only we can use, from `with` on until the end of the block; made by `Registry.borrow`.

    The block gets a proxy, or the text of a `url=` service; `address` is where it is meanwhile. The loan is renewed
    every third of its `ttl`, on a thread of its own. `lost` is set as soon as it is no longer certain that the loan
    holds; then the address is refused, or soon will be, and the end of the block raises `LoanLost`.
    """

    def __init__(self, name: str, ttl: float, opened: Callable[[], Borrowed]) -> None:
        self.name, self.ttl, self._open = name, ttl, opened
        self.lost = threading.Event()
        self.reason = self.address = ""
        self._until = 0.0
        self._returned = threading.Event()

    def remaining(self) -> float:
        """Return for how many seconds the loan certainly holds if it is not renewed; 0 when it is over."""
        left = self._until - uptime()
        return max(0.0, left) if not (self.lost.is_set() or self._returned.is_set()) else 0.0

    def __enter__(self) -> Any:
        target, self._stream, asked, self._give_back = self._open()
        self.address = str(address_of(target)) if isinstance(target, Proxy) else target
        self._until = asked + 0.99 * self.ttl
        self._thread = threading.Thread(target=self._keep, name="loan", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # out of threads
            self._stream.drop()  # which ends the loan
            raise
        return target

    def __exit__(self, kind: object, *exc: object) -> None:
        over = self.remaining() == 0
        self._returned.set()
        if not self.lost.is_set():
            try:
                self._give_back()
            except Exception as exc_:  # noqa: BLE001 - a stranger's; the block has done its work
                log.info("cannot give %s back, so its owner ends the loan: %s", self.name, exc_)
        self._stream.close()
        self._thread.join()
        self._stream.drop()
        if over and kind is None:
            raise LoanLost(f"the loan ended before the end of the block: {self.reason or 'not renewed in time'}")

    def _keep(self) -> None:
        while not self._returned.wait(self.ttl / 3):
            asked = uptime()
            try:
                if self._stream.next_batch(max(0.05, self.remaining())) is None:
                    raise RequestCanceled("its owner has closed it")
            except Exception as exc:  # noqa: BLE001 - a hostile owner answers with an error of any class
                if not self._returned.is_set():
                    self.reason = str(exc) or "no answer"
                    self.lost.set()
                return
            self._until = asked + 0.99 * self.ttl

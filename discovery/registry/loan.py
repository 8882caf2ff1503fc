"""Borrowing: the owner of a service lends it to one at a time (`Desk`), the borrower keeps what it has (`Loan`).

The owner alone decides, as it is alive exactly when there is something to borrow. A loan lives as long as the
connection over which it was asked for, and no longer than its borrower renews it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from discovery.errors import BadTime, DiscoveryError, LoanLost, RequestCanceled, ServiceNotFound, ServiceOnLoan
from discovery.remote.address import Address
from discovery.remote.answers import Stream
from discovery.remote.client import RemoteStream
from discovery.remote.proxy import Proxy, address_of
from discovery.remote.server import Server
from discovery.tuples.entry import seconds_or_forever
from discovery.tuples.space import uptime

TTL = 10.0
"""Seconds that a loan lasts, unless the borrower asks for another time, without being renewed."""
MAX_TTL = 3600.0
PATIENCE = 15.0
"""Seconds that an owner is waited for beyond the time that it was given."""
log = logging.getLogger("discovery")
Borrowed = tuple[Any, RemoteStream, float, Callable[[], None]]
"""What was borrowed, the stream on which it is renewed, when it was last asked for, and what gives it back."""


class Lot:
    """One service that can be borrowed: `address` is where it is served, None for a url that is not ours."""

    def __init__(self, service: str, target: Any, address: Address | None, tell: Callable[[bool], int]) -> None:
        self.service, self.target, self.address = service, target, address
        self.tell = tell  # announces whether it is on loan, and returns the number of that change
        self.turn = 0
        self.holder: Lending | None = None
        self.waiting: deque[Lending] = deque()


class Desk:
    """What an owner shows of its lending to others: nothing but these methods."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lots: dict[str, Lot] = {}
        self._lock = threading.RLock()

    def borrow(self, name: str, ttl: float, timeout: float | None) -> Lending:
        """A stream: once it is the caller's turn `[address, turn]`, then `[turn]` for each renewal. In the order of
        asking."""
        if not 0.1 <= seconds_or_forever(ttl) <= MAX_TTL:
            raise BadTime(f"a loan lasts from 0.1 to {MAX_TTL:g} seconds, not {ttl!r}")
        seconds = seconds_or_forever(timeout)
        with self._lock:
            if name not in self._lots:
                raise ServiceNotFound(f"no {name!r} to borrow here, or no longer")
            return Lending(self, self._lots[name], ttl, seconds)

    def give_back(self, name: str, address: str) -> int:
        """Ends the loan with that address; the number of the change."""
        with self._lock:
            lot = self._lots.get(name)
            if lot is None:
                return 0
            if lot.holder is not None and lot.holder.given == address:
                self._end(lot.holder)
            return lot.turn

    def _add(self, lot: Lot) -> None:
        self._lots[lot.service] = lot

    def _remove(self, name: str) -> None:
        with self._lock:
            lot = self._lots.pop(name)
            for lending in [*lot.waiting, *([lot.holder] if lot.holder else [])]:
                lending.over.set()
                lending.event.set()
            if lot.holder is not None and lot.holder.alone is not None:
                self._server.take_back(lot.holder.alone, lot.address)

    def _join(self, lending: Lending) -> None:
        with self._lock:
            lending.lot.waiting.append(lending)
            self._next(lending.lot)

    def _next(self, lot: Lot) -> None:
        """Give what is free to who has waited longest; the lock is held."""
        if lot.holder is None and lot.waiting and lot.service in self._lots:
            lot.holder = lending = lot.waiting.popleft()
            on_loan = ServiceOnLoan(f"{lot.service} is on loan")
            lending.alone = self._server.lend_alone(lot.target, lot.address, on_loan)
            lending.given = str(lending.alone)
            lending.until = uptime() + lending.ttl
            lot.turn = lot.tell(True)
            lending.event.set()
            threading.Thread(target=self._guard, args=(lending,), name=f"loan of {lot.service}", daemon=True).start()

    def _guard(self, lending: Lending) -> None:
        """Ends a loan that is not renewed."""
        while (left := lending.until - uptime()) > 0:
            if lending.over.wait(left):
                return
        self._end(lending)

    def _renew(self, lending: Lending) -> None:
        with self._lock:
            if lending.over.is_set() or lending.until <= uptime():
                raise LoanLost(f"the loan of {lending.lot.service} ended, as it was not renewed in time")
            lending.until = uptime() + lending.ttl

    def _end(self, lending: Lending) -> None:
        """It has come back, or its place in the queue is free; again does nothing."""
        lot = lending.lot
        with self._lock:
            lending.over.set()
            lending.event.set()
            if lending in lot.waiting:
                lot.waiting.remove(lending)
            if lot.holder is lending:
                assert lending.alone is not None
                self._server.take_back(lending.alone, lot.address)
                lot.holder = None
                self._next(lot)
                if lot.holder is None and lot.service in self._lots:
                    lot.turn = lot.tell(False)


class Lending(Stream):
    """One who borrows or waits for it, on the owner's side."""

    def __init__(self, desk: Desk, lot: Lot, ttl: float, timeout: float) -> None:
        self.lot, self.ttl, self._desk, self._timeout = lot, ttl, desk, timeout
        self.event, self.over = threading.Event(), threading.Event()
        self.alone: Address | None = None
        self.given, self.until = "", 0.0
        self._told = False

    def next_batch(self) -> list[Any] | None:
        """Wait for our turn, then renew."""
        if self._told:
            self._desk._renew(self)
            return [self.lot.turn]
        self._desk._join(self)
        self.event.wait(min(self._timeout, threading.TIMEOUT_MAX))
        if self.over.is_set():
            raise ServiceNotFound(f"{self.lot.service} is offered no longer")
        with self._desk._lock:
            if self.lot.holder is not self:
                self._desk._end(self)
                raise ServiceOnLoan(f"{self.lot.service} is on loan")
            self._told = True
            return [self.given, self.lot.turn]

    def cancel(self) -> None:
        """The borrower has gone."""
        self._desk._end(self)


class Loan:
    """A service that is ours alone, from `with` on until the end of the block; made by `Registry.borrow`.
    `address` is where it is meanwhile.

    The block gets a proxy, or the text of a `url=` service. It is renewed every third of its time, on a thread of its
    own. `lost` is set as soon as it cannot be proven any more that the loan holds; then the address is refused, or soon
    will be, and the end of the block raises `LoanLost`.
    """

    def __init__(self, name: str, ttl: float, opened: Callable[[], Borrowed]) -> None:
        self.name, self.ttl, self._open = name, ttl, opened
        self.lost = threading.Event()
        self.reason = self.address = ""
        self._until = 0.0
        self._returned = threading.Event()

    def remaining(self) -> float:
        """Seconds for which the loan certainly holds, if it is not renewed; 0 when it is over."""
        left = self._until - uptime()
        return max(0.0, left) if not (self.lost.is_set() or self._returned.is_set()) else 0.0

    def __enter__(self) -> Any:
        target, self._stream, asked, self._give_back = self._open()
        self.address = str(address_of(target)) if isinstance(target, Proxy) else target
        self._until = asked + 0.99 * self.ttl
        self._thread = threading.Thread(target=self._keep, name="loan", daemon=True)
        self._thread.start()
        return target

    def __exit__(self, kind: object, *exc: object) -> None:
        over = self.remaining() == 0
        self._returned.set()
        if not self.lost.is_set():
            try:
                self._give_back()
            except DiscoveryError as exc_:
                log.info("a loan ends by itself: %s", exc_)
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
            except (DiscoveryError, TimeoutError, OSError) as exc:
                if not self._returned.is_set():
                    self.reason = str(exc) or "no answer"
                    self.lost.set()
                return
            self._until = asked + 0.99 * self.ttl

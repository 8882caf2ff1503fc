"""What this process has heard of the services on the network: looked up without asking anybody."""

from __future__ import annotations

import difflib
import queue
import threading
from collections.abc import Iterator
from itertools import count
from typing import Literal, NamedTuple

from discovery.errors import RequestCanceled, RequestExpired, ServiceNotFound, ServiceOnLoan
from discovery.registry.offer import Offer, Service
from discovery.tuples.entry import Entry
from discovery.tuples.space import TupleSpace
from discovery.tuples.template import Fields, Template

PENDING = 10_000
"""Changes that wait for a slow watcher, at most; then the oldest are dropped."""


class ServiceChange(NamedTuple):
    """What happened to a service: `changed` is going on loan and coming back from it."""

    kind: Literal["added", "changed", "removed"]
    service: Service
    on_loan: bool


class Watch:
    """The changes that match a template, first those services that are known already. For any thread."""

    def __init__(self, template: Fields) -> None:
        self._template = Template(template)
        self._changes: queue.Queue[ServiceChange | None] = queue.Queue(PENDING)

    def get(self, timeout: float | None = None) -> ServiceChange:
        """The next change. Raises `RequestExpired` after `timeout` seconds, `RequestCanceled` once it is closed."""
        try:
            change = self._changes.get(timeout=timeout)
        except queue.Empty:
            raise RequestExpired(f"no change in {timeout} s") from None
        if change is None:
            self._put(None)
            raise RequestCanceled("the watch is closed")
        return change

    def __iter__(self) -> Iterator[ServiceChange]:
        while True:
            try:
                yield self.get()
            except RequestCanceled:
                return

    def close(self) -> None:
        """Ends it: whoever waits in `get` gets `RequestCanceled`."""
        self._put(None)

    def tell(self, change: ServiceChange) -> None:
        """Hand on a change, if it matches."""
        if self._template.matches(change.service):
            self._put(change)

    def _put(self, change: ServiceChange | None) -> None:
        while True:
            try:
                return self._changes.put_nowait(change)
            except queue.Full:
                self._changes.get_nowait()


class View:
    """All offers that were heard, and a tuple space of those that can be had now. For any thread."""

    def __init__(self) -> None:
        self.free = TupleSpace()
        self._offers: dict[str, tuple[Offer, Entry | None]] = {}
        self._watches: list[Watch] = []
        self._turns = count()
        self._lock = threading.Lock()

    def put(self, offer: Offer) -> None:
        """An offer was heard, for the first time or again; one that is older than what is known is ignored."""
        with self._lock:
            known, entry = self._offers.get(offer.name, (None, None))
            if known is not None and (offer.revision < known.revision or offer == known):
                return
            if entry is not None:
                entry.cancel()
            self._offers[offer.name] = offer, None if offer.on_loan else self.free.write(offer.service)
            self._tell("changed" if known else "added", offer)

    def drop(self, name: str) -> None:
        """An offer is there no more."""
        with self._lock:
            offer, entry = self._offers.pop(name, (None, None))
            if entry is not None:
                entry.cancel()
            if offer is not None:
                self._tell("removed", offer)

    def pick(self, template: Fields, timeout: float | None) -> Service:
        """One that is free and matches, each in turn; waits for one. Raises `RequestExpired`."""
        found = self.free.read_all(template)
        if not found:
            service: Service = self.free.read(template, timeout)
            return service
        chosen: Service = found[next(self._turns) % len(found) if len(found) > 1 else 0]
        return chosen

    def offers(self, template: Fields) -> list[Offer]:
        """All that match, those on loan too."""
        wanted = Template(template)
        with self._lock:
            return [offer for offer, _ in self._offers.values() if wanted.matches(offer.service)]

    def watch(self, template: Fields) -> Watch:
        """See `Watch`."""
        watch = Watch(template)
        with self._lock:
            for offer, _ in self._offers.values():
                watch.tell(ServiceChange("added", offer.service, offer.on_loan))
            self._watches.append(watch)
        return watch

    def close(self) -> None:
        """Ends every watch and every lookup that waits."""
        self.free.close()
        with self._lock:
            for watch in self._watches:
                watch.close()

    def missing(self, template: tuple[str | None, str, None, None], wanted: str, where: str) -> ServiceNotFound:
        """The error that says why nothing was found."""
        if self.offers(template):
            return ServiceOnLoan(f"{wanted} is on loan")
        known = {f"distributed://{offer.service.app}/{offer.service.service}" for offer in self.offers((None,) * 4)}
        names = {text.rpartition("/")[2] for text in known} if template[0] is None else known
        near = difflib.get_close_matches(wanted, sorted(names), 3, 0.6)
        near = near or difflib.get_close_matches(wanted, sorted(names), 3, 0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return ServiceNotFound(f"no {wanted} among the {len(known)} services that were heard of on {where}{hint}")

    def _tell(self, kind: Literal["added", "changed", "removed"], offer: Offer) -> None:
        for watch in self._watches:
            watch.tell(ServiceChange(kind, offer.service, offer.on_loan))

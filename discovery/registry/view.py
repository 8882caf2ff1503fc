"""What this process has heard of the services on the network. Looking something up here asks nobody."""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable
from itertools import count
from typing import Literal, NamedTuple

from discovery.errors import BadTemplate, ServiceNotFound, ServiceOnLoan
from discovery.registry.offer import Offer, Service
from discovery.tuples.entry import Entry
from discovery.tuples.space import TupleSpace
from discovery.tuples.stream import BoundedStream
from discovery.tuples.template import Fields, Template

log = logging.getLogger("discovery")
PENDING = 10_000
"""How many changes wait for a slow watcher, at most. Then the oldest are dropped."""

ChangeKind = Literal["added", "changed", "removed"]


class ServiceChange(NamedTuple):
    """What happened to a service. It is `changed` when it goes on loan and when it comes back.

    Of a loan that ends within milliseconds, other processes may hear one change or none: changes are sent together.

    `missed` counts the changes before this one that nobody fetched in time.
    """

    kind: ChangeKind
    service: Service
    on_loan: bool
    missed: int = 0


class Watch(BoundedStream[ServiceChange]):
    """The changes of services that match a template. It begins with the services that are known already.

    See `BoundedStream` for how to fetch them, and for what happens if you do not. A watch whose template raises ends.
    """

    def __init__(self, template: Fields, drop: Callable[[Watch], object]) -> None:
        super().__init__(PENDING)
        self._template, self._drop = Template(template), drop

    def close(self) -> None:
        """End it. What has come is still delivered; then `get` raises `RequestCanceled`, also where it waits."""
        self.end()
        self._drop(self)

    def tell(self, change: ServiceChange) -> None:
        """Add a change, if it matches."""
        if self._template.matches(change.service):
            self.put(change)

    def __repr__(self) -> str:
        return f"<Watch of {self._template.pattern!r}, {'closed' if self.closed else 'open'}>"


class ServiceView:
    """All offers that were heard, and a tuple space of those that are free now. For any thread."""

    def __init__(self) -> None:
        self.free = TupleSpace()
        self._offers: dict[str, tuple[Offer, Entry | None]] = {}
        self._watches: list[Watch] = []
        self._closed = False
        self._picks = count()
        self._lock = threading.Lock()

    def put(self, offer: Offer) -> None:
        """Take in an offer that was heard, for the first time or again. One older than what is known is ignored."""
        with self._lock:
            known, entry = self._offers.get(offer.name, (None, None))
            if known is not None and (offer.revision < known.revision or offer == known):
                return
            if entry is not None:
                entry.cancel()
            self._offers[offer.name] = offer, None if offer.on_loan else self.free.write(offer.service)
            self._tell("changed" if known else "added", offer)

    def drop(self, name: str) -> None:
        """Forget an offer that is there no more."""
        with self._lock:
            offer, entry = self._offers.pop(name, (None, None))
            if entry is not None:
                entry.cancel()
            if offer is not None:
                self._tell("removed", offer)

    def pick(self, template: Fields, timeout: float | None) -> Service:
        """Return a free service that matches, another one each time. Wait for one up to `timeout` seconds.

        Raises:
            RequestExpired: there was none in time.
        """
        found = self.free.read_all(template)
        if not found:
            service: Service = self.free.read(template, timeout)
            return service
        chosen: Service = found[next(self._picks) % len(found) if len(found) > 1 else 0]
        return chosen

    def offers(self, template: Fields) -> list[Offer]:
        """Return all offers that match, those on loan too."""
        wanted = Template(template)
        with self._lock:
            return [offer for offer, _ in self._offers.values() if wanted.matches(offer.service)]

    def watch(self, template: Fields) -> Watch:
        """Return the changes from now on, after one `added` for each service that is known. See `Watch`."""
        watch = Watch(template, self._unwatch)
        with self._lock:
            for offer, _ in self._offers.values():
                watch.tell(ServiceChange("added", offer.service, offer.on_loan))
            if self._closed:
                watch.end()
            else:
                self._watches.append(watch)
        return watch

    def close(self) -> None:
        """End every watch and every lookup that waits."""
        self.free.close()
        with self._lock:
            self._closed = True
            watches, self._watches = self._watches, []
        for watch in watches:
            watch.end()

    def missing(self, template: tuple[str | None, str, None, None], wanted: str, where: str) -> ServiceNotFound:
        """Return the error that says why nothing was found."""
        if self.offers(template):
            return ServiceOnLoan(f"{wanted} is on loan")
        known = {f"distributed://{offer.service.app}/{offer.service.service}" for offer in self.offers((None,) * 4)}
        names = {text.rpartition("/")[2] for text in known} if template[0] is None else known
        near = difflib.get_close_matches(wanted, sorted(names), 3, 0.6)
        near = near or difflib.get_close_matches(wanted, sorted(names), 3, 0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return ServiceNotFound(f"no {wanted} among the {len(known)} services that were heard of on {where}{hint}")

    def _unwatch(self, watch: Watch) -> None:
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def _tell(self, kind: ChangeKind, offer: Offer) -> None:
        """Tell every watch. One whose template raises is ended, so that nobody else misses the change."""
        for watch in list(self._watches):
            try:
                watch.tell(ServiceChange(kind, offer.service, offer.on_loan))
            except BadTemplate as exc:
                self._watches.remove(watch)
                watch.end()
                log.warning("%r is closed: %s", watch, exc)

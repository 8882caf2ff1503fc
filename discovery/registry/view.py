"""What this process has heard of the services on the network. Looking something up here asks nobody."""

from __future__ import annotations

import difflib
import heapq
import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Literal, NamedTuple

from discovery.errors import BadTemplate, RequestCanceled, RequestExpired, ServiceNotFound, ServiceOnLoan
from discovery.registry.offer import Offer, Service
from discovery.tuples.entry import seconds_or_forever
from discovery.tuples.stream import BoundedStream
from discovery.tuples.template import Fields, Template

log = logging.getLogger("discovery")
PENDING = 10_000
"""How many changes wait for a slow watcher, at most. Then the oldest are dropped."""

SIMILAR = 50
"""Names that are compared with one that was not found, at most: those that have the most pairs of letters in common."""

Wanted = tuple[str | None, str]
"""What a lookup is for: an app, None for any, and the name of a service."""
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


class _Providers:
    """Offers by app and name, and by name alone. Whoever reads it needs no lock: the tuples in it never change."""

    def __init__(self) -> None:
        self._found: dict[Wanted, tuple[Offer, ...]] = {}

    def get(self, wanted: Wanted) -> tuple[Offer, ...]:
        return self._found.get(wanted, ())

    def replace(self, old: Offer | None, new: Offer | None) -> None:
        """Put an offer in the place of another one. The lock of the view is held."""
        for offer in filter(None, (old, new)):
            for wanted in ((offer.service.app, offer.service.service), (None, offer.service.service)):
                kept = tuple(other for other in self.get(wanted) if other is not old)
                if offer is new:
                    kept += (offer,)
                if kept:
                    self._found[wanted] = kept
                else:
                    self._found.pop(wanted, None)


class ServiceView:
    """All offers that were heard, and those of them that are free now. For any thread; nothing of a user's is called
    while the lock is held.
    """

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}
        self._all, self._free = _Providers(), _Providers()
        self._certain: set[str] = set()  # names of offers whose last state is certainly their owner's
        self._servers: Counter[tuple[str, int] | None] = Counter()  # how many offers of each are known
        self._watches: list[Watch] = []
        self._news: deque[tuple[list[Watch], ServiceChange]] = deque()  # what watches are yet to be told
        self._telling = False  # whether a thread does that
        self._closed = False
        self._picks = count(random.randrange(1 << 16))  # a process that picks only once must not pick the first, too
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)

    def put(self, offer: Offer, certain: bool = False) -> None:
        """Take in an offer, for the first time or again.

        The last word counts, so that a forged announcement is believed until the owner speaks again, and no longer. But
        what is `certain`, because the owner has told us in person or has signed it, is not undone by an announcement
        of before, which may still be under way, or be repeated by a stranger.
        """
        self._take(offer, certain)

    def correct(self, offer: Offer) -> None:
        """Take in what its owner has told us in person, if the offer is known.

        One that is not heard any more stays unknown until it is heard again. Otherwise nobody would notice its end.
        """
        self._take(offer, certain=True, only_known=True)

    def _take(self, offer: Offer, certain: bool, only_known: bool = False) -> None:
        with self._lock:
            known = self._offers.get(offer.name)
            late = known is not None and offer.lender == known.lender and offer.revision < known.revision
            if offer == known or (late and (certain or offer.name in self._certain)) or (only_known and known is None):
                return
            (self._certain.add if certain else self._certain.discard)(offer.name)
            self._offers[offer.name] = offer
            self._note(known, offer)
            self._news.append((self._watches, ServiceChange("changed" if known else "added", *_state(offer))))
        self._tell()

    def drop(self, name: str) -> Offer | None:
        """Forget an offer that is there no more, and return it."""
        with self._lock:
            offer = self._offers.pop(name, None)
            self._certain.discard(name)
            if offer is not None:
                self._note(offer, None)
                self._news.append((self._watches, ServiceChange("removed", *_state(offer))))
        self._tell()
        return offer

    def pick(self, wanted: Wanted, timeout: float | None) -> Service:
        """Return a free service of that name, another one each time. Wait for one up to `timeout` seconds.

        Raises:
            RequestExpired: there was none in time.
            RequestCanceled: the view was closed meanwhile.
        """
        found = self._free.get(wanted)
        if not found:
            seconds = min(seconds_or_forever(timeout), threading.TIMEOUT_MAX)
            with self._freed:
                self._freed.wait_for(lambda: self._closed or self._free.get(wanted), seconds)
                found = self._free.get(wanted)
            if not found:
                raise RequestCanceled("the registry was closed") if self._closed else RequestExpired(f"no {wanted}")
        return found[next(self._picks) % len(found)].service

    def providers(self, wanted: Wanted) -> tuple[Offer, ...]:
        """Return all offers of that name, those on loan too."""
        return self._all.get(wanted)

    def hears(self, server: tuple[str, int]) -> bool:
        """Return whether an offer of the provider with that host and port is known."""
        return server in self._servers

    def offers(self, template: Fields = (None, None, None, None)) -> list[Offer]:
        """Return all offers that match, those on loan too."""
        wanted = Template(template)
        with self._lock:
            offers = list(self._offers.values())
        return [offer for offer in offers if wanted.matches(offer.service)]

    def watch(self, template: Fields) -> Watch:
        """Return the changes from now on, after one `added` for each service that is known. See `Watch`."""
        watch = Watch(template, self._unwatch)
        with self._lock:
            self._news.extend(([watch], ServiceChange("added", *_state(offer))) for offer in self._offers.values())
            if self._closed:
                watch.end()
            else:
                self._watches = [*self._watches, watch]
        self._tell()
        return watch

    def close(self) -> None:
        """End every watch and every lookup that waits."""
        with self._lock:
            self._closed = True
            watches, self._watches = self._watches, []
            self._freed.notify_all()
        for watch in watches:
            watch.end()

    def missing(self, wanted: Wanted, asked: str, where: str) -> ServiceNotFound:
        """Return the error that says why nothing was found."""
        if self.providers(wanted):
            return ServiceOnLoan(f"{asked} is on loan")
        offers = self.offers()
        known = {(offer.service.app, offer.service.service) for offer in offers}
        app, service = wanted
        if app is None:
            near = _similar(service, {name for _, name in known})
        else:
            near = [f"distributed://{text}" for text in _similar(f"{app}/{service}", {"/".join(one) for one in known})]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return ServiceNotFound(f"no {asked} among the {len(known)} services that were heard of on {where}{hint}")

    def _note(self, old: Offer | None, new: Offer | None) -> None:
        """Note what has taken the place of what. The lock is held."""
        self._all.replace(old, new)
        if old is not None:
            self._servers[old.server] -= 1
            if not self._servers[old.server]:
                del self._servers[old.server]
        if new is not None:
            self._servers[new.server] += 1
        free = new if new is not None and not new.on_loan else None
        self._free.replace(old, free)
        if free is not None:
            self._freed.notify_all()

    def _unwatch(self, watch: Watch) -> None:
        with self._lock:
            self._watches = [other for other in self._watches if other is not watch]

    def _tell(self) -> None:
        """Tell the watches what is new, on one thread at a time, so that each hears it in its order.

        A watch whose template raises is ended, so that nobody else misses the change.
        """
        mine = False
        while True:
            with self._lock:
                if (self._telling and not mine) or not self._news:
                    self._telling = self._telling and not mine
                    return
                self._telling = mine = True
                watches, change = self._news.popleft()
            try:
                for watch in watches:
                    self._tell_one(watch, change)
            except BaseException:  # Ctrl-C in a user's `matches`
                with self._lock:
                    self._telling = False
                raise

    def _tell_one(self, watch: Watch, change: ServiceChange) -> None:
        try:
            if not watch.closed:
                watch.tell(change)
        except BadTemplate as exc:
            log.warning("%r is closed: %s", watch, exc)
            watch.close()


def _state(offer: Offer) -> tuple[Service, bool]:
    return offer.service, offer.on_loan


def _similar(asked: str, names: Iterable[str]) -> list[str]:
    """Return at most three of the names that one may have meant. Linear in the names, with a small constant."""
    pairs = {asked[i : i + 2] for i in range(len(asked) - 1)}
    nearest = heapq.nlargest(SIMILAR, sorted(names), key=lambda name: sum(pair in name for pair in pairs))
    return difflib.get_close_matches(asked, nearest, 3, 0.6) or difflib.get_close_matches(asked, nearest, 3, 0.4)

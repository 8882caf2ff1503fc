"""How offers travel between processes: by multicast, or, where that does not reach, through a ring."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from discovery.beacon import LIFETIME, PERIOD, Beacon, Change, Sighting
from discovery.errors import ConnectionLost, DiscoveryError, MulticastUnavailable
from discovery.registry.offer import KIND
from discovery.remote.client import Client
from discovery.rings.finder import RingFinger
from discovery.rings.space import RemoteEntry, RemoteEvents, RemoteSpace
from discovery.tuples.entry import Entry
from discovery.tuples.space import TupleSpace

log = logging.getLogger("discovery")
Properties = Mapping[str, str]
Heard = Callable[[str, Properties | None], object]
"""Called with an announcement's name and what it says, None when it is gone; on one thread, which it must not block."""


class Medium(Protocol):
    """Tells `heard` what is announced, from `start` to `close`. All methods but `start` are for any thread."""

    where: str

    def start(self) -> None:
        """Begin to hear; raises where that cannot work."""

    def publish(self, name: str, properties: Properties) -> None:
        """Announce, or announce a change."""

    def withdraw(self, name: str) -> None:
        """Announce no longer."""

    def doubt(self, name: str) -> None:
        """Disbelieve what was heard, until it is heard anew."""

    def close(self) -> None:
        """Withdraw everything, and stop."""


class Multicast:
    """Announcements by a beacon."""

    def __init__(self, interfaces: Sequence[str] | None, heard: Heard) -> None:
        self.where = "the local network" if interfaces is None else f"the network of {', '.join(interfaces)}"
        self._beacon, self._heard = Beacon(interfaces), heard
        self._announced: dict[str, Any] = {}

    def start(self) -> None:
        try:
            self._beacon.start().browse(KIND, self._sighted)
        except MulticastUnavailable as exc:
            raise MulticastUnavailable(
                f"{exc}; where multicast does not reach, run `politics ring` on a host that all can reach, "
                "and name it: Registry(ring='host:port')"
            ) from exc

    def publish(self, name: str, properties: Properties) -> None:
        if name in self._announced:
            self._announced[name].update(properties)
        else:
            self._announced[name] = self._beacon.announce(KIND, properties, name)

    def withdraw(self, name: str) -> None:
        self._announced.pop(name).withdraw()

    def doubt(self, name: str) -> None:
        self._beacon.suspect(name)

    def close(self) -> None:
        self._beacon.close()

    def _sighted(self, change: Change, sighting: Sighting) -> None:
        self._heard(sighting.name, None if change == "removed" else sighting.properties)


class Ring:
    """Announcements as tuples `("service", name, properties)` in a ring: renewed by their owner every `PERIOD`, and
    believed for `LIFETIME` after the ring was last heard. When the ring goes away it is looked for until it is back."""

    TEMPLATE = (KIND, str, dict)

    def __init__(self, ring: str, client: Client, heard: Heard) -> None:
        self.where = f"the ring {ring}"
        self._finger, self._heard = RingFinger([ring], client=client), heard
        self._own: dict[str, tuple[Properties, RemoteEntry | None]] = {}
        self._lock = threading.RLock()
        self._ring: RemoteSpace | None = None
        self._events: RemoteEvents | None = None
        self._ended = threading.Event()
        self._look_again = 0  # heartbeats until everything in the ring is looked at anew; 0: never
        self._known = TupleSpace()  # of (name,): for ever while the ring is heard, and for a lifetime after that
        self._entries: dict[str, Entry] = {}
        self._latest: dict[str, Properties] = {}
        self._changed: list[str] = []
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._ring = self._finger.lookup_ring_any()
        self._gone_by = self._known.notify("delete", (str,))
        for work in (self._listen, self._beat, self._forget):
            self._threads.append(threading.Thread(target=work, name=f"registry {work.__name__}", daemon=True))
            self._threads[-1].start()

    def publish(self, name: str, properties: Properties) -> None:
        with self._lock:
            self._own[name] = properties, self._own.get(name, (None, None))[1]
            self._changed.append(name)
        self._wake.set()

    def withdraw(self, name: str) -> None:
        with self._lock:
            _, entry = self._own.pop(name)
            try:
                if entry is not None:
                    entry.cancel()
            except ConnectionLost as exc:
                log.info("%s is left to expire: %s", name, exc)

    def doubt(self, name: str) -> None:
        self._gone(name)
        self._look_again = int(LIFETIME / PERIOD) + 1  # a dead one's tuple has then expired

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
        with self._lock:
            for name in list(self._own):
                self.withdraw(name)
        if self._events is not None:
            self._events.cancel()
        self._known.close()
        for thread in self._threads:
            thread.join(3.0)
        if self._events is not None:
            self._events._stream.drop()
        self._finger.client.close()

    def _write(self, ring: RemoteSpace, name: str) -> None:
        properties, old = self._own[name]
        self._own[name] = properties, ring.write((KIND, name, dict(properties)), LIFETIME)
        if old is not None:
            old.cancel()

    def _beat(self) -> None:
        """Writes what has changed at once, renews what is ours every `PERIOD`, writes again what the ring has lost."""
        due = time.monotonic() + PERIOD
        while not self._ended.is_set():
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            with self._lock:
                names, self._changed = self._changed, []
            if time.monotonic() >= due:
                due = time.monotonic() + PERIOD
                self._look_again -= self._look_again > 0
                if self._look_again == 1 and self._events is not None:
                    self._events.cancel()  # which makes us look
                self._each(list(self._own), self._renew)
            self._each(names, self._write)

    def _each(self, names: list[str], work: Callable[[RemoteSpace, str], object]) -> None:
        for name in names:
            with self._lock:
                ring = self._ring
                try:
                    if ring is not None and name in self._own:
                        work(ring, name)
                except DiscoveryError as exc:
                    log.warning("cannot announce %s in %s: %s", name, self.where, exc)
                    return

    def _renew(self, ring: RemoteSpace, name: str) -> None:
        _, entry = self._own[name]
        if entry is None or not entry.renew(LIFETIME):
            self._write(ring, name)

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                ring = self._finger.lookup_ring_any(timeout=2.0)
                self._follow(ring)
            except (DiscoveryError, OSError) as exc:
                if not self._ended.is_set():
                    log.warning("lost %s, which is looked for: %s", self.where, exc)
            self._ring = None
            for entry in list(self._entries.values()):
                entry.renew(LIFETIME)
            self._ended.wait(0.2)

    def _follow(self, ring: RemoteSpace) -> None:
        self._events = ring.notify(None, self.TEMPLATE)  # first, so as to miss nothing
        with self._lock:
            self._ring = ring
        self._each(list(self._own), self._renew)
        for _, name, properties in ring.read_all(self.TEMPLATE):
            self._here(name, properties)
        for event in self._events:
            if event.kind == "write":
                self._here(*event.tuple[1:])
            elif event.kind in ("delete", "take") and self._latest.get(event.tuple[1]) == event.tuple[2]:
                self._gone(event.tuple[1])
            if event.missed:
                return

    def _here(self, name: str, properties: Properties) -> None:
        if name not in self._entries or not self._entries[name].renew(None):
            self._entries[name] = self._known.write((name,))
        self._latest[name] = properties
        self._heard(name, properties)

    def _forget(self) -> None:
        for event in self._gone_by:
            if event.kind == "delete" and event.tuple[0] not in self._entries:
                self._latest.pop(event.tuple[0], None)
                self._heard(event.tuple[0], None)

    def _gone(self, name: str) -> None:
        if (entry := self._entries.pop(name, None)) is not None:
            entry.cancel()

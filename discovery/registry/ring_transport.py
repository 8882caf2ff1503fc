"""How offers travel through a ring: as tuples that their owners renew, and that everybody else follows."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from math import inf
from typing import Any

from discovery.beacon import checked_period, pack
from discovery.clock import uptime
from discovery.errors import BadMessage, DiscoveryError, RequestExpired
from discovery.registry.offer import KIND, Offer, Refused, parse
from discovery.registry.transport import Heard, Properties
from discovery.remote.client import Client
from discovery.retries import retrying
from discovery.rings.finder import RingFinger, Stop
from discovery.rings.space import RemoteEntry, RemoteEvents, RemoteSpace

TEMPLATE = (KIND, str, dict)
LOOKUP = 2.0
"""Seconds in which one attempt to find the ring again fails."""
log = logging.getLogger("discovery")


class RingTransport:
    """Announcements as tuples `("service", name, properties)` in a ring.

    Their owner renews them every `heartbeat` seconds, each time for three heartbeats. When the ring is lost it is
    looked for until it is back, and what was read in it is believed for three heartbeats, or until the ring says
    something else.

    Two threads do all the work: `_Writer` brings the ring up to date with what is ours, `_Listener` follows what is
    there. So nobody else waits for the network.
    """

    def __init__(self, ring: str, client: Client, heard: Heard, heartbeat: float) -> None:
        where = f"the ring {ring}"
        self._client, self._ended, heartbeat = client, Stop(), checked_period(heartbeat)
        self._writer = _Writer(where, self._ended, heartbeat)
        finger = RingFinger([ring], client=client)
        self._listener = _Listener(where, self._ended, heartbeat, finger, heard, self._writer.enter)

    @property
    def where(self) -> str:
        away = self._listener.lost and self._listener._followed is None
        return f"{self._listener.where}{', which does not answer' if away else ''}"

    def start(self) -> None:
        self._listener.start()
        self._writer.start()

    def publish(self, name: str, properties: Properties) -> None:
        pack(properties)  # what is too long for multicast is refused here too, so that a service may change its way
        self._writer.change(name, properties)

    def withdraw(self, name: str) -> None:
        self._writer.change(name, None)

    def suspect(self, name: str) -> None:
        self._listener.suspect(name)

    def close(self) -> None:
        self._ended.set()
        self._writer.end()
        self._listener.end()
        self._client.close()


class _Writer:
    """Keeps what is ours in the ring: changes at once, renewals every heartbeat, all of it again in a new ring."""

    def __init__(self, where: str, ended: threading.Event, heartbeat: float) -> None:
        self._where, self._ended, self._heartbeat = where, ended, heartbeat
        self._wanted: dict[str, Properties] = {}
        self._written: dict[str, tuple[Properties, RemoteEntry]] = {}  # only the thread uses it
        self._ring: RemoteSpace | None = None
        self._renewed: RemoteSpace | None = None  # the ring in which everything of ours was renewed last
        self._due = 0.0  # when that is to be done again
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def change(self, name: str, properties: Properties | None) -> None:
        """Write these properties soon; None: delete what was written."""
        with self._lock:
            if properties is None:
                del self._wanted[name]
            else:
                self._wanted[name] = properties
        self._wake.set()

    def enter(self, ring: RemoteSpace | None) -> None:
        """Write into this ring from now on; None: into none, since it was lost."""
        self._ring = ring
        self._wake.set()

    def end(self) -> None:
        """Delete everything and stop, once `ended` is set. A ring that hangs is given three seconds."""
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(3.0)

    def _run(self) -> None:
        while not self._ended.is_set():
            retrying(self._ended, longest=self._heartbeat, failed=self._failed)(self._write)
            self._wake.wait(max(0.0, self._due - uptime()) if self._ring else None)
            self._wake.clear()
        for name, (_, entry) in self._written.items():
            if not self._deleted(name, entry):
                return

    def _write(self) -> None:
        """Make the ring's tuples the ones that are wanted."""
        ring = self._ring
        if ring is None or self._ended.is_set():
            return
        with self._lock:
            wanted = dict(self._wanted)
        for name in self._written.keys() - wanted.keys():
            self._deleted(name, self._written.pop(name)[1])
        renew = ring is not self._renewed or uptime() >= self._due
        for name, properties in wanted.items():
            written, entry = self._written.get(name, (None, None))
            there = entry is not None and (not renew or entry.renew(3 * self._heartbeat))
            if written == properties and there:
                continue
            added = ring.write((KIND, name, dict(properties)), 3 * self._heartbeat)
            self._written[name] = properties, added
            if entry is not None and there:
                entry.cancel()
        if renew:
            self._renewed, self._due = ring, uptime() + self._heartbeat

    def _deleted(self, name: str, entry: RemoteEntry) -> bool:
        try:
            entry.cancel()
        except Exception as exc:  # noqa: BLE001 - a hostile ring answers with an error of any class
            log.info("%s is left to expire in %s: %s", name, self._where, exc)
            return False
        return True

    def _failed(self, error: BaseException, attempt: int) -> None:
        if attempt == 2:  # once may be the ring's end, of which the listener tells
            log.warning("cannot announce in %s, and will try again until it works: %s", self._where, error)


class _Listener:
    """Reads what is in the ring, then follows its events, and finds the ring again when it is lost."""

    def __init__(
        self,
        where: str,
        ended: Stop,
        heartbeat: float,
        finger: RingFinger,
        heard: Heard,
        entered: Callable[[RemoteSpace | None], object],
    ) -> None:
        self.where, self._ended, self._heartbeat = where, ended, heartbeat
        self.lost = False  # and this has been said
        self._finger, self._heard, self._entered = finger, heard, entered
        self._known: dict[str, Properties] = {}
        self._unconfirmed: dict[str, float] = {}  # known from a ring that was lost, and until when to believe that
        self._suspects: dict[str, float] = {}  # and when to look for it in the ring
        self._lock = threading.Lock()  # held while `heard` is called, so that it is told in the right order
        self._followed: tuple[RemoteSpace, RemoteEvents] | None = None
        self._thread = threading.Thread(target=self._run, name="registry listener", daemon=True)

    def start(self) -> None:
        """Read the ring if it is there, so that the first lookup knows it. Otherwise go on looking for it."""
        try:
            self._enter(self._finger.lookup_ring_any(LOOKUP, stop=self._ended))
        except Exception as exc:  # noqa: BLE001 - the same as when it is lost later
            self._failed(exc, 1)
        self._thread.start()

    def suspect(self, name: str) -> None:
        """Forget it. Look again when the tuple of a dead owner would have expired, as heartbeats are not heard."""
        self._suspects[name] = uptime() + 4 * self._heartbeat
        self._gone(name)

    def end(self) -> None:
        """Stop, once `ended` is set."""
        if (followed := self._followed) is not None:
            followed[1].cancel()
        if self._thread.ident is not None:
            self._thread.join(3.0)

    def _run(self) -> None:
        while not self._ended.is_set():
            retrying(self._ended, longest=self._heartbeat, failed=self._failed)(self._step)

    def _step(self) -> None:
        """Find the ring and read it; or, where that is done, follow it until it is lost."""
        self._forget()
        if self._ended.is_set():
            return
        until = inf
        if self._followed is None:
            self._enter(self._finger.lookup_ring_any(timeout=LOOKUP, stop=self._ended))
            until = uptime() + self._heartbeat  # if it is lost before, that is one more failure to find it
        assert self._followed is not None
        ring, events = self._followed
        followed = False
        try:
            followed = self._follow(ring, events, until)
        finally:
            if not followed:
                self._entered(None)
                self._followed = None
                events.drop()
                forget = uptime() + 3 * self._heartbeat
                with self._lock:
                    self._unconfirmed = dict.fromkeys(self._known, forget) | self._unconfirmed
        if followed and self.lost:
            log.info("found %s again", self.where)
            self.lost = False

    def _enter(self, ring: RemoteSpace) -> None:
        events = ring.notify(None, TEMPLATE)  # first, so as to miss nothing
        try:
            for found in ring.read_all(TEMPLATE, skip=True):
                self._here(*_offered(found))
        except BaseException:
            events.drop()
            raise
        self._followed = ring, events
        if self._ended.is_set():
            events.cancel()
        self._entered(ring)

    def _follow(self, ring: RemoteSpace, events: RemoteEvents, until: float) -> bool:
        """Take in what happens in the ring. Return whether it is there at the time `until`, False at the end."""
        while not self._ended.is_set():
            if uptime() >= until:
                return True
            self._look_for_suspects(ring)
            self._forget()
            try:
                event = events.get(min(self._heartbeat, max(0.01, until - uptime())))
            except RequestExpired:
                continue
            if event.kind == "close" or event.missed:
                if not self._ended.is_set():
                    raise DiscoveryError(f"missed {event.missed} events" if event.missed else "the ring was closed")
                continue
            name, properties = _offered(event.tuple)
            if event.kind == "write":
                self._here(name, properties)
            elif self._known.get(name) == properties:
                self._look(ring, name)
        return False

    def _look(self, ring: RemoteSpace, name: str) -> None:
        """Believe what the ring has: a tuple that was deleted may have been one of two."""
        left = ring.read_all((KIND, name, dict), skip=True)
        if left:
            self._here(*_offered(left[-1]))
        else:
            self._gone(name)

    def _look_for_suspects(self, ring: RemoteSpace) -> None:
        for name, due in list(self._suspects.items()):
            if due <= uptime():
                self._suspects.pop(name, None)
                self._look(ring, name)

    def _forget(self) -> None:
        """Drop what was read in a ring that was lost and was not confirmed in time."""
        for name, until in list(self._unconfirmed.items()):
            if until <= uptime():
                self._gone(name)

    def _here(self, name: str, properties: Properties) -> None:
        with self._lock:
            self._suspects.pop(name, None)
            self._unconfirmed.pop(name, None)
            self._known[name] = properties
            self._heard(name, properties)

    def _gone(self, name: str) -> None:
        with self._lock:
            self._unconfirmed.pop(name, None)
            if self._known.pop(name, None) is not None:
                self._heard(name, None)

    def _failed(self, error: BaseException, attempt: int) -> None:
        if attempt == 1 and not self.lost and not self._ended.is_set():
            self.lost = True
            log.warning("%s is not there, and will be looked for until it is: %s", self.where, error)


def offers_in(ring: RemoteSpace) -> list[Offer]:
    """Return what is offered in a ring, signed or not. What is malformed is left out."""
    found = []
    for one in ring.read_all(TEMPLATE, skip=True):
        with contextlib.suppress(Refused):
            found.append(parse(*_offered(one), b"", 0.0))
    return found


def _offered(found: Any) -> tuple[str, Properties]:
    """Return the name and the properties in a tuple that a ring says matches `TEMPLATE`.

    Raises:
        BadMessage: it does not, so the ring is none of ours.
    """
    if not isinstance(found, tuple) or [type(field) for field in found] != [str, str, dict]:
        raise BadMessage(f"no offer of a service: {found!r:.100}")
    return found[1], found[2]

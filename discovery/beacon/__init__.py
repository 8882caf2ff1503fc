"""Announce small things on the local network, and hear what others announce.

This is multicast DNS service discovery (RFC 6762, 6763) with these differences:

- Names have a random part, so a beacon does not probe for 1.2 seconds whether a name is free.
- Liveness is a heartbeat. A beacon repeats each announcement every `period` seconds, and the others forget it when they
  have not heard it for three periods. The lifetimes of ordinary records are minutes, to save traffic, and zeroconf
  raises those of pointers to 19 minutes.
- A beacon that begins to listen asks, and the others answer with an early heartbeat. The answer to an ordinary query
  may come a second late.
- A change is sent three times: at once, after a sixteenth and after a quarter of a period. Packets get lost.
- A goodbye is a text of its own, and not the last text with a lifetime of 0.
- A heartbeat is the text alone. The other records are sent when an announcement is new, when it is withdrawn, and to
  those who ask for them. So the browsers of others list what is announced, with its host and port.

Each announcement says its period, so beacons with different periods hear each other: each is believed for three of its
own periods. A beacon sends many announcements a few at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence

import ifaddr

from discovery.beacon.engine import Engine
from discovery.beacon.format import (
    LIFETIME,
    LONGEST,
    MAX_ADDRESSES,
    MAX_SIZE,
    PERIOD,
    PERIODS,
    SHORTEST,
    Change,
    Sighting,
    head,
    pack,
    parse,
)
from discovery.beacon.hearing import ASK
from discovery.beacon.pace import ANSWERED
from discovery.errors import BadAnnouncement, BadTime, MulticastUnavailable
from discovery.fork import ForkGuard

__all__ = [
    "ANSWERED",
    "LIFETIME",
    "MAX_SIZE",
    "PERIOD",
    "PERIODS",
    "Announcement",
    "Beacon",
    "Change",
    "Sighting",
    "checked_period",
    "new_name",
    "own_addresses",
    "pack",
    "parse",
]

Properties = Mapping[str, str] | bytes
"""Properties, or what `pack` has made of them, which is then sent as it is."""


class Announcement:
    """Something that is announced. Both methods return at once and may be called on any thread."""

    def __init__(self, beacon: Beacon, name: str) -> None:
        self.name = name
        self._beacon = beacon

    def update(self, properties: Properties) -> None:
        """Replace the properties. Others hear of it as a change, even if the properties are the same.

        Raises:
            BadAnnouncement: the properties cannot be sent.
        """
        text, addresses = self._beacon._text(self.name, properties)
        self._beacon._on_loop(lambda engine: engine.update(self.name, text, addresses))

    def withdraw(self) -> None:
        """Tell everyone that it is gone."""
        self._beacon._on_loop(lambda engine: engine.withdraw(self.name))

    def __repr__(self) -> str:
        return f"<Announcement {self.name}>"


class Beacon:
    """Announce and listen, between `start` and `close`, or as a context manager. It hears its own announcements too.

    Args:
        interfaces: the addresses of the interfaces to use; None: all of them.
        period: seconds between two heartbeats, 0.1 to 60. What this beacon announces is believed for three periods.

    Raises:
        BadTime: the period is out of range.
    """

    def __init__(self, interfaces: Sequence[str] | None = None, period: float = PERIOD) -> None:
        self.interfaces, self.period = interfaces, checked_period(period)
        self._engine: Engine | None = None
        self._guard = ForkGuard()
        self._revisions = itertools.count(1)

    def start(self) -> Beacon:
        """Open the sockets.

        Raises:
            MulticastUnavailable: the machine or the interfaces have no multicast.
        """
        if self._engine is not None:
            return self
        known = _addresses()
        if unknown := set(self.interfaces or ()).difference(known):
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise MulticastUnavailable(f"not an address of this machine: {', '.join(sorted(unknown))} ({has})")
        if not known:
            raise MulticastUnavailable("no interface has an IPv4 address")
        self._engine, self._guard = Engine.open(self.interfaces, self.period), ForkGuard()
        self._on_loop(Engine.begin)
        return self

    def close(self) -> None:
        """Say goodbye for everything announced, and stop. Do not call it from a callback.

        In a forked child this does nothing: the beacon's thread lives in the parent.
        """
        engine, self._engine = self._engine, None
        if engine is not None and not self._guard.forked:
            engine.close()

    @property
    def pace(self) -> float:
        """Seconds between two heartbeats now: the period, or more where many are heard."""
        engine = self._engine
        return engine.pace if engine else self.period

    def announce(
        self, kind: str, properties: Properties, name: str = "", *, subject: str = "", port: int = 0
    ) -> Announcement:
        """Announce something, from a few milliseconds from now until it is withdrawn or this process ends.

        Args:
            kind: a word in small letters.
            properties: a mapping, or what `pack` returned.
            name: what `new_name(kind)` returned, if you must know the name before; default: a new one.
            subject: what people see in the browsers of others, before `on HOST (PID)`; default: the kind.
            port: where the announced thing listens; 0: nowhere.

        Raises:
            BadAnnouncement: the kind or the properties cannot be sent.
            MulticastUnavailable: the beacon is off.
        """
        if not re.fullmatch("[a-z]{1,40}", kind):
            raise BadAnnouncement(f"a kind is a word of at most 40 small letters, not {kind!r}")
        self._refuse_unless_started()
        announcement = Announcement(self, name or new_name(kind))
        text, addresses = self._text(announcement.name, properties)
        self._on_loop(lambda engine: engine.add(announcement.name, subject or kind, port, text, addresses))
        return announcement

    def browse(self, kind: str, callback: Callable[[Change, Sighting], object]) -> Callable[[], None]:
        """Call `callback("added" | "changed" | "removed", sighting)` for every announcement of this kind.

        It is called for those that are known already, then as they come and go. The calls come one at a time, on the
        beacon's own thread, so the callback must not block. What it raises is logged.

        Returns:
            A function that ends this.

        Raises:
            MulticastUnavailable: the beacon is off.
        """
        self._refuse_unless_started()
        key, question = object(), new_name(ASK)
        text, _ = self._text(question, {})
        self._on_loop(lambda engine: engine.watch(key, kind, callback, question, text))
        return lambda: self._on_loop(lambda engine: engine.hearing.watchers.pop(key, None))

    def suspect(self, name: str) -> None:
        """Forget a sighting. Those who browse hear that it is removed, and added again if it has another heartbeat."""
        self._on_loop(lambda engine: engine.hearing.forget(name))

    def __enter__(self) -> Beacon:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Beacon on {self.interfaces or 'all interfaces'}, {'on' if self._engine else 'off'}>"

    def _refuse_unless_started(self) -> None:
        if self._engine is None:
            raise MulticastUnavailable("the beacon is not started")

    def _on_loop(self, work: Callable[[Engine], object]) -> None:
        """Let the beacon's thread do this soon. Do nothing if it is off, or in a forked child."""
        engine = self._engine
        if engine is not None and not self._guard.forked:
            with contextlib.suppress(RuntimeError):
                engine.loop.call_soon_threadsafe(work, engine)

    def _text(self, name: str, properties: Properties) -> tuple[bytes, Sequence[str]]:
        packed = properties if isinstance(properties, bytes) else pack(properties)
        addresses = own_addresses() if self.interfaces is None else list(self.interfaces)
        return head(name, addresses, self.period, next(self._revisions)) + packed, addresses


def new_name(kind: str) -> str:
    """Return a name for an announcement that no other announcement has."""
    return f"{kind}-{secrets.token_hex(8)}"


def own_addresses() -> list[str]:
    """Return at most eight IPv4 addresses of this machine; those of loopback only if it has no others."""
    found = _addresses()
    return ([address for address in found if not address.startswith("127.")] or found)[:MAX_ADDRESSES]


def _addresses() -> list[str]:
    return [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]


def checked_period(period: object) -> float:
    """Return a period in seconds.

    Raises:
        BadTime: it is no number, or none that a beacon can keep.
    """
    if isinstance(period, bool) or not isinstance(period, int | float) or not SHORTEST <= period <= LONGEST:
        raise BadTime(f"seconds between two heartbeats are {SHORTEST:g} to {LONGEST:g}, not {period!r}")
    return period

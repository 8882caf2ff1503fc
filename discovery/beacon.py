"""Announce small things on the local network, and hear what others announce. The only file that imports zeroconf.

Multicast DNS service discovery (RFC 6762, 6763), with two departures. Names carry a random part, so nobody has to
probe for 1.2 seconds whether a name is free. And life is a heartbeat, as in SWIM-like membership: every announcement is
repeated every `PERIOD` seconds and forgotten `LIFETIME` seconds after it was last heard, since the lifetimes in the
records themselves are minutes for the sake of traffic, and zeroconf raises those of pointers to 19 minutes. Whoever
begins to listen asks, and is answered by an early heartbeat: the answer to an ordinary query may be a second late.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ifaddr
from zeroconf import InterfaceChoice, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf, const
from zeroconf._dns import DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.errors import BadAnnouncement, MulticastUnavailable

PERIOD = 4.0
"""Seconds between two heartbeats."""
LIFETIME = 12.0
"""Seconds for which an announcement is believed after it was last heard: three heartbeats, of which two may be lost."""
MAX_SIZE = 1200
"""Bytes of an announcement's properties, so that it fits into one packet; more is refused, and ignored when heard."""
MAX_HEARD = 10_000
"""Announcements that a beacon remembers; more are ignored, so that a flood of names costs bounded memory."""

Change = Literal["added", "changed", "removed"]
log = logging.getLogger("discovery")
_TYPE = "_politics._tcp.local."
_NAME = re.compile(r"([a-z]*)-([0-9a-f]{16})\." + re.escape(_TYPE))
_AT = "at"  # the property that holds the announcer's addresses
_ASK = ""  # the kind of an announcement that asks everyone for theirs
_AT_MOST_EVERY = 0.25  # seconds between two heartbeats, however many ask


@dataclass(frozen=True)
class Sighting:
    """What was heard: `name` is unique to one announcement, `addresses` are the announcing machine's own."""

    kind: str
    name: str
    properties: Mapping[str, str]
    addresses: tuple[str, ...]


class Announcement:
    """Something of ours that others hear of. Both calls return at once and may be made on any thread."""

    def __init__(self, beacon: Beacon, name: str, properties: Mapping[str, str]) -> None:
        self.name = name
        self._beacon = beacon
        self._info = beacon._info(self.name, properties)

    def update(self, properties: Mapping[str, str]) -> None:
        """Replaces the properties. Raises `BadAnnouncement`."""
        info = self._beacon._info(self.name, properties)
        self._beacon._on_loop(self._beacon._update, info)

    def withdraw(self) -> None:
        """Tells everyone that it is gone."""
        self._beacon._on_loop(self._beacon._withdraw, self._info)

    def __repr__(self) -> str:
        return f"<Announcement {self.name}>"


class Beacon:
    """Announces and listens, between `start` and `close`, or as a context manager.

    `interfaces` are the addresses of the interfaces to use, by default all of them. It hears its own announcements too.
    """

    def __init__(self, interfaces: Sequence[str] | None = None) -> None:
        self.interfaces = interfaces
        self._zeroconf: Zeroconf | None = None
        self._watchers: dict[object, tuple[str, Callable[[Change, Sighting], object]]] = {}
        self._heard: dict[str, tuple[Sighting, asyncio.TimerHandle]] = {}
        self._heart: asyncio.TimerHandle | None = None
        self._beaten = 0.0
        self._following: asyncio.Task[None] | None = None

    def start(self) -> Beacon:
        """Opens the sockets. Raises `MulticastUnavailable` where the machine or the interfaces have no multicast."""
        if self._zeroconf is not None:
            return self
        interfaces = InterfaceChoice.All if self.interfaces is None else list(self.interfaces)
        if unknown := set(self.interfaces or ()).difference(_addresses()):
            raise MulticastUnavailable(f"not an address of this machine: {', '.join(sorted(unknown))}")
        try:
            zeroconf = Zeroconf(interfaces, use_asyncio=False)
            assert zeroconf.loop is not None
            asyncio.run_coroutine_threadsafe(zeroconf.async_wait_for_start(), zeroconf.loop).result()
        except (OSError, RuntimeError) as exc:
            where = "any interface" if self.interfaces is None else ", ".join(self.interfaces)
            raise MulticastUnavailable(f"cannot use multicast on {where}: {exc}") from exc
        self._zeroconf = zeroconf
        self._on_loop(self._begin)
        return self

    def close(self) -> None:
        """Says goodbye for everything announced, and stops. Not to be called from a callback."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is None:
            return
        assert zeroconf.loop is not None
        asyncio.run_coroutine_threadsafe(self._goodbye(zeroconf), zeroconf.loop).result()
        zeroconf.close()

    def announce(self, kind: str, properties: Mapping[str, str], name: str = "") -> Announcement:
        """Lets others hear of something, a millisecond from now and until it is withdrawn or this process ends.

        `kind` is a word in small letters, `name` what `new_name(kind)` gave, where it has to be known before. Raises
        `BadAnnouncement` where that, or what the properties hold, cannot be sent.
        """
        if not re.fullmatch("[a-z]+", kind):
            raise BadAnnouncement(f"a kind is a word in small letters, not {kind!r}")
        self._refuse_unless_started()
        announcement = Announcement(self, name or new_name(kind), properties)
        self._on_loop(self._add, announcement._info)
        return announcement

    def browse(self, kind: str, callback: Callable[[Change, Sighting], object]) -> Callable[[], None]:
        """Calls `callback("added" | "changed" | "removed", sighting)` for every announcement of this kind.

        First for those that are known already, then as they come and go; always on the beacon's own thread, one at a
        time, so it must not block. What it raises is logged. Returns what ends it.
        """
        self._refuse_unless_started()
        key = object()
        self._on_loop(self._watch, key, kind, callback)
        return lambda: self._on_loop(self._watchers.pop, key, None)

    def doubt(self, name: str) -> None:
        """Forgets a sighting, which is then `removed`, until it is heard anew: at its next heartbeat, if it has one."""
        self._on_loop(self._forget, name)

    def __enter__(self) -> Beacon:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Beacon on {self.interfaces or 'all interfaces'}, {'on' if self._zeroconf else 'off'}>"

    def _refuse_unless_started(self) -> None:
        if self._zeroconf is None:
            raise MulticastUnavailable("the beacon is not started")

    def _on_loop(self, work: Callable[..., object], *args: object) -> None:
        zeroconf = self._zeroconf
        if zeroconf is not None and zeroconf.loop is not None:
            zeroconf.loop.call_soon_threadsafe(work, *args)

    def _info(self, name: str, properties: Mapping[str, str]) -> ServiceInfo:
        addresses = own_addresses() if self.interfaces is None else list(self.interfaces)
        full = f"{name}.{_TYPE}"
        text = pack({_AT: ",".join(addresses)} | dict(properties))
        return ServiceInfo(
            _TYPE, full, 0, properties=text, server=full, parsed_addresses=addresses,
            host_ttl=int(LIFETIME), other_ttl=int(LIFETIME),
        )  # fmt: skip

    # From here on everything runs on the beacon's own thread.

    def _begin(self) -> None:
        zeroconf = self._zeroconf
        if zeroconf is not None:
            zeroconf.async_add_listener(_Ear(self), None)
            self._beat()

    def _beat(self) -> None:
        """Repeats every announcement, packed together, and follows the machine from network to network."""
        zeroconf = self._zeroconf
        if zeroconf is None or zeroconf.loop is None:
            return
        if infos := zeroconf.registry.async_get_service_infos():
            out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
            for info in infos:
                out.add_answer_at_time(info.dns_text(), 0)
            zeroconf.async_send(out)
        if self._following is None or self._following.done():
            self._following = zeroconf.loop.create_task(self._follow(zeroconf))
        self._beaten = zeroconf.loop.time()
        self._heart = zeroconf.loop.call_later(PERIOD, self._beat)

    async def _follow(self, zeroconf: Zeroconf) -> None:
        try:
            await zeroconf.async_update_interfaces()
        except OSError as exc:
            log.warning("cannot follow a change of the network: %s", exc)

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Brings the next heartbeat forward, by a random bit so that not everyone answers at the same moment."""
        when = max(loop.time() + random.uniform(0.001, 0.03), self._beaten + _AT_MOST_EVERY)
        if self._heart is not None and self._heart.when() > when:
            self._heart.cancel()
            self._heart = loop.call_at(when, self._beat)

    async def _goodbye(self, zeroconf: Zeroconf) -> None:
        if self._heart is not None:
            self._heart.cancel()
        if self._following is not None:
            self._following.cancel()
        if (out := zeroconf.generate_unregister_all_services()) is not None:
            zeroconf.async_send(out)
        for _, timer in self._heard.values():
            timer.cancel()
        self._heard.clear()

    def _add(self, info: ServiceInfo) -> None:
        if self._zeroconf is not None:
            self._zeroconf.registry.async_add(info)
            self._send(info, None)

    def _update(self, info: ServiceInfo) -> None:
        if self._zeroconf is not None and self._zeroconf.registry.async_get_info_name(info.key) is not None:
            self._zeroconf.registry.async_update(info)
            self._send(info, None)

    def _withdraw(self, info: ServiceInfo) -> None:
        if self._zeroconf is not None and (last := self._zeroconf.registry.async_get_info_name(info.key)) is not None:
            self._zeroconf.registry.async_remove(last)
            self._send(last, 0)

    def _send(self, info: ServiceInfo, ttl: int | None) -> None:
        if self._zeroconf is not None:
            self._zeroconf.async_send(self._zeroconf.generate_service_broadcast(info, ttl))

    def _watch(self, key: object, kind: str, callback: Callable[[Change, Sighting], object]) -> None:
        self._watchers[key] = kind, callback
        for sighting, _ in list(self._heard.values()):
            if sighting.kind == kind:
                _call(callback, "added", sighting)
        if self._zeroconf is not None:
            out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
            out.add_answer_at_time(self._info(f"{_ASK}-{secrets.token_hex(8)}", {}).dns_text(), 0)
            self._zeroconf.async_send(out)

    def _hear(self, record: DNSText) -> None:
        sighting = understand(record.name, record.text)
        if sighting is None or self._zeroconf is None or self._zeroconf.loop is None:
            return
        if sighting.kind == _ASK:
            self._answer(self._zeroconf.loop)
            return
        before, timer = self._heard.pop(sighting.name, (None, None))
        if timer is not None:
            timer.cancel()
        elif len(self._heard) >= MAX_HEARD:
            return
        self._heard[sighting.name] = sighting, self._zeroconf.loop.call_later(LIFETIME, self._forget, sighting.name)
        if before != sighting:
            self._tell("added" if before is None else "changed", sighting)

    def _forget(self, name: str) -> None:
        if name in self._heard:
            sighting, timer = self._heard.pop(name)
            timer.cancel()
            self._tell("removed", sighting)

    def _tell(self, change: Change, sighting: Sighting) -> None:
        for kind, callback in list(self._watchers.values()):
            if kind == sighting.kind:
                _call(callback, change, sighting)


class _Ear(RecordUpdateListener):
    """Hears every record that arrives, and keeps to the texts, in which an announcement is whole."""

    def __init__(self, beacon: Beacon) -> None:
        super().__init__()
        self._beacon = beacon

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        for new, old in ((update.new, update.old) for update in records):
            if not isinstance(new, DNSText) or not new.name.endswith(_TYPE) or new is old:
                continue  # the same record twice is zeroconf forgetting it; how long to remember is our own affair
            if new.ttl == 0:
                self._beacon._forget(new.name.removesuffix("." + _TYPE))
            else:
                self._beacon._hear(new)


def new_name(kind: str) -> str:
    """A name for an announcement that nobody else will have."""
    return f"{kind}-{secrets.token_hex(8)}"


def pack(properties: Mapping[str, str]) -> bytes:
    """Properties as a TXT record holds them. Raises `BadAnnouncement`."""
    packed = b""
    for key, value in properties.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key or "=" in key:
            raise BadAnnouncement(f"properties are texts, with no = in their keys; got {key!r}: {value!r}")
        text = f"{key}={value}".encode()
        if len(text) > 255:
            raise BadAnnouncement(f"key and value have room for 254 bytes together; {key!r} needs {len(text) - 1}")
        packed += bytes([len(text)]) + text
    if len(packed) > MAX_SIZE:
        raise BadAnnouncement(f"properties have room for {MAX_SIZE} bytes together; these need {len(packed)}")
    return packed


def understand(name: str, text: bytes) -> Sighting | None:
    """What somebody else announced; None where it cannot be an announcement of ours."""
    named = _NAME.fullmatch(name)
    if named is None or len(text) > MAX_SIZE:
        return None
    properties: dict[str, str] = {}
    while text:
        size, text = text[0], text[1:]
        pair, text = text[:size], text[size:]
        try:
            key, equals, value = pair.decode().partition("=")
        except UnicodeDecodeError:
            return None
        if len(pair) != size or not key or not equals or key in properties:
            return None
        properties[key] = value
    addresses = tuple(filter(None, properties.pop(_AT, "").split(",")))
    return Sighting(named[1], f"{named[1]}-{named[2]}", properties, addresses)


def own_addresses() -> list[str]:
    """The IPv4 addresses of this machine, loopback only where there is nothing else; at most eight."""
    found = _addresses()
    return ([address for address in found if not address.startswith("127.")] or found)[:8]


def _addresses() -> list[str]:
    return [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]


def _call(callback: Callable[[Change, Sighting], object], change: Change, sighting: Sighting) -> None:
    try:
        callback(change, sighting)
    except Exception:
        log.exception("the callback for %s %s raised", change, sighting.name)

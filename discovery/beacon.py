"""Announce small things on the local network, and hear what others announce. The only file that imports zeroconf.

Multicast DNS service discovery (RFC 6762, 6763), with two departures. Names carry a random part, so nobody has to
probe for 1.2 seconds whether a name is free. And life is a heartbeat, as in SWIM-like membership: every announcement is
repeated every `PERIOD` seconds and forgotten `LIFETIME` seconds after it was last heard, since the lifetimes in the
records themselves are minutes for the sake of traffic, and zeroconf raises those of pointers to 19 minutes. Whoever
begins to listen asks, and is answered by an early heartbeat: the answer to an ordinary query may be a second late.
Many announcements are sent a few at a time, because a burst would overrun the buffers of those who listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ifaddr
from zeroconf import InterfaceChoice, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf, const
from zeroconf._dns import DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.errors import BadAnnouncement, MulticastUnavailable

PERIOD = 4
"""Seconds between two heartbeats."""
LIFETIME = 12
"""Seconds, and at most one more, for which what was heard is believed: three heartbeats, of which two may be lost."""
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
_CHUNK = 6  # announcements sent at once
_GAP = 0.03  # seconds between two such chunks


@dataclass(frozen=True)
class Sighting:
    """What was heard: `name` is unique to one announcement, `addresses` are the announcing machine's own."""

    kind: str
    name: str
    properties: Mapping[str, str]
    addresses: tuple[str, ...]


class Announcement:
    """Something of ours that others hear of. Both calls return at once and may be made on any thread."""

    def __init__(self, beacon: Beacon, name: str) -> None:
        self.name = name
        self._beacon = beacon

    def update(self, properties: Mapping[str, str]) -> None:
        """Replaces the properties. Raises `BadAnnouncement`."""
        info = self._beacon._info(self.name, properties)
        self._beacon._on_loop(lambda engine: engine.update(info))

    def withdraw(self) -> None:
        """Tells everyone that it is gone."""
        self._beacon._on_loop(lambda engine: engine.withdraw(self.name))

    def __repr__(self) -> str:
        return f"<Announcement {self.name}>"


class Beacon:
    """Announces and listens, between `start` and `close`, or as a context manager.

    `interfaces` are the addresses of the interfaces to use, by default all of them. It hears its own announcements too.
    `period` is the number of seconds between two heartbeats, the same for all; what was heard is believed for three.
    """

    def __init__(self, interfaces: Sequence[str] | None = None, period: float = PERIOD) -> None:
        self.interfaces, self.period = interfaces, period
        self._engine: _Engine | None = None

    def start(self) -> Beacon:
        """Opens the sockets. Raises `MulticastUnavailable` where the machine or the interfaces have no multicast."""
        if self._engine is not None:
            return self
        interfaces = InterfaceChoice.All if self.interfaces is None else list(self.interfaces)
        if unknown := set(self.interfaces or ()).difference(_addresses()):
            raise MulticastUnavailable(f"not an address of this machine: {', '.join(sorted(unknown))}")
        if not _addresses():
            raise MulticastUnavailable("no interface has an IPv4 address")
        try:
            zeroconf = Zeroconf(interfaces, use_asyncio=False)
            assert zeroconf.loop is not None
            asyncio.run_coroutine_threadsafe(zeroconf.async_wait_for_start(), zeroconf.loop).result()
        except (OSError, RuntimeError) as exc:
            where = "any interface" if self.interfaces is None else ", ".join(self.interfaces)
            raise MulticastUnavailable(f"cannot use multicast on {where}: {exc}") from exc
        self._engine = _Engine(zeroconf, zeroconf.loop, self.period)
        self._on_loop(_Engine.begin)
        return self

    def close(self) -> None:
        """Says goodbye for everything announced, and stops. Not to be called from a callback."""
        engine, self._engine = self._engine, None
        if engine is not None:
            asyncio.run_coroutine_threadsafe(engine.end(), engine.loop).result()
            engine.zeroconf.close()

    def announce(self, kind: str, properties: Mapping[str, str], name: str = "") -> Announcement:
        """Lets others hear of something, milliseconds from now and until it is withdrawn or this process ends.

        `kind` is a word in small letters, `name` what `new_name(kind)` gave, where it has to be known before. Raises
        `BadAnnouncement` where that, or what the properties hold, cannot be sent, and `MulticastUnavailable` when the
        beacon is off.
        """
        if not re.fullmatch("[a-z]+", kind):
            raise BadAnnouncement(f"a kind is a word in small letters, not {kind!r}")
        self._refuse_unless_started()
        announcement = Announcement(self, name or new_name(kind))
        info = self._info(announcement.name, properties)
        self._on_loop(lambda engine: engine.add(info))
        return announcement

    def browse(self, kind: str, callback: Callable[[Change, Sighting], object]) -> Callable[[], None]:
        """Calls `callback("added" | "changed" | "removed", sighting)` for every announcement of this kind.

        First for those that are known already, then as they come and go; always on the beacon's own thread, one at a
        time, so it must not block. What it raises is logged. Returns what ends it.
        """
        self._refuse_unless_started()
        key, question = object(), self._info(f"{_ASK}-{secrets.token_hex(8)}", {})
        self._on_loop(lambda engine: engine.watch(key, kind, callback, question))
        return lambda: self._on_loop(lambda engine: engine.watchers.pop(key, None))

    def doubt(self, name: str) -> None:
        """Forgets a sighting, which is then `removed`, until it is heard anew: at its next heartbeat, if it has one."""
        self._on_loop(lambda engine: engine.forget(name))

    def __enter__(self) -> Beacon:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Beacon on {self.interfaces or 'all interfaces'}, {'on' if self._engine else 'off'}>"

    def _refuse_unless_started(self) -> None:
        if self._engine is None:
            raise MulticastUnavailable("the beacon is not started")

    def _on_loop(self, work: Callable[[_Engine], object]) -> None:
        """Lets the beacon's thread do it soon; nothing where the beacon is off, or is just being closed."""
        engine = self._engine
        if engine is not None:
            with contextlib.suppress(RuntimeError):
                engine.loop.call_soon_threadsafe(work, engine)

    def _info(self, name: str, properties: Mapping[str, str]) -> ServiceInfo:
        addresses = own_addresses() if self.interfaces is None else list(self.interfaces)
        text, full = pack({_AT: ",".join(addresses)} | dict(properties)), f"{name}.{_TYPE}"
        ttl = max(1, round(3 * self.period))
        return ServiceInfo(
            _TYPE, full, 0, server=full, properties=text, parsed_addresses=addresses, host_ttl=ttl, other_ttl=ttl
        )


class _Engine(RecordUpdateListener):
    """What a started beacon is, all of it on the thread of zeroconf's event loop."""

    def __init__(self, zeroconf: Zeroconf, loop: asyncio.AbstractEventLoop, period: float) -> None:
        super().__init__()
        self.zeroconf, self.loop, self.period = zeroconf, loop, period
        self.sent = 0
        self.watchers: dict[object, tuple[str, Callable[[Change, Sighting], object]]] = {}
        self.heard: dict[str, tuple[bytes, Sighting]] = {}
        self.heard_at: dict[str, float] = {}
        self.to_send: OrderedDict[str, ServiceInfo] = OrderedDict()
        self.sending: asyncio.TimerHandle | None = None
        self.heart: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self.zeroconf.async_add_listener(self, None)
        # What arrived while the sockets were being opened: zeroconf keeps it, and ignores its repetition for a while.
        for name in self.zeroconf.cache.names():
            for record in self.zeroconf.cache.entries_with_name(name):
                if isinstance(record, DNSText) and record.name.endswith(_TYPE):
                    self.hear(record.name, record.text)
        self.heart = self.loop.create_task(self.beat())

    async def end(self) -> None:
        for task in (self.heart, self.sending):
            if task is not None:
                task.cancel()
        infos = self.zeroconf.registry.async_get_service_infos()
        self.zeroconf.registry.async_remove(infos)
        for start in range(0, len(infos), _CHUNK):
            self.send(infos[start : start + _CHUNK], 0)
            await asyncio.sleep(0.005)

    async def beat(self) -> None:
        """Repeats every announcement, forgets the silent, and follows the machine from network to network."""
        for quarter in itertools.count():
            silent_since = self.loop.time() - 3 * self.period
            for name in [name for name, heard_at in self.heard_at.items() if heard_at <= silent_since]:
                self.forget(name)
            if quarter % 4 == 0:
                self.repeat(0)
                try:
                    await self.zeroconf.async_update_interfaces()
                except OSError as exc:
                    log.warning("cannot follow a change of the network: %s", exc)
            await asyncio.sleep(self.period / 4)

    def repeat(self, delay: float) -> None:
        self.to_send |= {info.key: info for info in self.zeroconf.registry.async_get_service_infos()}
        self.send_soon(delay)

    def send_soon(self, delay: float) -> None:
        if self.sending is None and self.to_send:
            self.sending = self.loop.call_later(delay, self.send_some)

    def send_some(self) -> None:
        self.sending = None
        gap = min(_GAP, self.period / 2 * _CHUNK / len(self.to_send)) if self.to_send else _GAP
        self.send([self.to_send.popitem(last=False)[1] for _ in range(min(_CHUNK, len(self.to_send)))], None)
        self.send_soon(gap)

    def send(self, infos: list[ServiceInfo], ttl: int | None) -> None:
        if infos:
            out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
            self.sent += 1
            for info in infos:
                # zeroconf ignores a packet that equals the one before it within a second: no two of ours are equal.
                life = info.other_ttl + self.sent % 2 if ttl is None else ttl
                out.add_answer_at_time(info.dns_text(override_ttl=life), 0)
            self.zeroconf.async_send(out)

    def add(self, info: ServiceInfo) -> None:
        self.zeroconf.registry.async_update(info)
        self.to_send[info.key] = info
        self.to_send.move_to_end(info.key, last=False)  # news comes before repetition
        self.send_soon(0)

    def update(self, info: ServiceInfo) -> None:
        if self.zeroconf.registry.async_get_info_name(info.key) is not None:
            self.add(info)

    def withdraw(self, name: str) -> None:
        info = self.zeroconf.registry.async_get_info_name(f"{name}.{_TYPE}")
        if info is not None:
            self.zeroconf.registry.async_remove(info)
            self.to_send.pop(info.key, None)
            self.send([info], 0)

    def watch(
        self, key: object, kind: str, callback: Callable[[Change, Sighting], object], question: ServiceInfo
    ) -> None:
        self.watchers[key] = kind, callback
        for _, sighting in list(self.heard.values()):
            if sighting.kind == kind:
                _call(callback, "added", sighting)
        self.send([question], None)

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Every record that arrives comes by here; an announcement is whole in its text."""
        for new, old in ((update.new, update.old) for update in records):
            if not isinstance(new, DNSText) or not new.name.endswith(_TYPE) or new is old:
                continue  # the same record twice is zeroconf forgetting it; how long to remember is our own affair
            if new.ttl == 0:
                self.forget(new.name.removesuffix("." + _TYPE))
            else:
                self.hear(new.name, new.text)

    def hear(self, full: str, text: bytes) -> None:
        name = full.removesuffix("." + _TYPE)
        before, known = self.heard.get(name, (None, None))
        if before != text:
            sighting = understand(full, text)
            if sighting is None or (known is None and len(self.heard) >= MAX_HEARD):
                return
            if sighting.kind == _ASK:
                self.repeat(random.uniform(0, _GAP))  # not everyone at the same moment
                return
            self.heard[name] = text, sighting
            self.tell("added" if known is None else "changed", sighting)
        self.heard_at[name] = self.loop.time()

    def forget(self, name: str) -> None:
        if name in self.heard:
            del self.heard_at[name]
            self.tell("removed", self.heard.pop(name)[1])

    def tell(self, change: Change, sighting: Sighting) -> None:
        for kind, callback in list(self.watchers.values()):
            if kind == sighting.kind:
                _call(callback, change, sighting)


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

"""The inside of a beacon that is on. This is the only file that imports zeroconf.

Two facts about zeroconf shape this file. It passes a goodbye (a record with lifetime 0) to listeners only if the very
same text is in its cache, so the goodbye for an update that was lost, or was still waiting to be sent, is lost as well.
A withdrawn announcement is therefore sent as a text of its own. And zeroconf ignores a packet that it received less
than 0.8 seconds ago, so every update has a number, which makes its text differ from those before it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import socket
from collections.abc import Callable, Iterable, Sequence

from zeroconf import Error, InterfaceChoice, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf, const
from zeroconf._dns import DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.beacon.format import GOODBYE, PERIODS, TYPE, Change, Sighting, parse, seconds_to_live, short
from discovery.errors import MulticastUnavailable

MAX_HEARD = 10_000
"""Announcements that a beacon remembers. It ignores more, so that a flood of names costs bounded memory."""
ASK = ""
"""The kind of an announcement that asks everyone for theirs."""
TICKS = 4
"""Ticks in a period."""
AGAIN = (1 / 16, 1 / 4)
"""Parts of a period after which a change is sent again, in case that the first packet was lost."""
_CHUNK = 6  # announcements sent at once
_GAP = 0.03  # seconds between two such chunks
_GOODBYES = 20  # withdrawn announcements sent at once
_PAUSE = 0.005  # seconds between two such packets
_LAST_PAUSE = 0.1  # seconds until they are sent again: a listener whose buffer was full has read on meanwhile
_BUFFER = 1 << 20  # bytes that may wait to be read, where the system allows as many

Callback = Callable[[Change, Sighting], object]
log = logging.getLogger("discovery")


class Engine(RecordUpdateListener):
    """Announce and listen, on the thread of zeroconf's event loop. Only `open` and `close` are for other threads."""

    def __init__(self, zeroconf: Zeroconf, period: float) -> None:
        super().__init__()
        assert zeroconf.loop is not None
        self.zeroconf, self.loop, self.period = zeroconf, zeroconf.loop, period
        self.watchers: dict[object, tuple[str, Callback]] = {}
        self.heard: dict[str, tuple[bytes, Sighting]] = {}
        self.believed: dict[str, int] = {}  # until which tick
        self.tick = 0
        self.to_send: dict[str, None] = {}  # names of announcements, in order
        self.burst = 1  # how many there were to send at the same time
        self.sending: asyncio.TimerHandle | None = None
        self.heart: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, interfaces: Sequence[str] | None, period: float) -> Engine:
        """Open the sockets.

        Raises:
            MulticastUnavailable: the machine or these interfaces have no multicast.
        """
        zeroconf: Zeroconf | None = None
        try:
            zeroconf = Zeroconf(InterfaceChoice.All if interfaces is None else list(interfaces), use_asyncio=False)
            assert zeroconf.loop is not None
            asyncio.run_coroutine_threadsafe(zeroconf.async_wait_for_start(), zeroconf.loop).result()
        except (OSError, RuntimeError, Error) as exc:
            if zeroconf is not None:
                zeroconf.close()
            where = "any interface" if interfaces is None else ", ".join(interfaces)
            raise MulticastUnavailable(f"cannot use multicast on {where}: {exc}") from exc
        return cls(zeroconf, period)

    def close(self) -> None:
        """Say goodbye, and close the sockets."""
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result()
        try:
            self.zeroconf.close()
        except TimeoutError:
            log.warning("the beacon's thread does not end in time and is left alone")

    def begin(self) -> None:
        """Start listening, and the heartbeat."""
        for reader in self.zeroconf.engine.readers:
            reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.zeroconf.async_add_listener(self, None)
        # Packets may have come while the sockets were opened. zeroconf ignores their repetition, but has their records.
        # It marks those that an update has replaced with a lifetime of one second.
        records = [
            record for name in self.zeroconf.cache.names() for record in self.zeroconf.cache.entries_with_name(name)
        ]
        for record in sorted(records, key=lambda record: record.created):
            if isinstance(record, DNSText) and (record.ttl > 1 or record.text == GOODBYE):
                self.record(record)
        self.heart = self.loop.create_task(self.beat())

    async def end(self) -> None:
        """Say goodbye for everything that is announced, and again a moment later, since no heartbeat follows."""
        for task in (self.heart, self.sending):
            if task is not None:
                task.cancel()
        announced = self.zeroconf.registry.async_get_service_infos()
        self.zeroconf.registry.async_remove(announced)
        names = list(self.to_send | dict.fromkeys(short(info.name) for info in announced))
        for pause in (_LAST_PAUSE, 0):
            for start in range(0, len(names), _GOODBYES):
                self.send(map(self.text, names[start : start + _GOODBYES]))
                await asyncio.sleep(_PAUSE)
            await asyncio.sleep(pause if names else 0)

    async def beat(self) -> None:
        """Repeat every announcement, forget those that are silent, and follow the machine from network to network.

        Silence is counted in ticks and not in seconds. So a process that was stopped for a while does not take the
        others for dead when it goes on.
        """
        while True:
            if self.tick % TICKS == 0:
                self.repeat(0)
                try:
                    await self.zeroconf.async_update_interfaces()
                except (OSError, RuntimeError, Error) as exc:
                    log.warning("cannot follow a change of the network: %s", exc)
            await asyncio.sleep(self.period / TICKS)
            self.age()

    def age(self) -> None:
        """Count one more tick, and forget those that have been silent for too long."""
        self.tick += 1
        for name in [name for name, until in self.believed.items() if until < self.tick]:
            self.forget(name)

    # Sending

    def repeat(self, delay: float) -> None:
        """Send every announcement again, beginning after `delay` seconds."""
        self.to_send |= dict.fromkeys(short(info.name) for info in self.zeroconf.registry.async_get_service_infos())
        self.send_soon(delay)

    def send_soon(self, delay: float) -> None:
        """Go on sending what is to be sent after `delay` seconds, unless a time is set already."""
        if self.sending is None and self.to_send:
            self.sending = self.loop.call_later(delay, self.send_some)

    def send_some(self) -> None:
        """Send a few announcements, and the others later: a burst would overrun the buffers of those who listen."""
        self.sending = None
        self.burst = max(self.burst, len(self.to_send)) if self.to_send else 1
        names = list(itertools.islice(self.to_send, _CHUNK))
        for name in names:
            del self.to_send[name]
        self.send(map(self.text, names))
        self.send_soon(min(_GAP, self.period / 2 * _CHUNK / self.burst))

    def send(self, records: Iterable[DNSText]) -> None:
        """Send one packet."""
        out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
        for record in records:
            out.add_answer_at_time(record, 0)
        if out.answers:
            self.zeroconf.async_send(out)

    def text(self, name: str) -> DNSText:
        """The record for an announcement as it is now; if it is none any more, a goodbye."""
        full = f"{name}.{TYPE}"
        info = self.zeroconf.registry.async_get_info_name(full)
        if info is not None:
            return info.dns_text()
        return DNSText(full, const._TYPE_TXT, const._CLASS_IN | const._CLASS_UNIQUE, 1, GOODBYE)

    def news(self, name: str) -> None:
        """Send a change before everything else, and again after a while."""
        self.to_send = {name: None} | self.to_send
        self.send_soon(0)
        for part in AGAIN:
            self.loop.call_later(part * self.period, self.again, name)

    def again(self, name: str) -> None:
        """Send a change once more."""
        self.to_send.setdefault(name)
        self.send_soon(0)

    def add(self, name: str, text: bytes, addresses: Sequence[str]) -> None:
        """Announce this, or a change of it."""
        self.zeroconf.registry.async_update(self.info(name, text, addresses))
        self.news(name)

    def update(self, name: str, text: bytes, addresses: Sequence[str]) -> None:
        """Announce a change, unless the announcement was withdrawn."""
        if self.zeroconf.registry.async_get_info_name(f"{name}.{TYPE}") is not None:
            self.add(name, text, addresses)

    def withdraw(self, name: str) -> None:
        """Announce this no longer."""
        info = self.zeroconf.registry.async_get_info_name(f"{name}.{TYPE}")
        if info is not None:
            self.zeroconf.registry.async_remove(info)
            self.news(name)

    def info(self, name: str, text: bytes, addresses: Sequence[str]) -> ServiceInfo:
        """The form in which zeroconf keeps an announcement, so that it answers the questions of others."""
        full, ttl = f"{name}.{TYPE}", seconds_to_live(self.period)
        return ServiceInfo(
            TYPE, full, 0, server=full, properties=text, parsed_addresses=list(addresses), host_ttl=ttl, other_ttl=ttl
        )

    # Hearing

    def watch(self, key: object, kind: str, callback: Callback, question: str, text: bytes) -> None:
        """Call back for what is known and for what comes, and ask the others to announce themselves now."""
        self.watchers[key] = kind, callback
        for _, sighting in list(self.heard.values()):
            if sighting.kind == kind:
                _call(callback, "added", sighting)
        record = self.info(question, text, ()).dns_text()
        self.send([record])
        self.loop.call_later(AGAIN[0] * self.period, self.send, [record])

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Take every record that arrives. An announcement is whole in its text."""
        for update in records:
            # If both are the same, zeroconf's cache drops a record. How long we believe it is decided here.
            if isinstance(update.new, DNSText) and update.new is not update.old:
                self.record(update.new)

    def record(self, record: DNSText) -> None:
        """Take one record."""
        if record.name.endswith(TYPE):
            if record.ttl == 0 or record.text == GOODBYE:
                self.forget(short(record.name))
            else:
                self.hear(short(record.name), record.text)

    def hear(self, name: str, text: bytes) -> None:
        """Take an announcement, or its repetition."""
        before, sighting = self.heard.get(name, (None, None))
        if before != text:
            known, sighting = sighting is not None, parse(f"{name}.{TYPE}", text)
            if sighting is None or (not known and len(self.heard) >= MAX_HEARD):
                return
            if sighting.kind == ASK:
                self.repeat(random.uniform(0, _GAP))  # not everyone at the same moment
                return
            self.heard[name] = text, sighting
            self.tell("changed" if known else "added", sighting)
        assert sighting is not None
        self.believed[name] = self.tick + math.ceil(PERIODS * TICKS * sighting.period / self.period - 1e-6)

    def forget(self, name: str) -> None:
        """Forget an announcement, and tell everyone who browses for its kind."""
        if name in self.heard:
            del self.believed[name]
            self.tell("removed", self.heard.pop(name)[1])

    def tell(self, change: Change, sighting: Sighting) -> None:
        """Call everyone who browses for this kind."""
        for kind, callback in list(self.watchers.values()):
            if kind == sighting.kind:
                _call(callback, change, sighting)


def _call(callback: Callback, change: Change, sighting: Sighting) -> None:
    try:
        callback(change, sighting)
    except Exception:
        log.exception("the callback for %s %s raised", change, sighting.name)

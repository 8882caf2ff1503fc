"""The inside of a beacon that is on. This is the only file that imports zeroconf.

Two facts about zeroconf shape this file. It passes a goodbye (a record with lifetime 0) to listeners only if the very
same text is in its cache, so the goodbye for an update that was lost, or was still waiting to be sent, is lost as well.
A withdrawn announcement is therefore sent as a text of its own. And zeroconf ignores a packet that it received less
than 0.8 seconds ago, so every update has a number, which makes its text differ from those before it.

The host in our records has a name that no other process has. Two processes, or one and the system's own responder, may
announce different addresses for the same machine. Each would flush the other's, and that responder would rename itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import random
import re
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from zeroconf import Error, InterfaceChoice, IPVersion, RecordUpdate, RecordUpdateListener, ServiceInfo, Zeroconf, const
from zeroconf._dns import DNSRecord, DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.beacon.filter import Filter, networks
from discovery.beacon.format import TYPE, goodbye, instance, seconds_to_live, with_period
from discovery.beacon.hearing import TICKS, Callback, Hearing
from discovery.beacon.pace import ANSWERED, next_pace, rest, spread
from discovery.beacon.packets import MAX_PACKET, Gate, overflows
from discovery.errors import MulticastUnavailable

AGAIN = (1 / 16, 1 / 4)
"""Parts of a period after which a change is sent again, in case that the first packet was lost."""
_CHUNK = 5  # announcements sent at once
_GAP = 0.03  # seconds between two such chunks
_GOODBYES = 20  # withdrawn announcements sent at once
_PAUSE = 0.005  # seconds between two such packets
_LAST_PAUSE = 0.1  # seconds until they are sent again: a listener whose buffer was full has read on meanwhile
_MULTICAST_ALL = 49  # Linux's IP_MULTICAST_ALL: whether to receive what others on this machine have subscribed to
_BUFFER = 1 << 20  # bytes that may wait to be read, where the system allows as many

log = logging.getLogger("discovery")


@dataclass(slots=True)
class Own:
    """An announcement of ours.

    Attributes:
        info: its records, in the form in which zeroconf keeps them to answer the questions of others.
        whole: how many more times to send all of them, and not the text alone.
        gone: whether it was withdrawn.
    """

    info: ServiceInfo
    whole: int = 1 + len(AGAIN)
    gone: bool = False


class Engine(RecordUpdateListener):
    """Announce and listen, on the thread of zeroconf's event loop. Only `open` and `close` are for other threads."""

    def __init__(self, zeroconf: Zeroconf, period: float, interfaces: Sequence[str] | None = None) -> None:
        super().__init__()
        assert zeroconf.loop is not None
        self.zeroconf, self.loop, self.period = zeroconf, zeroconf.loop, period
        self.interfaces, self.door = interfaces, Filter()
        self.pace = period  # the seconds between two heartbeats now, more than the period where many are heard
        self.hearing = Hearing(period, self.question)
        host = socket.gethostname().partition(".")[0]
        self.host = host, f"{re.sub('[^A-Za-z0-9-]', '-', host)[:50]}-{secrets.token_hex(4)}.local."
        self.next_beat = 0  # in ticks
        self.own: dict[str, Own] = {}
        self.to_send: dict[str, Own] = {}  # in order
        self.burst = 1  # how many there were to send at the same time
        self.sending: asyncio.TimerHandle | None = None
        self.answering = self.asked = False
        self.heart: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, interfaces: Sequence[str] | None, period: float) -> Engine:
        """Open the sockets.

        Raises:
            MulticastUnavailable: the machine or these interfaces have no multicast.
        """
        zeroconf: Zeroconf | None = None
        try:
            zeroconf = Zeroconf(_choice(interfaces), use_asyncio=False)
            assert zeroconf.loop is not None
            asyncio.run_coroutine_threadsafe(zeroconf.async_wait_for_start(), zeroconf.loop).result()
        except (OSError, RuntimeError, Error) as exc:
            if zeroconf is not None:
                zeroconf.close()
            where = "any interface" if interfaces is None else ", ".join(interfaces)
            raise MulticastUnavailable(f"cannot use multicast on {where}: {exc}") from exc
        return cls(zeroconf, period, interfaces)

    def close(self) -> None:
        """Say goodbye, and close the sockets."""
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result()
        try:
            self.zeroconf.close()
        except TimeoutError:
            log.warning("the beacon's thread does not end in time and is left alone")

    def begin(self) -> None:
        """Start listening, and the heartbeat."""
        self.guard()
        # Who sent what came while the sockets were opened is not known. It is not believed, and so zeroconf must not
        # ignore its repetition. All is repeated for us when we ask.
        for protocol in self.zeroconf.engine.protocols:
            protocol.data = None
            protocol._recent_packets.clear()
        self.zeroconf.async_add_listener(self, None)
        self.heart = self.loop.create_task(self.beat())

    def guard(self) -> None:
        """Hear only what comes from the networks in which we speak, also on sockets that are new."""
        self.door.change(networks(self.interfaces))
        for reader in self.zeroconf.engine.readers:
            inner = cast(asyncio.DatagramProtocol, reader.transport.get_protocol())
            if not isinstance(inner, Gate):
                reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
                reader.transport.max_size = MAX_PACKET  # type: ignore[attr-defined]  # asyncio makes room for 262,144
                reader.transport.set_protocol(
                    Gate(reader.sock.dup(), inner, self.admits, self.hearing.knows, self.hearing.learn)
                )
                if sys.platform == "linux":
                    with contextlib.suppress(OSError):  # not in every sandbox
                        reader.sock.setsockopt(socket.IPPROTO_IP, _MULTICAST_ALL, 0)

    async def follow(self) -> None:
        """Use the interfaces that the machine has now, and show everything to those behind a new one."""
        try:
            engine = self.zeroconf.engine
            if await engine.async_update_interfaces(_choice(self.interfaces), IPVersion.V4Only, False):
                for own in self.own.values():
                    own.whole = max(own.whole, 1)
                self.repeat(0)
            self.guard()
        except (OSError, RuntimeError, Error) as exc:
            log.warning("cannot follow a change of the network: %s", exc)

    async def end(self) -> None:
        """Say goodbye for everything that is announced, and again a moment later, since no heartbeat follows."""
        for task in (self.heart, self.sending):
            if task is not None:
                task.cancel()
        addresses = [record for own in self.own.values() for record in own.info.dns_addresses(override_ttl=0)]
        for name in list(self.own):
            self.part(name)
        parted = list(self.to_send.items())
        for pause in (_LAST_PAUSE, 0):
            for start in range(0, len(parted), _GOODBYES):
                self.send(
                    itertools.chain.from_iterable(itertools.starmap(self.records, parted[start : start + _GOODBYES]))
                )
                await asyncio.sleep(_PAUSE)
            self.send(set(addresses))
            await asyncio.sleep(pause if parted else 0)

    async def beat(self) -> None:
        """Repeat every announcement, forget those that are silent, and follow the machine from network to network.

        Silence is counted in ticks and not in seconds. So a process that was stopped for a while does not take the
        others for dead when it goes on.
        """
        while True:
            if self.hearing.tick >= self.next_beat:
                changed = self.adapt() or not self.hearing.tick
                ticks = round(TICKS * self.pace / self.period)
                # Not all in the same moment, though many may have been started in the same.
                self.next_beat = self.hearing.tick + (random.randint(math.ceil(ticks / 2), ticks) if changed else ticks)
                self.repeat(0)
            if self.hearing.tick % TICKS == 0:
                await self.follow()
            await asyncio.sleep(self.period / TICKS)
            self.hearing.age()

    # Sending

    def adapt(self) -> bool:
        """Set the pace for what is heard now, and say so in what is announced. Return whether it has changed."""
        pace = next_pace(self.pace, self.period, len(self.hearing.heard))
        if pace == self.pace:
            return False
        self.pace = pace
        for own in self.own.values():
            info = own.info
            own.info = self.info(info.name, info.port or 0, info.text, info.parsed_addresses())
            self.zeroconf.registry.async_update(own.info)
        return True

    def repeat(self, delay: float) -> None:
        """Send every announcement again, beginning after `delay` seconds."""
        self.to_send |= self.own
        self.send_soon(delay)

    def question(self) -> None:
        """Answer soon: not all beacons in the same moment, and none again right after an answer."""
        self.asked = True
        if not self.answering:
            self.answering = True
            self.loop.call_later(random.uniform(0, spread(len(self.hearing.heard))), self.answer)

    def answer(self) -> None:
        """Send every announcement if somebody has asked, and rest."""
        self.answering = self.asked
        if self.asked:
            self.asked = False
            self.repeat(0)
            self.loop.call_later(rest(len(self.hearing.heard)), self.answer)

    def send_soon(self, delay: float) -> None:
        """Go on sending what is to be sent after `delay` seconds, unless a time is set already."""
        if self.sending is None and self.to_send:
            self.sending = self.loop.call_later(delay, self.send_some)

    def send_some(self) -> None:
        """Send a few announcements, and the others later: a burst would overrun the buffers of those who listen."""
        self.sending = None
        self.burst = max(self.burst, len(self.to_send)) if self.to_send else 1
        names = list(itertools.islice(self.to_send, _CHUNK))
        self.send([record for name in names for record in self.records(name, self.to_send.pop(name))])
        self.send_soon(min(_GAP, self.period / 2 * _CHUNK / self.burst))

    def send(self, records: Iterable[DNSRecord]) -> None:
        """Send one packet."""
        out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
        for record in records:
            out.add_answer_at_time(record, 0)
        if out.answers:
            self.zeroconf.async_send(out)

    def records(self, name: str, own: Own) -> Iterator[DNSRecord]:
        """The records to send for an announcement as it is now: its text; also the others while it is new or gone."""
        info = own.info
        if own.gone:
            again = self.zeroconf.registry.async_get_info_name(info.key) is not None
            if not again:
                yield from (info.dns_pointer(override_ttl=0), info.dns_service(override_ttl=0))
            # If another one is called the same by now, its records stay.
            yield text_record(f"{name}.{TYPE}" if again else info.name, goodbye(name), 1)
            return
        if own.whole > 0:
            own.whole -= 1
            yield from (info.dns_pointer(), info.dns_service(), *info.dns_addresses())
        yield info.dns_text()

    def news(self, name: str, own: Own) -> None:
        """Send a change before everything else, and again after a while."""
        self.to_send = {name: own} | self.to_send
        self.send_soon(0)
        for part in AGAIN:
            self.loop.call_later(part * self.period, self.again, name, own)

    def again(self, name: str, own: Own) -> None:
        """Send a change once more."""
        self.to_send.setdefault(name, own)
        self.send_soon(0)

    def add(self, name: str, subject: str, port: int, text: bytes, addresses: Sequence[str]) -> None:
        """Announce this."""
        registry, pid = self.zeroconf.registry, os.getpid()
        fulls = (f"{instance(subject, self.host[0], pid, number)}.{TYPE}" for number in itertools.count(1))
        full = next(full for full in fulls if registry.async_get_info_name(full.lower()) is None)
        self.own[name] = Own(self.info(full, port, text, addresses))
        registry.async_add(self.own[name].info)
        self.news(name, self.own[name])

    def update(self, name: str, text: bytes, addresses: Sequence[str]) -> None:
        """Announce a change, unless the announcement was withdrawn."""
        own = self.own.get(name)
        if own is not None:
            own.info = self.info(own.info.name, own.info.port or 0, text, addresses)
            self.zeroconf.registry.async_update(own.info)
            self.news(name, own)

    def withdraw(self, name: str) -> None:
        """Announce this no longer."""
        if name in self.own:
            self.news(name, self.part(name))

    def part(self, name: str) -> Own:
        """Let an announcement be gone. What is sent for it from now on are goodbyes."""
        own = self.to_send[name] = self.own.pop(name)
        own.gone = True
        self.zeroconf.registry.async_remove(own.info)
        return own

    def info(self, full: str, port: int, text: bytes, addresses: Sequence[str]) -> ServiceInfo:
        """The form in which zeroconf keeps an announcement, so that it answers the questions of others."""
        ttl, server, text = seconds_to_live(self.pace), self.host[1], with_period(text, self.pace)
        known = list(addresses)
        return ServiceInfo(
            TYPE, full, port, server=server, properties=text, parsed_addresses=known, host_ttl=ttl, other_ttl=ttl
        )

    # Hearing

    def watch(self, key: object, kind: str, callback: Callback, question: str, text: bytes) -> None:
        """Call back for what is known and for what comes, and ask the others to announce themselves now."""
        self.hearing.watch(key, kind, callback)
        record = text_record(f"{question}.{TYPE}", text, seconds_to_live(self.period))
        self.send([record])
        self.loop.call_later(AGAIN[0] * self.period, self.send, [record])
        self.loop.call_later(ANSWERED, self.ask_again, record)

    def ask_again(self, question: DNSText) -> None:
        """Ask once more if answers were lost. Not more often: where many are heard, an answer costs everybody."""
        if any(overflows(reader.sock) for reader in self.zeroconf.engine.readers):
            self.send([question])

    def admits(self, data: bytes, sender: str) -> bool:
        """Return whether this packet may come in."""
        return self.door.admits(data, sender, self.loop.time())

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Take every record that arrives. An announcement is whole in its text."""
        self.hearing.unclear -= len(records)
        for update in records:
            record = update.new
            # If both are the same, zeroconf's cache drops a record. How long we believe it is decided here.
            if isinstance(record, DNSText) and record is not update.old and record.name.endswith(TYPE):
                self.hearing.take(record.text, ended=record.ttl == 0)


def _choice(interfaces: Sequence[str] | None) -> InterfaceChoice | list[str]:
    return InterfaceChoice.All if interfaces is None else list(interfaces)


def text_record(full: str, text: bytes, ttl: int) -> DNSText:
    """A text record that replaces the one before it."""
    return DNSText(full, const._TYPE_TXT, const._CLASS_IN | const._CLASS_UNIQUE, ttl, text)

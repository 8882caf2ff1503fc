"""What a beacon sends when, and how long it believes what it heard: without a network, on a loop that only notes."""

import asyncio
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from zeroconf import RecordUpdate, ServiceRegistry, Zeroconf, const
from zeroconf._dns import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.beacon import PERIOD, PERIODS, Change, Sighting
from discovery.beacon.engine import TICKS, Engine
from discovery.beacon.format import TYPE, goodbye, head, name_in, pack

NAME = "ring-0123456789abcdef"
GOODBYE = goodbye(NAME)


class Loop:
    """Note what is to be called later, and call it when told to."""

    def __init__(self) -> None:
        self.time, self.due = 0.0, list[tuple[float, Callable[..., Any], tuple[Any, ...]]]()

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        self.due.append((self.time + delay, callback, args))
        return cast(asyncio.TimerHandle, object())

    def run(self, until: float) -> None:
        """Go on to that moment."""
        while ready := sorted((each for each in self.due if each[0] <= until), key=lambda each: each[0]):
            self.due.remove(ready[0])
            self.time, callback, args = ready[0]
            callback(*args)
        self.time = until


class Network:
    """An engine, the texts it has sent as (moment, name, text), its other records, and what was heard from it."""

    def __init__(self, period: float = PERIOD) -> None:
        self.loop = Loop()
        self.sent: list[tuple[float, str, bytes]] = []
        self.others: list[DNSRecord] = []
        fake = SimpleNamespace(loop=self.loop, registry=ServiceRegistry(), async_send=self._send)
        self.engine = Engine(cast(Zeroconf, fake), period)
        self.heard: list[tuple[Change, Sighting]] = []
        self.engine.watchers[self] = "ring", lambda change, sighting: self.heard.append((change, sighting))

    def _send(self, out: DNSOutgoing) -> None:
        for record, _ in out.answers:
            if isinstance(record, DNSText):
                self.sent.append((self.loop.time, name_in(record.text), record.text))
            else:
                self.others.append(record)

    def receive(self, text: bytes, ttl: int = 12, old: DNSText | None = None, name: str = "Any") -> DNSText:
        """Let a packet come in, as zeroconf passes it on: with what its cache had."""
        record = DNSText(f"{name}.{TYPE}", const._TYPE_TXT, const._CLASS_IN | const._CLASS_UNIQUE, ttl, text)
        self.engine.async_update_records(self.engine.zeroconf, 0.0, [RecordUpdate(record, old)])
        return record

    def changes(self) -> list[Change]:
        return [change for change, _ in self.heard]

    def add(self, text: bytes, name: str = NAME) -> None:
        self.engine.add(name, "Stock", 7647, text, ["10.0.0.1"])


def text(revision: int, period: float = PERIOD, name: str = NAME, **properties: str) -> bytes:
    return head(name, ["10.0.0.1"], period, revision) + pack(properties)


def test_a_change_is_sent_three_times() -> None:
    """At once, and again after a sixteenth and a quarter of the period, since one packet may be lost."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=3.9)
    assert network.sent == [(moment, NAME, text(1)) for moment in (0.0, 0.25, 1.0)]


def test_what_is_sent_again_is_the_latest() -> None:
    """A repetition carries what is true when it is sent, so it never takes back an update."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=0.1)
    network.engine.update(NAME, text(2), ["10.0.0.1"])
    network.loop.run(until=0.2)
    network.engine.withdraw(NAME)
    network.engine.update(NAME, text(3), ["10.0.0.1"])
    network.loop.run(until=2.0)
    texts = [sent for _, _, sent in network.sent]
    assert texts == [text(1), text(2), *[GOODBYE] * (len(texts) - 2)]
    assert len(texts) >= 5


def test_news_overtakes_heartbeats() -> None:
    """A change is in the next packet, however many heartbeats wait."""
    network = Network()
    for number in range(100):
        network.add(text(number, name=f"ring-{number:016x}"), f"ring-{number:016x}")
    network.add(text(1))
    network.loop.run(until=0.0)
    assert (0.0, NAME, text(1)) in network.sent
    assert len(network.sent) < 10


@pytest.mark.parametrize("period", [0.1, 0.4, 60.0])
def test_heartbeats_fit_into_half_a_period(period: float) -> None:
    """However short the period is, and however many announcements there are."""
    network = Network(period)
    for number in range(200):
        network.add(text(number, name=f"ring-{number:016x}"), f"ring-{number:016x}")
    network.loop.run(until=10 * period)
    network.sent.clear()
    network.engine.repeat(0)
    network.loop.run(until=10.6 * period)
    assert len({name for _, name, _ in network.sent}) == len(network.sent) == 200


def test_a_goodbye_is_heard_whatever_else_was_lost() -> None:
    """zeroconf has another text in its cache than the last one that was announced, and has none at all."""
    network = Network()
    network.receive(text(1))
    network.receive(GOODBYE, ttl=1)
    network.receive(GOODBYE, ttl=1)
    assert network.changes() == ["added", "removed"]


def test_a_goodbye_of_ordinary_dns_is_heard() -> None:
    """A lifetime of 0 ends an announcement as well."""
    network = Network()
    record = network.receive(text(1))
    network.receive(text(1), ttl=0, old=record)
    assert network.changes() == ["added", "removed"]


def test_each_update_is_one_change() -> None:
    """Even to the same properties, and back again; a repetition is none."""
    network = Network()
    for sent in (text(1, a="1"), text(1, a="1"), text(2, a="1"), text(3, a="2"), text(4, a="1"), text(4, a="1")):
        network.receive(sent)
    assert [(change, sighting.properties["a"]) for change, sighting in network.heard] == [
        ("added", "1"), ("changed", "1"), ("changed", "2"), ("changed", "1"),
    ]  # fmt: skip


def test_what_leaves_the_cache_is_still_believed() -> None:
    """zeroconf reports a record that it drops as an update to itself."""
    network = Network()
    record = network.receive(text(1))
    network.receive(text(1), ttl=12, old=None)
    network.engine.async_update_records(network.engine.zeroconf, 0.0, [RecordUpdate(record, record)])
    assert network.changes() == ["added"]


@pytest.mark.parametrize(("own", "theirs"), [(4.0, 4.0), (4.0, 0.4), (0.4, 4.0), (0.4, 0.4), (60.0, 0.1)])
def test_who_is_silent_is_forgotten_after_three_of_its_periods(own: float, theirs: float) -> None:
    """Whatever the listener's own period is, which only says how exactly the time is kept."""
    network = Network(own)
    network.receive(text(1, period=theirs))
    ticks = 0
    while network.changes() == ["added"]:
        network.engine.age()
        ticks += 1
    tick = own / TICKS
    assert PERIODS * theirs <= (ticks - 1) * tick + 1e-9 <= PERIODS * theirs + tick
    assert network.changes() == ["added", "removed"]


def test_a_heartbeat_prolongs_belief() -> None:
    """Two of three may be lost."""
    network = Network()
    for _ in range(5):
        network.receive(text(1))
        for _ in range(PERIODS * TICKS):
            network.engine.age()
    assert network.changes() == ["added"]


def test_who_asks_is_answered_by_everything() -> None:
    """A question repeats all announcements within a moment."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=2.0)
    network.sent.clear()
    network.receive(text(1, name="-0123456789abcdef"))
    network.loop.run(until=2.1)
    assert [(name, sent) for _, name, sent in network.sent] == [(NAME, text(1))]


def test_a_question_is_asked_twice() -> None:
    """One packet may be lost; those that have heard the first ignore the second, as it is the same."""
    network = Network()
    network.engine.watch(object(), "ring", print, "-0123456789abcdef", text(1, name="-0123456789abcdef"))
    network.loop.run(until=3.0)
    (first, *asked), (second, *again) = network.sent
    assert asked == again
    assert (first, second) == (0.0, 0.25)


def test_other_browsers_see_a_name_a_host_and_a_port() -> None:
    """All records while it is new, so that the first packet may be lost; the text alone in updates and heartbeats."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=2.0)
    network.engine.update(NAME, text(2), ["10.0.0.1"])
    network.engine.repeat(0)
    network.loop.run(until=5.0)
    kinds = [type(record) for record in network.others]
    assert kinds == [DNSPointer, DNSService, DNSAddress] * 3
    pointer, service, address = network.others[:3]
    assert isinstance(pointer, DNSPointer)
    assert isinstance(service, DNSService)
    assert pointer.alias == service.name
    assert service.name == f"Stock on {network.engine.host[0]} ({os.getpid()}).{TYPE}"
    assert (service.server, service.port) == (address.name, 7647)
    assert address.name.endswith(".local.")
    assert address.name.count(".") == 2
    assert address.name != Network().engine.host[1]


def test_goodbyes_take_every_record_back() -> None:
    """The pointer and the place too, so that nobody's browser lists what has gone."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=2.0)
    network.others.clear()
    network.engine.withdraw(NAME)
    network.loop.run(until=4.0)
    assert [(type(record), record.ttl) for record in network.others] == [(DNSPointer, 0), (DNSService, 0)] * 3


def test_a_goodbye_spares_what_is_called_the_same() -> None:
    """Two by one process differ by a number; what takes over a name is not ended by the goodbyes of the one before."""
    network = Network()
    other, third = "ring-1123456789abcdef", "ring-2123456789abcdef"
    network.add(text(1))
    network.add(text(2, name=other), other)
    network.loop.run(until=2.0)
    names = {record.name for record in network.others if isinstance(record, DNSService)}
    assert {name.removesuffix("." + TYPE)[-3:] for name in names} == {f"{os.getpid()})"[-3:], ") 2"}
    network.others.clear()
    network.engine.withdraw(NAME)
    network.add(text(3, name=third), third)
    network.loop.run(until=4.0)
    assert {record.ttl for record in network.others} == {12}
    assert [name for _, name, sent in network.sent if sent == GOODBYE] == [NAME] * 3


def test_who_is_called_the_same_elsewhere_is_another() -> None:
    """Two machines may have the same name and the same process ids: the name in the text counts."""
    network = Network()
    twin = "ring-1123456789abcdef"
    network.receive(text(1))
    network.receive(text(1, name=twin))
    network.receive(goodbye(twin), ttl=1)
    assert [(change, sighting.name) for change, sighting in network.heard] == [
        ("added", NAME), ("added", twin), ("removed", twin),
    ]  # fmt: skip

"""What a beacon sends when, and how long it believes what it heard: without a network, on a loop that only notes."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from zeroconf import RecordUpdate, ServiceRegistry, Zeroconf, const
from zeroconf._dns import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.beacon import PERIOD, PERIODS, Change, Sighting
from discovery.beacon.engine import Engine
from discovery.beacon.format import TYPE, goodbye, head, name_in, pack, with_period
from discovery.beacon.hearing import TICKS
from discovery.beacon.pace import ANSWERED
from discovery.beacon.packets import Gate

NAME = "ring-0123456789abcdef"
GOODBYE = goodbye(NAME)
OTHER = "ring-0000000000000001"
NEIGHBOUR = "127.0.0.1"


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

    def __init__(self, period: float = 4.0) -> None:
        self.loop = Loop()
        self.sent: list[tuple[float, str, bytes]] = []
        self.others: list[DNSRecord] = []
        self.readers: list[SimpleNamespace] = []
        opened = SimpleNamespace(readers=self.readers)
        fake = SimpleNamespace(loop=self.loop, registry=ServiceRegistry(), async_send=self._send, engine=opened)
        self.engine = Engine(cast(Zeroconf, fake), period)
        self.heard: list[tuple[Change, Sighting]] = []
        self.engine.hearing.watchers[self] = "ring", lambda change, sighting: self.heard.append((change, sighting))

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


def text(revision: int, period: float = 4.0, name: str = NAME, **properties: str) -> bytes:
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
        network.engine.hearing.age()
        ticks += 1
    tick = own / TICKS
    assert PERIODS * theirs <= (ticks - 1) * tick + 1e-9 <= PERIODS * theirs + tick
    assert network.changes() == ["added", "removed"]


def test_who_crashes_among_few_is_forgotten_within_ten_seconds() -> None:
    """With the usual period, at the latest; two heartbeats may be lost meanwhile."""
    network, tick = Network(PERIOD), PERIOD / TICKS
    network.receive(text(1, period=PERIOD))
    passed = 0.0
    while network.changes() == ["added"]:
        network.engine.hearing.age()
        passed += tick
    assert 3 * PERIOD <= passed <= 10.0


def test_a_heartbeat_prolongs_belief() -> None:
    """Two of three may be lost."""
    network = Network()
    for _ in range(5):
        network.receive(text(1))
        for _ in range(PERIODS * TICKS):
            network.engine.hearing.age()
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


def test_many_questions_have_one_answer() -> None:
    """Whoever asks is answered, and however many ask, ten times a second at most where few are heard."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=2.0)
    network.sent.clear()
    for number in range(1000):
        network.receive(text(1, name=f"-{number:016x}"))
        network.loop.run(until=2.0 + number / 1000)
    assert 8 <= len(network.sent) <= 11
    last = network.loop.time
    network.loop.run(until=last + 1)
    assert network.sent[-1][0] >= last


def test_news_do_not_wait_for_an_answer() -> None:
    """Where many are heard an answer may wait most of a second; a change is sent at once."""
    network = Network()
    for number in range(1000):
        network.receive(text(1, name=f"ring-{number:016x}"))
    network.add(text(1))
    network.loop.run(until=2.0)
    network.receive(text(1, name="-0123456789abcdef"))
    network.sent.clear()
    network.engine.update(NAME, text(2), ["10.0.0.1"])
    network.loop.run(until=2.0)
    assert network.sent == [(2.0, NAME, text(2))]


def test_who_hears_many_speaks_less_often_and_says_so() -> None:
    """The new period is in all announcements; for those who hear them it is no change."""
    network = Network()
    network.add(text(1, a="1"))
    network.loop.run(until=2.0)
    for number in range(5000):
        network.receive(text(1, name=f"ring-{number:016x}"))
    network.engine.adapt()
    network.sent.clear()
    network.engine.repeat(0)
    network.loop.run(until=3.0)
    assert network.sent == [(2.0, NAME, text(1, period=6.0, a="1"))]
    listener = Network()
    for period in (4.0, 6.0, 9.0):
        listener.receive(text(1, period, a="1"))
    listener.receive(text(2, 9.0, a="1"))
    assert listener.changes() == ["added", "changed"]
    for _ in range(round(PERIODS * 9.0 / 4.0 * TICKS)):
        listener.engine.hearing.age()
    assert listener.changes() == ["added", "changed"]
    listener.engine.hearing.age()
    assert listener.changes() == ["added", "changed", "removed"]


def test_a_period_is_put_into_any_head() -> None:
    """What follows is untouched, and so is a text without one."""
    assert with_period(text(7, 4.0, every="_every=4"), 13.5) == text(7, 13.5, every="_every=4")
    assert with_period(pack({"a": "b"}), 13.5) == pack({"a": "b"})
    assert with_period(b"", 1.0) == b""


def test_that_no_more_can_be_heard_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, until there was room again."""
    monkeypatch.setattr("discovery.beacon.hearing.MAX_HEARD", 2)
    network = Network()
    for number in (1, 2, 3, 4):
        network.receive(text(1, name=f"ring-{number:016x}"))
    assert caplog.text.count("more are ignored") == 1
    network.receive(goodbye(f"ring-{1:016x}"))
    for number in (5, 6):
        network.receive(text(1, name=f"ring-{number:016x}"))
    assert caplog.text.count("more are ignored") == 2
    assert network.changes().count("added") == 3


class Wire:
    """An engine behind its gate, and a zeroconf that reads packets which name the records in them."""

    def __init__(self) -> None:
        self.network, self.parsed, self.contents = Network(), 0, dict[bytes, list[bytes]]()
        self.sock, self.other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.sock.bind((NEIGHBOUR, 0))
        self.other.connect(self.sock.getsockname())
        self.sock.setblocking(False)
        inner, engine = cast(asyncio.DatagramProtocol, self), self.network.engine
        self.gate = Gate(self.sock, inner, self.admits, engine.hearing.knows, engine.hearing.learn)

    def admits(self, data: bytes, sender: str) -> bool:
        return sender == NEIGHBOUR

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.parsed += 1
        kind = const._CLASS_IN | const._CLASS_UNIQUE
        records = [DNSText(f"Any.{TYPE}", const._TYPE_TXT, kind, 12, said) for said in self.contents[data]]
        updates = [RecordUpdate(record, None) for record in records]
        self.network.engine.async_update_records(self.network.engine.zeroconf, 0.0, updates)

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.close()

    def packet(self, *records: bytes, hidden: int = 0) -> bytes:
        """A packet with these records, and others that zeroconf does not tell of."""
        data = bytes(6) + (len(records) + hidden).to_bytes(2) + bytes(4) + repr(records).encode()
        self.contents[data] = list(records)
        return data

    def receive(self, *records: bytes, hidden: int = 0, sender: str = NEIGHBOUR) -> None:
        """Let such a packet come in."""
        self.gate.datagram_received(self.packet(*records, hidden=hidden), (sender, 5353))


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.gate.connection_lost(None)


def test_all_packets_that_have_come_are_read_at_once(wire: Wire) -> None:
    """The loop passes on the first; the gate reads the others, and stops when there are no more."""
    for number in range(9):
        wire.other.send(wire.packet(text(1, name=f"ring-{number:016x}")))
    wire.gate.datagram_received(wire.sock.recv(9000), (NEIGHBOUR, 5353))
    assert wire.network.changes() == ["added"] * 9


def test_a_heartbeat_is_parsed_once(wire: Wire) -> None:
    """The same bytes say the same: they prolong belief as a parsed packet would."""
    for _ in range(5):
        wire.receive(text(1), text(1, name=OTHER))
        for _ in range(PERIODS * TICKS):
            wire.network.engine.hearing.age()
    assert wire.parsed == 1
    assert wire.network.changes() == ["added", "added"]
    wire.network.engine.hearing.age()
    assert wire.network.changes()[2:] == ["removed", "removed"]
    wire.receive(text(1), text(1, name=OTHER))
    assert wire.network.changes()[4:] == ["added", "added"]


def test_the_same_bytes_are_parsed_again_when_they_say_something_new(wire: Wire) -> None:
    """After an update, a goodbye, and a suspicion; and a packet with a question or a goodbye always is."""
    for said in (text(1), text(2), text(1), GOODBYE, text(1), GOODBYE):
        wire.receive(said)
    assert wire.network.changes() == ["added", "changed", "changed", "removed", "added", "removed"]
    wire.receive(text(1))
    wire.network.engine.hearing.forget(NAME)
    wire.receive(text(1))
    assert wire.network.changes()[6:] == ["added", "removed", "added"]
    other = text(1, name=OTHER)
    for packet in ((GOODBYE, other), (text(1, name="-0123456789abcdef"), other)):
        before = wire.parsed
        wire.receive(*packet)
        wire.receive(*packet)
        assert wire.parsed == before + 2
    before = wire.parsed
    wire.receive(other, hidden=1)
    wire.receive(other, hidden=1)
    assert wire.parsed == before + 2


def test_what_is_not_admitted_prolongs_nothing(wire: Wire) -> None:
    """The bytes of a heartbeat from somewhere else are dropped before they are compared."""
    wire.receive(text(1))
    for _ in range(PERIODS * TICKS + 1):
        wire.receive(text(1), sender="192.0.2.1")
        wire.network.engine.hearing.age()
    assert wire.network.changes() == ["added", "removed"]


def test_packets_that_are_kept_are_bounded(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit all are parsed once more, and nothing is missed."""
    monkeypatch.setattr("discovery.beacon.packets.MAX_KEPT", 1000)
    for revision in range(100):
        wire.receive(text(revision))
        assert sum(map(len, wire.network.engine.hearing.packets._said)) <= 1000
    assert len(wire.network.changes()) == 100


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


@pytest.mark.parametrize("added", [True, False])
def test_browsers_behind_a_new_interface_see_everything(added: bool) -> None:
    """All records are sent once more when an interface has come, and only then."""
    network = Network()
    network.add(text(1))
    network.loop.run(until=2.0)
    network.others.clear()

    async def update(*_: object) -> bool:
        return added

    cast(Any, network.engine.zeroconf).engine = SimpleNamespace(async_update_interfaces=update, readers=[])
    asyncio.run(network.engine.follow())
    network.loop.run(until=4.0)
    assert len(network.others) == (3 if added else 0)


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a full buffer has lost")
@pytest.mark.parametrize("lost", [False, True])
def test_whoever_lost_answers_asks_once_more(lost: bool) -> None:
    """When all have answered, and only then: an answer costs everybody."""
    network = Network()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        full.bind(("127.0.0.1", 0))
        for _ in range(100 if lost else 0):
            full.sendto(bytes(1000), full.getsockname())
        network.readers.append(SimpleNamespace(sock=full))
        network.engine.watch(object(), "ring", print, "-0123456789abcdef", text(1))
        network.loop.run(until=30.0)
    assert [moment for moment, *_ in network.sent] == [0.0, 0.25, *([ANSWERED] if lost else [])]

"""Announcing and hearing, with real multicast on loopback and real processes."""

import queue
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from zeroconf import ServiceInfo, Zeroconf
from zeroconf._protocol.outgoing import DNSOutgoing

import discovery.beacon.hearing
from discovery import Beacon
from discovery.beacon import PERIOD, Change, Sighting, pack
from discovery.errors import BadAnnouncement, MulticastUnavailable
from tests.processes import python

LOOPBACK = ["127.0.0.1"]
SOON = 10.0
QUICK = 0.4
"""Seconds of a period, a tenth of the usual."""
NEVER = 60.0
"""Seconds of a period that is longer than any of these tests: no heartbeat makes up for what was lost."""
Other = Callable[..., subprocess.Popen[str]]
OTHER = """
import sys
from discovery import Beacon
with Beacon(["127.0.0.1"], period=float(sys.argv[2])) as beacon:
    announcement = beacon.announce(sys.argv[1], {"step": "0"})
    for line in sys.stdin:
        announcement.update({"step": line.strip()})
"""


FORKING = """
import os
from discovery import Beacon
with Beacon(["127.0.0.1"]) as beacon:
    announcement = beacon.announce("fork", {})
    if not (child := os.fork()):
        announcement.withdraw()
        beacon.close()
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def kind() -> str:
    """A kind of our own, since all tests of a machine share its loopback."""
    return "".join(secrets.choice("abcdefgh") for _ in range(12))


@pytest.fixture
def beacon() -> Iterator[Beacon]:
    with Beacon(LOOPBACK, period=QUICK) as beacon:
        yield beacon


@pytest.fixture
def other(kind: str) -> Iterator[Other]:
    """Start a process that announces something; a line of text on its input is what it announces next."""
    started: list[subprocess.Popen[str]] = []

    def start(period: float = QUICK) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OTHER, kind, str(period)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def heard(beacon: Beacon, kind: str) -> Callable[[float], tuple[Change, Sighting]]:
    """What the beacon hears of this kind, one after the other, each within so many seconds."""
    events: queue.Queue[tuple[Change, Sighting]] = queue.Queue()
    beacon.browse(kind, lambda change, sighting: events.put((change, sighting)))
    return lambda seconds: events.get(timeout=seconds)


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    print(text, file=process.stdin, flush=True)


def test_others_are_heard_as_they_come_change_and_go(beacon: Beacon, kind: str, other: Other) -> None:
    """Added, changed at each update, and removed when the process ends in an orderly way."""
    next_event = heard(beacon, kind)
    process = other(NEVER)
    change, first = next_event(SOON)
    assert (change, first.kind, first.properties, first.addresses) == ("added", kind, {"step": "0"}, ("127.0.0.1",))
    say(process, "1")
    change, second = next_event(SOON)
    assert (change, second.name, second.properties) == ("changed", first.name, {"step": "1"})
    assert process.stdin is not None
    process.stdin.close()
    assert next_event(SOON) == ("removed", second)
    assert process.wait(SOON) == 0


def test_those_who_were_there_before_are_found_at_once(kind: str, other: Other) -> None:
    """A beacon that has just been started asks, and hears those whose next heartbeat is a long time off."""
    with Beacon(LOOPBACK, period=NEVER) as first:
        next_event = heard(first, kind)
        for _ in range(3):
            other(NEVER)
        names = {next_event(SOON)[1].name for _ in range(3)}
    with Beacon(LOOPBACK, period=NEVER) as late:
        next_event = heard(late, kind)
        assert {next_event(SOON)[1].name for _ in range(3)} == names


def test_a_killed_process_is_forgotten(beacon: Beacon, kind: str, other: Other) -> None:
    """SIGKILL leaves no goodbye, so it is silence that removes it. One that lives on is not removed meanwhile."""
    with Beacon(LOOPBACK, period=NEVER) as survivor:
        survivor.announce(kind, {"who": "survivor"})
        next_event = heard(beacon, kind)
        assert next_event(SOON)[0] == "added"
        process = other()
        _, killed = next_event(SOON)
        process.kill()
        assert next_event(SOON) == ("removed", killed)


def test_a_killed_process_is_forgotten_within_fifteen_seconds(kind: str, other: Other) -> None:
    """The same with the usual period: it is forgotten after nine to ten seconds."""
    with Beacon(LOOPBACK) as beacon:
        next_event = heard(beacon, kind)
        process = other(PERIOD)
        _, killed = next_event(SOON)
        process.kill()
        assert next_event(15) == ("removed", killed)


def test_a_goodbye_right_after_an_update_is_heard(kind: str) -> None:
    """A leader resigns and stops at once: nobody hears the update, but everybody hears that it has gone."""
    with Beacon(LOOPBACK, period=NEVER) as listener, Beacon(LOOPBACK, period=NEVER) as beacon:
        next_event = heard(listener, kind)
        announcement = beacon.announce(kind, {"fence": "1"})
        assert next_event(SOON)[0] == "added"
        announcement.update({})
        beacon.close()
        while (change := next_event(SOON)[0]) == "changed":
            pass
        assert change == "removed"


def test_each_update_is_heard(kind: str) -> None:
    """Also one that goes back to what was announced less than a second ago, and one that changes nothing."""
    with Beacon(LOOPBACK, period=NEVER) as listener, Beacon(LOOPBACK, period=NEVER) as beacon:
        next_event = heard(listener, kind)
        announcement = beacon.announce(kind, {"n": "1"})
        assert next_event(SOON)[0] == "added"
        for number in ("2", "1", "1"):
            announcement.update({"n": number})
            change, sighting = next_event(SOON)
            assert (change, sighting.properties) == ("changed", {"n": number})


@pytest.mark.parametrize("what", ["update", "goodbye"])
def test_a_lost_packet_is_made_up_for(kind: str, what: str) -> None:
    """A change is sent again before the next heartbeat."""
    with Beacon(LOOPBACK, period=NEVER) as listener, Beacon(LOOPBACK, period=2 * SOON) as beacon:
        next_event = heard(listener, kind)
        announcement = beacon.announce(kind, {"n": "1"})
        assert next_event(SOON)[0] == "added"
        assert beacon._engine is not None
        network, sent = beacon._engine.zeroconf, queue.Queue[DNSOutgoing]()
        send = network.async_send
        network.async_send = sent.put  # type: ignore[method-assign, assignment]
        announcement.update({"n": "2"}) if what == "update" else announcement.withdraw()
        sent.get(timeout=SOON)
        network.async_send = send  # type: ignore[method-assign]
        assert next_event(SOON)[0] == {"update": "changed", "goodbye": "removed"}[what]


def test_a_last_goodbye_that_is_lost_is_made_up_for(kind: str) -> None:
    """A beacon that closes sends no heartbeats any more, so it says goodbye twice."""
    with Beacon(LOOPBACK, period=NEVER) as listener, Beacon(LOOPBACK, period=NEVER) as beacon:
        next_event = heard(listener, kind)
        beacon.announce(kind, {})
        assert next_event(SOON)[0] == "added"
        assert beacon._engine is not None
        network, lost = beacon._engine.zeroconf, list[DNSOutgoing]()
        send = network.async_send
        network.async_send = lambda out: send(out) if lost else lost.append(out)  # type: ignore[method-assign, assignment, misc]
        beacon.close()
        assert next_event(SOON)[0] == "removed"


def test_what_was_packed_is_sent_as_it_is(beacon: Beacon, kind: str) -> None:
    """Properties that were packed once, to see whether they can be sent, are not packed again."""
    next_event = heard(beacon, kind)
    announcement = beacon.announce(kind, pack({"a": "1"}))
    assert next_event(SOON)[1].properties == {"a": "1"}
    announcement.update(pack({"a": "2"}))
    assert next_event(SOON)[1].properties == {"a": "2"}


def test_a_beacon_hears_itself(beacon: Beacon, kind: str) -> None:
    """Announced, updated and withdrawn in one process, and known at once to those who browse later."""
    announcement = beacon.announce(kind, {"a": "1"})
    early = heard(beacon, kind)
    assert early(SOON)[0] == "added"
    late = heard(beacon, kind)
    assert late(SOON)[1].properties == {"a": "1"}
    announcement.update({"a": "2"})
    assert [early(SOON)[0], late(SOON)[0]] == ["changed", "changed"]
    announcement.withdraw()
    announcement.update({"a": "3"})
    assert [early(SOON)[0], late(SOON)[0]] == ["removed", "removed"]


def test_browsing_can_be_ended_and_may_raise(beacon: Beacon, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged and the others go on; one that was ended is not called again."""

    def raising(change: Change, sighting: Sighting) -> None:
        raise ZeroDivisionError(change)

    ended: list[Change] = []
    beacon.browse(kind, raising)
    beacon.browse(kind, lambda change, _: ended.append(change))()
    next_event = heard(beacon, kind)
    beacon.announce(kind, {})
    assert next_event(SOON)[0] == "added"
    assert "ZeroDivisionError" in caplog.text
    assert ended == []


def test_noise_is_ignored(beacon: Beacon, kind: str) -> None:
    """Random bytes, and well-formed announcements by strangers that are not ours, change nothing."""
    next_event = heard(beacon, kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK[0]))
        for size in (1, 12, 500, 8000):
            sender.sendto(secrets.token_bytes(size), ("224.0.0.251", 5353))
    stranger = Zeroconf(LOOPBACK)
    named = b"\x21_id=" + kind.encode() + b"-0123456789abcdef"
    for number, text in enumerate((named + b"\x03a=\xff", b"\x03a=b", named[:-1])):
        full = f"{kind}-{number}._politics._tcp.local."
        info = ServiceInfo("_politics._tcp.local.", full, 1, properties=text, server=full, parsed_addresses=LOOPBACK)
        stranger.register_service(info, cooperating_responders=True)
    beacon.announce(kind, {"real": "yes"})
    assert next_event(SOON)[1].properties == {"real": "yes"}
    stranger.close()


def test_a_flood_of_names_is_bounded(beacon: Beacon, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit new names are ignored, those known stay known and may change."""
    next_event = heard(beacon, kind)
    announcement = beacon.announce(kind, {"n": "1"})
    assert next_event(SOON)[0] == "added"
    monkeypatch.setattr(discovery.beacon.hearing, "MAX_HEARD", 0)
    beacon.announce(kind, {"n": "2"})
    announcement.update({"n": "3"})
    assert next_event(SOON) == ("changed", Sighting(kind, announcement.name, {"n": "3"}, ("127.0.0.1",), QUICK))


def test_a_forked_child_can_close_its_copy() -> None:
    """It does nothing there and does not wait for a thread that only the parent has."""
    with python(FORKING) as process:
        assert process.line() == "7"


def test_where_there_is_no_multicast_it_says_so() -> None:
    """An address that is no interface of this machine is named in the error."""
    with pytest.raises(MulticastUnavailable, match=r"203\.0\.113\.1"):
        Beacon(["203.0.113.1"]).start()


def test_a_beacon_that_is_off_says_so(kind: str) -> None:
    """Announcing or browsing before the start, or after the end, is an error; closing twice is none."""
    beacon = Beacon(LOOPBACK)
    with pytest.raises(MulticastUnavailable, match="not started"):
        beacon.announce(kind, {})
    beacon.start().close()
    beacon.close()
    with pytest.raises(MulticastUnavailable, match="not started"):
        beacon.browse(kind, print)


@pytest.mark.parametrize("bad", ["", "Ring", "ring-1", "ring ring"])
def test_a_bad_kind_is_refused_by_name(beacon: Beacon, bad: str) -> None:
    """Kinds are words in small letters; the message shows what was given."""
    with pytest.raises(BadAnnouncement, match=repr(bad)):
        beacon.announce(bad, {})

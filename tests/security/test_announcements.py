"""What strangers can do with packets to the port of multicast DNS."""

import contextlib
import json
import secrets
import socket
import time

import pytest

from discovery import Beacon, Registry
from discovery.beacon.filter import QUESTIONS
from tests.commands import politics
from tests.hosts.network import inside
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
ASKING = b"\0\0\0\1\0\0\0\0\0\0\x09_politics\x04_tcp\x05local\0\0\x0c\0\1"
"""A question of ordinary DNS for everything that is announced, after its number."""


def test_a_beacon_hears_only_the_networks_in_which_it_speaks() -> None:
    """By multicast and sent to an address; what comes from behind a router is heard by nobody."""
    heard = json.loads(inside("tests.hosts.strangers"))
    near = "10.77.0.1 to 224.0.0.251"
    assert heard["127.0.0.1"] == ["the last"]
    for interfaces in ("all", "10.77.0.2"):
        assert near in heard[interfaces]
        assert not [by for by in heard[interfaces] if by.startswith("10.99.")]


def test_questions_do_not_make_a_flood_of_answers() -> None:
    """A stranger who asks a thousand times is answered a few dozen times, by each process."""
    kind = "".join(secrets.choice("abcdefgh") for _ in range(12))
    with Beacon(LOOPBACK) as beacon, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        seen = set[str]()
        beacon.browse(kind, lambda _, sighting: seen.add(sighting.name))
        for _ in range(40):
            beacon.announce(kind, {"text": "x" * 100})
        until(lambda: len(seen) == 40)
        stranger.bind((LOOPBACK[0], 0))
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK[0]))
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        stranger.settimeout(1.0)
        begun = time.monotonic()
        for number in range(1000):
            stranger.sendto(number.to_bytes(2) + ASKING, ("224.0.0.251", 5353))
        answers = 0
        with contextlib.suppress(TimeoutError):
            while True:
                answers += kind.encode() in stranger.recv(9000)
        packets = 8  # of one answer
        assert 0 < answers <= packets * QUESTIONS * (2 + time.monotonic() - begun)


class Greeter:
    def greet(self) -> str:
        return "hi"


@pytest.mark.parametrize("number", ["0", "1", "999999999999", "1" + "0" * 60])
def test_a_service_cannot_be_taken_over_for_good(number: str) -> None:
    """Who announces something else in its name is contradicted at once, however high the number of the forged state."""
    app = f"app{secrets.token_hex(6)}"
    with (
        Registry(app, interfaces=LOOPBACK, heartbeat=60.0) as owner,
        Registry(interfaces=LOOPBACK, heartbeat=60.0) as customer,
        Beacon(LOOPBACK, period=60.0) as stranger,
    ):
        owner.register("Greeter", Greeter())
        real = owner.services((app, None, None, None))
        customer.lookup(f"distributed://{app}/Greeter", DEADLINE)
        name = next(iter(owner._offering.announced))
        before = owner._offering.offers["Greeter"].revision
        forged = {"app": app, "name": "Greeter", "url": "remote://127.0.0.1:1/x", "n": number}
        refused = customer.refused
        stranger.announce("service", forged, name)
        if len(number) > 12:
            until(lambda: customer.refused > refused)
        else:
            until(lambda: owner._offering.offers["Greeter"].revision > before)
            last = owner._offering.offers["Greeter"]
            until(lambda: customer._view.offers((app, None, None, None)) == [last])
        assert customer.services((app, None, None, None)) == owner.services((app, None, None, None)) == real
        assert customer.lookup(f"distributed://{app}/Greeter", DEADLINE).greet() == "hi"


def test_a_signed_service_cannot_be_taken_over_at_all() -> None:
    """Nobody believes what is not signed, and a signed announcement of before does not undo what came after it."""
    app, secret = f"app{secrets.token_hex(6)}", "ours"
    with (
        Registry(app, interfaces=LOOPBACK, heartbeat=60.0, secret=secret) as owner,
        Registry(interfaces=LOOPBACK, heartbeat=60.0, secret=secret) as customer,
        Beacon(LOOPBACK, period=60.0) as stranger,
    ):
        owner.register("Greeter", Greeter())
        before = owner._offering.offers["Greeter"].properties(b"ours", time.time())
        name = next(iter(owner._offering.announced))
        with customer.borrow("Greeter", timeout=DEADLINE):
            lent = customer._view.offers((app, None, None, None))
            assert lent[0].on_loan
            refused = customer.refused
            forgery = stranger.announce("service", before | {"url": "remote://127.0.0.1:1/x"}, name)
            until(lambda: customer.refused > refused)
            seen = list[object]()
            stranger.browse("service", lambda _, sighting: seen.append(sighting.properties))
            forgery.update(before)
            until(lambda: before in seen)
            assert customer._view.offers((app, None, None, None)) == lent


@pytest.mark.parametrize(
    "bad",
    [
        {"group": " "}, {"group": "x" * 100}, {"host": "[/x]"}, {"host": "[link=http://x]y[/link]"}, {"id": "[/x]"},
        {"pid": "9" * 99}, {"fence": "1" + "0" * 60}, {"fence": "nan"},
    ],
)  # fmt: skip
def test_one_announcement_does_not_end_the_command_line(bad: dict[str, str]) -> None:
    """A member that no worker could be is nobody; the others are shown."""
    group = f"group {secrets.token_hex(6)}"
    good = {"group": group, "id": secrets.token_hex(16), "host": "web1", "pid": "1", "store": "memory:1", "fence": "5"}
    with Beacon(LOOPBACK) as stranger:
        stranger.announce("peer", good)
        stranger.announce("peer", good | bad)
        done = politics("status", "--json", "--store", "memory://", POLITICS_INTERFACES=LOOPBACK[0])
    assert done.status == 0, done.said
    (found,) = [row for row in json.loads(done.out) if row["group"] == group]
    assert len(found["members"]) == 1
    assert not [row for row in json.loads(done.out) if row["group"] == bad.get("group")]

"""What strangers may announce, in a ring or by multicast, harms nobody else."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from discovery import Beacon, Registry, RingServer
from discovery.errors import BadAnnouncement, BadMessage, ServiceNotFound
from discovery.remote import Server, Stream
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]


class Greeter:
    def greet(self) -> str:
        return "hi"


GOOD = {"app": "shop", "name": "Greeter", "url": "remote://127.0.0.1:1/x", "n": "0"}
BAD: list[dict[Any, Any]] = [
    {},
    {1: 2},
    GOOD | {"url": 7},
    GOOD | {"url": None},
    GOOD | {"url": "remote://nowhere"},
    GOOD | {"url": "x" * 300},
    GOOD | {"url": "\x1b]0;owned\x07"},
    GOOD | {"app": ["shop"]},
    GOOD | {"name": {"Greeter": 1}},
    GOOD | {"lender": 9},
    GOOD | {"lender": "remote://nowhere"},
    GOOD | {"text": [1]},
    GOOD | {"text": "two\nlines"},
    GOOD | {"n": "9" * 5000},
    GOOD | {"n": "first"},
    GOOD | {"n": "-1"},
    GOOD | {"n": "٣"},
    GOOD | {"n": "1" + "0" * 60},
    GOOD | {str(number): "x" * 200 for number in range(7)},
]


@pytest.fixture
def ring() -> Iterator[RingServer]:
    with RingServer(port=0, host="127.0.0.1", announce=False) as server:
        yield server


@pytest.mark.parametrize("secret", ["", "ours"])
def test_whatever_is_in_a_ring_the_others_go_on(ring: RingServer, secret: str) -> None:
    """Tuples that no registry would write are counted, and listing, finding, calling and borrowing work as before."""
    for number, properties in enumerate(BAD):
        ring.space.write(("service", f"service-{number:016x}", properties))
    where = f"127.0.0.1:{ring.port}"
    with (
        Registry("shop", ring=where, interfaces=LOOPBACK, secret=secret) as shop,
        Registry(ring=where, interfaces=LOOPBACK, secret=secret) as customer,
    ):
        url = shop.register("Greeter", Greeter())
        assert customer.lookup(url, DEADLINE).greet() == "hi"
        assert customer.refused == len(BAD)
        assert [service.service for service in customer.services()] == ["Greeter"]
        with customer.borrow("Greeter") as greeter:
            assert greeter.greet() == "hi"
        with pytest.raises(ServiceNotFound):
            customer.find("Nobody", 0)


def test_unprintable_announcements_are_neither_sent_nor_believed() -> None:
    """The owner is told which text it is; from strangers they are ignored and counted."""
    app = f"app{secrets.token_hex(6)}"
    with Registry(app, interfaces=LOOPBACK) as registry, Beacon(LOOPBACK) as stranger:
        with pytest.raises(BadAnnouncement, match="text"):
            registry.register("Greeter", Greeter(), description="\x1b[2J")
        refused = registry.refused
        stranger.announce("service", GOOD | {"app": app, "text": "\x1b[2J"})
        until(lambda: registry.refused > refused)
        assert registry.services((app, None, None, None)) == []


class Cheat:
    """A lender that answers with something else than a loan."""

    def __init__(self, batch: list[Any]) -> None:
        self.batch = batch

    def borrow(self, *_: object) -> Stream:
        return Odd(self.batch)


class Odd(Stream):
    def __init__(self, batch: list[Any]) -> None:
        self.batch = batch

    def next_batch(self) -> list[Any]:
        return self.batch

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("batch", [[], [1, "x"], ["remote://127.0.0.1:1/x"]])
def test_a_loan_that_is_none(ring: RingServer, batch: list[Any]) -> None:
    """The borrower gets an error of ours, and no loan."""
    with Server("127.0.0.1") as cheat:
        offer = GOOD | {"lender": cheat.serve(Cheat(batch))}
        ring.space.write(("service", f"service-{0:016x}", offer))
        with (
            Registry(ring=f"127.0.0.1:{ring.port}", interfaces=LOOPBACK) as customer,
            pytest.raises(BadMessage, match="no loan"),
            customer.borrow("Greeter", timeout=DEADLINE),
        ):
            pass

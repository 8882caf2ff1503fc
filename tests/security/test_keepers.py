"""Threads that must live: a hostile ring, a hostile owner, and a machine that starts no thread end none of them."""

import contextlib
import secrets
import threading
from collections.abc import Iterator

import pytest

from discovery import Registry, RingServer
from discovery.errors import LoanLost
from discovery.registry.loan import Loan
from discovery.remote import Server
from discovery.remote.client import Client
from discovery.rings import Registration, RingFinger
from discovery.rings.server import OBJECT_ID
from tests.processes import free_port
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]


class HostileRing:
    """Answers the calls of a ring, until it is told to raise in the middle of the work."""

    def __init__(self) -> None:
        self.asked = 0

    def identity(self) -> str:
        return "hostile"

    def notify(self, *anything: object) -> None:
        self.asked += 1
        raise ValueError("no DiscoveryError")


class SillyRing(HostileRing):
    """Does not even say who it is."""

    def identity(self) -> str:
        self.asked += 1
        raise KeyError("no DiscoveryError")


@contextlib.contextmanager
def hostile(port: int, ring: HostileRing) -> Iterator[None]:
    """Serve it as a ring."""
    with Server("127.0.0.1", port) as server:
        server.serve(ring, OBJECT_ID)
        yield


@pytest.mark.parametrize("kind", [HostileRing, SillyRing])
def test_a_registration_survives_a_hostile_ring(kind: type[HostileRing]) -> None:
    """Whatever the ring raises: the service is registered as soon as an honest ring has its place."""
    port, ring = free_port(), kind()
    with Server("127.0.0.1") as own, Client(server=lambda: own) as client:
        finger = RingFinger([f"127.0.0.1:{port}"], client=client)
        with hostile(port, ring):
            registration = Registration(object, "Thing", finger=finger, retry=0.1).start()
            until(lambda: ring.asked >= 2)
        with RingServer(port=port, host="127.0.0.1", announce=False), contextlib.closing(registration):
            assert registration.wait(DEADLINE)


@pytest.mark.parametrize("kind", [HostileRing, SillyRing])
def test_a_registry_survives_a_hostile_ring(kind: type[HostileRing]) -> None:
    """The listener and the writer go on, and all is as before once an honest ring has its place."""
    port, ring, app = free_port(), kind(), f"app{secrets.token_hex(6)}"
    with RingServer(port=port, host="127.0.0.1", announce=False):
        one, two = (Registry(interfaces=LOOPBACK, ring=f"127.0.0.1:{port}", heartbeat=0.2).start() for _ in "ab")
    with contextlib.closing(one), contextlib.closing(two):
        with hostile(port, ring):
            until(lambda: ring.asked >= 4)
        with RingServer(port=port, host="127.0.0.1", announce=False):
            one.app = app
            one.register("Thing", object(), shared=True)
            assert two.lookup(f"distributed://{app}/Thing", DEADLINE)


class HostileOwner:
    """Lends something, and then raises what is no DiscoveryError."""

    def __init__(self, asked: threading.Event) -> None:
        self.asked = asked

    def next_batch(self, timeout: float) -> None:
        self.asked.set()
        raise ValueError("no DiscoveryError")

    def close(self) -> None:
        pass

    drop = close


def test_a_borrower_knows_at_once_that_a_hostile_owner_renews_nothing() -> None:
    """Whatever the renewal raises: `lost` is set, and so is the reason."""
    asked = threading.Event()
    loan = Loan("thing", 0.2, lambda: ("http://x", HostileOwner(asked), 1e12, lambda: None))  # type: ignore[arg-type,return-value]
    with pytest.raises(LoanLost, match="no DiscoveryError"), loan:
        assert loan.lost.wait(DEADLINE)
    assert asked.is_set()


def test_a_hostile_owner_does_not_spoil_the_end_of_the_block() -> None:
    """What giving back raises is for the log alone: the block has done its work."""

    class Quiet(HostileOwner):
        def next_batch(self, timeout: float) -> None:
            self.asked.set()

    def give_back() -> None:
        raise ValueError("no DiscoveryError")

    with Loan("thing", 60.0, lambda: ("http://x", Quiet(threading.Event()), 1e12, give_back)):  # type: ignore[arg-type,return-value]
        pass

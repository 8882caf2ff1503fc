"""Threads that must live: a hostile ring, a hostile owner, and a machine that starts no thread end none of them."""

import contextlib
import secrets
import threading
from collections.abc import Iterator

import pytest

from discovery import Registry, RingServer, TupleSpace
from discovery.errors import DiscoveryError, LoanLost, RequestExpired
from discovery.registry.loan import Loan
from discovery.remote import Server
from discovery.remote.client import Client
from discovery.rings import Registration, RingFinger
from discovery.rings.server import OBJECT_ID
from discovery.tuples import SimpleRenewer
from discovery.tuples.askers import MOST
from tests.processes import free_port
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
MORE_THAN_THERE_IS = 1 << 46


@contextlib.contextmanager
def out_of_threads() -> Iterator[None]:
    """Let every thread that is started within the block fail, as at a limit on processes or on memory."""
    size = threading.stack_size(MORE_THAN_THERE_IS)
    try:
        yield
    finally:
        threading.stack_size(size)


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


class Hanging:
    """A renewer that answers the first time, and then not before it is told to."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[object] = []

    def renew(self, stored: tuple[object, ...]) -> float:
        self.asked.append(stored)
        if self.asked.count(stored) == 2:
            self.released.wait()
        return 0.2 if self.asked.count(stored) == 1 else 60.0


def renewing_threads() -> int:
    return sum(thread.name == "tuplespace-renewer" for thread in threading.enumerate())


def test_renewers_that_hang_take_a_bounded_number_of_threads() -> None:
    """Of 450 that hang a few dozen are asked; once they answer all others are, and every tuple is there."""
    with TupleSpace() as space:
        hanging = Hanging()
        for number in range(450):
            space.write(("hanging", number), hanging)
        try:
            until(lambda: len(hanging.asked) == 450 + MOST)
            assert renewing_threads() <= MOST
        finally:
            hanging.released.set()
        until(lambda: len(space.read_all(("hanging", None))) == 450)


def test_a_space_survives_that_nobody_can_be_asked() -> None:
    """A renewer that no thread could ask in time is asked as soon as one starts, and its tuple is seen again."""
    with TupleSpace() as space:
        entry = space.write(("kept",), SimpleRenewer(0.2))
        with out_of_threads():
            until(lambda: not entry.alive)
        until(lambda: entry.alive)


def test_a_space_does_without_its_thread_for_a_while() -> None:
    """It cannot be started: requests still expire in time, and tuples do by themselves as soon as it can."""
    with TupleSpace() as space:
        events = space.notify("delete", ("short",))
        with out_of_threads():
            space.write(("short",), 0.1)
            with pytest.raises(RequestExpired):
                space.read(("nothing",), 0.3)
            assert events.get(0).kind == "delete", "the one who waited saw to it"
            space.write(("short",), 0.1)
        assert len(space) <= 1
        assert events.get(DEADLINE).kind == "delete"


def test_what_cannot_be_watched_over_is_not_lent() -> None:
    """A loan whose thread cannot be started is refused with an error, and the service can be borrowed afterwards."""
    with Registry(interfaces=LOOPBACK) as registry:
        url = registry.register("Thing", object(), shared=True)
        with registry.borrow(url):  # so that all connections are there
            pass
        with out_of_threads(), pytest.raises(DiscoveryError, match="cannot be lent now"), registry.borrow(url):
            pass
        with registry.borrow(url):
            pass

"""A ring that a stranger fills: those who come later still see what is there."""

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from discovery import Registry, RingFinger, RingServer
from discovery.errors import CannotTravel
from discovery.registry.offer import KIND
from discovery.rings import RemoteSpace
from tests.waiting import DEADLINE

SMALL = 64 * 1024
"""The most bytes in a message of these rings, so that little is much. Nothing else about them is special."""


@pytest.fixture
def server() -> Iterator[RingServer]:
    with RingServer(port=0, host="127.0.0.1", announce=False, max_message=SMALL) as server:
        yield server


@pytest.fixture
def ring(server: RingServer) -> Iterator[RemoteSpace]:
    finger = RingFinger([f"127.0.0.1:{server.port}"])
    ring = finger.lookup_ring_any()
    yield ring
    ring._client.close()


def test_what_is_too_much_for_one_message_is_read_in_several(server: RingServer, ring: RemoteSpace) -> None:
    """Twenty messages full of tuples, small ones and large ones: all of them, in their order."""
    tuples = [("job", number, "x" * (10 if number % 100 else SMALL // 2)) for number in range(3000)]
    for one in tuples:
        server.space.write(one)
    assert ring.read_all(("job", int, str)) == tuples
    assert ring.read_all(("job", int, str), 1500) == tuples[:1500]
    assert server.space.read_all(("job", int, str), 3) == tuples[:3]


def test_a_tuple_that_fits_into_no_message_is_named_or_left_out(server: RingServer, ring: RemoteSpace) -> None:
    """By default it is an error; with `skip` the others are read, those after it too."""
    for fields in [("a", "first"), ("a", "x" * SMALL), ("a", lambda: None), ("a", "last")]:
        server.space.write(fields)
    with pytest.raises(CannotTravel):
        ring.read_all(("a", None))
    assert ring.read_all(("a", None), skip=True) == [("a", "first"), ("a", "last")]


def test_events_that_are_too_much_for_one_message_come_in_several(server: RingServer, ring: RemoteSpace) -> None:
    """A slow listener gets all that waits for it, in order."""
    with contextlib.closing(ring.notify("write", ("job", int, str))._stream) as stream:
        for number in range(100):
            server.space.write(("job", number, "x" * (SMALL // 10)))
        heard: list[int] = []
        while len(heard) < 100:
            heard += [event[1][1] for event in stream.next_batch(DEADLINE)]
    assert heard == list(range(100))


def test_a_ring_full_of_strange_offers_hides_nobody(server: RingServer) -> None:
    """Many messages of tuples that look like services, one of them endless: a new registry finds the real one."""
    app = f"app{secrets.token_hex(6)}"
    address = f"127.0.0.1:{server.port}"
    server.space.write((KIND, "service-endless", {"app": "x" * SMALL}))
    for number in range(1000):
        server.space.write((KIND, f"service-{number:016}", {"app": "x" * 250}))
    with Registry(app, interfaces=["127.0.0.1"], ring=address) as owner:
        owner.register("Greeter", url="http://x", shared=True)
        with Registry(interfaces=["127.0.0.1"], ring=address) as newcomer:
            assert newcomer.lookup(f"distributed://{app}/Greeter", DEADLINE) == "http://x"

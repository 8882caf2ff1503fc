"""What answers in memcached's place: without an end, byte by byte, or with more than there can be."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from election import Register, StoreUnavailable, open_register
from election.stores.memcached import MemcachedRegister
from politics.doctor import probe
from tests.memcached import Memcached
from tests.waiting import SOON

LARGE = 1 << 16


class Impostor:
    """Answers each question on each connection with `begin`, and then with `piece` for ever, after pauses."""

    def __init__(self, begin: bytes, piece: bytes, pause: float) -> None:
        self.begin, self.piece, self.pause = begin, piece, pause
        self.sent, self.over = 0, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(SOON)
            connection.recv(LARGE)
            connection.sendall(self.begin)
            while not self.over.wait(self.pause):
                connection.sendall(self.piece)
                self.sent += len(self.piece)

    def close(self) -> None:
        """End all threads."""
        self.over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(SOON)


ANSWERS = {
    "a line without an end": (b"HD c1", b"1" * LARGE, 0.0),
    "a value without an end": (b"VALUE politics:a 0 99999999999 1\r\n", b"x" * LARGE, 0.0),
    "a value of the meta commands": (b"VA 999999999 c1\r\n", b"x" * LARGE, 0.0),
    "a list without an end": (b"", b"STAT evictions 0\r\n" * 3000, 0.0),
    "byte by byte": (b"", b"1", 0.02),
    "a list line by line": (b"", b"STAT uptime 9\r\n", 0.02),
    "a value byte by byte": (b"VALUE politics:a 0 1000 1\r\n", b"1", 0.02),
}


@pytest.fixture(params=ANSWERS.values(), ids=ANSWERS)
def impostor(request: pytest.FixtureRequest) -> Iterator[Impostor]:
    """A server that gives one of these answers."""
    with contextlib.closing(Impostor(*request.param)) as impostor:
        yield impostor


CALLS: dict[str, Callable[[Register], object]] = {
    "read": lambda register: register.read("a"),
    "versions": lambda register: register.versions(["a", "b"]),
    "swap": lambda register: register.swap("a", b"", None),
    "remembers": lambda register: register.remembers(10),
    "identity": lambda register: register.identity(),
}


def test_an_answer_without_an_end_is_no_answer(impostor: Impostor) -> None:
    """Each call gives up soon after its timeout, and has not read much more than an answer can have."""
    with contextlib.closing(open_register(f"memcached://127.0.0.1:{impostor.port}?timeout=0.2")) as register:
        for call in CALLS.values():
            begun = time.monotonic()
            with contextlib.suppress(StoreUnavailable):
                assert call(register) is False, "at most, that it does not remember"
            assert time.monotonic() - begun < SOON
    # Some more is in the buffers of the two sockets of each call.
    assert impostor.sent < len(CALLS) * 16 * 1024 * 1024


def test_the_doctor_is_not_held_up_by_an_answer_without_an_end(
    impostor: Impostor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that something listens which is no memcached."""
    monkeypatch.setattr(probe, "LONGEST", 0.2)
    begun = time.monotonic()
    found = probe.server(MemcachedRegister("127.0.0.1", impostor.port, 0.2), 0.1, threading.Event())
    assert time.monotonic() - begun < 2 * SOON
    assert not found.stats
    assert found.error or found.meta


def test_a_large_item_in_the_place_of_a_lease_can_be_read_and_replaced(memcached: Memcached) -> None:
    """It is as large as memcached allows, and no reason to say that the store does not answer."""
    with contextlib.closing(open_register(memcached.url)) as register:
        version = register.swap("large", b"x" * (1024 * 1024 - 500), None)
        cell = register.read("large")
        assert cell is not None
        assert cell.version == version
        assert register.swap("large", b"small", version) is not None


@pytest.mark.parametrize("value", [b"", b"\xff\0", b"[/x] \x1b[31m", b"x" * 1_000_000])
def test_whatever_is_kept_as_the_identity_it_is_a_short_name(own_memcached: Memcached, value: bytes) -> None:
    """Everybody makes the same of what somebody has written there."""
    with socket.create_connection((own_memcached.host, own_memcached.port), timeout=SOON) as connection:
        connection.sendall(b"ms politics-identity %d\r\n%b\r\n" % (len(value), value))
        assert connection.recv(100).startswith(b"HD")
    names = set()
    for _ in range(2):
        with contextlib.closing(open_register(own_memcached.url)) as register:
            names.add(register.identity())
    (name,) = names
    assert name.removeprefix("memcached:").isalnum()
    assert len(name) == len("memcached:") + 32

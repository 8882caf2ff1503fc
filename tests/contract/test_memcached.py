"""What only memcached does: it forgets, and its versions start again with it."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from election import Register, StoreUnavailable, open_register
from election.register import Swap
from election.stores.memcached import MemcachedRegister
from tests.memcached import Memcached
from tests.waiting import until


@contextlib.contextmanager
def client(url: str) -> Iterator[Register]:
    """A register that is closed at the end."""
    with contextlib.closing(open_register(url)) as register:
        yield register


def test_a_restart_makes_versions_void(own_memcached: Memcached) -> None:
    """A version from before a restart changes nothing after it, though CAS ids are given out again from 1."""
    with client(own_memcached.url) as register:
        old = register.swap("a", b"old", None)
        own_memcached.restart()
        with pytest.raises(StoreUnavailable):
            register.read("a")
        new = register.swap("a", b"new", None)
        assert new is not None
        assert new[1] == old[1]
        assert register.swap("a", b"late", old) is None
        assert register.swap("a", b"newer", new) is not None


def test_a_server_whose_clock_ticks_late_is_no_older_than_it_is(own_memcached: Memcached) -> None:
    """It counts whole seconds when its clock ticks, so a late tick may count one more than have passed."""
    own_memcached.stop()
    # It starts just before a whole second, and is paused until just after the next but one: two begin within one.
    until(lambda: 0.85 < time.monotonic() % 1 < 0.95, "the end of a second")
    begun = time.monotonic()
    own_memcached.start()
    own_memcached.freeze()
    until(lambda: time.monotonic() - begun > 1.25, "the second after the next")
    own_memcached.thaw()
    with client(own_memcached.url) as register:
        until(lambda: register.remembers(1.5), "an older server")
        assert time.monotonic() - begun > 1.5


def test_a_restart_makes_a_new_identity(own_memcached: Memcached) -> None:
    """A server that restarted, and so lost its cells, is another store."""
    with client(own_memcached.url) as register:
        before = register.identity()
        own_memcached.restart()
        register.close()
        assert register.identity() != before


def test_a_young_server_remembers_nothing(own_memcached: Memcached) -> None:
    """A server that has just been started cannot vouch for the time before."""
    with client(own_memcached.url) as register:
        assert not register.remembers(0.1)
        assert register.remembers(-3)


def test_a_flush_is_not_forgotten(own_memcached: Memcached) -> None:
    """A server that was ever flushed remembers nothing."""
    with client(own_memcached.url) as register:
        assert register.swap("a", b"", None) is not None
        assert own_memcached.ask("flush_all") == "OK"
        assert register.read("a") is None
        assert not register.remembers(-3)


def test_an_eviction_is_not_forgotten(own_memcached: Memcached) -> None:
    """A server that ever evicted anything remembers nothing."""
    with client(own_memcached.url) as register:
        own_memcached.fill()
        assert not register.remembers(-3)


def test_a_write_that_finds_no_memory_is_not_forgotten() -> None:
    """With -M nothing is evicted, but a swap that finds no memory deletes the cell: then nothing is remembered."""
    with Memcached("-M", "-m", "2", "-I", "512k") as server, client(server.url) as register:
        version = register.swap("a", b"x" * 300, None)
        for size in (1000, 300):
            server.fill("store_no_memory", size)
        with pytest.raises(StoreUnavailable, match="memory"):
            register.swap("a", b"y" * 300, version)
        assert register.read("a") is None
        assert not register.remembers(-3)


def test_a_server_that_is_gone() -> None:
    """Every call to a server that is not there raises StoreUnavailable and names the address."""
    with Memcached() as server:
        pass
    with client(server.url) as register:
        for call in (
            lambda: register.read("a"),
            lambda: register.versions(["b", "a"]),
            lambda: register.swap("a", b"", None),
            lambda: register.remembers(1),
            register.identity,
        ):
            with pytest.raises(StoreUnavailable, match=server.address):
                call()
        server.start()
        assert register.read("a") is None
    server.stop()


def test_a_server_that_is_silent(own_memcached: Memcached) -> None:
    """A frozen server costs one timeout, and its late answer is not taken for that of a later call."""
    with client(f"{own_memcached.url}?timeout=0.05") as register:
        version = register.swap("a", b"one", None)
        own_memcached.freeze()
        with pytest.raises(StoreUnavailable):
            register.swap("a", b"two", version)
        own_memcached.thaw()
        cell = register.read("a")
        assert cell is not None
        assert cell.data in (b"one", b"two")
        assert register.swap("a", b"three", version) is None


def test_what_others_have_written_is_read_as_it_is(own_memcached: Memcached) -> None:
    """An item of any size is returned, so that it can be refused by its name instead of taken for a silent store."""
    with client(own_memcached.url) as register, socket.create_connection(("127.0.0.1", own_memcached.port)) as other:
        for size in (0, 1, 65_536, 1_000_000):
            data = b"\r\nEN\r\n"[:size].ljust(size, b"x")
            other.sendall(b"set politics:a 0 0 %d\r\n%b\r\n" % (size, data))
            assert other.recv(100) == b"STORED\r\n"
            cell = register.read("a")
            assert cell is not None
            assert cell.data == data
            assert register.version("a") == cell.version


def test_an_answer_without_an_end() -> None:
    """An answer that comes in small pieces for ever takes no more time than two time-outs."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with client(f"memcached://127.0.0.1:{listener.getsockname()[1]}?timeout=0.1") as register:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                register.read("a")
            assert time.monotonic() - begun < 5  # a generous budget
        thread.join()


@contextlib.contextmanager
def cutting(server: Memcached, answers: int, more: bytes = b"") -> Iterator[str]:
    """The URL of a link to `server` that passes on so many lines of answers, and `more`, and is cut then, once."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            left = answers
            while True:
                near, _ = listener.accept()
                with near, socket.create_connection((server.host, server.port)) as far:
                    thread = threading.Thread(target=copy, args=(near, far))
                    thread.start()
                    lines = far.makefile("rb")
                    while left and (line := lines.readline()):
                        near.sendall(line)
                        left -= 1
                    near.sendall(more)
                    near.shutdown(socket.SHUT_RDWR)
                    thread.join()
                left = 1 << 30

    def copy(near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 16):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"memcached://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("more", [b"", b"HD c", b"SERVER_ERROR out of memory\r\n"])
def test_an_answer_that_is_lost_among_many(own_memcached: Memcached, more: bytes) -> None:
    """The answers before it count; of the swaps from there on nothing is known, and their versions are void."""
    swaps = [Swap(f"cell {number}", b"x", None) for number in range(20)]
    with cutting(own_memcached, 7, more) as url, client(url) as register, client(own_memcached.url) as other:
        answers = register.swap_many(swaps)
        assert [isinstance(answer, tuple) for answer in answers] == [True] * 7 + [False] * 13
        assert all(isinstance(answer, StoreUnavailable) for answer in answers[7:])
        until(lambda: other.read("cell 19"), "the write of which nothing is known")
        # The connection is another one now, so no earlier version can be compared.
        again = [Swap(f"cell {n}", b"y", a) for n, a in enumerate(answers) if isinstance(a, tuple)]
        with contextlib.suppress(StoreUnavailable):
            register.read("cell 0")
        assert register.swap_many(again) == [None] * 7


def test_more_answers_than_swaps(own_memcached: Memcached) -> None:
    """If the answers cannot be told apart, none is believed."""
    with cutting(own_memcached, 3, b"HD c9\r\n") as url, client(url) as register:
        answers = register.swap_many([Swap(f"cell {number}", b"x", None) for number in range(3)])
        assert [type(answer) for answer in answers] in ([StoreUnavailable] * 3, [tuple] * 3)
        with contextlib.suppress(StoreUnavailable):  # the last answer has come after all that was asked for
            assert register.read("nothing") is None
        assert register.read("nothing") is None


def test_more_answers_than_versions(own_memcached: Memcached) -> None:
    """If the answers cannot be told apart, none is believed."""
    with cutting(own_memcached, 2, b"HD c9\r\n") as url, client(url) as register:
        for _ in range(2):  # the answer that is too many may come after all that was asked for
            with contextlib.suppress(StoreUnavailable):
                assert register.versions(["one", "two"]) == [None, None]


def test_many_swaps_at_two_servers_of_which_one_is_gone() -> None:
    """What a server does not answer says nothing of what the other one keeps."""
    with Memcached() as one, Memcached() as two, client(f"memcached://{one.address},{two.address}") as register:
        names = [str(number) for number in range(50)]
        here = [register.shard(name) is register.shard(names[0]) for name in names]
        home = register.shard(names[0])
        assert isinstance(home, MemcachedRegister)
        (one if home.port == one.port else two).stop()
        answers = register.swap_many([Swap(name, b"", None) for name in names])
        assert [isinstance(answer, StoreUnavailable) for answer in answers] == here
        assert None not in answers


@pytest.mark.parametrize("method", ["read", "swap", "remembers", "identity"])
def test_ctrl_c(own_memcached: Memcached, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the middle of a call leaves no answer behind for the next one."""
    arguments = {"read": ("a",), "swap": ("a", b"two", None), "remembers": (1,), "identity": ()}
    with client(own_memcached.url) as register:
        register.swap("a", b"one", None)
        recv, interrupted = socket.socket.recv, iter([True])

        def interrupt(*args: int) -> bytes:
            if next(interrupted, False):
                raise KeyboardInterrupt
            return recv(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(socket.socket, "recv", interrupt)
        with pytest.raises(KeyboardInterrupt):
            getattr(register, method)(*arguments[method])
        assert register.read("a").data == b"one"  # type: ignore[union-attr]
        assert register.read("b") is None


ANSWERS = [
    b"", b"\r\n", b"ERROR\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"VALUE\r\n",
    b"VALUE x\r\n", b"VALUE politics:a 0 x y\r\n", b"HD\r\n", b"HD c\r\n", b"HD x\r\n", b"STAT\r\n", b"STAT a\r\n",
    b"STAT uptime x\r\nEND\r\n", b"END\r\n", b"VALUE politics:b 0 1 1\r\nx\r\nEND\r\n", b"\xff\xfe\r\n", b"STORED\r\n",
    b"VALUE politics:a 0 1\r\nx\r\nEND\r\n", b"STAT evictions x\r\nSTAT uptime 99\r\nEND\r\n",
    b"STAT \xff 1\r\nEND\r\n",    b"VALUE politics-identity 0 1\r\n\xff\r\nEND\r\n",
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_something_else_answers(answer: bytes) -> None:
    """Whatever answers in memcached's place, a call ends in StoreUnavailable or in nothing that could be believed.

    An identity that is not of our form is hashed.
    """

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1000)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with client(f"memcached://127.0.0.1:{listener.getsockname()[1]}?timeout=0.2") as register:
            for call, harmless in (
                (lambda: register.read("a"), None),
                (lambda: register.versions(["a", "b"]), None),
                (lambda: register.swap("a", b"", None), None),
                (lambda: register.remembers(1), False),
            ):
                with contextlib.suppress(StoreUnavailable):
                    assert call() is harmless
            with contextlib.suppress(StoreUnavailable):
                assert re.fullmatch("memcached:([0-9a-f]{32})?", register.identity())
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_name_stays_with_its_server() -> None:
    """A name never moves because its server is down, and names are spread over all servers."""
    with Memcached() as one, Memcached() as two, client(f"memcached://{one.address},{two.address}") as register:
        homes = {str(number): register.shard(str(number)) for number in range(50)}
        one.stop()
        assert all(register.shard(name) is home for name, home in homes.items())
        lost = 0
        for name in homes:
            try:
                register.read(name)
            except StoreUnavailable:
                lost += 1
        assert 10 < lost < 40

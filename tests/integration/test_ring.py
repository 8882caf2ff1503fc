"""A tuple space shared over the network: found, used as if it were here, and nothing lost when somebody dies."""

import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from discovery import TupleSpace
from discovery.errors import (
    BadAddress,
    BadMessage,
    BadTemplate,
    BadTime,
    BadTuple,
    CannotTravel,
    ConnectionLost,
    RequestCanceled,
    RequestExpired,
    RingNotFound,
)
from discovery.remote import Address, Client, Proxy, Server, Stream, default_server, serve
from discovery.rings import Registration, RingFinger, RingServer, find, registration, services
from discovery.rings.finder import Stop
from discovery.rings.space import RemoteSpace
from discovery.tuples import SimpleRenewer
from tests.integration.nursery import nursery
from tests.processes import free_port, python
from tests.waiting import DEADLINE, SOON, until

HOST = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[RingServer]:
    with RingServer(port=0, host=HOST, announce=False) as server:
        yield server


@pytest.fixture
def ring(server: RingServer) -> Iterator[RemoteSpace]:
    with Client(server=default_server) as client:
        yield RingFinger([HOST], server.port, client=client).lookup_ring_any()


# Another process that finds the ring whose port is its first argument.
RING = f"""
import sys, threading
from discovery.rings import RingFinger
from discovery.remote import *
ring = RingFinger(["{HOST}"], int(sys.argv[1])).lookup_ring_any()
"""
RING_SERVER = f"""
import sys, threading
from discovery.rings import RingServer
server = RingServer(port=int(sys.argv[1]), host="{HOST}", announce=False).start()
print(server.port, flush=True)
threading.Event().wait()
"""


def waiting(server: RingServer) -> int:
    """How many requests wait at the space."""
    return len(server.space._state.takers) + len(server.space._state.readers)


def test_write_read_take(ring: RemoteSpace) -> None:
    """Sequences and mappings, oldest first, each taken once."""
    for tuple_ in [("a", 1), ["a", 2], {"name": "a", "n": 3}]:
        ring.write(tuple_)
    assert ring.read(("a", None)) == ("a", 1)
    assert ring.read_all(("a", None)) == [("a", 1), ("a", 2)]
    assert ring.take(("a", None)) == ("a", 1)
    assert ring.take({"name": "a", "n": int}) == {"name": "a", "n": 3}
    assert ring.take(("a", None)) == ("a", 2)
    assert ring.read_all(("a", None)) == []


@pytest.mark.parametrize("template", [("x", None), ("x", int), ("x", range(5)), (re.compile("^x"), None), (str, 3)])
def test_templates_mean_the_same_over_there(ring: RemoteSpace, template: Any) -> None:
    """Wildcards, types, ranges and regular expressions travel."""
    ring.write(("x", "three"))
    ring.write(("x", 3))
    expected = [("x", 3)] if template[1] is not None else [("x", "three"), ("x", 3)]
    assert ring.read_all(template) == expected


def test_what_cannot_travel_is_refused(ring: RemoteSpace) -> None:
    """A pattern of one's own, a class of one's own, an object that is neither plain nor served: named, and not sent."""

    class Even:
        def matches(self, value: object) -> bool:
            return value == 2

    for template in [(Even(),), (Even,)]:
        with pytest.raises(CannotTravel, match="Even"):
            ring.read(template, 0)
    with pytest.raises(CannotTravel, match="object"):
        ring.write((object(),))


def test_errors_are_those_of_a_local_space(ring: RemoteSpace) -> None:
    """The same class of error for the same mistake."""
    with pytest.raises(RequestExpired):
        ring.read(("nothing",), 0)
    with pytest.raises(RequestExpired):
        ring.take(("nothing",), 0.01)
    with pytest.raises(BadTuple):
        ring.write("text")
    with pytest.raises(BadTemplate):
        ring.read("text")
    with pytest.raises(BadTime):
        ring.write((1,), -1)
    with pytest.raises(ValueError, match="'explode'"):
        ring.notify("explode", (1,))  # type: ignore[arg-type]


def test_batched_writes(ring: RemoteSpace) -> None:
    """Many tuples in one message, in their order; all of them or none."""
    entries = ring.write_all([("n", number) for number in range(1000)])
    assert ring.read_all(("n", range(3))) == [("n", 0), ("n", 1), ("n", 2)]
    assert entries[1].cancel()
    assert ring.read_all(("n", range(3))) == [("n", 0), ("n", 2)]
    with pytest.raises(BadTuple):
        ring.write_all([("m", 1), "text"])
    assert ring.read_all(("m", None)) == []


def test_many_are_taken_in_one_message(ring: RemoteSpace, server: RingServer) -> None:
    """Oldest first, as many as asked for, without waiting; held together until the block ends, back if it raises."""
    ring.write_all([*(("n", number) for number in range(5)), {"n": 5}])
    assert ring.take_all(("n", None), 2) == [("n", 0), ("n", 1)]
    with suppress(LookupError), ring.taking_all(("n", None)) as held:
        assert held == [("n", 2), ("n", 3), ("n", 4)]
        assert ring.read_all(("n", None)) == []
        raise LookupError
    until(lambda: len(ring.read_all(("n", None))) == 3)
    assert ring.take_all(("n", None), 0) == []
    assert ring.take_all(("n", None)) == [("n", 2), ("n", 3), ("n", 4)]
    assert ring.take_all(("n", None)) == []
    assert ring.take_all({"n": None}) == [{"n": 5}]
    assert len(server.space) == 0
    with pytest.raises(ValueError, match="-1"):
        ring.take_all(("n", None), -1)


def test_what_does_not_fit_into_the_message_stays_for_the_next(server: RingServer) -> None:
    """A `take_all` then returns fewer; nothing is lost, and what cannot be sent at all is named and stays."""
    with RingServer(server.space, 0, host=HOST, max_message=20_000, announce=False) as small, Client() as client:
        ring = RingFinger([HOST], small.port, client=client).lookup_ring_any()
        written = [("text", str(number) * 500) for number in range(100)]
        for each in written:
            server.space.write(each)
        taken: list[Any] = []
        while batch := ring.take_all(("text", None)):
            assert len(batch) < len(written)
            taken += batch
        assert taken == written
        server.space.write(("text", object()))
        server.space.write(("text", "sent"))
        with pytest.raises(CannotTravel, match="object"):
            ring.take_all(("text", None))
        assert len(server.space.read_all(("text", None))) == 2


def test_what_a_dead_taker_held_together_is_back(server: RingServer) -> None:
    """A client that is killed before it has confirmed has taken nothing, and others get it in the old order."""
    server.space.write_all([("job", number) for number in range(5)])
    code = (
        RING + "with ring.taking_all(('job', None), 3) as jobs: print(len(jobs), flush=True); threading.Event().wait()"
    )
    with python(code, str(server.port)) as taker:
        taker.line("3")
        assert server.space.read_all(("job", None)) == [("job", 3), ("job", 4)]
        taker.kill()
        until(lambda: len(server.space.read_all(("job", None))) == 5)
    assert server.space.take_all(("job", None)) == [("job", number) for number in range(5)]


def test_a_blocking_take_is_served_by_a_write(ring: RemoteSpace, server: RingServer) -> None:
    """Who waits is woken by a writer, remote or local."""
    taken: list[Any] = []
    threads = [threading.Thread(target=lambda: taken.append(ring.take(("job", None)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: waiting(server) == 2)
    ring.write(("job", 1))
    server.space.write(("job", 2))
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(taken) == [("job", 1), ("job", 2)]
    assert len(server.space) == 0


def test_a_waiting_request_can_be_cancelled(ring: RemoteSpace, server: RingServer) -> None:
    """From another thread; the server forgets it."""
    request = ring.taking(("never",))
    until(lambda: waiting(server) == 1)
    threading.Timer(0.01, request.cancel).start()
    with pytest.raises(RequestCanceled):
        request.result()
    until(lambda: waiting(server) == 0)


def test_move_hands_the_tuple_on_before_it_is_gone(ring: RemoteSpace) -> None:
    """While the port has it nobody else sees it; when the port fails it is back, oldest as before."""
    ring.write(("job", 1))
    ring.write(("job", 2))

    def fail(taken: Any) -> None:
        assert ring.read_all(("job", None)) == [("job", 2)]
        raise LookupError(taken)

    with pytest.raises(LookupError):
        ring.move(fail, ("job", None))
    until(lambda: len(ring.read_all(("job", None))) == 2)
    moved: list[Any] = []
    assert ring.move(moved.append, ("job", None)) == ("job", 1)
    assert moved == [("job", 1)]
    assert ring.read_all(("job", None)) == [("job", 2)]


def test_entries(ring: RemoteSpace) -> None:
    """The writer holds on to what it wrote: alive, renewed, cancelled, gone."""
    entry = ring.write(("x",), 1000)
    assert entry.alive
    assert entry.renew(2000)
    assert entry.cancel()
    assert not entry.alive
    assert not entry.renew(10)
    assert not entry.cancel()
    for _ in range(200):
        ring.take(("x",), 0) if ring.write(("x",)).alive else None
    assert not entry.alive


def test_notify(ring: RemoteSpace) -> None:
    """Write, take, delete and one close arrive in order, across the network."""
    events = ring.notify(None, ("x", None))
    ring.write(("x", 1))
    ring.take(("x", 1))
    ring.write(("x", 2)).cancel()
    assert [tuple(events.get(DEADLINE))[:2] for _ in range(4)] == [
        ("write", ("x", 1)),
        ("take", ("x", 1)),
        ("write", ("x", 2)),
        ("delete", ("x", 2)),
    ]
    with pytest.raises(RequestExpired):
        events.get(0.01)
    assert events.cancel()
    assert [event.kind for event in events] == ["close"]
    with pytest.raises(RequestCanceled):
        events.get()
    assert not events.cancel()


def test_a_listener_that_does_not_read_is_told_what_it_missed(ring: RemoteSpace, server: RingServer) -> None:
    """Its events are bounded at the server, the newest are kept, and the count of the others arrives."""
    events = ring.notify("write", ("x", None))
    ring.write_all([("x", number) for number in range(1500)])
    first = events.get(DEADLINE)
    assert first == ("write", ("x", 500), 500)
    assert events.get(DEADLINE) == ("write", ("x", 501), 0)
    events.cancel()


def test_listening_ends_by_itself(ring: RemoteSpace) -> None:
    """After `expires` seconds there is one close."""
    assert [event.kind for event in ring.notify("write", ("x",), 0.01)] == ["close"]


def test_events_stop_at_the_server_when_the_listener_dies(server: RingServer) -> None:
    """A client that dies while it listens leaks nothing."""
    code = RING + "events = ring.notify('write', ('x',)); print('listening', flush=True); events.get()"
    with python(code, str(server.port)) as listener:
        listener.line("listening")
        assert len(server.space._state.listeners) == 1
        listener.kill()
        until(lambda: len(server.space._state.listeners) == 0)


def test_renewers_are_asked_across_the_network(server: RingServer, ring: RemoteSpace) -> None:
    """A renewer stays with its writer, may see the tuple, and ends the tuple when it says no."""
    seen: list[Any] = []

    class Limited:
        def renew(self, stored: Any) -> float | bool:
            seen.append(stored)
            return 0.02 if len(seen) < 4 or not read.is_set() else False

    read = threading.Event()
    entry = ring.write(("x", 1), Limited())
    assert ring.read(("x", None)) == ("x", 1)
    read.set()
    # Before that it may seem to be gone: an answer that comes late is believed all the same.
    until(lambda: len(seen) >= 4 and not entry.alive)
    assert set(seen) == {("x", 1)}
    assert ring.write(("y",), SimpleRenewer(60)).alive


def test_a_tuple_dies_with_the_renewer_of_its_writer(ring: RemoteSpace, server: RingServer) -> None:
    """A writer that is killed cannot be asked, so what it wrote goes."""
    code = f"{RING}\nfrom discovery.tuples import SimpleRenewer\n"
    code += "ring.write(('x',), SimpleRenewer(0.2)); print('written')\n"
    code += "threading.Event().wait()"
    with python(code, str(server.port)) as writer:
        writer.line("written")
        until(lambda: ring.read_all(("x",)) == [("x",)])  # an answer of its renewer may be late
        writer.kill()
        until(lambda: ring.read_all(("x",)) == [])


class Hello:
    def say_hello(self) -> str:
        return f"hello from {os.getpid()}"


def test_a_service_is_written_read_and_called(ring: RemoteSpace, server: RingServer) -> None:
    """The book's hello: the object goes by reference, and a program that reads it calls it in its own process."""
    hello = Hello()
    serve(hello)
    ring.write(("name", "Hello", hello, "says hello"))
    with python(RING + "print(ring.read(('name', 'Hello', None, None))[2].say_hello())", str(server.port)) as client:
        assert client.result() == (0, f"hello from {os.getpid()}")


def test_the_death_of_the_server_ends_every_wait() -> None:
    """SIGKILL: a clear error for who waits to read, to take or for news, within a second."""
    with python(RING_SERVER, "0") as process, Client() as client:
        ring = RingFinger([HOST], int(process.line()), client=client).lookup_ring_any()
        events = ring.notify("write", ("x",))
        failed: list[bool] = []

        def wait(what: Any) -> None:
            with pytest.raises(ConnectionLost):
                what()
            failed.append(True)

        waits = [lambda: ring.read(("x",)), lambda: ring.take(("x",)), events.get]
        threads = [threading.Thread(target=wait, args=(what,)) for what in waits]
        for thread in threads:
            thread.start()
        assert ring.read_all(("x",)) == []
        process.kill()
        start = time.monotonic()
        for thread in threads:
            thread.join(DEADLINE)
        assert len(failed) == 3
        assert time.monotonic() - start < SOON


def test_closing_a_ring_lets_everybody_go(server: RingServer, ring: RemoteSpace) -> None:
    """The threads that waited at the server end too, though the space lives on."""
    space = TupleSpace()
    with RingServer(space, 0, host=HOST, announce=False) as other, Client() as client:
        request = RingFinger([HOST], other.port, client=client).lookup_ring_any().taking(("x",))
        until(lambda: waiting(other) == 1)
        other.close()
        assert waiting(other) == 0
        with pytest.raises(ConnectionLost):
            request.result()
        space.write(("x",))
        assert space.take(("x",), 0) == ("x",)


def test_a_taker_that_dies_while_it_waits_loses_nothing(server: RingServer) -> None:
    """Its request goes, and the next tuple is for somebody else."""
    with python(RING + "print('waiting', flush=True); ring.take(('job',))", str(server.port)) as taker:
        until(lambda: waiting(server) == 1)
        taker.kill()
        until(lambda: waiting(server) == 0 and not server._server._connections)
    server.space.write(("job",))
    assert server.space.take(("job",), 0) == ("job",)


WRONG = [
    ("write", ["text", None]),
    ("write", [("x",), "soon"]),
    ("write", [("x",)]),
    ("write", [{1: 2}, None]),
    ("write_all", [None, None]),
    ("reading", [None, 0]),
    ("taking", [("x",), "never"]),
    ("taking", [("x",), -1]),
    ("taking_all", [("good",), -1]),
    ("taking_all", [("good",), "many"]),
    ("taking_all", [None, 1]),
    ("notify", ["write", 3, None, 10]),
    ("notify", ["write", ("x",), None, "many"]),
    ("notify", ["write", ("x",), None, -1]),
    ("entry", [0, "__class__", None]),
    ("entry", [[], "alive", None]),
    ("read_all", []),
    ("_space", []),
    ("close", []),
]


@pytest.mark.parametrize(("method", "arguments"), WRONG)
def test_wrong_calls_harm_nobody(ring: RemoteSpace, server: RingServer, method: str, arguments: list[Any]) -> None:
    """An error for who sent them; the space is as it was."""
    ring.write(("good",))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever fits; it comes from the other side
        ring._client.call(ring.address, method, arguments)
    assert ring.take(("good",), 0) == ("good",)
    assert (len(server.space), waiting(server), len(server.space._state.listeners)) == (0, 0, 0)


class Endless(Stream):
    """An answer of a hostile ring, which has no end."""

    def next_batch(self) -> list[Any]:
        return [1]

    def cancel(self) -> None:
        pass


class OddRing:
    """Answers a read with what is no tuple."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def identity(self) -> str:
        return "odd"

    def reading(self, template: Any, timeout: float) -> Any:
        return self.answer

    taking = taking_all = reading


@pytest.mark.parametrize("answer", [Endless(), 5, "text", None, ["list"]])
def test_what_is_no_tuple_is_none(answer: Any) -> None:
    """Whatever a hostile ring answers: a read, a take and a take of many return tuples, or raise."""
    with Server(HOST) as server, Client() as client:
        server.serve(OddRing(answer), "ring")
        ring = RingFinger([f"{HOST}:{server.port}"], client=client).lookup_ring_any()
        for ask in (ring.read, ring.take, ring.take_all):
            with pytest.raises(BadMessage, match="no tuple"):
                ask(("x",), 1)


TAKER = f"""
import os, sys, threading
from discovery.rings import RingFinger
def run(port, path, how):
    ring = RingFinger(["{HOST}"], int(port)).lookup_ring_any()
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def done(job): os.write(log, b"%d\\n" % job[1])
    pause = threading.Event().wait  # or seven at once would be through with all before the test has looked
    while True:
        if how == "move":
            ring.move(done, ("job", None))
        elif how == "take":
            done(ring.take(("job", None)))
        elif how == "take_all":
            for job in ring.take_all(("job", None), 7):
                done(job)
                pause(0.0002)
        else:
            with ring.taking_all(("job", None), 7) as held:
                for job in held:
                    done(job)
                    pause(0.0002)
"""


@pytest.mark.parametrize(("how", "size"), [("take", 1), ("move", 1), ("take_all", 7), ("taking_all", 7)])
def test_takers_killed_at_any_moment(server: RingServer, tmp_path: Path, how: str, size: int) -> None:
    """SIGKILL at random moments: each job is still there or was delivered to the process, and taken by nobody else.

    What `take` had delivered when the process died is gone with it; what `move` was handing on is back. The same holds
    for several at once.
    """
    jobs, kills = 3000, 10
    log = tmp_path / "done"
    log.touch()
    events = server.space.notify("take", ("job", None), limit=jobs)
    for number in range(jobs):
        server.space.write(("job", number))
    with nursery(TAKER, str(server.port), str(log), how) as takers:
        for kill in range(kills):
            before, taker = log.stat().st_size, takers.start()
            until(lambda before=before: log.stat().st_size > before)  # type: ignore[misc]
            threading.Event().wait(0.001 * (kill * 7 % 13))
            takers.kill(taker)
    until(lambda: not server._server._connections)
    done = [int(line) for line in log.read_text().split()]
    left = [number for _, number in server.space.read_all(("job", None))]
    delivered = [events.get(0).tuple[1] for _ in range(jobs - len(left))]
    assert sorted(delivered + left) == list(range(jobs))  # each is in exactly one place
    assert left == sorted(left)
    if how.startswith("take"):
        assert len(set(done)) == len(done)
        assert set(done) <= set(delivered)
        assert len(delivered) - len(done) <= size * kills  # what each had in its hands
    else:
        assert set(delivered) <= set(done)
        assert len(done) - len(delivered) <= size * kills  # what each was handing on, which is done again


class Relay:
    """Stands between a client and a server, and cuts the line after so many bytes in one direction."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.left = {"up": 0, "down": 0}

    def carry(self) -> threading.Thread:
        """Serve one connection; ends when it has."""
        thread = threading.Thread(target=self._carry)
        thread.start()
        return thread

    def _carry(self) -> None:
        with self._listener.accept()[0] as client, socket.create_connection((HOST, self._port)) as server:
            while ready := select.select([client, server], [], [], DEADLINE)[0]:
                for source in ready:
                    way, target = ("up", server) if source is client else ("down", client)
                    data = source.recv(65536)[: self.left[way]]
                    target.sendall(data)
                    self.left[way] -= len(data)
                    if not data or not self.left[way]:
                        return

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_line_that_is_cut_anywhere(server: RingServer, way: str, many: bool) -> None:
    """After each number of bytes: taken and known to be, or certainly not, or both are told that nobody knows."""
    relay = Relay(server.port)
    outcomes = []
    for count in range(1, 400, 3):
        jobs = [("job", count + number) for number in range(3 if many else 1)]
        server.space.write_all(jobs)
        expected: Any = jobs if many else jobs[0]
        relay.left = {"up": 10**9, "down": 10**9} | {way: count}
        thread = relay.carry()
        with Client() as client:
            ring = RemoteSpace(client, Address("ring", HOST, relay.port))
            try:
                assert (ring.take_all if many else ring.take)(("job", int)) == expected
                outcome, value = "taken", None
            except ConnectionLost as exc:
                outcome, value = "uncertain" if exc.maybe_executed else "not taken", exc.value
        assert value == (expected if outcome == "uncertain" else None)
        thread.join(DEADLINE)
        until(lambda: not server._server._connections)
        left = server.space.read_all(("job", None))
        assert left == {"taken": [], "not taken": jobs}.get(outcome, left)
        assert left in ([], jobs)
        server.space.take_all(("job", None))
        outcomes.append(outcome)
    relay.close()
    assert sorted(set(outcomes)) == ["not taken", "taken", "uncertain"]
    assert outcomes == sorted(outcomes, key=["not taken", "uncertain", "taken"].index)


COUNTER = f"""
import sys
from discovery.rings import RingFinger
def run(port):
    ring = RingFinger(["{HOST}"], int(port)).lookup_ring_any()
    ring.write(("ready",))
    ring.read(("go",))
    for _ in range(100):
        _, count = ring.take(("counter", None))
        ring.write(("counter", count + 1))
"""


def test_ten_processes_count_without_losing_any(server: RingServer, ring: RemoteSpace) -> None:
    """Take, add one, write back, a hundred times in each of ten processes: exactly a thousand."""
    ring.write(("counter", 0))
    with nursery(COUNTER, str(server.port)) as processes:
        for _ in range(10):
            processes.start()
        until(lambda: len(ring.read_all(("ready",))) == 10)
        ring.write(("go",))
        until(lambda: not processes.running(), 30)
    assert ring.take(("counter", None)) == ("counter", 1000)


MANY = (
    RING
    + """
taken = []
threads = [threading.Thread(target=lambda: taken.append(ring.take(("job", None))[1])) for _ in range(250)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(taken))
"""
)


def idle() -> bool:
    """Whether this process does next to nothing for a while."""
    busy = time.process_time()
    threading.Event().wait(0.2)
    return time.process_time() - busy < 0.02


def test_five_hundred_takers_at_once(server: RingServer, ring: RemoteSpace) -> None:
    """All wait at the same time without the server doing anything meanwhile, and each gets one tuple."""
    with python(MANY, str(server.port)) as one, python(MANY, str(server.port)) as other:
        until(lambda: waiting(server) == 500)
        until(idle, "a fifth of a second of rest")  # nobody polls
        ring.write_all([("job", number) for number in range(500)])
        outputs = [process.result() for process in (one, other)]
    assert [code for code, _ in outputs] == [0, 0]
    assert sorted(number for _, output in outputs for number in json.loads(output)) == list(range(500))


def test_finding(server: RingServer) -> None:
    """Each ring once, however often it is found; the first one is the primary."""
    with RingServer(port=0, host=HOST, announce=False) as second, Client() as client:
        finger = RingFinger([HOST, "localhost", f"{HOST}:{second.port}"], server.port, client=client)
        assert finger.primary is None
        assert {ring.identity for ring in finger} == {server.identity, second.identity}
        assert len(list(finger)) == 2
        assert finger.lookup_ring_any() is finger.primary
        assert RingFinger.primary([HOST], second.port).identity == second.identity


def test_finding_by_announcement() -> None:
    """Over mDNS: rings on this port only, at once, whether they or the finder came first; gone when they are."""
    with RingServer(port=0, host=HOST) as server, RingServer(port=0, host=HOST), Client() as client:
        finger = RingFinger(["<broadcast>"], server.port, client=client, interfaces=[HOST])
        start = time.monotonic()
        assert finger.lookup_ring_any().identity == server.identity
        assert time.monotonic() - start < SOON
        assert [ring.identity for ring in finger] == [server.identity]
    with pytest.raises(RingNotFound, match=f"no ring at port {server.port} of the local network within 0.3 s"):
        finger.lookup_ring_any(0.3)


def test_a_ring_that_comes_later_is_found() -> None:
    """Who is already looking finds a ring as soon as it is there."""
    port = free_port()
    later = RingServer(port=port, host=HOST)
    threading.Timer(0.3, later.start).start()
    with Client() as client:
        finger = RingFinger(["<broadcast>"], port, client=client, interfaces=[HOST])
        assert finger.lookup_ring_any().identity == later.identity
    later.close()


def test_not_finding() -> None:
    """The error says where it looked and what it heard."""
    with pytest.raises(RingNotFound, match=r"no ring at 127\.0\.0\.1:1, localhost:2 within 1 s.*refused"):
        RingFinger([HOST, "localhost:2"], 1).lookup_ring_any(1)
    with pytest.raises(RingNotFound, match="no host at all"):
        RingFinger([]).lookup_ring_any(1)
    assert list(RingFinger([HOST], 1)) == []


@pytest.mark.parametrize("host", ["", "a b", "h:", "h:x", "h:0", "h:65536", "[::1", "::1]", "[]:7", "h]:7", "[::1]7"])
def test_a_place_that_cannot_be_one_is_refused(host: str) -> None:
    """At once and by name, instead of being looked for."""
    with pytest.raises(BadAddress, match="names no ring: write HOST or HOST:PORT"):
        RingFinger([HOST, host])


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("h", ("h", 7)),
        ("h:1", ("h", 1)),
        ("::1", ("::1", 7)),
        ("[::1]", ("::1", 7)),
        ("[fe80::1%lo]:2", ("fe80::1%lo", 2)),
    ],
)
def test_a_place_has_a_port_or_not(host: str, place: tuple[str, int]) -> None:
    """An IPv6 address in brackets may have one."""
    assert RingFinger([host], 7)._address(host)[1:] == place


def test_a_ring_that_hangs_is_not_waited_for() -> None:
    """Something listens and never answers: not found, in the time that was given."""
    with socket.create_server((HOST, 0)) as silent, pytest.raises(RingNotFound):
        RingFinger([HOST], silent.getsockname()[1]).lookup_ring_any(0.1)


SERVICE = f"""
import sys, threading
from discovery.rings import Registration
from discovery.rings import RingFinger
class Logger:
    def info(self, text): sys.stdout.write(f"logged {{text}}\\n")  # whole, whatever other threads print
finger = RingFinger(["{HOST}"], int(sys.argv[1]))
with Registration(Logger(), description="logs", finger=finger, period=0.5, retry=0.05) as registration:
    while True:
        registration.wait()
        sys.stdout.write("registered\\n")
        while registration.wait(0): threading.Event().wait(0.01)
"""


def test_a_service_is_registered_again_when_the_ring_comes_back() -> None:
    """The ring is killed and another is started in its place: the service is in it, without anybody's doing."""
    with python(RING_SERVER, str(free_port())) as ring_server:
        port = ring_server.line()
        with python(SERVICE, port) as service:
            service.line("registered")
            finger = RingFinger([HOST], int(port))
            find("Logger", finger=finger).info("one")
            service.line("logged one")
            ring_server.kill()
            with python(RING_SERVER, port) as again:
                again.line(port)
                find("Logger", finger=finger).info("two")
                service.line("logged two")
                ((host, (registered,)),) = until(lambda: services(finger)).items()
                assert host
                assert isinstance(registered[2], Proxy)
                assert registered[:2] + registered[3:] == ("name", "Logger", "logs")


def test_a_service_that_cannot_be_reached_disappears(server: RingServer, ring: RemoteSpace) -> None:
    """Stopped, it does not answer the ring and is gone after a short time; when it goes on it is back; killed, gone."""
    anything = ("name", "Logger", None, None)
    with python(SERVICE, str(server.port)) as service:
        assert ring.read(anything, DEADLINE)
        os.kill(service.popen.pid, signal.SIGSTOP)
        start = time.monotonic()
        until(lambda: ring.read_all(anything) == [])
        assert time.monotonic() - start < SOON
        os.kill(service.popen.pid, signal.SIGCONT)
        until(lambda: ring.read_all(anything))
        service.kill()
        until(lambda: ring.read_all(anything) == [])


def test_a_registration_ends(server: RingServer) -> None:
    """Closing takes the service out; a service that somebody has taken is his."""
    finger = RingFinger([HOST], server.port)
    with Registration(Hello(), "Greeter", finger=finger) as greeter:
        assert greeter.wait(DEADLINE)
        assert find("Greeter", finger=finger).say_hello() == f"hello from {os.getpid()}"
    assert len(server.space) == 0
    assert "Greeter" in repr(greeter)


def test_a_registration_says_once_that_the_ring_is_lost_and_once_that_it_is_back(
    server: RingServer, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is looked for meanwhile."""
    caplog.set_level("INFO", "discovery")
    finger, tried = RingFinger([HOST], server.port), []

    def told(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    def look(timeout: float = 5, *, stop: Stop | None = None) -> RemoteSpace:
        tried.append(timeout)
        return RingFinger.lookup_ring_any(finger, timeout, stop=stop)

    finger.lookup_ring_any = look  # type: ignore[method-assign]
    with Registration(Hello(), "Greeter", finger=finger, retry=0.05) as greeter:
        assert greeter.wait(DEADLINE)
        server.close()
        until(lambda: len(tried) >= 6)
        with RingServer(port=server.port, host=HOST, announce=False):
            assert greeter.wait(DEADLINE)
            assert (told("Greeter is in no ring"), told("Greeter is registered")) == (1, 2)


def test_closing_a_registration_is_prompt_while_the_ring_is_away(
    server: RingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the next attempt, which is far away."""
    lost = threading.Event()
    monkeypatch.setattr(registration, "retrying", partial(registration.retrying, first=3600.0))
    greeter = Registration(Hello(), "Greeter", finger=RingFinger([HOST], server.port), retry=3600.0)
    failed = greeter._failed
    greeter._failed = lambda error, attempt: (failed(error, attempt), lost.set())  # type: ignore[assignment, method-assign]
    greeter.start().wait(DEADLINE)
    server.close()
    assert lost.wait(DEADLINE)
    closing = threading.Thread(target=greeter.close, daemon=True)
    closing.start()
    closing.join(DEADLINE)
    assert not closing.is_alive()


def test_a_search_ends_when_it_is_stopped() -> None:
    """Before it begins or while it waits: at once, and not after the long time that it was given."""
    stop = Stop()
    with socket.create_server((HOST, 0)) as silent, ThreadPoolExecutor(1) as pool:
        finger = RingFinger([HOST], silent.getsockname()[1])
        search = pool.submit(finger.lookup_ring_any, 2 * DEADLINE, stop=stop)
        until(lambda: stop._calls)
        stop.set()
        with pytest.raises(RingNotFound):
            search.result(DEADLINE)
        with pytest.raises(RingNotFound):
            pool.submit(finger.lookup_ring_any, 2 * DEADLINE, stop=stop).result(DEADLINE)
    assert not stop._calls


def test_what_a_writer_kept_means_nothing_to_the_next_ring(server: RingServer, ring: RemoteSpace) -> None:
    """Another ring on the same port: an entry of the first neither renews nor cancels what somebody wrote there."""
    entries = [ring.write(("x", number)) for number in range(5)]
    server.close()
    with RingServer(port=server.port, host=HOST, announce=False) as again:
        board = RingFinger([HOST], again.port).lookup_ring_any()
        for number in range(10):
            board.write(("y", number))
        assert [entry.renew(10) or entry.alive or entry.cancel() for entry in entries] == [False] * 5
        assert len(again.space) == 10

"""A registry in a ring: what it makes of doubled tuples, of a ring that goes away, and of one that comes back."""

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from discovery import Registry, RingServer
from discovery.errors import DiscoveryError, ServiceNotFound
from discovery.registry import offer, ring_transport
from discovery.registry.ring_transport import RingTransport
from discovery.registry.transport import Properties
from discovery.remote import Client, Server, Stream
from discovery.rings import Registration, RemoteSpace, RingFinger
from discovery.rings.board import Board
from discovery.rings.finder import Stop
from discovery.rings.server import OBJECT_ID
from tests.processes import free_port
from tests.waiting import DEADLINE, SOON, until

LOOPBACK = ["127.0.0.1"]
BEAT = 0.2


@pytest.fixture
def app() -> str:
    return f"app{secrets.token_hex(6)}"


@pytest.fixture
def server() -> Iterator[RingServer]:
    with RingServer(port=0, host="127.0.0.1", announce=False) as server:
        yield server


def registry(server: RingServer, app: str = "", heartbeat: float = BEAT) -> Registry:
    return Registry(app, interfaces=LOOPBACK, ring=f"127.0.0.1:{server.port}", heartbeat=heartbeat)


def names(of: Registry, app: str) -> list[str]:
    return [service.service for service in of.services((app, None, None, None))]


class Greeter:
    def greet(self) -> str:
        return "hi"


def test_a_copy_that_is_deleted_is_not_the_service(server: RingServer, app: str) -> None:
    """Of two equal tuples one goes: the service is there until the other goes too."""
    properties = {"app": app, "name": "Greeter", "url": "http://x", "n": "0"}
    tuple_ = (offer.KIND, "service-0123456789abcdef", properties)
    with registry(server) as listening:
        copies = [server.space.write(tuple_) for _ in range(2)]
        assert listening.lookup(f"distributed://{app}/Greeter", DEADLINE) == "http://x"
        watch = listening.watch((None, None, None, None))
        copies[0].cancel()
        server.space.write((offer.KIND, "service-fedcba9876543210", properties | {"name": "Later"}))
        until(lambda: "Later" in names(listening, app))
        assert names(listening, app) == ["Greeter", "Later"]
        copies[1].cancel()
        until(lambda: names(listening, app) == ["Later"])
        watch.close()
        assert [(change.kind, change.service.service) for change in watch] == [
            ("added", "Greeter"),
            ("added", "Later"),
            ("removed", "Greeter"),
        ]


def test_an_offer_is_written_once(server: RingServer, app: str) -> None:
    """However early it is made: one write, and one for each change."""
    events = server.space.notify(None, (offer.KIND, str, dict))
    with registry(server, app, heartbeat=2.0) as owner:
        url = owner.register("Greeter", Greeter(), shared=True)
        until(lambda: len(server.space) == 1)
        with owner.borrow(url):
            until(lambda: len(server.space) == 1 and "loan" in server.space.read((offer.KIND, str, dict))[2])
        until(lambda: "loan" not in server.space.read((offer.KIND, str, dict))[2])
    until(lambda: len(server.space) == 0)
    events.cancel()
    revisions = [(event.kind, event.tuple[2]["n"]) for event in events if event.kind != "close"]
    assert revisions == [("write", "0"), ("write", "1"), ("delete", "0"), ("write", "2"), ("delete", "1"),
                         ("delete", "2")]  # fmt: skip


def test_what_a_lost_ring_had_said_is_believed_for_three_heartbeats(server: RingServer, app: str) -> None:
    """Then it is forgotten, though the ring is still away."""
    with registry(server, app) as owner, registry(server) as other:
        owner.register("Greeter", Greeter(), shared=True)
        until(lambda: names(other, app) == ["Greeter"])
        server.close()
        assert names(other, app) == ["Greeter"]
        until(lambda: names(other, app) == [])
        assert names(owner, app) == ["Greeter"], "our own are known without a ring"


def test_who_did_not_come_back_with_the_ring_is_forgotten(server: RingServer, app: str) -> None:
    """The ring and one of two owners die together; the other is there again, the dead one is not."""
    with registry(server, app) as alive, registry(server) as other:
        alive.register("Alive", Greeter(), shared=True)
        server.space.write((offer.KIND, "service-0123456789abcdef", {"app": app, "name": "Dead", "url": "", "n": "0"}))
        until(lambda: names(other, app) == ["Alive", "Dead"])
        server.close()
        with RingServer(port=server.port, host="127.0.0.1", announce=False):
            until(lambda: names(other, app) == ["Alive"])
            watch = other.watch((app, "Alive", None, None))
            assert watch.get(DEADLINE).kind == "added"
            other.find("Alive", DEADLINE)


def test_a_loss_is_told_once_and_so_is_the_return(
    server: RingServer, app: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the ring is looked for meanwhile."""
    caplog.set_level("INFO", "discovery")

    def told(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    with registry(server) as listening:
        tried = counted(listening)
        server.close()
        until(lambda: len(tried) >= 5)
        with RingServer(port=server.port, host="127.0.0.1", announce=False):
            until(lambda: told("found the ring"))
            assert (told("is not there"), told("found the ring"), told("cannot announce")) == (1, 1, 0)


def counted(listening: Registry) -> list[None]:
    """Count how often a registry looks for its ring from now on."""
    assert isinstance(listening._transport, RingTransport)
    finger = listening._transport._listener._finger
    look, tried = finger.lookup_ring_any, []

    def looked(timeout: float = 5, *, stop: Stop | None = None) -> RemoteSpace:
        tried.append(None)
        return look(timeout, stop=stop)

    finger.lookup_ring_any = looked  # type: ignore[method-assign]
    return tried


def test_a_change_that_could_not_be_written_is_written_later(server: RingServer, app: str) -> None:
    """Not its predecessor: the ring refuses one write, and has the newest soon after."""
    write, refusals = server.space.write, ["once", "twice"]

    def refuse(fields: tuple[str, str, Properties], expires: float) -> object:
        if fields[2].get("loan") and refusals:
            raise OSError(refusals.pop())
        return write(fields, expires)

    with registry(server, app) as owner, registry(server) as other:
        url = owner.register("Greeter", Greeter(), shared=True)
        until(lambda: names(other, app) == ["Greeter"])
        server.space.write = refuse  # type: ignore[assignment, method-assign]
        with owner.borrow(url):
            until(lambda: other.on_loan(other.services((app, None, None, None))[0]))
        assert not refusals


def test_a_suspect_that_lives_is_looked_up_again(server: RingServer, app: str) -> None:
    """One failed call takes it out of the view; the ring still has it, so it is back soon."""
    with registry(server, app) as owner, registry(server) as other:
        owner.register("Greeter", Greeter(), shared=True)
        until(lambda: names(other, app) == ["Greeter"])
        watch = other.watch((app, None, None, None))
        other._finder._suspect(lambda known: known.service.app == app)
        assert [watch.get(DEADLINE).kind for _ in range(3)] == ["added", "removed", "added"]


def test_closing_is_prompt_while_the_ring_is_away(
    server: RingServer, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads end, though the next attempt is far away."""
    monkeypatch.setattr(ring_transport, "retrying", partial(ring_transport.retrying, first=3600.0))
    with registry(server, app, heartbeat=60.0) as owner:
        owner.register("Greeter", Greeter(), shared=True)
        transport = owner._transport
        assert isinstance(transport, RingTransport)
        server.close()
        until(lambda: transport._listener.lost)
        owner.close()
        assert not transport._listener._thread.is_alive()
        assert not transport._writer._thread.is_alive()


def test_closing_does_not_wait_for_the_ring_to_answer(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread still looks for the ring, `close` returns; that thread is told once it has found it."""
    looking, answer = threading.Event(), threading.Event()

    def start(_: RingTransport) -> None:
        looking.set()
        assert answer.wait(DEADLINE)

    monkeypatch.setattr(RingTransport, "start", start)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit((owner := Registry(app, interfaces=LOOPBACK, ring="127.0.0.1:1")).start)
        try:
            assert looking.wait(DEADLINE)
            closing = threading.Thread(target=owner.close)
            closing.start()
            closing.join(SOON)
            assert not closing.is_alive()
        finally:
            answer.set()
        with pytest.raises(DiscoveryError, match="closed"):
            starting.result(DEADLINE)


@pytest.mark.parametrize(
    "answer",
    [5, [5, None], [[5], None], [[()], None], [[("service", 7, {})], None], [[("service", "x", None)], None], [[], -1]],
)
def test_a_ring_that_answers_nonsense_is_looked_for_again(
    server: RingServer, app: str, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """Whatever a hostile ring says it holds, the listener goes on, and follows a ring that is well."""
    with registry(server, app) as owner, registry(server) as other:
        tried = counted(other)
        with monkeypatch.context() as patched:
            patched.setattr(Board, "read_all", lambda *_: answer)
            transport = other._transport
            assert isinstance(transport, RingTransport)
            followed = transport._listener._followed
            assert followed is not None
            followed[1].cancel()  # as when the ring is lost
            until(lambda: len(tried) >= 3)
        owner.register("Greeter", Greeter(), shared=True)
        until(lambda: names(other, app) == ["Greeter"])


def test_a_ring_may_come_later(app: str, caplog: pytest.LogCaptureFixture) -> None:
    """A registry begins without it, says so once, and its services are found as soon as the ring is there."""
    port = free_port()
    with Registry(app, interfaces=LOOPBACK, ring=f"127.0.0.1:{port}", heartbeat=BEAT) as owner:
        url = owner.register("Greeter", Greeter())
        assert owner.lookup(url).greet() == "hi"
        with pytest.raises(ServiceNotFound, match=f"on the ring 127.0.0.1:{port}, which does not answer"):
            owner.lookup(f"distributed://{app}/Other", 0)
        with RingServer(port=port, host="127.0.0.1", announce=False) as server, registry(server) as other:
            assert other.lookup(url, DEADLINE).greet() == "hi"
    (told,) = (message for message in caplog.messages if "looked for" in message)
    assert told.startswith(f"the ring 127.0.0.1:{port} is not there, and will be looked for until it is: no ring at ")


class FlappingRing:
    """Lets everybody in, and out again at once."""

    def __init__(self) -> None:
        self.asked = 0

    def identity(self) -> str:
        return "flapping"

    def write(self, *anything: object) -> int:
        return 1

    def read_all(self, *anything: object) -> list[object]:
        return [[], None]

    def notify(self, *anything: object) -> Stream:
        self.asked += 1
        return Ended()


class Ended(Stream):
    """The stream of a ring that closes at once."""

    def next_batch(self) -> None:
        return None

    def cancel(self) -> None:
        pass


def test_a_ring_that_is_lost_again_at_once_is_still_lost(app: str, caplog: pytest.LogCaptureFixture) -> None:
    """However often that happens, it is said once, by a registry and by a registration; and the pauses grow."""
    ring = FlappingRing()
    with Server("127.0.0.1") as server, Client(server=lambda: server) as client:
        server.serve(ring, OBJECT_ID)
        where = f"127.0.0.1:{server.port}"
        with (
            Registry(app, interfaces=LOOPBACK, ring=where, heartbeat=2.0),
            Registration(Greeter(), "Flapping", finger=RingFinger([where], client=client)),
        ):
            until(lambda: ring.asked >= 12)
    told = [message for message in caplog.messages if where in message]
    assert len(told) == 2, told


def test_new_processes_do_not_all_find_the_same_provider(server: RingServer, app: str) -> None:
    """Of two in a ring, each is the first that somebody finds."""
    with registry(server, app) as one, registry(server, app) as two:
        one.register("Shared", url="http://one", shared=True)
        two.register("Shared", url="http://two", shared=True)
        until(lambda: len(server.space) == 2)

        def found() -> str:
            with registry(server) as new:
                return str(new.lookup(f"distributed://{app}/Shared", DEADLINE))

        first = found()
        until(lambda: found() != first)

"""Services registered in real processes, found and called from others, by multicast on loopback and through a ring."""

import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from discovery import Beacon, Distributed, Registry, RingServer, distributable
from discovery.errors import (
    ConnectionLost,
    DiscoveryError,
    MulticastUnavailable,
    NoSuchMethod,
    NoSuchObject,
    RequestCanceled,
    RequestExpired,
    ServiceNotFound,
    ServiceTaken,
)
from discovery.registry import Service, distributed, use_registry
from tests.processes import Process, free_port, python
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
PROVIDER = """
import os, sys, threading
from discovery import Registry
class User:
    def __init__(self, name="anon"):
        self.name = name
    def hello(self):
        return f"hello {self.name} by {os.getpid()}"
    def nap(self):
        print("napping", flush=True)
        threading.Event().wait()
    @classmethod
    def pid(cls):
        return os.getpid()
    @classmethod
    def die(cls):
        os._exit(1)
heartbeat, ring = float(sys.argv[3]), sys.argv[4] if sys.argv[4:] else None
registry = Registry(sys.argv[1], interfaces=["127.0.0.1"], ring=ring, heartbeat=heartbeat)
print(registry.register(sys.argv[2], User, "Users", shared=True), flush=True)
registry.serve_forever()
"""
MakeRegistry = Callable[..., Registry]
BEAT = 0.4
"""A tenth of the heartbeat that is used otherwise."""


@pytest.fixture
def app() -> str:
    """An app of our own, since all tests of a machine share its loopback."""
    return f"app{secrets.token_hex(6)}"


@pytest.fixture(params=["multicast", "ring"])
def ring(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Both transports: the same calls have the same answers."""
    if request.param == "multicast":
        yield None
    else:
        with RingServer(port=0, host="127.0.0.1", announce=False) as server:
            yield f"127.0.0.1:{server.port}"


@pytest.fixture
def make(ring: str | None) -> Iterator[MakeRegistry]:
    """Registries that are closed at the end."""
    with ExitStack() as stack:

        def made(app: str = "", **options: Any) -> Registry:
            return stack.enter_context(Registry(app, interfaces=LOOPBACK, ring=ring, **{"heartbeat": BEAT} | options))

        yield made


@pytest.fixture
def provider(ring: str | None) -> Callable[..., AbstractContextManager[Process]]:
    """A process that offers a class under that app and name."""
    return lambda app, name, heartbeat=BEAT: python(PROVIDER, app, name, str(heartbeat), *([ring] if ring else []))


class Greeter:
    def greet(self) -> str:
        return "hi"

    def fail(self) -> None:
        raise NoSuchObject("the method's own")


def test_a_class_is_found_and_used_from_another_process(make: MakeRegistry, provider: Any, app: str) -> None:
    """Its class methods, and instances that live there, whichever way they are made; with SIGTERM it is gone."""
    with provider(app, "User") as process:
        url = process.line("distributed://")
        registry = make()
        user = registry.lookup(url, timeout=DEADLINE)
        assert user.pid() == process.popen.pid
        assert user("bob").hello() == user.new("bob").hello() == f"hello bob by {process.popen.pid}"
        with pytest.raises(NoSuchMethod, match="_private"):
            registry._client.call(user._address, "_private")
        service = registry.services((app, None, None, None))[0]
        assert service == Service(app, "User", str(user._address), "Users")
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: registry.services((app, None, None, None)) == [])
        assert process.popen.wait(DEADLINE) == 0


def test_objects_and_any_url_can_be_registered(make: MakeRegistry, app: str) -> None:
    """An object is called, a url is returned as it is, and both can be unregistered."""
    owner, other = make(app), make()
    greet = owner.register("Greeter", Greeter())
    billing = owner.register("Billing", url="https://10.0.0.9:8443", description="Money")
    greeter = other.lookup(greet, DEADLINE)
    assert greeter.greet() == "hi"
    assert other.lookup(billing, DEADLINE) == "https://10.0.0.9:8443"
    owner.unregister("Greeter")
    with pytest.raises(NoSuchObject):
        greeter.greet()
    until(lambda: [service.service for service in other.services((app, None, None, None))] == ["Billing"])
    with pytest.raises(ServiceNotFound, match="Greeter"):
        owner.unregister("Greeter")


def test_a_name_is_unique_unless_it_is_shared(make: MakeRegistry, app: str) -> None:
    """A second process with the same app and service is refused, and may join when it asks to."""
    one, two = make(app), make(app)
    url = one.register("Greeter", Greeter())
    with pytest.raises(ServiceTaken, match=url):
        one.register("Greeter", Greeter())
    with pytest.raises(ServiceTaken, match=url):
        two.register("Greeter", Greeter())
    assert two.register("Greeter", Greeter(), shared=True) == url
    third = make()
    until(lambda: len(third.services((app, None, None, None))) == 2)
    assert len({third.lookup(url)._address for _ in range(4)}) == 2


def test_of_two_who_register_at_the_same_moment_one_wins(make: MakeRegistry, app: str) -> None:
    """Whoever loses is told."""
    lost: list[Exception] = []

    def register(registry: Registry) -> None:
        try:
            registry.register("Greeter", Greeter())
        except ServiceTaken as exc:
            lost.append(exc)

    rivals = make(app), make(app)
    for rival in rivals:
        rival._offering.contest = 2.0  # on a busy machine, 50 ms may be over before they hear of each other
    threads = [threading.Thread(target=register, args=(rival,)) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 1


def in_a_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Begin a call; what it returns or raises is in the list once the thread has ended."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as exc:  # noqa: BLE001 - for the test to look at
            outcome.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_a_registration_holds_up_no_other(make: MakeRegistry, app: str) -> None:
    """While one name is listened for, all else goes on, the name is taken, and `close` ends the wait with an error."""
    registry = make(app)
    registry._offering.listen = 3600.0
    listening, ended = in_a_thread(lambda: registry.register("Slow", Greeter()))
    until(lambda: "Slow" in registry._offering._claimed)

    def others() -> list[str]:
        url = registry.register("Quick", Greeter(), shared=True)
        said = [registry.lookup(url).greet()]
        with registry.borrow(url) as greeter:
            said.append(greeter.greet())
        registry.unregister("Quick")
        return said

    thread, said = in_a_thread(others)
    thread.join(DEADLINE)
    assert said == [["hi", "hi"]]
    with pytest.raises(ServiceTaken, match="Slow"):
        registry.register("Slow", Greeter(), shared=True)
    assert not ended
    closing, _ = in_a_thread(registry.close)
    for each in (closing, listening):
        each.join(DEADLINE)
    assert [type(error) for error in ended] == [DiscoveryError]
    assert "closed while" in str(ended[0])


def test_of_two_threads_that_register_one_name_one_wins(make: MakeRegistry, app: str) -> None:
    """The other is told so at once, and afterwards the name is offered once."""
    registry, barrier = make(app), threading.Barrier(2)

    def register() -> str:
        barrier.wait(DEADLINE)
        return registry.register("Greeter", Greeter())

    calls = [in_a_thread(register) for _ in range(2)]
    for thread, _ in calls:
        thread.join(DEADLINE)
    outcomes = [outcome for _, (outcome,) in calls]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ServiceTaken", "str"]
    assert len(registry.services((app, None, None, None))) == 1


def test_a_service_that_is_unregistered_while_it_is_registered_is_not_there(make: MakeRegistry, app: str) -> None:
    """`register` says so, since its caller would believe that it is offered."""
    registry = make(app)
    registry._offering._refuse_if_taken = lambda where, mine: mine and registry.unregister(where.service)  # type: ignore[method-assign]
    with pytest.raises(ServiceNotFound, match="was unregistered while"):
        registry.register("Greeter", Greeter())
    assert registry.services((app, None, None, None)) == []


def test_what_is_not_found_is_explained(make: MakeRegistry, app: str) -> None:
    """What was searched, where, and what has a similar name."""
    owner = make(app)
    owner.register("Greeter", Greeter())
    with pytest.raises(ServiceNotFound, match=f"(?s)127.0.0.1.*did you mean .*distributed://{app}/Greeter"):
        owner.lookup(f"distributed://{app}/Greter", timeout=0)
    with pytest.raises(ServiceNotFound, match="did you mean Greeter"):
        owner.find("Greetre", timeout=0)


def test_a_lookup_waits_for_what_comes(make: MakeRegistry, app: str) -> None:
    """And has it as soon as it is there."""
    waiting, owner = make(), make(app)
    found: list[str] = []
    thread = threading.Thread(
        target=lambda: found.append(waiting.lookup(f"distributed://{app}/Greeter", DEADLINE).greet())
    )
    thread.start()
    owner.register("Greeter", Greeter(), shared=True)
    thread.join(DEADLINE)
    assert found == ["hi"]


def test_a_watch_tells_what_comes_changes_and_goes(make: MakeRegistry, app: str) -> None:
    """Added, changed when it goes on loan and comes back, removed; then the end."""
    owner, other = make(app), make()
    watch = other.watch((app, None, None, None))
    owner.register("Greeter", Greeter())
    kinds = [watch.get(DEADLINE).kind]
    with owner.borrow(f"distributed://{app}/Greeter"):
        kinds.append(watch.get(DEADLINE).kind)
    kinds.append(watch.get(DEADLINE).kind)
    owner.unregister("Greeter")
    kinds.append(watch.get(DEADLINE).kind)
    assert kinds == ["added", "changed", "changed", "removed"]
    with pytest.raises(RequestExpired):
        watch.get(0.01)
    other.close()
    with pytest.raises(RequestCanceled):
        watch.get(DEADLINE)
    assert list(watch) == []


def test_a_service_may_expire(make: MakeRegistry, app: str) -> None:
    """After so many seconds it is gone by itself."""
    owner = make(app)
    owner.register("Greeter", Greeter(), expires=0.2)
    until(lambda: owner.services((app, None, None, None)) == [])


def test_a_killed_provider_is_forgotten_and_another_takes_its_calls(
    make: MakeRegistry, provider: Any, app: str
) -> None:
    """A call that was certainly not sent goes to the next provider; the dead one is never looked up again."""
    with provider(app, "User") as one, provider(app, "User") as two:
        url = one.line("distributed://")
        two.line("distributed://")
        registry, other = make(), make()
        for each in (registry, other):
            until(lambda each=each: len(each.services((app, None, None, None))) == 2)  # type: ignore[misc]
        proxies = [registry.lookup(url) for _ in range(2)]
        assert {proxy.pid() for proxy in proxies} == {one.popen.pid, two.popen.pid}
        one.kill()
        assert {proxy.pid() for proxy in proxies} == {two.popen.pid}
        assert {registry.lookup(url).pid() for _ in range(4)} == {two.popen.pid}
        until(lambda: len(other.services((app, None, None, None))) == 1)


def test_with_the_usual_heartbeat_the_dead_are_forgotten_too(app: str) -> None:
    """The heartbeat of four seconds, by multicast and through a ring: after twelve seconds and a little."""
    with ExitStack() as stack:
        server = stack.enter_context(RingServer(port=0, host="127.0.0.1", announce=False))
        killed, watching = [], []
        for ring in ((), (f"127.0.0.1:{server.port}",)):
            killed.append(stack.enter_context(python(PROVIDER, app, "User", "4", *ring)))
            watching.append(stack.enter_context(Registry(interfaces=LOOPBACK, ring=ring[0] if ring else None)))
        for process, registry in zip(killed, watching, strict=True):
            registry.lookup(process.line("distributed://"), DEADLINE)
        for process in killed:
            process.kill()
        for registry in watching:
            until(lambda each=registry: each.services((app, None, None, None)) == [], 17)  # type: ignore[misc]


def test_a_call_that_may_have_been_executed_is_not_repeated(make: MakeRegistry, provider: Any, app: str) -> None:
    """It says so, even where there is another provider."""
    with provider(app, "User") as one, provider(app, "User") as two:
        url = one.line("distributed://")
        two.line("distributed://")
        registry = make()
        until(lambda: len(registry.services((app, None, None, None))) == 2)
        user = registry.lookup(url)
        with pytest.raises(ConnectionLost, match="die may have been executed") as caught:
            user.die()
        assert caught.value.maybe_executed
        assert user.pid() in (one.popen.pid, two.popen.pid)


def test_a_provider_that_answers_with_an_error_is_not_given_up(make: MakeRegistry, app: str) -> None:
    """Not even when the error is one that a missing object would give."""
    owner = make(app)
    url = owner.register("Greeter", Greeter())
    greeter = owner.lookup(url)
    with pytest.raises(NoSuchObject, match="own"):
        greeter.fail()
    assert owner.lookup(url, timeout=0).greet() == "hi"


def test_the_short_form(make: MakeRegistry, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class registers itself by decoration, before or after the registry is there, and is found as an attribute."""
    monkeypatch.setattr(distributed, "_registry", None)
    name = f"Early{app}"
    early = distributable(type(name, (Greeter,), {"__doc__": "Says hi.\n\nAnd more."}))
    registry = use_registry(make(app))
    late = distributable(type(f"Late{app}", (Greeter,), {}))
    assert getattr(Distributed, early.__name__)().greet() == "hi"
    assert getattr(Distributed, late.__name__).new().greet() == "hi"
    assert registry.services((app, name, None, None))[0].description == "Says hi."


def test_strangers_are_ignored_and_counted(app: str) -> None:
    """With a secret only those who have it are heard; without it the malformed harm nobody."""
    with (
        Registry(app, interfaces=LOOPBACK, secret="ours") as one,
        Registry(app, interfaces=LOOPBACK, secret=b"ours") as two,
        Registry(app, interfaces=LOOPBACK, secret="theirs") as stranger,
        Registry(app, interfaces=LOOPBACK) as innocent,
        Beacon(LOOPBACK) as beacon,
    ):
        for number in range(100):
            beacon.announce("service", {"app": app, "name": f"bad{number}", "url": "remote://127.0.0.1:1/x", "n": "x"})
        beacon.announce("service", {"app": app, "name": "Liar", "url": "remote://127.0.0.1:1/x", "n": "0"})
        url = one.register("Greeter", Greeter())
        stranger.register("Stranger", Greeter())
        assert two.lookup(url, DEADLINE).greet() == "hi"
        until(lambda: two.refused >= 102)
        until(lambda: len(innocent.services((app, None, None, None))) == 3)
        assert [service.service for service in two.services((app, None, None, None))] == ["Greeter"]
        with pytest.raises(ConnectionLost, match="cannot connect"):
            innocent.lookup(f"distributed://{app}/Liar").greet()


def test_where_there_is_no_multicast_the_error_says_what_to_do() -> None:
    """It names the ring, and nothing is asked of the network before the first use."""
    registry = Registry("app", interfaces=["203.0.113.1"])
    with pytest.raises(MulticastUnavailable, match=r"203\.0\.113\.1 \(it has .*127\.0\.0\.1.*Registry\(ring="):
        registry.find("Anything")
    registry.close()


def test_a_ring_that_comes_back_knows_everything_again(app: str) -> None:
    """What was registered is written again, and found by those who were there and by those who come."""
    server = RingServer(port=free_port(), host="127.0.0.1", announce=False).start()
    ring = f"127.0.0.1:{server.port}"
    with Registry(app, interfaces=LOOPBACK, ring=ring) as owner, Registry(interfaces=LOOPBACK, ring=ring) as other:
        url = owner.register("Greeter", Greeter())
        assert other.lookup(url, DEADLINE).greet() == "hi"
        server.close()
        assert other.lookup(url).greet() == "hi"
        with (
            RingServer(port=server.port, host="127.0.0.1", announce=False),
            Registry(interfaces=LOOPBACK, ring=ring) as late,
        ):
            assert late.lookup(url, DEADLINE).greet() == "hi"
            assert other.lookup(url).greet() == "hi"

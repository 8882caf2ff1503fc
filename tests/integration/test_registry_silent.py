"""Providers that say nothing any more without being dead: whoever waits for one is woken, or has set a time."""

import secrets
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from discovery import Registry, RingServer
from discovery.errors import BadTime, CallTimeout, ConnectionLost, ServiceNotFound
from discovery.remote import within
from tests.processes import Process, python, suspend
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
BEAT = 0.2
PROVIDER = """
import sys, threading
from discovery import Registry
class User:
    def hello(self):
        return "hello"
    def nap(self, seconds=None):
        print("napping", flush=True)
        threading.Event().wait(seconds)
        return "slept"
    def leave(self):
        registry.unregister("User")
registry = Registry(sys.argv[1], interfaces=["127.0.0.1"], ring=sys.argv[2] or None, heartbeat=float(sys.argv[3]))
print(registry.register("User", User(), shared=True), flush=True)
registry.serve_forever()
"""


@pytest.fixture(params=["multicast", "ring"])
def ring(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "multicast":
        yield ""
    else:
        with RingServer(port=0, host="127.0.0.1", announce=False) as server:
            yield f"127.0.0.1:{server.port}"


@pytest.fixture
def provider(ring: str) -> Iterator[Process]:
    with python(PROVIDER, f"app{secrets.token_hex(6)}", ring, str(BEAT)) as process:
        yield process
        process.popen.send_signal(signal.SIGCONT)


@pytest.fixture
def registry(ring: str) -> Iterator[Registry]:
    with Registry(interfaces=LOOPBACK, ring=ring or None, heartbeat=BEAT) as registry:
        yield registry


def test_who_waits_for_a_stopped_provider_is_woken(registry: Registry, provider: Process) -> None:
    """A call that is under way ends with an error that says it may have been executed; so does a wait for a loan."""
    url = provider.line("distributed://")
    registry.lookup(url, DEADLINE)
    with registry.borrow(url, ttl=600), ThreadPoolExecutor() as threads:
        waiting = threads.submit(registry.borrow(url, timeout=None).__enter__)
        until(lambda: len(registry._finder._waiting) == 1)
        suspend(provider.popen)
        with pytest.raises((ConnectionLost, ServiceNotFound)):
            waiting.result(DEADLINE)
        provider.popen.send_signal(signal.SIGCONT)
    user = registry.lookup(url, DEADLINE)
    with ThreadPoolExecutor() as threads:
        napping = threads.submit(user.nap)
        provider.line("napping")
        suspend(provider.popen)
        with pytest.raises(ConnectionLost, match="nap may have been executed") as caught:
            napping.result(DEADLINE)
    assert caught.value.maybe_executed


def test_a_stopped_provider_is_not_called_on_an_old_connection(registry: Registry, provider: Process) -> None:
    """Once it is forgotten, a call through an old proxy fails, and was certainly not executed."""
    url = provider.line("distributed://")
    user = registry.lookup(url, DEADLINE)
    assert user.hello() == "hello"
    suspend(provider.popen)
    until(lambda: not registry.services((None, "User", None, None)))
    with pytest.raises(ConnectionLost) as caught:
        user.hello()
    assert not caught.value.maybe_executed


def test_a_provider_that_withdraws_finishes_its_work(registry: Registry, provider: Process) -> None:
    """Its service is not found any more, but it answers, so a call that is under way goes on."""
    user = registry.lookup(provider.line("distributed://"), DEADLINE)
    with ThreadPoolExecutor() as threads:
        napping = threads.submit(user.nap, 2.0)
        provider.line("napping")
        user.leave()
        until(lambda: not registry.services((None, "User", None, None)))
        assert napping.result(DEADLINE) == "slept"


def test_a_provider_that_stops_after_it_has_withdrawn_is_noticed(registry: Registry, provider: Process) -> None:
    """It is asked again for as long as somebody waits for it, since nobody hears it any more."""
    user = registry.lookup(provider.line("distributed://"), DEADLINE)
    with ThreadPoolExecutor() as threads:
        napping = threads.submit(user.nap)
        provider.line("napping")
        user.leave()
        until(lambda: not registry.services((None, "User", None, None)))
        suspend(provider.popen)
        with pytest.raises(ConnectionLost, match="nap may have been executed"):
            napping.result(DEADLINE)


def test_a_call_may_have_a_time(ring: str, provider: Process) -> None:
    """For all calls of a registry, or for those through one proxy; the error says that it may be executed."""
    url = provider.line("distributed://")
    with Registry(interfaces=LOOPBACK, ring=ring or None, timeout=0.2) as hasty:
        with pytest.raises(CallTimeout, match=r"no answer in 0\.2 s") as caught:
            hasty.lookup(url, DEADLINE).nap()
        assert caught.value.maybe_executed
    with Registry(interfaces=LOOPBACK, ring=ring or None) as patient:
        user = patient.lookup(url, DEADLINE)
        with pytest.raises(CallTimeout, match=r"no answer in 0\.3 s"):
            within(user, 0.3).nap()
        assert within(user, DEADLINE) == user
        assert patient.lookup(url, 0).hello() == "hello", "only the proxy is in a hurry, and its provider is well"


def test_a_provider_that_is_stopped_is_forgotten_after_a_call_that_took_too_long(ring: str, provider: Process) -> None:
    """Long before its announcements would have expired: the call that was too late has it asked."""
    url = provider.line("distributed://")
    with Registry(interfaces=LOOPBACK, ring=ring or None, timeout=0.2) as hasty:
        user = hasty.lookup(url, DEADLINE)
        suspend(provider.popen)
        with pytest.raises(ConnectionLost):
            user.hello()
        until(lambda: not hasty.services((None, "User", None, None)))


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_is_more_than_nothing(seconds: float) -> None:
    """A call takes some time."""
    with pytest.raises(BadTime, match="more than 0 seconds"):
        Registry(timeout=seconds)
    with Registry(interfaces=LOOPBACK) as registry:
        registry.register("Thing", object(), shared=True)
        with pytest.raises(BadTime, match="more than 0 seconds"):
            within(registry.find("Thing"), seconds)

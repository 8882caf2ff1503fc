"""`politics ring`; as a process of its own where it serves."""

import json
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from discovery import Registry
from discovery.remote import Client
from discovery.rings import Registration, RingFinger, RingServer
from tests.commands import politics
from tests.processes import Process, running
from tests.waiting import DEADLINE, until

POLITICS = str(Path(sys.executable).parent / "politics")
HOST = "127.0.0.1"


class Clock:
    def tick(self) -> int:
        return 1


def port_of(process: Process) -> int:
    return int(process.line("ring on port").split()[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_comes(number: signal.Signals) -> None:
    """Registrations and removals are printed when asked for, and the end is clean."""
    with running(POLITICS, "ring", "--port", "0", "--host", HOST, "--verbose") as ring:
        finger = RingFinger([HOST], port_of(ring))
        with Registration(Clock(), description="ticks", finger=finger) as registration:
            assert registration.wait(DEADLINE)
            assert re.search(r"registered Clock  \S+:\d+\S*  ticks", ring.line("registered Clock"))
        ring.line("expired Clock")
        ring.popen.send_signal(number)
        code, output = ring.result()
        assert (code, output.splitlines()[-1]) == (0, "ring closed")


def test_it_lists_by_host() -> None:
    """Every service of every ring that is found, for people and for programs."""
    with (
        RingServer(port=0, host=HOST, announce=False) as one,
        RingServer(port=0, host=HOST, announce=False) as two,
        Client() as client,
    ):
        ports = [one.port, two.port]
        for port in ports:
            ring = RingFinger([HOST], port, client=client).lookup_ring_any()
            ring.write(("name", f"Plain{port}", "no reference", "text"))
            ring.write(("another", "tuple"))
        hosts = [word for port in ports for word in ("--host", f"{HOST}:{port}")]
        listed = politics("ring", "--list", *hosts)
        assert (listed.status, listed.out.splitlines()[0]) == (0, HOST)
        assert all(f"Plain{port}" in listed.out for port in ports)
        listed = politics("ring", "--list", "--json", *hosts)
        assert {service["name"] for service in json.loads(listed.out)[HOST]} == {f"Plain{port}" for port in ports}


def test_a_stranger_cannot_command_the_terminal() -> None:
    """Control characters in names and descriptions are shown as something else, by --list and by --verbose."""
    with running(POLITICS, "ring", "--port", "0", "--host", HOST, "--verbose") as one, Client() as client:
        ring = RingFinger([HOST], port_of(one), client=client).lookup_ring_any()
        ring.write(("name", "Evil", "no reference", "\x1b]0;owned\x07 [/b]\x9b2J\u202e"))
        listed = politics("ring", "--list", "--host", f"{HOST}:{port_of(one)}")
        assert listed.status == 0
        for said in (listed.out.splitlines()[1], one.line("registered Evil")):
            assert "owned" in said
            assert said.isprintable()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--list", "--host", HOST, "--port", "1"], 1, f"no ring at {HOST}:1 within"),
        (["--port", "99999"], 2, "99999"),
        *((["--list", "--host", bad], 2, f"{bad!r} names no ring") for bad in ("h:port", "h:99999", "[::1", "a b", "")),
        (["--host", f"{HOST}:7"], 1, f"port 7647 of {HOST}:7 cannot be used"),
        (["--port", "0", "--access", "permit all"], 2, "permit"),
        (["--host", "a", "--host", "b"], 2, "one interface"),
        (["--port", "0", "--json"], 2, "--json: prints what --list finds"),
        (["--certificate", "/nowhere.pem"], 2, "nowhere"),
    ],
)
def test_what_goes_wrong(arguments: list[str], code: int, said: str) -> None:
    """A message that names the trouble, and 1 for failure, 2 for wrong usage."""
    ended = politics("ring", *arguments)
    assert (ended.status, said in ended.said) == (code, True), ended


def test_a_port_that_is_taken() -> None:
    """It fails, and says why."""
    with socket.create_server((HOST, 0)) as taken:
        ended = politics("ring", "--host", HOST, "--port", taken.getsockname()[1])
        sentence = f"port {taken.getsockname()[1]} of {HOST} cannot be used: Address already in use"
    assert (ended.status, sentence in ended.said) == (1, True), ended


def test_services_of_registries_are_listed_too() -> None:
    """A ring has services of registrations and of registries that use it: `--list` shows both."""
    with RingServer(port=0, host=HOST, announce=False) as server:
        where = f"{HOST}:{server.port}"
        with Registry("listed", interfaces=[HOST], ring=where) as registry:
            url = registry.register("Clock", Clock(), "ticks", shared=True)
            until(lambda: len(server.space) == 1)
            listed = politics("ring", "--list", "--host", where)
            assert (listed.status, listed.out.splitlines()[0]) == (0, HOST)
            assert re.fullmatch(rf"  {url}  remote://{HOST}:\d+/\S+  ticks", listed.out.splitlines()[1])
            listed = politics("ring", "--list", "--json", "--host", where)
            assert [service["name"] for service in json.loads(listed.out)[HOST]] == [url]

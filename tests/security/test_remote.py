"""Strangers' connections: few, short, and quiet in the log, also where one of ours is sent to many servers."""

import contextlib
import logging
import socket
from pathlib import Path

import pytest

from discovery.clock import uptime
from discovery.errors import ConnectionLost
from discovery.remote import Access, Address, Client, Server
from discovery.remote.address import MAX_ADDRESS, SCHEME
from discovery.remote.listener import RareWarnings
from discovery.remote.pool import ConnectionPool
from discovery.remote.protocol import HEADER, MAGIC, MAX_MESSAGE, VERSION, ConversationState, Kind
from discovery.rings import RemoteSpace, RingServer
from tests.integration.test_remote_security import certificates as certificates
from tests.integration.test_remote_security import tls
from tests.processes import python
from tests.security.budget import cpu
from tests.security.strangers import stranger
from tests.waiting import DEADLINE, until

HEADER_OF_A_CALL = HEADER.pack(MAGIC, VERSION, Kind.CALL, 1000)


class Hello:
    def echo(self, value: object) -> object:
        return value

    def much(self) -> str:
        return "x" * 10_000_000


class Renewer:
    def renew(self, stored: object) -> float:
        return 3600.0


def test_idle_connections_are_limited_in_all() -> None:
    """A ring that has called renewers at three hundred addresses keeps 64 connections at most."""
    with (
        RingServer(port=0, host="127.0.0.1", announce=False) as ring,
        Server() as everywhere,
        Client() as client,
    ):
        renewer = Address.parse(everywhere.serve(Renewer()))
        space = RemoteSpace(client, Address("ring", "127.0.0.1", ring.port))
        here = len(everywhere._connections)
        for number in range(300):
            address = renewer._replace(host=f"127.0.{1 + number // 200}.{1 + number % 200}")
            space.write(("x", number), client.proxy(address))
        until(lambda: len(everywhere._connections) - here <= 64)
        assert len(everywhere._connections) - here > 32  # and they are kept for the next time


def test_an_idle_connection_is_let_go() -> None:
    """It is not used again, and closed, once it has been idle for a minute, so that no server hangs up on a call."""
    now = [0.0]
    with Server("127.0.0.1") as server:
        pool = ConnectionPool(
            context=None,
            connect_timeout=DEADLINE,
            max_message=MAX_MESSAGE,
            lost=lambda address: None,
            clock=lambda: now[0],
        )
        address = Address.parse(server.serve(Hello()))
        first, second = (pool.acquire(address, None) for _ in range(2))
        pool.release(address, first)
        now[0] = 30.0
        pool.release(address, second)
        assert pool.acquire(address, None) is second
        now[0] = 61.0
        third = pool.acquire(address, None)
        assert third is not first
        pool.release(address, second)
        pool.release(address, third)
        now[0] = 122.0
        pool.tidy()
        until(lambda: not server._connections)


SILENT = {
    "nothing": b"",
    "half a header": HEADER_OF_A_CALL[:4],
    "a header and no body": HEADER_OF_A_CALL,
    "a header and half a body": HEADER_OF_A_CALL + b"x" * 500,
}


def impatient(server: Server) -> Server:
    """Let a server look for silent clients ten times a second."""
    server._every = 0.1
    return server


def age(server: Server) -> None:
    """Let all that its clients have been silent be longer ago."""
    for connection in server._connections.copy():
        connection.since -= 10_000


@pytest.mark.parametrize("name", SILENT)
def test_a_silent_client_is_hung_up_on(name: str) -> None:
    """It may have called before."""
    with impatient(Server("127.0.0.1")) as server, Client() as client:
        client.proxy(server.serve(Hello())).echo(1)
        with contextlib.closing(stranger(server)) as silent:
            silent.sock.sendall(SILENT[name])
            age(server)
            until(lambda: gone(silent.sock))
        until(lambda: not server._connections)
        assert client.proxy(server.serve(Hello())).echo(2) == 2


def test_who_waits_or_listens_is_not_silent() -> None:
    """An answer may take long, a taker may keep what it holds, a listener may have nothing to hear."""
    ring = RingServer(port=0, host="127.0.0.1", announce=False)
    impatient(ring._server)
    with ring, Client() as client:
        space = RemoteSpace(client, Address("ring", "127.0.0.1", ring.port))
        waiting, events = space.taking(("later",), DEADLINE), space.notify("write", ("later",))
        holding = space.taking(("now",), DEADLINE)
        space.write(("now",))
        assert holding.result() == ("now",)
        client.close()  # what is idle
        known = {ConversationState.CALLED, ConversationState.HELD, ConversationState.STREAMING}
        until(lambda: {connection.protocol.state for connection in ring._server._connections.copy()} == known)
        with contextlib.closing(stranger(ring._server)) as silent:
            age(ring._server)
            until(lambda: gone(silent.sock))
        space.write(("later",))
        assert waiting.result() == ("later",)
        assert events.get(DEADLINE).tuple == ("later",)
        waiting.confirm()
        holding.confirm()
        events.drop()


def test_a_client_that_sends_byte_by_byte_is_hung_up_on() -> None:
    """Each byte prolongs its time by no more than a ten-thousandth of a second."""
    with impatient(Server("127.0.0.1")) as server, contextlib.closing(stranger(server)) as slow:
        slow.sock.sendall(HEADER_OF_A_CALL)
        age(server)

        def hung_up() -> bool:
            with contextlib.suppress(OSError):
                slow.sock.sendall(b"x")
            return gone(slow.sock)

        until(hung_up)


def test_a_client_that_takes_no_answer_is_hung_up_on() -> None:
    """The thread that sends it is free again."""
    with impatient(Server("127.0.0.1")) as server:
        server.serve(Hello(), "hello")
        with contextlib.closing(stranger(server)) as greedy:
            greedy.send(Kind.CALL, b'["hello","much",[],{"d":[]}]')
            (connection,) = server._connections
            until(lambda: connection.since > uptime() + 900)  # the answer is on its way; 10 kB a second are enough
            age(server)
            until(lambda: not server._connections)


CROWDED = """
import resource, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from discovery.remote import Server
class Work:
    def open(self):
        files = [open("/dev/null") for _ in range(40)]
        for file in files:
            file.close()
        return len(files)
with Server("127.0.0.1") as server:
    print(server.serve(Work()), flush=True)
    threading.Event().wait()
"""


def test_a_crowd_leaves_descriptors_for_the_work() -> None:
    """Of 400 silent clients, the server lets in what leaves a quarter of its 256 descriptors free, and says so."""
    with python(CROWDED) as process, Client(timeout=DEADLINE) as client, contextlib.ExitStack() as crowd:
        address = process.line("remote://")
        proxy = client.proxy(address)
        assert proxy.open() == 40
        sockets = [crowd.enter_context(socket.create_connection(Address.parse(address)[1:])) for _ in range(400)]
        until(lambda: sum(gone(each) for each in sockets) >= 400 - 256)
        assert proxy.open() == 40
        assert "refused 127.0.0.1" in process.line("too few file descriptors")


def gone(sock: socket.socket) -> bool:
    """Whether the other side has closed this connection."""
    sock.setblocking(False)
    try:
        return not sock.recv(100)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_thousand_refusals_are_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One of each kind is logged in ten seconds; bad messages count as well."""
    with Server("127.0.0.1", access=Access("deny all")) as closed, Server("127.0.0.1") as opened:
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", closed.port)) as sock:
                assert gone(sock) or sock.setblocking(True) or sock.recv(1) == b""
            with contextlib.closing(stranger(opened)) as sender:
                sender.sock.sendall(b"GET / HTTP/1.1\r\n")
                with contextlib.suppress(ConnectionError):
                    assert sender.sock.recv(1) == b""
    assert sorted(record.getMessage()[:27] for record in caplog.records if record.levelno >= logging.WARNING) == [
        "hung up on 127.0.0.1: not o",
        "refused 127.0.0.1: not on t",
    ]


def test_what_is_not_logged_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The next line of a kind says how many there were."""
    warn = RareWarnings(logging.getLogger("test"), every=0.05)
    warn("other", "other")
    until(lambda: warn("kind", "a %s", "line") or len(caplog.records) >= 3)
    first, second = (record.getMessage() for record in caplog.records[1:3])
    assert first == "a line"
    assert second.startswith("a line (and ")


HOSTS = ["a..b", "x" * 64, ".a", "a" * 64 + ".example", "é" * 100, "1.2.3.4.5", "%", "::", "fe80::1%none", "-"]


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_host_that_cannot_be_one_is_a_lost_connection(certificates: Path, encrypted: bool) -> None:
    """So a call goes on to the next provider, whatever address a stranger has announced."""
    with Client(connect_timeout=2.0, tls=tls(certificates, None, "ours") if encrypted else None) as client:
        for host in HOSTS:
            with pytest.raises(ConnectionLost) as caught:
                client.call(Address("x", host, 1), "echo")
            assert not caught.value.maybe_executed


def test_an_address_of_any_length_is_refused_at_once() -> None:
    """Megabytes of the characters that separate its parts cost what a comparison of lengths costs."""
    for character in "@:/[]%.":
        text = '{"r":"' + SCHEME + character * 1_000_000 + '"}'
        with Client() as client, cpu(2.0):
            with pytest.raises(ValueError, match=str(MAX_ADDRESS)):
                client.proxy(text[6:-2])
            with pytest.raises(Exception, match="not of the form"):
                client._codec.loads(text.encode())

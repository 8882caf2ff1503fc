"""Access lists, TLS in both strengths, and everything that a stranger may throw at an open port."""

import contextlib
import random
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.errors import BadMessage, ConnectionLost, DiscoveryError, NoSuchObject, RingNotFound
from discovery.registry.registry import Registry
from discovery.remote import TLS, Access, Address, Client, Server, serve
from discovery.remote.encoding import Codec
from discovery.remote.protocol import HEADER, MAGIC, VERSION, Kind, Role
from discovery.remote.wire import Connection
from discovery.rings import RemoteSpace, RingFinger, RingServer
from tests.waiting import DEADLINE, until


class Hello:
    def echo(self, value: object) -> object:
        return value


def refused(client: Client, address: str) -> str:
    """The error of a client that is not let in, which has executed nothing."""
    with pytest.raises(ConnectionLost) as caught:
        client.proxy(address).echo(1)
    assert not caught.value.maybe_executed
    return str(caught.value)


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [("deny all allow 127.0.0.1", True), ("allow all deny 127.0.0.1", False), ("deny 127.0.0.1 allow all", False)],
)
def test_an_access_list_is_asked_at_the_door(rules: str, admitted: bool) -> None:
    """Who is denied is turned away before anything is read from him, also where everybody else is allowed."""
    with Server("127.0.0.1", access=Access(rules)) as server, Client() as client:
        address = server.serve(Hello())
        if admitted:
            assert client.proxy(address).echo(1) == 1
        else:
            assert "access list" in refused(client, address)


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=DEADLINE)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of its making for a server and one for a client, and a stranger's authority."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for authority in ("ours", "theirs"):
        openssl(folder, *new, "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", f"{authority}.pem")
    for name, authority in (("server", "ours"), ("client", "ours"), ("stranger", "theirs")):
        files = [
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-CA",
            f"{authority}.pem",
            "-CAkey",
            f"{authority}.key",
        ]
        openssl(folder, *new, "-subj", f"/CN={name}", *files, "-addext", "subjectAltName=IP:127.0.0.1")
    return folder


def tls(folder: Path, name: str | None, authority: str | None) -> TLS:
    return TLS(
        certificate=folder / f"{name}.pem" if name else None,
        key=folder / f"{name}.key" if name else None,
        authority=folder / f"{authority}.pem" if authority else None,
    )


def test_tls_proves_the_server(certificates: Path) -> None:
    """A client that trusts the authority gets through, one that trusts another or speaks no TLS does not.

    Nor does one that wants TLS from a server without it.
    """
    with Server("127.0.0.1") as naked, Client(tls=tls(certificates, None, "ours"), connect_timeout=2.0) as trusting:
        assert "TLS" in refused(trusting, naked.serve(Hello()))
    with Server("127.0.0.1", tls=tls(certificates, "server", None)) as server:
        address = server.serve(Hello())
        with Client(tls=tls(certificates, None, "ours")) as trusting:
            for value in ("x", "y" * 100_000, "z"):
                assert trusting.proxy(address).echo(value) == value
        with Client(tls=tls(certificates, None, "theirs")) as doubting:
            why = refused(doubting, address)
            assert "CERTIFICATE_VERIFY_FAILED" in why
            assert "access list" not in why  # TLS has said what it is; guesses would mislead
        with Client(connect_timeout=0.2) as plain:
            assert "TLS" in refused(plain, address)
        elsewhere = address.replace("127.0.0.1", "localhost")
        with Client(tls=tls(certificates, None, "ours")) as misled:
            assert "mismatch" in refused(misled, elsewhere)


def test_tls_proves_the_client(certificates: Path) -> None:
    """With an authority of its own the server admits only clients that it has signed for."""
    with Server("127.0.0.1", tls=tls(certificates, "server", "ours")) as server:
        address = server.serve(Hello())
        with Client(tls=tls(certificates, "client", "ours")) as known:
            assert known.proxy(address).echo(1) == 1
        for name in (None, "stranger"):
            with Client(tls=tls(certificates, name, "ours")) as unknown:
                why = refused(unknown, address)
                assert "ALERT" in why
                assert "access list" not in why


def test_two_servers_with_their_own_settings(certificates: Path) -> None:
    """One process, one server with TLS and one with neither TLS nor friends: no setting is global."""
    with (
        Server("127.0.0.1", tls=tls(certificates, "server", None)) as secret,
        Server("127.0.0.1", access=Access("deny all"), max_message=100) as closed,
        Server("127.0.0.1") as opened,
        Client() as plain,
        Client(tls=tls(certificates, None, "ours")) as trusting,
    ):
        assert trusting.proxy(secret.serve(Hello())).echo("x" * 200) == "x" * 200
        assert plain.proxy(opened.serve(Hello())).echo("x" * 200) == "x" * 200
        assert "access list" in refused(plain, closed.serve(Hello()))


def test_a_ring_with_tls(certificates: Path) -> None:
    """Both sides prove themselves, in both directions: the ring asks a renewer of the client's, over TLS too."""
    mine = tls(certificates, "client", "ours")
    asked: list[object] = []

    class Renewer:
        def renew(self, stored: object) -> float:
            asked.append(stored)
            return 60.0

    with (
        RingServer(port=0, host="127.0.0.1", tls=tls(certificates, "server", "ours"), announce=False) as ring,
        Server("127.0.0.1", tls=mine) as server,
        Client(tls=mine, server=lambda: server) as client,
        Client() as plain,
    ):
        found = RingFinger(["127.0.0.1"], ring.port, client=client).lookup_ring_any()
        found.write(("x", 1), Renewer())
        assert found.take(("x", None)) == ("x", 1)
        assert asked == [("x", 1)]
        with pytest.raises(RingNotFound, match="TLS"):
            RingFinger(["127.0.0.1"], ring.port, client=plain).lookup_ring_any(4)


def test_a_registry_with_tls_and_one_with_an_access_list(certificates: Path) -> None:
    """Who has a certificate calls and borrows; who has none, or is not on the list, is told why."""
    secret, loopback = secrets.token_hex(8), ["127.0.0.1"]
    with (
        Registry("owner", interfaces=loopback, secret=secret, tls=tls(certificates, "server", "ours")) as owner,
        Registry("closed", interfaces=loopback, secret=secret, access=Access("deny all")) as closed,
        Registry("friend", interfaces=loopback, secret=secret, tls=tls(certificates, "client", "ours")) as friend,
        Registry("plain", interfaces=loopback, secret=secret) as plain,
    ):
        url, shut = owner.register("Echo", Hello()), closed.register("Echo", Hello())
        assert friend.lookup(url, DEADLINE).echo("x") == "x"
        with friend.borrow(url, timeout=DEADLINE) as hello:
            assert hello.echo("y") == "y"
        with pytest.raises(DiscoveryError, match="TLS"):
            plain.lookup(url, DEADLINE).echo("x")
        with pytest.raises(DiscoveryError, match="access list"):
            plain.lookup(shut, DEADLINE).echo("x")


def test_a_client_that_is_slow_with_tls_holds_up_nobody(certificates: Path) -> None:
    """A connection on which nothing is said costs the others nothing."""
    with Server("127.0.0.1", tls=tls(certificates, "server", None)) as server:
        address = server.serve(Hello())
        with (
            socket.create_connection(("127.0.0.1", server.port)),
            Client(tls=tls(certificates, None, "ours")) as client,
        ):
            assert client.proxy(address).echo(1) == 1


def test_ids_cannot_be_guessed_or_asked_for() -> None:
    """No object lists the ids of others, and nothing can be called without its id."""
    with Server("127.0.0.1") as server, Client() as client:
        first, second = (Address.parse(server.serve(Hello())) for _ in range(2))
        assert len(first.object_id) >= 20
        assert first.object_id != second.object_id
        for guess in ("", "hello", "ring"):
            with pytest.raises(NoSuchObject):
                client.call(Address(guess, "127.0.0.1", server.port), "registered")


@pytest.fixture
def server() -> Iterator[Server]:
    # A server of an earlier test may still have a client, which keeps its connection for a minute.
    before = set(threading.enumerate())
    with Server("127.0.0.1", max_message=100_000, max_connections=20) as server:
        yield server
    # What a connection says of its end belongs to this test.
    until(lambda: not any(each.name.startswith("client ") for each in {*threading.enumerate()} - before), "the ends")


def raw(server: Server) -> Connection:
    """A connection as a stranger makes it, greeting read."""
    connection = Connection(socket.create_connection(("127.0.0.1", server.port), DEADLINE), Role.CLIENT, 100_000)
    connection.receive(DEADLINE)
    return connection


def header(kind: int = Kind.CALL, size: int = 0, magic: bytes = MAGIC, version: int = VERSION) -> bytes:
    return HEADER.pack(magic, version, kind, size)


def tls_hello() -> bytes:
    """What a client says first when it takes us for a server with TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


GARBAGE = {
    "random bytes": (random.Random(1).randbytes(5000), "not one of our messages"),
    "another protocol": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "it begins with b'GET / HT'"),
    "a single wrong byte": (b"\x00", "not one of our messages"),
    "TLS": (tls_hello(), "not one of our messages: it begins with b'\\x16\\x03"),
    "Pyro5": (b"PYRO" + b"\0" * 36, "not one of our messages"),
    "nothing": (b"", None),
    "half a header": (header()[:5], None),
    "half a message": (header(size=100) + b"x" * 50, None),
    "a huge length": (header(size=2**32 - 1), "a message of 4294967295 bytes, of 100000 that are allowed"),
    "more than is allowed": (header(size=100_001) + b"x" * 100_001, "a message of 100001 bytes"),
    "wrong magic": (header(magic=b"\xabS"), "not one of our messages"),
    "another version": (header(version=2), "version 2 of the protocol, and this is version 1"),
    "another kind": (header(kind=99), "a message of kind 99, where only CALL may arrive"),
    "a greeting": (header(kind=Kind.GREETING), "GREETING, where only CALL"),
    "a confirmation of nothing": (header(kind=Kind.CONFIRM), "CONFIRM, where only CALL"),
    "more of no stream": (header(kind=Kind.NEXT), "NEXT, where only CALL"),
    "an answer": (header(kind=Kind.RESULT), "RESULT, where only CALL"),
    "two calls at once": (header() * 2, "8 bytes more than one message"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_ends_that_connection_only(server: Server, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong with the frame, that client is hung up on with one line in the log, and nobody else notices."""
    garbage, complaint = GARBAGE[name]
    with Client() as client:
        proxy = client.proxy(server.serve(Hello()))
        assert proxy.echo(1) == 1
        with raw(server).sock as stranger:
            try:
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(100) == b""
            except TimeoutError:
                raise
            except OSError:
                pass  # hung up on before it had finished
        assert proxy.echo(2) == 2
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(lines) == (complaint is not None)
        assert all(line.startswith("hung up on 127.0.0.1: ") and complaint in line for line in lines)
        assert all(len(line) < 200 for line in lines)


@contextlib.contextmanager
def hostile(*said: bytes) -> Iterator[Address]:
    """A server that says these things, each after something has arrived, and then waits for the end."""

    def serve() -> None:
        with listener.accept()[0] as sock:
            for words in said:
                sock.sendall(words)
                if not sock.recv(1000):
                    return
            while sock.recv(1000):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Address("x", "127.0.0.1", listener.getsockname()[1])
        thread.join(DEADLINE)
        assert not thread.is_alive()  # the client has hung up


GREETING, STREAM = header(Kind.GREETING), header(Kind.STREAM)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", header(Kind.RESULT), GREETING * 2]
)
def test_a_server_of_another_kind(said: bytes) -> None:
    """What does not greet as ours does has been sent nothing."""
    with hostile(said) as address, Client() as client:
        assert "cannot connect" in refused(client, str(address))


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1", GREETING, header(Kind.BATCH), header(Kind.RESULT, 2**31), header(Kind.RESULT) * 2]
)
def test_answers_that_are_none(said: bytes) -> None:
    """A hostile server costs its client that one call, whatever it answers."""
    with hostile(GREETING, said) as address, Client() as client, pytest.raises(BadMessage):
        client.call(address, "echo")
    with (
        hostile(GREETING, STREAM, said.replace(header(Kind.BATCH), header(Kind.STREAM))) as address,
        Client() as client,
    ):
        stream = client.stream(address, "echo")
        with pytest.raises(BadMessage):
            stream.next_batch(DEADLINE)
        assert stream.next_batch(DEADLINE) is None


@pytest.mark.parametrize("body", [b"5", b"null", b'"x"'])
def test_an_error_that_is_none(body: bytes) -> None:
    """What a hostile server sends as an error is raised as an error of ours, in a call and in a stream."""
    said = header(Kind.ERROR, len(body)) + body
    with hostile(GREETING, said) as address, Client() as client, pytest.raises(BadMessage):
        client.call(address, "echo")
    with hostile(GREETING, STREAM, said) as address, Client() as client, pytest.raises(BadMessage):
        client.stream(address, "echo").next_batch(DEADLINE)


@pytest.mark.parametrize("body", [b"5", b'"xy"', b"[5]", b"[[]]", b"[[1,2,3,4,5]]", b"nonsense"])
def test_events_that_are_none(body: bytes) -> None:
    """A hostile ring's listener gets an error of ours, and its connection is closed."""
    with hostile(GREETING, STREAM, header(Kind.BATCH, len(body)) + body) as address, Client() as client:
        events = RemoteSpace(client, address).notify(None, (None,))
        with pytest.raises(BadMessage):
            events.get(DEADLINE)


def test_an_answer_that_should_be_a_stream() -> None:
    """Where an answer is held for us instead, it goes back, and the connection is closed."""
    held = header(Kind.HOLD, 1) + b"5"
    with hostile(GREETING, held) as address, Client() as client, pytest.raises(BadMessage, match="no stream"):
        client.stream(address, "echo")


BAD_CALLS = [
    b"",
    b"\xff",
    b"[" * 90_000,
    b'{"t":' * 10_000,
    b"null",
    b"[]",
    b'["x","y",[]]',
    b'["x",7,[],{"d":[]}]',
    b'["x","y",{"d":[]},[]]',
    b'[["x"],"y",[],{"d":[]}]',
    b'["ID","echo",[],{"d":[1,2]}]',
    b'["ID","__init__",[],{"d":[]}]',
    b'["ID","__class__",[],{"d":[]}]',
    b'["ID","__call__",[],{"d":[]}]',
    b'["ID","echo",[{"r":"remote://h/x"}],{"d":[]}]',
    b'["ID","echo",[{"y":"__import__"}],{"d":[]}]',
]


def test_bad_calls_are_answered_with_an_error(server: Server) -> None:
    """Where the frame is sound the client is told what is wrong, and may go on."""
    object_id = Address.parse(server.serve(Hello())).object_id.encode()
    codec = Codec(lambda value: None, str)
    with contextlib.closing(raw(server)) as connection:
        for body in BAD_CALLS:
            connection.send(Kind.CALL, body.replace(b"ID", object_id))
            kind, answer = connection.receive(DEADLINE)
            assert kind is Kind.ERROR, body
            assert isinstance(codec.loads(answer), Exception)
        connection.send(Kind.CALL, b'["ID","echo",[{"t":[1]}],{"d":[]}]'.replace(b"ID", object_id))
        kind, answer = connection.receive(DEADLINE)
        assert (kind, codec.loads(answer)) == (Kind.RESULT, (1,))


def test_random_mutations_of_a_call(server: Server) -> None:
    """Two thousand calls with bytes changed at random: errors, hang-ups, and a server that is still well."""
    dice = random.Random(7)
    address = Address.parse(server.serve(Hello()))
    good = Codec(lambda value: None, str).dumps([address.object_id, "echo", [(1, b"x", {"k": [None]})], {}])
    frame_of_good = header(size=len(good)) + good
    connection = raw(server)
    for _ in range(2000):
        frame = bytearray(frame_of_good)
        for _ in range(dice.randint(1, 4)):
            frame[dice.randrange(0 if dice.random() < 0.1 else HEADER.size, len(frame))] = dice.randrange(256)
        try:
            connection.protocol.send(Kind.CALL, good)  # what the server is to be taken for having received
            connection.sock.sendall(frame)
            connection.receive(0.2)
        except (OSError, BadMessage):
            connection.close()
            connection = raw(server)
    connection.close()
    with Client() as client:
        assert client.proxy(address).echo("well") == "well"


def test_a_message_that_is_too_large_is_refused_at_the_sender() -> None:
    """Before anything is sent; where only the server's limit is smaller, it hangs up."""
    with Server("127.0.0.1", max_message=1000) as server, Client(max_message=1000) as small, Client() as large:
        address = server.serve(Hello())
        with pytest.raises(TypeError, match="of 1000 that are allowed"):
            small.proxy(address).echo("x" * 1000)
        with pytest.raises(ConnectionLost):
            large.proxy(address).echo("x" * 1000)
        assert small.proxy(address).echo(1) == 1


def test_connections_are_limited(server: Server) -> None:
    """Beyond the limit a client is turned away; when one goes, the next is let in."""
    strangers = [raw(server) for _ in range(20)]
    address = server.serve(Hello())
    with Client() as client:
        assert "cannot connect" in refused(client, address)
        for stranger in strangers:
            stranger.close()
        until(lambda: not server._connections)
        assert client.proxy(address).echo(1) == 1


def test_a_process_can_serve_before_it_has_a_network() -> None:
    """The address that is given out is one under which this machine reaches itself."""
    address = Address.parse(serve(Hello()))
    with Client() as client:
        assert client.proxy(address).echo(1) == 1

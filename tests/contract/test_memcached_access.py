"""memcached behind TLS, a password or a socket of this machine."""

import contextlib
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from election import BadStoreURL, Register, StoreUnavailable, open_register
from election.stores.memcached import MemcachedRegister
from politics.doctor import probe
from tests.certificates import make_certificates
from tests.contract.test_register import in_fork
from tests.memcached import Memcached
from tests.processes import running
from tests.waiting import SOON, until

PASSWORD, QUOTED = "p@ss/w:örd", "p%40ss%2Fw%3A%C3%B6rd"


class Guarded(Memcached):
    """One that does not answer everybody, so that it is ready when it accepts connections. At `path`, if given."""

    def __init__(self, *options: str, path: Path | None = None) -> None:
        super().__init__(*options, *(("-s", str(path)) if path else ()))
        self.path = path

    def answers(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX if self.path else socket.AF_INET) as ours:
            ours.settimeout(SOON)
            ours.connect(str(self.path) if self.path else (self.host, self.port))
            return True
        return False


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that servers may use which are not root any more."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def guard(folder: Path) -> tuple[str, ...]:
    """The options for a server that wants a password."""
    (folder / "users").write_text(f"other:secret\napp:{PASSWORD}\n")
    (folder / "users").chmod(0o644)
    return "-Y", str(folder / "users")


@pytest.fixture
def tls(folder: Path) -> tuple[str, ...]:
    """The options for a server with a certificate for 127.0.0.1."""
    make_certificates(folder)
    folder.chmod(0o777)
    return "-Z", "-o", f"ssl_chain_cert={folder}/server.pem,ssl_key={folder}/server.key,ssl_ca_cert={folder}/ca.pem"


@contextlib.contextmanager
def client(url: str) -> Iterator[Register]:
    """A register that is closed at the end."""
    with contextlib.closing(open_register(url)) as register:
        yield register


def refused(url: str) -> str:
    """Why a server is refused for good."""
    with client(url) as register:
        with pytest.raises(StoreUnavailable) as caught:
            register.read("a")
        assert caught.value.permanent, caught.value
        assert "ss/w" not in str(caught.value) + repr(vars(register)) + repr(vars(register._connection))  # type: ignore[attr-defined]
        return str(caught.value)


def works(url: str) -> bool:
    """Whether cells are written, compared and read, and the doctor finds nothing wrong."""
    with client(url) as register:
        assert isinstance(register, MemcachedRegister)
        version = register.swap("a", b"1", None)
        assert version is not None
        assert register.swap("a", b"2", version) is not None
        assert None not in register.versions(["a"] * 300)
        assert register.identity() == register.identity()
        assert not register.remembers(1000)
        found = probe.server(register, 0.05, threading.Event())
        assert (found.error, found.meta, found.reached) == ("", "", True)
        assert "ss/w" not in repr(found)
        cell = register.read("a")
        return cell is not None and cell.data == b"2"


def test_a_password(guard: tuple[str, ...]) -> None:
    """The right one opens everything; a wrong one, or none, is refused for good, and neither is shown anywhere."""
    with Guarded(*guard) as server:
        assert works(f"memcached://app:{QUOTED}@{server.address}")
        for wrong in (f"nobody:{QUOTED}", f"app:{QUOTED}x", "app:secret"):
            assert f"memcached at {server.address} cannot be used: it does not accept this user" in refused(
                f"memcached://{wrong}@{server.address}"
            )
        assert "it wants a password" in refused(server.url)
        with client(f"memcached://app:wrong@{server.address}") as register:
            found = probe.server(register, 0.05, threading.Event())  # type: ignore[arg-type]
            assert "does not accept" in found.error
            assert found.address == server.address


def test_one_password_for_several_servers(guard: tuple[str, ...]) -> None:
    """What comes before a list of servers is sent to each."""
    with contextlib.ExitStack() as stack:
        addresses = {stack.enter_context(Guarded(*guard)).address for _ in range(2)}
        register = stack.enter_context(client(f"memcached://app:{QUOTED}@{','.join(addresses)}"))
        names = [f"name {number}" for number in range(50)]
        assert {register.shard(name).address for name in names} == addresses  # type: ignore[attr-defined]
        for name in names:
            assert register.swap(name, b"", None) is not None


def test_a_server_without_passwords_does_not_keep_one(memcached: Memcached) -> None:
    """A password that nobody asked for is accepted, and nobody can read it there."""
    assert works(memcached.url.replace("//", f"//app:{QUOTED}@"))
    assert memcached.ask("get politics") == "END"


def test_an_echo_shows_no_password() -> None:
    """What answers something else in memcached's place, be it what was sent, puts no password into an error."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def echo() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        url = f"memcached://app:{QUOTED}@127.0.0.1:{listening.getsockname()[1]}"
        with client(url) as register, pytest.raises(StoreUnavailable) as caught:
            register.read("a")
        assert "ss/w" not in str(caught.value)
        assert not caught.value.permanent
        thread.join()


def test_commands_show_no_password(memcached: Memcached) -> None:
    """Where the store is named in what a command prints, its password is left out, whichever way it was given."""
    url = memcached.url.replace("//", "//app:geheim@")
    for name, says in (("--store", "store: memcached://app:***@127.0.0.1"), ("--servers", "a store's URL")):
        given = url if name == "--store" else url.removeprefix("memcached://")
        with running(sys.executable, "-m", "politics", "status", "group", name, given) as command:
            _, printed = command.result()
        assert says in " ".join(printed.split())
        assert "geheim" not in printed


def test_tls(tls: tuple[str, ...], folder: Path) -> None:
    """The certificate is checked, the name in it too; what does not fit is refused for good."""
    with Guarded(*tls) as server:
        assert works(f"memcacheds://{server.address}?ca={folder}/ca.pem")
        assert "certificate is not accepted" in refused(f"memcacheds://{server.address}")
        why = refused(f"memcacheds://localhost:{server.port}?ca={folder}/ca.pem")
        assert "Hostname mismatch" in why
        assert "ca=/nowhere" in refused(f"memcacheds://{server.address}?ca=/nowhere")
        assert "cert=/nowhere" in refused(f"memcacheds://{server.address}?cert=/nowhere&key=/nowhere")


def test_tls_with_passwords(tls: tuple[str, ...], guard: tuple[str, ...], folder: Path) -> None:
    """Both together; the password goes out after the certificate was found right, and not before."""
    with Guarded(*tls, *guard) as server:
        assert works(f"memcacheds://app:{QUOTED}@{server.address}?ca={folder}/ca.pem")
        assert "does not accept" in refused(f"memcacheds://app:x@{server.address}?ca={folder}/ca.pem")
        assert "certificate" in refused(f"memcacheds://app:{QUOTED}@{server.address}")


def test_a_certificate_of_ours(tls: tuple[str, ...], folder: Path) -> None:
    """A server that wants to see a certificate gets ours, and nobody is let in without."""
    with Guarded(*tls[:-1], tls[-1] + ",ssl_verify_mode=2") as server:
        url = f"memcacheds://{server.address}?ca={folder}/ca.pem"
        assert works(f"{url}&cert={folder}/server.pem&key={folder}/server.key")
        with client(url) as register, pytest.raises(StoreUnavailable):
            register.read("a")


def test_a_silent_server_behind_tls(tls: tuple[str, ...], folder: Path) -> None:
    """Silence is a timeout there as well, before and after the connection is made; later answers are not mistaken."""
    with Guarded(*tls) as server, client(f"memcacheds://{server.address}?ca={folder}/ca.pem&timeout=0.2") as register:
        version = register.swap("a", b"1", None)
        server.freeze()
        for call in (lambda: register.swap("a", b"2", version), lambda: register.read("a")):
            with pytest.raises(StoreUnavailable, match="timed out") as caught:
                call()
            assert not caught.value.permanent
        server.thaw()
        until(lambda: _answers(register))
        cell = register.read("a")
        assert cell is not None
        assert cell.data in (b"1", b"2")


def _answers(register: Register) -> bool:
    with contextlib.suppress(StoreUnavailable):
        register.read("a")
        return True
    return False


def test_a_server_without_tls(memcached: Memcached) -> None:
    """Where TLS is wanted and the server has none, nothing is written, and waiting may mend it."""
    with client(f"memcacheds://{memcached.address}?timeout=0.2") as register, pytest.raises(StoreUnavailable) as caught:
        register.read("a")
    assert not caught.value.permanent


def test_a_fork_with_tls(tls: tuple[str, ...], folder: Path) -> None:
    """A child makes a connection of its own, and its end says nothing on that of its parent."""
    with Guarded(*tls) as server, client(f"memcacheds://{server.address}?ca={folder}/ca.pem") as register:
        version = register.swap("a", b"1", None)
        assert in_fork(lambda: register.read("a") is not None)
        assert register.swap("a", b"2", version) is not None


def test_a_socket_of_this_machine(folder: Path, guard: tuple[str, ...]) -> None:
    """The path of a socket stands in the place of an address, with a password too."""
    with Guarded(path=folder / "m.sock"):
        assert works(f"memcached://{folder}/m.sock")
    with Guarded(*guard, path=folder / "n.sock"):
        assert works(f"memcached://app:{QUOTED}@{folder}/n.sock")
        assert f"memcached at {folder}/n.sock cannot be used" in refused(f"memcached://app:x@{folder}/n.sock")
    with client(f"memcached://{folder}/gone.sock") as register, pytest.raises(StoreUnavailable) as caught:
        register.read("a")
    assert not caught.value.permanent


def test_a_name_stays_where_it_is() -> None:
    """Neither TLS nor a password moves a name to another server."""
    urls = ("memcached://a,b,c:1", "memcached://u:p@a,b,c:1", "memcacheds://a,b,c:1", "memcacheds://u:q@a,b,c:1")
    registers = [open_register(url) for url in urls]
    for number in range(100):
        assert len({each.shard(f"name {number}").address for each in registers}) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memcached://pass@a", "a user and a password without spaces"),
        ("memcached://:geheim@a", "a user and a password without spaces"),
        ("memcached://a%20b:geheim@a", "a user and a password without spaces"),
        ("memcached://u:geheim%20word@a", "a user and a password without spaces"),
        ("memcached://u:geheim%0D%0A@a", "a user and a password without spaces"),
        (f"memcached://u:geheim{'x' * 300}@a", "more than 254 bytes"),
        ("memcached://u:geheim/nis@a", "%2F"),
        ("memcached://a?ca=/x", "unknown option ca"),
        ("memcacheds:///x.sock", "no TLS on a socket"),
        ("memcacheds://a?key=/x", "cert="),
        ("memcached://u:geheim@", "not host:port"),
    ],
)
def test_bad_urls(url: str, why: str) -> None:
    """What makes no sense is refused with the reason, and without the password."""
    with pytest.raises(BadStoreURL, match=why) as caught:
        open_register(url)
    assert "geheim" not in str(caught.value)

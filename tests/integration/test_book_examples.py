"""The programs of the book's chapters on DRb, RingyDingy and Distribunaut run, and print what they are about."""

import contextlib
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from discovery import RingFinger, RingServer
from discovery.rings import find
from tests.processes import running
from tests.waiting import DEADLINE

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-u", str(EXAMPLES / f"{name}.py"), *arguments]


def example(name: str, *arguments: str, whole_lines: bool = False) -> list[str]:
    """Run a program and return its lines; whole ones where its children print too, which may change their order."""
    run = command(name, *arguments)
    if whole_lines:
        run.remove("-u")  # with which a line and its end are two writes
    return subprocess.run(run, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout.splitlines()


def test_hello_from_another_process() -> None:
    """The proxy says where its object is, and the greeting comes from there."""
    proxy, greeting = example("drb/hello")
    assert re.fullmatch(r"<Proxy remote://127\.0\.0\.1:\d+/[\w-]{20,}>", proxy)
    assert re.fullmatch(r"Hello, world! Yours, \d+", greeting)


def test_hello_in_two_terminals() -> None:
    """The server prints its address, with which a client finds it."""
    with running(*command("drb/hello", "server")) as server:
        _, greeting = example("drb/hello", "client", server.line("remote://"))
        assert greeting == f"Hello, world! Yours, {server.popen.pid}"


def test_a_program_in_halves_says_how_it_is_called() -> None:
    """Anything else on the command line is answered with the usage."""
    run = subprocess.run(command("drb/hello", "clinet"), capture_output=True, text=True, timeout=DEADLINE)
    assert run.returncode == 1
    assert "[server | client ADDRESS]" in run.stderr


def test_a_standard_logger_is_served() -> None:
    """What the client logs appears at the server, and only there."""
    with running(*command("drb/logger", "server")) as server:
        (said,) = example("drb/logger", "client", server.line("remote://"))
        pid = re.findall(r"\d+", said)[0]
        server.line(f"{server.popen.pid} INFO process {pid} has begun")
        server.line(f"{server.popen.pid} WARNING process {pid} has nothing to do")


def test_users_by_value() -> None:
    """Without the class the client gets something unknown and no methods; with it a copy, which changes nothing."""
    unknown, fails, *copy = example("drb/users_by_value")
    assert unknown == "<Unknown __main__.User id=1, username='user 1'>"
    assert fails.startswith("the call fails: __main__.User is not known here, so there is no 'greeting': decorate it")
    assert copy == [
        "the copy says: I am somebody else",
        "the server still says: I am user 1",
    ]


def test_users_by_reference() -> None:
    """The change happens at the server, and the second look shows it."""
    found, unset, again, same = example("drb/users_by_reference")
    assert found == "found user 1"
    assert unset.startswith("cannot be set: ")
    assert again == "found again: somebody else"
    assert same == "the same object: True"


def test_nothing_can_be_evaluated() -> None:
    """The one public method answers, and a text stays a text; everything else does not exist."""
    knocked, *refused, guess = example("drb/unsafe_evaluation")
    assert knocked == "knock: who is there? __import__('os').getpid()"
    assert len(refused) == 8
    for line in refused:
        assert re.fullmatch(r"(\S+): NoSuchMethod: Vault has no public method '\1'", line)
    assert guess.startswith("a guess: NoSuchObject")


def test_access_lists() -> None:
    """Who is allowed is greeted; who is denied is not, also where everybody else is allowed, in either order."""
    assert example("drb/access_list") == [
        "deny all allow 127.0.0.1: Hello, world!",
        "deny all allow 10.0.0.0/8: refused",
        "deny 127.0.0.1: refused",
        "allow all deny 127.0.0.1: refused",
        "deny 127.0.0.1 allow all: refused",
        "deny 127.0.0.0/8 allow 127.0.0.1: Hello, world!",
    ]


def test_tls_in_both_strengths() -> None:
    """The server is believed for its certificate, and then the client, too; nobody else gets in."""
    first, trusting, doubting, plain, second, known, unknown, stranger = example("drb/tls")
    assert first == "The server proves itself:"
    assert trusting.endswith(": Hello, world!")
    assert "certificate verify failed" in doubting
    assert "only one side speaks TLS" in plain
    assert second == "And so does the client:"
    assert known.endswith(": Hello, world!")
    assert "certificate required" in unknown
    assert "unknown ca" in stranger


def test_certificates_for_an_address_and_for_a_name(tmp_path: Path) -> None:
    """The authority has signed them, and each says for which host it is."""
    example("drb/certificates", str(tmp_path), "server=10.0.0.5", "client=worker.example.org")
    for name, host in (("server", "10.0.0.5"), ("client", "worker.example.org")):
        check = ["openssl", "verify", "-CAfile", "ca.pem", f"{name}.pem"]
        subprocess.run(check, cwd=tmp_path, check=True, capture_output=True, timeout=DEADLINE)
        show = ["openssl", "x509", "-in", f"{name}.pem", "-noout", "-ext", "subjectAltName"]
        assert host in subprocess.run(show, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def test_references_are_kept_while_they_are_used() -> None:
    """Ten minutes after its last use what was lent is let go; what is served stays, under its name."""
    with running(*command("drb/keeping", "server")) as server:
        address = server.line("/HW:notes")
        assert example("drb/keeping", "client", address) == [
            *["after 599 s more: buy milk"] * 3,
            "after 601 s more: let go",
            "still served: buy bread",
        ]


def test_ringydingy_logger() -> None:
    """One line registers it; it is found by its class's name, and listed under its host."""
    with RingServer(port=0, host="127.0.0.1", announce=False) as server:
        ring = f"127.0.0.1:{server.port}"
        with running(*command("ringydingy/logger", "service", ring)) as service:
            service.line("in a ring")
            find("Logger", finger=RingFinger([ring])).info("hello")
            service.line("INFO hello")
            (listed,) = example("ringydingy/logger", "client", ring)
            assert re.fullmatch(rf"Logger is on \S+: \S+_{service.popen.pid}", listed)
            service.line("was here")


def test_ringydingy_by_itself() -> None:
    """Without arguments the ring, the logger and its user are all there."""
    begun = [line.partition(" ")[0] for line in example("ringydingy/logger", whole_lines=True)]
    assert {"INFO", "Logger"} <= set(begun)  # the logger may be ended before it has said that it is registered


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of this test hear each other, and nobody else who may be on this machine."""
    monkeypatch.setenv("POLITICS_SECRET", secrets.token_hex())


@pytest.mark.usefixtures("network")
def test_hello_by_name() -> None:
    """A class that only the provider has is called, and makes an instance there."""
    with running(*command("distribunaut/hello", "provider")) as provider:
        assert example("distribunaut/hello", "user") == [
            f"Hi, world! Yours, {provider.popen.pid}",
            f"Hi, Alice! Yours, {provider.popen.pid}",
            "['English']",
            "distributed://hello_app/HelloWorld: Greets.",
        ]


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("name", ["hello", "logger"])
def test_both_halves_run_together(name: str) -> None:
    """Without arguments the provider is a child, which is ended."""
    assert example(f"distribunaut/{name}")


@pytest.mark.usefixtures("network")
def test_user_servers() -> None:
    """Each has found a name of its own, under which exactly that one is found; a plain name finds each in turn."""
    ready = [f"user_server_{number} is ready" for number in (1, 2)]
    alice, bob, *others, one, two = [
        line for line in example("distribunaut/user_servers", whole_lines=True) if line not in ready
    ]
    assert alice == "Alice lives in user_server_1"
    assert bob == "Bob lives in user_server_2"
    assert {line.rpartition(" ")[2] for line in others} == {"user_server_1", "user_server_2"}
    assert one == "distributed://user_server_1/User: users of server 1"
    assert two == "distributed://user_server_2/User: users of server 2"


@pytest.mark.usefixtures("network")
def test_a_user_server_counts_those_that_run() -> None:
    """Each that comes later takes the next number."""
    with contextlib.ExitStack() as stack:
        for number in (1, 2, 3):
            server = stack.enter_context(running(*command("distribunaut/user_servers", "server")))
            server.line(f"user_server_{number} is ready")


@pytest.mark.usefixtures("network")
def test_borrowing() -> None:
    """While it is borrowed, others are refused; it is back afterwards, and after a borrower's death."""
    assert example("distribunaut/borrowing") == [
        "before: Hi!",
        "meanwhile, by the borrower: Hi!",
        "meanwhile, looked up: distributed://hello_app/HelloWorld is on loan",
        "meanwhile, called: HelloWorld is on loan",
        "after: Hi!",
        "borrowed by somebody who dies",
        "after a borrower's death: Hi!",
    ]


@pytest.mark.usefixtures("network")
def test_a_distributed_logger() -> None:
    """Class-level calls and those of the one instance end in the same log, in the server's process."""
    with running(*command("distribunaut/logger", "server")) as server:
        assert example("distribunaut/logger", "client") == ["a second one is the same: True"]
        assert server.line("INFO the class was called").startswith(f"{server.popen.pid} ")
        assert server.line("DEBUG the instance was called").startswith(f"{server.popen.pid} ")

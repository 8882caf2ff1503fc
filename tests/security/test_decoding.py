"""What strangers send is decoded in time linear in its bytes; nothing is called, connected to or printed meanwhile."""

import contextlib
import decimal
import itertools
import json
import re
import socket
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from discovery.errors import BadMessage, BadTemplate, CannotTravel, ConnectionLost, RemoteError
from discovery.patterns import ForeignPattern
from discovery.remote import Address, Client, Server
from discovery.remote.encoding import _UNPACK, Codec
from discovery.remote.encoding.budget import MAX_LISTS
from discovery.remote.protocol import Kind
from discovery.remote.proxy import Proxy
from tests.security.budget import cpu
from tests.security.strangers import stranger
from tests.waiting import DEADLINE

PRIME = 2**61 - 1  # every number is hashed modulo this one


def plain() -> Codec:
    return Codec(lambda value: None, str)


def travel(value: Any) -> Any:
    return plain().loads(plain().dumps(value))


def tagged(tag: str, *body: str) -> str:
    """A value as it is sent: a tag around what its body holds."""
    listed = ",".join(body)
    return f'{{"{tag}":{listed if tag in ("i", "r", "decimal", "uuid") else f"[{listed}]"}}}'


def alike(count: int, first: int = 0) -> list[str]:
    """That many numbers of one hash, as they are sent."""
    return [tagged("i", f'"{number * PRIME:#x}"') for number in range(first, first + count)]


def nested(count: int, depth: int) -> list[str]:
    """That many frozen sets of one hash, of sets of one hash, and so on."""
    if depth == 0:
        return alike(count)
    inner = nested(count, depth - 1)
    return [tagged("f", *inner[:n], *inner[n + 1 :]) for n in range(count)]


def beside(count: int, digits: int) -> list[str]:
    """Integers and decimals of that many digits, of one hash, so that each is compared with each."""
    tens = 10**digits // PRIME * PRIME
    numbers = [tens + number * PRIME for number in range(count)]
    return [tagged("i", f'"{n:#x}"') if n % 2 else tagged("decimal", f'"{n}"') for n in numbers]


COLLISIONS = {
    "nested": nested(100, 2),
    "nested deeper": nested(12, 4),
    "pairs, deep": nested(3, 8),
    "flat": alike(30_000),
    "decimals": beside(1000, 400),
    "longer decimals": beside(100, 4000),
    "long tuples": [tagged("t", *["0"] * 20_000, number) for number in alike(90)],
}


@pytest.mark.parametrize("tag", ["s", "f", "d"])
@pytest.mark.parametrize("name", COLLISIONS)
def test_members_that_share_a_hash_are_refused(name: str, tag: str) -> None:
    """Members chosen so that each is compared with each, in whatever containers: refused before they are compared."""
    members = COLLISIONS[name]
    if tag == "d":
        members = list(itertools.chain.from_iterable((member, "0") for member in members))
    data = tagged(tag, *members).encode()
    with cpu(1.0 + len(data) * 1e-6), pytest.raises(BadMessage, match="share a hash"):
        plain().loads(data)


def test_sets_of_few_members_that_share_a_hash_cost_little() -> None:
    """As many as are let in, three levels deep and in many sets, cost no more than their bytes."""
    deep = tagged("f", *(tagged("f", *alike(16)[: 8 + n], "-1", "-2") for n in range(4)))
    data = tagged("t", *[tagged("s", *alike(16))] * 500, *[deep] * 500).encode()
    with cpu(1.0 + len(data) * 2e-6):
        assert len(plain().loads(data)) == 1000


def test_what_is_let_in_does_not_depend_on_what_is_beside_it() -> None:
    """Otherwise it could be written into a ring beside much else, and then be taken by nobody."""
    for count in range(2, 40):
        alone = tagged("t", tagged("s", *alike(count)))
        outcomes = set()
        for data in (alone, tagged("t", alone, '"' + "x" * 1_000_000 + '"')):
            try:
                plain().loads(data.encode())
                outcomes.add(True)
            except BadMessage:
                outcomes.add(False)
        assert len(outcomes) == 1


@pytest.mark.parametrize(
    "value",
    [
        {-1, -2},
        {frozenset({-1}), frozenset({-2}), frozenset({-1, -2})},
        {(x, y, z) for x in range(-5, 5) for y in range(-5, 5) for z in range(-5, 5)},
        {2**n for n in range(300)},
        {(x, -1): dict.fromkeys(range(-3, 3), -2) for x in range(-3, 3)},
        {decimal.Decimal(2) ** n for n in range(300)},
    ],
    ids=["minus one", "frozen", "a grid", "powers of two", "a table", "decimals"],
)
def test_honest_sets_share_hashes_too(value: Any) -> None:
    """-1 and -2 have one hash, as have 1 and 2 to the 61st: data that contains both arrives."""
    assert travel(value) == value


@pytest.mark.parametrize(
    "number", [tagged("i", '"0x1' + "0" * 4000 + '"'), tagged("decimal", '"' + "9" * 5000 + '"'), "9" * 5000]
)
def test_a_number_of_five_thousand_digits_is_refused(number: str) -> None:
    """Python prints no such integer, so whoever listed what has one as its name would get an error."""
    with pytest.raises(BadMessage):
        plain().loads(f'["x",{number}]'.encode())
    with pytest.raises(BadMessage):
        plain().loads(b'["decimal",{"decimal":"sNaN"}]')


def test_a_message_has_a_million_lists_at_most() -> None:
    """Empty sets take many times their bytes; brackets within a text are none."""
    with pytest.raises(BadMessage, match="more than 1000000"):
        plain().loads(b"[" + b'{"s":[]},' * MAX_LISTS + b"0]")
    with pytest.raises(CannotTravel, match="more than 1000000"):
        plain().dumps([[]] * MAX_LISTS)
    text = '["\\[' * (MAX_LISTS // 2 + 1)
    with cpu(5.0):
        assert travel(["x", text]) == ["x", text]
        with pytest.raises(BadMessage):
            plain().loads(b'["x\\"' + b'[\\"' * MAX_LISTS * 2)


HOSTILE = [
    "[\u0100-\uffff]" * 200,
    "(a+)+$",
    "(?:" * 190 + "a" + ")*" * 190,
    "(" * 330 + ")?" * 330,
    "[" + "\u0100-\uffff" * 300 + "]",
]


def test_patterns_are_not_compiled_by_those_who_receive_them(capfd: pytest.CaptureFixture[str]) -> None:
    """A thousand patterns that take a second each to compile cost nothing, and flags that print are left out."""
    body = ",".join(json.dumps({"p": [HOSTILE[n % len(HOSTILE)], int(re.I | re.DEBUG)]}) for n in range(1000))
    with cpu(2.0):
        patterns = plain().loads(f"[{body}]".encode())
    assert {type(pattern) for pattern in patterns} == {ForeignPattern}
    for pattern in patterns[: len(HOSTILE)]:
        with cpu(2.0), contextlib.suppress(BadTemplate, RecursionError):
            pattern.matches("a" * 30)
    assert plain().loads(b'{"p":["a",128]}').compile().search("xa")
    assert capfd.readouterr() == ("", "")


class Caller:
    """Counts what is called through proxies that it is the client of."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def call(self, address: Address, method: str, *args: Any) -> Any:
        self.called.append(method)
        return "00000000-0000-0000-0000-000000000000"


REFERENCE = '{"r":"remote://127.0.0.1:1/x"}'
AROUND = ["%s", "[%s]", "[%s,0]", "[%s,%s]", "[%s,%s,%s]", '["a",%s]', '["a",%s,null,""]']


@pytest.mark.parametrize("tag", _UNPACK)
def test_nothing_is_called_to_decode(tag: str) -> None:
    """A reference in the place of a text or a number is refused, whatever its methods are called."""
    caller = Caller()
    codec = Codec(lambda value: None, lambda text: Proxy(caller, Address.parse(text)))
    for around in AROUND:
        data = f'{{"{tag}":{around.replace("%s", REFERENCE)}}}'
        with contextlib.suppress(BadMessage):
            codec.loads(data.encode())
    assert caller.called == []


ATTACKS: list[Callable[[str], str]] = [
    lambda reference: f'{{"uuid":{reference}}}',
    lambda reference: f'{{"e":["discovery.errors.BadTime","",[[],{{"d":["add_note",{reference}]}}],"trace"]}}',
    lambda reference: f'{{"e":["discovery.errors.BadTime","",[[],{{"d":[]}}],{reference}]}}',
    lambda reference: f'{{"e":["builtins.OSError","",[[{reference},{reference}],{{"d":[]}}],""]}}',
    lambda reference: f'{{"s":[{reference},1]}}',
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_server_connects_to_nobody_to_decode_a_call(attack: Callable[[str], str]) -> None:
    """The sender of a call gets an answer; the address in it hears nothing."""
    with socket.create_server(("127.0.0.1", 0)) as trap, Server("127.0.0.1") as server:
        trap.setblocking(False)
        server.serve(Caller(), "x")
        reference = tagged("r", f'"remote://127.0.0.1:{trap.getsockname()[1]}/x"')
        with contextlib.closing(stranger(server)) as connection:
            connection.send(Kind.CALL, f'["x","call",[{attack(reference)}],{{"d":[]}}]'.encode())
            assert connection.receive(DEADLINE).kind is Kind.ERROR
        with pytest.raises(BlockingIOError):
            trap.accept()


def error(name: str, args: str, attributes: str = "", trace: str = "") -> Any:
    return plain().loads(f'{{"e":["{name}","words",[[{args}],{{"d":[{attributes}]}}],"{trace}"]}}'.encode())


def test_an_error_has_no_attributes_but_its_own() -> None:
    """What else a stranger gives it is left out, and what he leaves out is as it is by default."""
    arrived = error("discovery.errors.ConnectionLost", '"gone"', '"maybe_executed","yes","__notes__",[],"x",1', "trace")
    assert type(arrived) is ConnectionLost
    assert (arrived.maybe_executed, arrived.value, arrived.args) == (False, None, ("gone",))
    assert vars(arrived) == {"__notes__": ["Raised at the other side:\ntrace"]}
    assert error("discovery.errors.RemoteError", '"x"').remote_traceback == ""


@pytest.mark.parametrize("start", [-(2**40), -99, 1, 2**40])
def test_an_error_about_text_is_about_text_that_is_there(start: int) -> None:
    """Printing a UnicodeDecodeError reads the byte at its place, with no check in some versions of Python."""
    arrived = error("builtins.UnicodeDecodeError", f'"utf-8",{{"b":""}},{start},{start + 1},"bad"')
    assert type(arrived) is RemoteError
    assert str(arrived) == "builtins.UnicodeDecodeError: words"


def test_an_error_is_no_longer_when_printed_than_when_sent() -> None:
    """A SyntaxError draws as many carets as it is told to, so it arrives by its name."""
    arrived = error("builtins.SyntaxError", '"bad",{"t":["f",1,1,"text",1,100000000]}')
    assert len("".join(traceback.format_exception(arrived))) < 1000


def test_errors_name_no_folders() -> None:
    """A stranger learns what went wrong, in which file and line, and nothing about how the machine is laid out."""

    class Odd:
        def fail(self) -> None:
            try:
                uuid.UUID("x")
            except ValueError as exc:
                raise LookupError("not here") from exc

    with Server("127.0.0.1") as server, Client() as client:
        with pytest.raises(LookupError) as caught:
            client.proxy(server.serve(Odd())).fail()
        notes = "".join(caught.value.__notes__)
        assert 'File "test_decoding.py", line' in notes
        assert 'File "uuid.py", line' in notes
        assert "/" not in notes

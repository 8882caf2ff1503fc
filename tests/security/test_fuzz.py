"""Everything that reads what strangers wrote: any bytes are a value or one kind of error, and in linear time."""

import contextlib
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.beacon import format as beacon
from discovery.errors import BadAddress, BadMessage, BadURL
from discovery.registry.url import ServiceURL
from discovery.remote import Address
from discovery.remote.encoding import _UNPACK, Codec
from discovery.remote.protocol import HEADER, MAGIC, VERSION, Kind, Protocol, Role
from discovery.remote.proxy import Proxy, address_of
from election.errors import BadRecord
from election.record import decode

BUDGET = 0.5
"""Seconds of CPU for any input of a few hundred bytes, most of which take some microseconds."""

SIZE = 30_000
"""Bytes, more or less, of the smaller of two inputs of one kind."""

GROWTH, FLOOR = 10, 0.02
"""What four times the bytes may cost: ten times the time, where linear is 4 and quadratic is 16, and seconds beside."""

NOWHERE: Any = None  # the client of the proxies: nobody calls through them
CODEC = Codec(
    lambda value: str(address_of(value)) if isinstance(value, Proxy) else None,
    lambda text: Proxy(NOWHERE, Address.parse(text)),
)


def address(data: bytes) -> object:
    return Address.parse(data.decode("latin-1"))


def url(data: bytes) -> object:
    return ServiceURL.parse(data.decode("latin-1"))


def announcement(data: bytes) -> object:
    return beacon.parse(data), beacon.parse(beacon.head(f"worker-{'0' * 16}", (), 1.0, 1) + data)


def record(data: bytes) -> object:
    return decode("group", data)


def frames(data: bytes) -> object:
    """The bytes in pieces of seven, as if each had been all that arrived."""
    protocol = Protocol(Role.SERVER)
    protocol.send(Kind.GREETING)
    return [protocol.receive(data[place : place + 7]) for place in range(0, len(data), 7)]


PARSERS: dict[Callable[[bytes], object], tuple[type[Exception], ...]] = {
    address: (BadAddress,),
    url: (BadURL,),
    announcement: (),
    record: (BadRecord,),
    frames: (BadMessage,),
    CODEC.loads: (BadMessage,),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("remote://h:1/x"),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from([*_UNPACK, "r"]), inner, max_size=1)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(["v", "fence", "state", "note"]), inner, max_size=4)
    ),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode())
ALPHABET = st.text(st.sampled_from('remote://distbu:@[]%.{}"\\,-+0919eE_=\x00\n é'), max_size=350).map(str.encode)
FRAMES = st.builds(
    lambda size, body, kind: HEADER.pack(MAGIC, VERSION, kind, size) + body,
    st.integers(0, 2**32 - 1) | st.integers(0, 40),
    st.binary(max_size=40),
    st.sampled_from(Kind) | st.integers(0, 255),
)
TEXTS = st.lists(st.binary(max_size=60), max_size=8).map(lambda each: b"".join(bytes([len(t)]) + t for t in each))


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__qualname__)
@given(data=st.binary(max_size=400) | JSON | ALPHABET | FRAMES | TEXTS)
def test_any_bytes_are_a_value_or_one_kind_of_error(parse: Callable[[bytes], object], data: bytes) -> None:
    """Bytes at random, and what resembles each of our forms: quickly read, or quickly refused."""
    began = time.thread_time()
    try:
        parse(data)
    except PARSERS[parse]:
        pass
    assert time.thread_time() - began < BUDGET


SENT = st.recursive(
    st.sampled_from(["null", "true", "0", "-1", "-2", "0.5", "NaN", '"x"', "[]", "9" * 4300,
                     '{"i":"-0x8000000000000000"}',
                     '{"decimal":".%s"}' % ("1" * 4299), '{"decimal":"NaN"}', '{"decimal":"1E+5_0"}', '{"b":"AA=="}',
                     '{"y":"int"}', '{"r":"remote://h:1/x"}', '{"date":"2026-W01-1"}', '{"time":["12:00",1]}',
                     '{"datetime":["2026-01-02T03:04:05.123456+02:00:01",0]}', '{"timedelta":[1,-1,9999999999]}',
                     '{"uuid":"{00000000-0000-0000-0000-000000000001}"}', '{"p":["(",130]}', '{"n":[1,9,2]}',
                     '{"p":[{"b":"YQ=="},0]}', '{"c":[1.0,-0.0]}', '{"i":"0x1fffffffffffffff"}']),
    lambda inner: st.builds(
        lambda form, parts: form.replace("%s", ",".join(parts)).replace("%1", parts[0] if parts else "0"),
        st.sampled_from(["[%s]", '{"t":[%s]}', '{"s":[%s]}', '{"f":[%s]}', '{"d":[%1,%1]}', '{"d":[%s]}',
                         '{"o":["x.Y",{"d":["f",%1]}]}', '{"e":["builtins.KeyError","k",[[%s],{"d":[]}],"t"]}',
                         '{"e":["builtins.OSError","k",[[%s],{"d":[]}],""]}',
                         '{"e":["discovery.errors.ConnectionLost","k",[[%s],{"d":["value",%1]}],"t"]}',
                         '{"e":["x.Y","k",[[%s],{"d":[]}],"t"]}']),
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
).map(str.encode)  # fmt: skip


@given(SENT | JSON)
def test_what_is_let_in_can_be_sent_on(data: bytes) -> None:
    """Otherwise a stranger could write a tuple into a ring that nobody can take, nor any other before it."""
    try:
        value = CODEC.loads(data)
    except BadMessage:
        return
    CODEC.loads(CODEC.dumps(value))


def many(piece: str, before: str = "[", after: str = "]") -> Callable[[int], bytes]:
    """So many bytes of one piece, as the members of a list."""
    return lambda size: (before + ",".join([piece] * (size // (len(piece) + 1))) + after).encode()


def long(piece: str, before: str = "", after: str = "") -> Callable[[int], bytes]:
    """So many bytes of one piece, one after the other."""
    return lambda size: (before + piece * (size // len(piece)) + after).encode()


def numbered(piece: str, tag: str) -> Callable[[int], bytes]:
    """A container of members that differ in a number."""
    return lambda size: (f'{{"{tag}":[' + ",".join(piece % n for n in range(size // len(piece))) + "]}").encode()


MESSAGES = {
    **{f"{tag} around {body}": many(f'{{"{tag}":{body}}}') for tag in _UNPACK for body in ("[]", '""', "0", "[[],[]]")},
    "pairs": many('{"t":[-1,{"f":[-1,-2]}]}'),
    "grids": numbered('{"t":[%d,-1,-2]}', "s"),
    "a set": numbered("%d", "s"),
    "multiples": numbered('{"i":"%x1fffffffffffffff"}', "s"),
    "a table": numbered('"%d",{"t":[]}', "d"),
    "points": numbered('{"o":["x.Point",{"d":["x",%d]}]}', "f"),
    "decimals": numbered('{"decimal":"%d.5"}', "s"),
    "huge exponents": numbered('{"decimal":"1E+99999999999999%d"}', "s"),
    "days": many('{"datetime":["2026-01-02T03:04:05+02:00",1]}'),
    "references": many('{"r":"remote://127.0.0.1:1/x"}'),
    "long references": many('{"r":"remote://' + "[" * 280 + '"}'),
    "errors": many('{"e":["builtins.KeyError","k",[["k"],{"d":[]}],"trace"]}'),
    "odd errors": many('{"e":["builtins.OSError","k",[[{"t":[]},[],{"s":[]},null],{"d":[]}],"trace"]}'),
    "groups": many('{"e":["builtins.ExceptionGroup","",[["g",[{"e":["builtins.KeyError","",null,""]}]],{"d":[]}],""]}'),
    "patterns": many('{"p":["(a+)+[\\u0100-\\uffff]",2]}'),
    "digits": long("7", "[0.", "]"),
    "more digits": many("7" * 4299),
    "bits": many('{"i":"0x%s"}' % ("f" * 3500)),
    "text": long("x", '"', '"'),
    "escapes": long("\\u00e9\\n", '"', '"'),
    "quotes": long('\\"', '["'),
    "brackets in a text": long("[", '"', '"'),
    "bytes": long("AAAA", '{"b":"', '"}'),
    "bytes that are none": long("A===", '{"b":"', '"}'),
    "a uuid": long("urn:uuid:", '{"uuid":"', '"}'),
    "a day": long("2026-", '{"date":"', '"}'),
    "a decimal": long("1", '{"decimal":"', '"}'),
    "an int": long("_1", '{"i":"', '"}'),
    "blanks": long(" ", "[", "]"),
    "brackets": long("["),
    "braces": long('{"t":'),
    "deep": many("[" * 99 + "]" * 99),
    "deep tuples": many('{"t":[' * 90 + "]}" * 90),
    "deep frozen sets": many('{"f":[' * 90 + "-1,-2" + "]}" * 90),
    "one key twice": long('"t":[],', "{", '"t":[]}'),
    "minus": long("-", "["),
}  # fmt: skip


def cost(parse: Callable[[bytes], object], inputs: list[bytes], expected: tuple[type[Exception], ...]) -> list[float]:
    """The least CPU time of this thread for each input, of several turns, without the time for collecting garbage.

    That depends on what else the process holds.
    """
    least = [float("inf")] * len(inputs)
    gc.disable()
    try:
        for _ in range(5):
            for place, data in enumerate(inputs):
                began = time.thread_time()
                with contextlib.suppress(*expected):
                    parse(data)
                least[place] = min(least[place], time.thread_time() - began)
    finally:
        gc.enable()
    return least


def grows_as_its_input(parse: Callable[[bytes], object], make: Callable[[int], bytes]) -> None:
    small, large = cost(parse, [make(SIZE), make(4 * SIZE)], PARSERS[parse])
    assert large < GROWTH * small + FLOOR


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_four_times_the_bytes_costs_four_times_as_much(name: str) -> None:
    """Whatever it is made of; a quadratic step anywhere would make it sixteen times as much."""
    grows_as_its_input(CODEC.loads, MESSAGES[name])


OTHERS = [
    *((address, long(piece, "remote://")) for piece in ("@", ":", "/", "[", "]", "%", "a.", "[:", "1", "h:1/x")),
    *((url, long(piece, "distributed://")) for piece in ("/", ":", "a", "://", "?")),
    *((announcement, long(piece)) for piece in ("\x01=", "\x00", "\xff", "\x03a=b", "=")),
    *((record, long(piece, before)) for piece in ("[", '{"a":', "1", '"', " ") for before in ("", '{"v":')),
    (frames, lambda size: HEADER.pack(MAGIC, VERSION, Kind.CALL, size) + b"x" * size),
    (frames, lambda size: HEADER.pack(MAGIC, VERSION, Kind.CALL, 2 * size) + b"x" * size),
]


@pytest.mark.parametrize(("parse", "make"), OTHERS)
def test_the_other_parsers_are_linear_too(parse: Callable[[bytes], object], make: Callable[[int], bytes]) -> None:
    """Most refuse by length what is too long for them."""
    grows_as_its_input(parse, make)

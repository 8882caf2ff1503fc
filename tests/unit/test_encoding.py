"""What travels arrives as it was sent; what cannot is refused; what a stranger sends is at worst a `BadMessage`."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import BadMessage, CannotTravel, ConnectionLost, DiscoveryError, RemoteError, UnknownClass
from discovery.patterns import ForeignPattern
from discovery.remote import encoding
from discovery.remote.encoding import MAX_DEPTH, Codec, Unknown, by_value


@by_value
@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass(frozen=True)
class Stranger:
    name: str


def nothing(value: object) -> None:
    return None


def travel(value: Any) -> Any:
    codec = Codec(nothing, lambda address: ("proxy", address))
    return codec.loads(codec.dumps(value))


HASHABLE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.decimals(allow_nan=False),
        st.datetimes(timezones=st.none() | st.just(datetime.UTC)),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.uuids(),
    ),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)
PLAIN = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """The types within a value, which equality alone overlooks: 1 == True == 1.0."""
    if isinstance(value, dict):
        return dict, [(shape(k), shape(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    return type(value)


@given(PLAIN)
def test_plain_data_arrives_as_it_was_sent(value: Any) -> None:
    """Values and types survive the way, however they are nested."""
    arrived = travel(value)
    assert arrived == value
    assert shape(arrived) == shape(value)


@given(PLAIN)
def test_values_are_written_alike_by_a_python_whose_encoder_cannot_be_prepared(value: Any) -> None:
    """What `json` has inside is used where it is there, and changes no byte."""
    packed = encoding._pack(value, lambda _: None, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json.encoder, "c_make_encoder", None)
        assert encoding._prepared_encoder()(packed) == encoding._encode(packed)


@pytest.mark.parametrize("data", [b"1 ", b" 1", b"[] []", b"1,", b"", b"[]]"])
def test_a_message_is_one_value_and_nothing_else(data: bytes) -> None:
    """Not even a space before or after it, which no sender of ours writes."""
    with pytest.raises(BadMessage):
        Codec(lambda _: None, str).loads(data)


@pytest.mark.parametrize(
    "value",
    [
        10**4300 - 1,
        -(2**64),
        math.inf,
        1 + 2j,
        "\ud800",
        bytearray(b"\0"),
        {1, 2},
        range(1, 9, 2),
        int,
        type(None),
        datetime.datetime,
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2)), fold=1),
        {(1, "a"): {b"k": [None]}},
        Point(1, (2,)),
    ],
    ids=repr,
)
def test_one_of_each_kind(value: Any) -> None:
    """Each kind of value that may be written or used as a template travels."""
    arrived = travel(value)
    assert arrived == value
    assert type(arrived) is type(value)


def test_nan_arrives() -> None:
    """NaN is equal to nothing, and arrives all the same."""
    assert math.isnan(travel(math.nan))
    assert travel(decimal.Decimal("NaN")).is_nan()
    assert travel(uuid.UUID(int=1)) == uuid.UUID(int=1)


class Weekday(enum.IntEnum):
    MONDAY = 1


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        ([1, {"k": print}], "print"),
        (collections.namedtuple("Pair", "a b")(1, 2), "Pair"),
        (Weekday.MONDAY, "Weekday"),
        (Point, "Point"),
        (re.compile("a" * 1001), "1000 characters"),
        ([10**4300], "14285 bits"),
        (decimal.Decimal("1" * 4301), "too many digits"),
        (decimal.Decimal("sNaN"), "NaN that raises"),
        (datetime.datetime(2026, 1, 1, tzinfo=type("Z", (datetime.tzinfo,), {})()), "fixed offsets"),
    ],
)
def test_what_cannot_travel_is_refused_at_the_sender(value: Any, named: str) -> None:
    """The error names the part of the value that cannot be sent."""
    with pytest.raises(CannotTravel, match=named):
        Codec(nothing, str).dumps(value)


def test_a_value_within_itself_is_refused() -> None:
    """A cycle is an error at the sender, not a recursion without end."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CannotTravel, match="in itself"):
        Codec(nothing, str).dumps(endless)


def test_a_class_that_is_unknown_here_says_so_and_travels_on() -> None:
    """An unknown dataclass arrives as its name and fields, and is itself again where its class is known."""
    arrived = travel(Stranger("bob"))
    assert arrived == Unknown(f"{__name__}.Stranger", {"name": "bob"})
    assert arrived == travel(arrived)
    assert not hasattr(arrived, "matches")
    with pytest.raises(UnknownClass, match=r"Stranger is not known here, so there is no 'save'"):
        arrived.save()
    known = Unknown(f"{__name__}.Point", {"x": 1, "y": 2})
    assert travel(known) == Point(1, 2)


@pytest.mark.parametrize("pattern", [re.compile("a.c", re.IGNORECASE), re.compile(b"a")])
def test_a_pattern_arrives_as_one_that_is_matched_under_a_limit(pattern: re.Pattern[Any]) -> None:
    """It says what it is, is equal to the same again, travels on, and can be compiled as it was."""
    arrived = travel(pattern)
    assert arrived == ForeignPattern(pattern.pattern, pattern.flags) == travel(arrived)
    assert len({arrived, travel(arrived)}) == 1
    assert arrived.compile() == pattern


def test_many_members_of_an_unknown_class_are_no_attack() -> None:
    """A large set of unknown things arrives, where one of members that were chosen to share a hash is refused."""
    strangers = {Stranger(str(number)) for number in range(1000)}
    assert len(travel(strangers)) == 1000
    assert travel(travel(strangers)) == travel(strangers)


def test_only_dataclasses_go_by_value() -> None:
    """Naming another class is an error at once, not at the first message."""
    with pytest.raises(TypeError, match="dataclasses"):
        by_value(object)


def test_references_go_through_the_two_functions() -> None:
    """What has an address is sent as that address, and what arrives as one is resolved."""
    thing = object()
    codec = Codec(lambda value: "remote://h:1/x" if value is thing else None, lambda address: ("proxy", address))
    assert codec.loads(codec.dumps([thing, 1])) == [("proxy", "remote://h:1/x"), 1]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 3),
        KeyError("k"),
        FileNotFoundError(2, "gone"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=repr,
)
def test_errors_of_python_arrive_as_themselves(error: Exception) -> None:
    """The same class with the same arguments."""
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    assert str(arrived) == str(error)


def test_errors_of_ours_arrive_with_what_they_know() -> None:
    """Attributes of our own errors come along."""
    arrived = travel(ConnectionLost("gone", maybe_executed=True, value=(1, 2)))
    assert (type(arrived), str(arrived), arrived.maybe_executed, arrived.value) == (
        ConnectionLost,
        "gone",
        True,
        (1, 2),
    )
    assert travel(RemoteError("a.B", "text")).type_name == "a.B"


def test_other_errors_arrive_by_name_with_their_traceback() -> None:
    """An error of an unknown class is a `RemoteError` that tells what it was and where it was raised."""

    class OddError(Exception):
        pass

    try:
        raise OddError("quite", object())
    except OddError as exc:
        arrived = travel(exc)
    assert type(arrived) is RemoteError
    assert arrived.type_name.endswith("OddError")
    assert "quite" in str(arrived)
    assert "raise OddError" in arrived.remote_traceback


SAME_HASH = b",".join(b'{"i":"%x"}' % (number * (2**61 - 1)) for number in range(101))
BOMBS = [
    b"",
    b"\xff\xfe",
    b"null garbage",
    b"[" * 1_000_000,
    b'{"t":' * 100_000,
    b"[" * (MAX_DEPTH + 5) + b"]" * (MAX_DEPTH + 5),
    b'{"t":[' * 150 + b"]}" * 150,
    b"9" * 5000,
    b"{}",
    b'{"t":[],"s":[]}',
    b'{"nosuchtag":1}',
    b'{"s":[[]]}',
    b'{"d":[1]}',
    b'{"d":[[],1]}',
    b'{"b":"*"}',
    b'{"i":"zz"}',
    b'{"o":["x",3]}',
    b'{"o":[["x"],{"d":[]}]}',
    b'{"e":1}',
    b'{"p":["x","y"]}',
    b'{"p":["' + b"a" * 1001 + b'",32]}',
    b'{"s":[%s]}' % SAME_HASH,
    b'{"f":[%s]}' % SAME_HASH,
    b'{"d":[%s]}' % SAME_HASH.replace(b"}", b"},0"),
    b'{"s":[%s]}' % b",".join(b'{"o":["x",{"d":["k",{"i":"%x"}]}]}' % (n * (2**61 - 1)) for n in range(101)),
    b'{"y":"eval"}',
    b'{"r":3}',
    b'{"r":"nowhere"}',
    b'{"datetime":["never",0]}',
    b'{"decimal":"many"}',
    b'{"n":[1,2,0]}',
]


@pytest.mark.parametrize("data", BOMBS, ids=lambda data: repr(data[:16]))
def test_bombs_are_bad_messages(data: bytes) -> None:
    """Deep nesting, wrong types and unknown tags: one clear error, and never another."""
    with pytest.raises(BadMessage):
        Codec(nothing, int).loads(data)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*encoding._UNPACK, "r"]), inner, max_size=1),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_arrives_is_a_value_or_a_bad_message(data: bytes) -> None:
    """Bytes at random, and every tag around anything: a value or one kind of error."""
    try:
        Codec(nothing, str).loads(data)
    except DiscoveryError as exc:
        assert type(exc) is BadMessage  # noqa: PT017


def test_a_class_may_be_given_a_name() -> None:
    """It travels under that name, so that a program and those who import it mean the same class."""

    @by_value(name="shop.Crate")
    @dataclasses.dataclass
    class Crate:
        size: int

    codec = Codec(lambda value: None, lambda text: text)
    sent = codec.dumps(Crate(3))
    assert b"shop.Crate" in sent
    assert codec.loads(sent) == Crate(3)


def test_a_name_means_one_class() -> None:
    """Another class with the same name is refused; the same class, defined again, takes its place."""

    def define() -> type:
        @by_value(name="shop.Box")
        @dataclasses.dataclass
        class Box:
            size: int

        return Box

    assert define() is not define()
    with pytest.raises(ValueError, match=r"has the name 'shop\.Box' already"):
        by_value(name="shop.Box")(Point)


def test_a_class_of_a_program_says_what_happened() -> None:
    """Its name is that of no module, and the error says what to do on both sides."""
    arrived = Unknown("__main__.Item", {"x": 1})
    with pytest.raises(
        UnknownClass, match=r"decorate it with by_value, .*@by_value\(name=.*run as a program by the sender"
    ):
        arrived.total()

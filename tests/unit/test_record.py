"""The record in the cell: what is written can be read, and nothing else is taken for it."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from election import BadPolicy
from election.errors import BadRecord
from election.record import MAX_BYTES, Record, State, check_name, decode

RECORD = Record(fence=7, holder="me", seq=3, ttl_ms=10_000, state=State.HELD, host="here", pid=42, at_ms=5)
SMALL = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | SMALL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SMALL, inner, max_size=3),
    max_leaves=5,
)
NAT = st.integers(0, 2**53 - 1)
HOST = st.text(st.characters(categories=["L", "N"]), max_size=8)
RECORDS = st.builds(
    Record, NAT, SMALL, NAT, st.integers(1, 3_600_000), st.sampled_from(State), HOST, NAT, NAT,
    st.booleans(), st.booleans(),
    st.dictionaries(SMALL, JSON, max_size=2),
    st.dictionaries(SMALL, JSON, max_size=2),
    st.dictionaries(st.text(max_size=8).map(lambda key: f"new {key}"), JSON, max_size=2),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64) | st.just("g1"),
)  # fmt: skip


def as_far_as_there_is_room(record: Record) -> tuple[Record, ...]:
    """What may be read of a record that was written: all, or without unknown fields, or without orders too."""
    return record, replace(record, unknown={}), replace(record, unknown={}, orders={})


@given(RECORDS)
def test_round_trip(record: Record) -> None:
    """Whatever fits is read back unchanged; unknown fields, and then orders, are left out if only they do not fit."""
    try:
        data = record.encode()
    except BadPolicy:  # too long
        return
    assert len(data) <= MAX_BYTES
    read = decode("a", data)
    assert read in as_far_as_there_is_room(record)
    left_out = len(json.dumps(record.unknown)) + len(json.dumps(record.orders)) * (read.orders != record.orders)
    assert read == record or left_out + len(data) > MAX_BYTES - 100


@given(st.binary(max_size=1100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes are an error that names the cell, and nothing worse."""
    with pytest.raises(BadRecord, match="'the name'"):
        decode("the name", data)


@given(
    st.dictionaries(st.sampled_from([*json.loads(RECORD.encode()), "store"]), JSON | st.just(float("nan")), max_size=3)
)
def test_any_fields(fields: dict[str, Any]) -> None:
    """A record with a few odd values is refused, or is one that can be written again."""
    data = json.dumps({**json.loads(RECORD.encode()), **fields}).encode()
    try:
        record = decode("a", data)
    except BadRecord:
        return
    assert decode("a", record.encode()) == record


@pytest.mark.parametrize(
    "data",
    [b'"new":NaN', b'"new":1e999', b'"note":[]', b'"fence":-1', b'"fence":true', b'"fence":1.0', b'"ttl_ms":0',
     b'"ttl_ms":3600001', b'"fence":9007199254740992', b'"at_ms":9007199254740992', b'"forgotten":1',
     b'"store":1', b'"store":null', b'"store":"' + b"g" * 65 + b'"', b'"store":"\xc3\xa9"', b'"store":"\\n"',
     b'"new":' + b"[" * 100 + b"]" * 100, b'"note":{"a":' + b'{"b":' * 100 + b"1" + b"}" * 101,
     b'"seq":null', b'"state":"free"', b'"v":2', b'"holder":5', b'"asked":1', b'"new":"' + b"x" * 1000 + b'"'],
)  # fmt: skip
def test_what_is_not_ours(data: bytes) -> None:
    """A field of the wrong type or value, or one that could not be written again, makes the record unusable."""
    with pytest.raises(BadRecord, match="'a'"):
        decode("a", RECORD.encode()[:-1] + b"," + data + b"}")


@pytest.mark.parametrize("field", ["fence", "holder", "seq", "ttl_ms", "state"])
def test_missing_field(field: str) -> None:
    """A record without one of these is unusable, and the message says which."""
    fields = json.loads(RECORD.encode())
    del fields[field]
    with pytest.raises(BadRecord, match=field):
        decode("a", json.dumps(fields).encode())


@given(RECORDS, st.sampled_from([b"1E9", b"1e300", b"0.10", b"1e999", b"NaN", b"-Infinity", b"2.5", b"1e16", b"-0"]))
def test_what_is_read_can_be_written_again(record: Record, number: bytes) -> None:
    """Whatever is taken for a record fits into a cell in every state, with the request to resign and without."""
    with contextlib.suppress(BadPolicy, BadRecord):
        data = record.encode()
        found = decode("a", data[: -len(b"}")] + b',"number":[' + b",".join([number] * 20) + b"]}")
        for state in State:
            for asked in (True, False):
                again = replace(found, state=state, asked=asked).encode()
                assert len(again) <= MAX_BYTES
                assert decode("a", again).unknown in (found.unknown, {})


def test_a_number_that_grows_when_it_is_written() -> None:
    """Unknown fields whose numbers are short, but too long when they are written again, are dropped then."""
    data = RECORD.encode()[:-1] + b',"later":[' + b",".join([b"1E15"] * 100) + b"]}"
    assert len(data) < MAX_BYTES
    assert decode("a", data).encode() == RECORD.encode()


@given(RECORDS, NAT, NAT, st.dictionaries(SMALL, JSON, max_size=2))
def test_a_record_that_is_written_over_and_over(record: Record, seq: int, at_ms: int, note: dict[str, Any]) -> None:
    """What is prepared once says the same as a record that is made anew."""
    with contextlib.suppress(BadPolicy):
        assert record.rewriter()(seq, at_ms, note) == replace(record, seq=seq, at_ms=at_ms, note=note).encode()
        made = replace(record, seq=seq, at_ms=at_ms, note=note)
        assert decode("a", record.rewriter()(seq, at_ms, note)) in as_far_as_there_is_room(made)


@pytest.mark.parametrize("note", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}, 5, ["list"], {("t",): 1}])
def test_bad_note(note: Any) -> None:
    """A note that is no mapping, or cannot be written as JSON, is refused before anything is written."""
    with pytest.raises(BadPolicy, match="note"):
        replace(RECORD, note=note).encode()


def test_deep_note() -> None:
    """A note that is nested too deeply is refused like any other."""
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(BadPolicy):
        Record(1, "me", 1, 1, State.HELD, note=deep).encode()
    while deep:
        deep = deep.pop("a")


def test_long_note() -> None:
    """A note that makes the record too long is refused."""
    with pytest.raises(BadPolicy, match="shorten"):
        replace(RECORD, note={"a": "x" * MAX_BYTES}).encode()


def test_whatever_fits_fits_in_every_state() -> None:
    """Any record that could be written can be asked for, opened and posted again, though it fills its cell."""
    free = MAX_BYTES - len(replace(RECORD, note={"a": ""}, state=State.VACANT).encode())
    full = replace(RECORD, note={"a": "x" * free})
    assert len(replace(full, state=State.VACANT, asked=False).encode()) == MAX_BYTES
    assert decode("a", replace(full, asked=True).encode()).asked
    with pytest.raises(BadPolicy):
        replace(RECORD, note={"a": "x" * (free + 1)}).encode()


@pytest.mark.parametrize("store", ["g" * 65, "é", "a\n"])
def test_a_generation_that_could_not_be_read_again(store: str) -> None:
    """A record that names its store's generation in a way that nobody could read is not written."""
    with pytest.raises(BadPolicy, match="generation has 64 printable ASCII characters"):
        replace(RECORD, store=store).encode()


def test_a_record_without_a_generation_is_written_as_before() -> None:
    """The field is there only where the store has generations."""
    assert b"store" not in RECORD.encode()
    assert decode("a", replace(RECORD, store="g1").encode()) == replace(RECORD, store="g1")


@pytest.mark.parametrize("state", State)
def test_a_record_of_another_generation_is_a_forgotten_vacancy(state: State) -> None:
    """Whatever it says of its holder; all else stays. In its own generation it says what it says."""
    record = replace(RECORD, state=state, store="g1")
    assert record.found_in("g1") is record
    for other in ("g2", ""):
        found = record.found_in(other)
        assert found == replace(record, state=State.VACANT, forgotten=True, foreign=True)


@pytest.mark.parametrize(("state", "native"), [(State.HELD, True), (State.VACANT, True), (State.OPEN, False)])
def test_a_record_that_names_no_generation(state: State, native: bool) -> None:
    """It is read as before; but where the store has generations, an open one may be of any time, and is not free."""
    record = replace(RECORD, state=state)
    assert record.found_in("") is record
    assert record.found_in("g1").foreign is not native


def test_for_people() -> None:
    """A record says in a log line who and where."""
    assert str(RECORD) == "here:42 (fence 7)"


@pytest.mark.parametrize("name", ["a", "Zürich ☃", "x" * 80, "é" * 40])
def test_good_name(name: str) -> None:
    """Printable text of up to 80 bytes can name a lease."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "é" * 41, "a\nb", "a\0", "\ud800", None, 5, b"a"])
def test_bad_name(name: Any) -> None:
    """Anything else is refused with a sentence that names it."""
    with pytest.raises(BadPolicy, match="name"):
        check_name(name)

"""How values travel: as JSON, with tags for everything that JSON would change, so that it arrives as it was sent.

Text, numbers, booleans, None and lists are written as JSON writes them. Anything else is an object with one key, its
tag: `{"t": [1, 2]}` is a tuple. Nothing is evaluated, imported or called by name to read it: a tag selects one of the
functions below, and a class is only built if this process has named it with `by_value`. Nothing else is called, and
nothing is sent or read. The work is linear in the length of the message, see `budget.py`.

Only exact types can be sent. A subclass (a named tuple, an IntEnum) would arrive as something else, so the sender gets
an error.
"""

import dataclasses
import datetime
import decimal
import json
import re
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, TypeVar

from discovery.errors import BadMessage, CannotTravel
from discovery.patterns import MAX_PATTERN, ForeignPattern
from discovery.remote.encoding.budget import MAX_DEPTH, MAX_DIGITS, MAX_INT, MAX_LISTS, lists, spread, too_deep
from discovery.remote.encoding.errors import pack_error, unpack_error
from discovery.remote.encoding.values import Unknown, by_value, class_name, describe, known, parts, text_of

__all__ = ["MAX_DEPTH", "Codec", "Unknown", "by_value", "describe"]

Refer = Callable[[Any], str | None]  # the address under which an object is reached, or None: it goes by value
Resolve = Callable[[str], Any]  # the object, or a proxy for it, behind an address
T = TypeVar("T")

_FLAT = {str, float, bool, type(None)}  # what JSON writes as it is
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(str, bytes, bytearray, int, float, complex, bool, tuple, list, dict, set, frozenset, range, object),
        *(type(None), datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
    )
}


def _prepared_encoder() -> Callable[[Any], str]:
    """Return what writes JSON. `json` itself makes a new encoder for each value, which takes longer than a short one.

    Cycles have been found by `_pack`.
    """
    prepare = getattr(json.encoder, "c_make_encoder", None)
    if prepare is None:
        return json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
    write = prepare(None, None, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
    return lambda packed: "".join(write(packed, 0))


_encode = _prepared_encoder()


class Codec:
    """How one side writes and reads values.

    Args:
        refer: Returns the address under which an object is reached, or None: it goes by value.
        resolve: Returns the object behind an address, or a proxy for it.
    """

    def __init__(self, refer: Refer, resolve: Resolve) -> None:
        def untag(tagged: list[tuple[str, Any]]) -> Any:
            ((tag, body),) = tagged
            if tag == "t" and type(body) is list:
                return tuple(body)
            if tag == "r":
                return resolve(text_of(body))
            kind, unpack = _UNPACK[tag]
            if type(body) is not kind:
                raise BadMessage(f"{kind.__name__} expected in {tag!r:.20}, not {type(body).__name__}")
            return unpack(body)

        self._refer = refer
        self._decode = json.JSONDecoder(object_pairs_hook=untag).raw_decode

    def dumps(self, value: Any) -> bytes:
        """Return the bytes that carry a value.

        Raises:
            CannotTravel: Names the part of the value that cannot be sent.
        """
        data = _encode(_pack(value, self._refer, 0)).encode("ascii")
        if data.count(b"[") > MAX_LISTS and lists(data) > MAX_LISTS:
            raise CannotTravel(f"more than {MAX_LISTS} lists, tuples, sets and so on")
        return data

    def loads(self, data: bytes | bytearray) -> Any:
        """Return the value that those bytes carry.

        What it may hold and cost is limited as `budget.py` says.

        Raises:
            BadMessage: They carry none. No other error is raised, whatever they are.
        """
        try:
            count = data.count(b"[")
            if count > MAX_LISTS and lists(data) > MAX_LISTS:
                raise BadMessage(f"more than {MAX_LISTS} lists, tuples, sets and so on")
            text = data.decode("ascii")
            value, end = self._decode(text)
            if end != len(text):
                raise BadMessage(f"{len(text) - end} characters more than one value")
            if count > MAX_DEPTH and too_deep(value):  # the walk is for large messages only
                raise BadMessage(f"nested more than {MAX_DEPTH} deep")
        except BadMessage:
            raise
        except (Exception, RecursionError) as exc:  # noqa: BLE001 - whatever a stranger's bytes may provoke
            raise BadMessage(f"unreadable: {type(exc).__name__}: {str(exc)[:200]}") from None
        return value


def _pack(value: Any, refer: Refer, depth: int) -> Any:
    kind = type(value)
    if kind in _FLAT:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {"i": _hex(value)}
    if depth > MAX_DEPTH:
        raise CannotTravel(f"nested more than {MAX_DEPTH} deep, or in itself: {kind.__name__}")
    depth += 1
    if kind is tuple:
        return {"t": [item if type(item) in _FLAT else _pack(item, refer, depth) for item in value]}
    if kind is list:
        return [item if type(item) in _FLAT else _pack(item, refer, depth) for item in value]
    if kind is dict:
        return {"d": [_pack(item, refer, depth) for pair in value.items() for item in pair]}
    if kind in _PACK:
        tag, pack = _PACK[kind]
        return {tag: _pack(pack(value), refer, depth)}
    return _pack_object(value, refer, depth)


def _pack_object(value: Any, refer: Refer, depth: int) -> Any:
    address = refer(value)
    if address is not None:
        return {"r": address}
    if isinstance(value, type):
        if _TYPES.get(value.__name__) is value:
            return {"y": value.__name__}
        raise CannotTravel(f"{value!r} cannot be sent: serve it, to send a reference to it")
    if isinstance(value, Exception):
        return {"e": pack_error(value, lambda made_of: _pack(made_of, refer, depth))}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"o": [class_name(type(value)), _pack(fields, refer, depth)]}
    raise CannotTravel(
        f"{describe(value)} cannot be sent: only plain data and dataclasses travel by value; "
        "serve it, or mark its class by_reference, to send a reference to it"
    )


def _unpack_object(body: list[Any]) -> Any:
    name, fields = parts(body, str, dict)
    return known[name](**fields) if name in known else Unknown(name, fields)


def _offset_only(moment: Any) -> str:
    if moment.tzinfo is not None and type(moment.tzinfo) is not datetime.timezone:
        raise CannotTravel(f"{moment!r} cannot be sent: of time zones, only fixed offsets (datetime.timezone) travel")
    return str(moment.isoformat())


def _hex(value: int) -> str:
    if not -MAX_INT <= value <= MAX_INT:
        raise CannotTravel(f"an int of {value.bit_length()} bits cannot be sent: it has more than {MAX_DIGITS} digits")
    return hex(value)


def _unpack_int(text: str) -> int:
    value = int(text, 16)  # linear, for a base that is a power of two
    if not -MAX_INT <= value <= MAX_INT:
        raise BadMessage(f"an int of {value.bit_length()} bits")
    return value


def _pack_decimal(value: decimal.Decimal) -> str:
    text = str(value)
    if len(text) > MAX_DIGITS or value.is_snan():
        raise CannotTravel(f"{text:.80} cannot be sent: it has too many digits, or is a NaN that raises errors")
    return text


def _unpack_decimal(text: str) -> decimal.Decimal:
    value = decimal.Decimal(text) if len(text) <= MAX_DIGITS else None
    # A signaling NaN raises when it is compared, and has no hash.
    if value is None or value.is_snan() or len(str(value)) > MAX_DIGITS:
        raise BadMessage(f"no number: {text:.80}")
    return value


def _pack_pattern(pattern: re.Pattern[Any] | ForeignPattern) -> list[Any]:
    if len(pattern.pattern) > MAX_PATTERN:
        raise CannotTravel(f"{describe(pattern)} cannot be sent: it has more than {MAX_PATTERN} characters")
    return [pattern.pattern, int(pattern.flags)]


def _unpack_pattern(body: list[Any]) -> ForeignPattern:
    text, flags = parts(body, bytes if type(body[0]) is bytes else str, int)
    if len(text) > MAX_PATTERN:
        raise BadMessage(f"a regular expression of more than {MAX_PATTERN} characters")
    return ForeignPattern(text, flags)


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _moment(kind: type[T]) -> Callable[[list[Any]], T]:
    def unpack(body: list[Any]) -> T:
        text, fold = parts(body, str, int)
        return kind.fromisoformat(text).replace(fold=fold)  # type: ignore[attr-defined, no-any-return]

    return unpack


# A date's tag is written out; of the rest, one letter each.
_PACK: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("b", lambda v: b64encode(v).decode("ascii")),
    bytearray: ("a", lambda v: b64encode(v).decode("ascii")),
    set: ("s", list),
    frozenset: ("f", list),
    complex: ("c", lambda v: [v.real, v.imag]),
    range: ("n", lambda v: [v.start, v.stop, v.step]),
    re.Pattern: ("p", _pack_pattern),
    ForeignPattern: ("p", _pack_pattern),
    datetime.datetime: ("datetime", lambda v: [_offset_only(v), v.fold]),
    datetime.time: ("time", lambda v: [_offset_only(v), v.fold]),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    decimal.Decimal: ("decimal", _pack_decimal),
    uuid.UUID: ("uuid", str),
    Unknown: ("o", lambda v: [v.class_name, v.fields]),
}
# What a tag's body must be, exactly, and what it is then given to. Nothing that has come out of a message is called.
_UNPACK: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "t": (list, tuple),
    "d": (list, lambda body: dict(zip(spread(body[::2]), body[1::2], strict=True)) if body else {}),
    "i": (str, _unpack_int),
    "b": (str, _bytes),
    "a": (str, lambda body: bytearray(_bytes(body))),
    "s": (list, lambda body: set(spread(body))),
    "f": (list, lambda body: frozenset(spread(body))),
    "c": (list, lambda body: complex(*parts(body, float, float))),
    "n": (list, lambda body: range(*parts(body, int, int, int))),
    "p": (list, _unpack_pattern),
    "y": (str, _TYPES.__getitem__),
    "e": (list, unpack_error),
    "o": (list, _unpack_object),
    "datetime": (list, _moment(datetime.datetime)),
    "time": (list, _moment(datetime.time)),
    "date": (str, datetime.date.fromisoformat),
    "timedelta": (list, lambda body: datetime.timedelta(*parts(body, int, int, int))),
    "decimal": (str, _unpack_decimal),
    "uuid": (str, uuid.UUID),
}

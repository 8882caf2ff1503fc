"""How values travel: as JSON, with tags for everything that JSON would change, so that it arrives as it was sent.

Text, numbers, booleans, None and lists are written as JSON writes them. Anything else is an object with one key, its
tag: `{"t": [1, 2]}` is a tuple. Nothing is evaluated, imported or called by name to read it: a tag selects one of the
functions below, and a class is only built if this process has named it with `by_value`.

Only exact types can be sent. A subclass (a named tuple, an IntEnum) would arrive as something else, so the sender gets
an error.
"""

import dataclasses
import datetime
import decimal
import json
import re
import traceback
import uuid
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from discovery import errors
from discovery.errors import BadMessage, CannotTravel, DiscoveryError, RemoteError, UnknownClass

__all__ = ["MAX_DEPTH", "Codec", "Unknown", "by_value", "describe"]

Refer = Callable[[Any], str | None]  # the address under which an object is reached, or None: it goes by value
Resolve = Callable[[str], Any]  # the object, or a proxy for it, behind an address
T = TypeVar("T")

MAX_DEPTH = 100
"""Containers within containers, at most: deep enough for data, too shallow to exhaust anybody's stack."""

MAX_SAME_HASH = 100
"""Keys of one dictionary, or members of one set, that may share a hash."""

MAX_PATTERN = 10_000
"""Characters of a regular expression, which takes a hundred times its length in memory to compile."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode  # `_pack` finds cycles
_values: dict[str, type] = {}
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(str, bytes, bytearray, int, float, complex, bool, tuple, list, dict, set, frozenset, range, object),
        *(type(None), datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
    )
}
_ERRORS: dict[str, type[Exception]] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in [*vars(__import__("builtins")).values(), *vars(errors).values()]
    if isinstance(kind, type) and issubclass(kind, Exception)
}


@dataclasses.dataclass(frozen=True, repr=False)
class Unknown:
    """A value of a class that this process has not named with `by_value`. It travels on as what it is."""

    class_name: str
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f"<Unknown {self.class_name} {', '.join(f'{k}={v!r}' for k, v in self.fields.items())}>"

    def __hash__(self) -> int:
        try:
            return hash((self.class_name, *self.fields.values()))
        except TypeError:
            return hash(self.class_name)

    def __getattr__(self, name: str) -> Any:
        raise UnknownClass(f"{self.class_name} is not known here, so there is no {name!r}: decorate it with by_value")


def by_value(cls: type[T]) -> type[T]:
    """Rebuild instances of this dataclass here, through its constructor, when they arrive.

    Any dataclass may be sent. A process that has not named its class gets an `Unknown` instead.

    Raises:
        TypeError: The class is no dataclass.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"by_value is for dataclasses, which {cls!r} is not")
    _values[_name(cls)] = cls
    return cls


class Codec:
    """How one side writes and reads values.

    Args:
        refer: Returns the address under which an object is reached, or None: it goes by value.
        resolve: Returns the object behind an address, or a proxy for it.
    """

    def __init__(self, refer: Refer, resolve: Resolve) -> None:
        def untag(tagged: dict[str, Any]) -> Any:
            ((tag, body),) = tagged.items()
            return resolve(_text(body)) if tag == "r" else _UNPACK[tag](body)

        self._refer = refer
        self._decode = json.JSONDecoder(object_hook=untag).decode

    def dumps(self, value: Any) -> bytes:
        """Return the bytes that carry a value.

        Raises:
            CannotTravel: Names the part of the value that cannot be sent.
        """
        return _encode(_pack(value, self._refer, 0)).encode("ascii")

    def loads(self, data: bytes | bytearray) -> Any:
        """Return the value that those bytes carry.

        Raises:
            BadMessage: They carry none. No other error is raised, whatever they are.
        """
        try:
            value = self._decode(data.decode("ascii"))
            # Nothing is deeper than it has brackets, so the walk is for large messages only.
            if data.count(b"[") > MAX_DEPTH and _too_deep(value):
                raise BadMessage(f"nested more than {MAX_DEPTH} deep")
        except BadMessage:
            raise
        except (Exception, RecursionError) as exc:  # noqa: BLE001 - whatever a stranger's bytes may provoke
            raise BadMessage(f"unreadable: {type(exc).__name__}: {str(exc)[:200]}") from None
        return value


def _pack(value: Any, refer: Refer, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is float or kind is bool or value is None:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {"i": hex(value)}
    if depth > MAX_DEPTH:
        raise CannotTravel(f"nested more than {MAX_DEPTH} deep, or in itself: {kind.__name__}")
    depth += 1
    if kind is tuple:
        return {"t": [_pack(item, refer, depth) for item in value]}
    if kind is list:
        return [_pack(item, refer, depth) for item in value]
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
        return {"e": _pack_error(value, refer, depth)}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"o": [_name(type(value)), _pack(fields, refer, depth)]}
    raise CannotTravel(
        f"{describe(value)} cannot be sent: only plain data and dataclasses travel by value; "
        "serve it, or mark its class by_reference, to send a reference to it"
    )


def _pack_error(error: Exception, refer: Refer, depth: int) -> list[Any]:
    """Return the class's name, the message, what it was made of if that can be sent, and where it was raised."""
    try:
        made_of = _pack([list(error.args), {k: v for k, v in vars(error).items() if k[0] != "_"}], refer, depth)
    except CannotTravel:
        made_of = None
    lines = traceback.format_exception(error, limit=-20) if error.__traceback__ else []
    return [_name(type(error)), str(error), made_of, "".join(lines)[-20_000:]]


def _unpack_error(body: list[Any]) -> Exception:
    name, message, made_of, trace = body
    error = _rebuilt(_ERRORS.get(_text(name)), made_of) or RemoteError(name, _text(message), _text(trace))
    if trace:
        error.add_note(f"Raised at the other side:\n{trace.rstrip()}")
    return error


def _rebuilt(kind: type[Exception] | None, made_of: Any) -> Exception | None:
    """Return the same error again; None if its class is not one of Python's or ours, or cannot be made of this."""
    if kind is None or made_of is None:
        return None
    args, attributes = made_of
    error = kind.__new__(kind, *args)
    if issubclass(kind, DiscoveryError):
        error.args = tuple(args)
        error.__dict__.update((_text(key), value) for key, value in attributes.items())
    try:
        if not isinstance(error, DiscoveryError):
            kind.__init__(error, *args)  # UnicodeDecodeError and its like keep their arguments here
        str(error)
    except Exception:  # noqa: BLE001 - a stranger's arguments
        return None
    return error


def _unpack_object(body: list[Any]) -> Any:
    name, fields = body
    if name in _values:
        return _values[name](**fields)
    return Unknown(_text(name), dict(fields))


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 2):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    kind = type(value)
    if kind is dict:
        return [*value.keys(), *value.values()]
    if kind is Unknown:
        return [value.fields]
    return list(value) if kind in (list, tuple, set, frozenset) else []


def _spread(members: list[Any]) -> list[Any]:
    """Return those members, or raise `BadMessage` if they were chosen to share a hash.

    A set of half a million such numbers fits into one message. Building it takes half an hour, and the interpreter
    does nothing else meanwhile.
    """
    if len(members) > MAX_SAME_HASH and max(Counter(map(hash, members)).values()) > MAX_SAME_HASH:
        raise BadMessage(f"more than {MAX_SAME_HASH} members with one hash")
    return members


def _text(value: Any) -> str:
    if type(value) is not str:
        raise BadMessage(f"text expected, not {type(value).__name__}")
    return value


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(value: Any) -> str:
    """Return how a value is shown in an error message: its `repr`, shortened, and its class."""
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({_name(type(value))})"


def _offset_only(moment: Any) -> str:
    if moment.tzinfo is not None and type(moment.tzinfo) is not datetime.timezone:
        raise CannotTravel(f"{moment!r} cannot be sent: of time zones, only fixed offsets (datetime.timezone) travel")
    return str(moment.isoformat())


def _short(pattern: re.Pattern[Any]) -> list[Any]:
    if len(pattern.pattern) > MAX_PATTERN:
        raise CannotTravel(f"{describe(pattern)} cannot be sent: it has more than {MAX_PATTERN} characters")
    return [pattern.pattern, pattern.flags]


def _pattern(body: list[Any]) -> re.Pattern[Any]:
    text, flags = body
    if len(text) > MAX_PATTERN:
        raise BadMessage(f"a regular expression of more than {MAX_PATTERN} characters")
    return re.compile(text, flags)


def _bytes(text: Any) -> bytes:
    return b64decode(text, validate=True)


# A date's tag is written out; of the rest, one letter each.
_PACK: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("b", lambda v: b64encode(v).decode("ascii")),
    bytearray: ("a", lambda v: b64encode(v).decode("ascii")),
    set: ("s", list),
    frozenset: ("f", list),
    complex: ("c", lambda v: [v.real, v.imag]),
    range: ("n", lambda v: [v.start, v.stop, v.step]),
    re.Pattern: ("p", _short),
    datetime.datetime: ("datetime", lambda v: [_offset_only(v), v.fold]),
    datetime.time: ("time", lambda v: [_offset_only(v), v.fold]),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", str),
    Unknown: ("o", lambda v: [v.class_name, v.fields]),
}
_UNPACK: dict[str, Callable[[Any], Any]] = {
    "t": tuple,
    "d": lambda body: dict(zip(_spread(body[::2]), body[1::2], strict=True)),
    "i": lambda body: int(body, 16),
    "b": _bytes,
    "a": lambda body: bytearray(_bytes(body)),
    "s": lambda body: set(_spread(body)),
    "f": lambda body: frozenset(_spread(body)),
    "c": lambda body: complex(*body),
    "n": lambda body: range(*body),
    "p": _pattern,
    "y": _TYPES.__getitem__,
    "e": _unpack_error,
    "o": _unpack_object,
    "datetime": lambda body: datetime.datetime.fromisoformat(body[0]).replace(fold=body[1]),
    "time": lambda body: datetime.time.fromisoformat(body[0]).replace(fold=body[1]),
    "date": datetime.date.fromisoformat,
    "timedelta": lambda body: datetime.timedelta(*body),
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
}

"""What is written into a store's cell: versioned JSON of at most 1 KB. Pure."""

import contextlib
import enum
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from election.errors import BadPolicy, BadRecord

FORMAT = 1
MAX_BYTES = 1024
MAX_NAME_BYTES = 80
MAX_TTL = 3600
YEAR = 366 * 24 * 3600 * 1000
MAX_HOST = 64
MAX_STORE = 64
MAX_DEPTH = 32
REMEDY = "; `politics forget` replaces it"
MAX_NUMBER = 2**53 - 1
"""The largest number in a record: every JSON library reads it exactly, and no clock in milliseconds comes near it."""


class State(enum.StrEnum):
    """Whether somebody holds the lease."""

    HELD = "held"
    """`holder` leads, or led until it stopped renewing."""
    OPEN = "open"
    """The holder resigned. The lease is free at once."""
    VACANT = "vacant"
    """The cell was found empty. A leader whose record was lost puts it back; others wait out a whole lease."""


@dataclass(frozen=True, slots=True)
class Record:
    """One write to a cell.

    `fence` grows with each leader, `seq` with each write of one holder: `(holder, fence, seq)` names the write. `note`
    belongs to the leader; `election` stores it and never reads it. `at_ms` is the writer's wall clock, for people; no
    rule reads it. `forgotten`: this vacant record replaced one that nobody could read, whose holder may still lead.
    `orders` belongs to operators: each holder carries it on. `unknown` keeps the fields that a later version has added.
    Both only as long as there is room. `store` is the generation of the store in which it was written
    (`Register.generation`), "" if it names none. `foreign` is never written: see `found_in`.
    """

    fence: int
    holder: str
    seq: int
    ttl_ms: int
    state: State
    host: str = ""
    pid: int = 0
    at_ms: int = 0
    asked: bool = False
    forgotten: bool = False
    note: Mapping[str, Any] = field(default_factory=dict)
    orders: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""
    foreign: bool = False

    def found_in(self, generation: str) -> "Record":
        """Return what this record says in a store of that `generation`: itself, if it was written there.

        Otherwise the store has brought it back, and what it says of its holder is not believed: it counts as vacant,
        and as `forgotten`, so that it is waited out. The same goes for an open record that names no generation where
        the store has one: an earlier version of this library wrote it, at whatever time. No other record without a
        generation is free at once, so each of these counts as native.
        """
        native = self.store == generation or (not self.store and self.state is not State.OPEN)
        return self if native else replace(self, state=State.VACANT, forgotten=True, foreign=True)

    @property
    def key(self) -> tuple[str, int, int]:
        """The name of this write: it changes with each write of a holder, and only then."""
        return self.holder, self.fence, self.seq

    @property
    def ttl(self) -> float:
        """The length of the lease in seconds."""
        return self.ttl_ms / 1000

    def __str__(self) -> str:
        """Return who and where, for logs: `host:pid (fence 7)`."""
        return f"{self.host}:{self.pid} (fence {self.fence})"

    def encode(self) -> bytes:
        """Return the bytes for the cell.

        Raises:
            BadPolicy: the note is not JSON, or makes the record longer than `MAX_BYTES`; or `store` is too long.
        """
        return self.rewriter()(self.seq, self.at_ms, self.note)

    def rewriter(self) -> "Rewriter":
        """Return what encodes this record over and over, with another `seq`, `at_ms` and `note` each time.

        Raises:
            BadPolicy: an unknown field is not JSON, or the name of the store's generation could not be read again.
        """
        if not _is_generation(self.store):
            raise BadPolicy(f"a store's generation has {MAX_STORE} printable ASCII characters at most: {self.store!r}")
        # In two pieces, since a holder writes the same but for the second at each renewal.
        fixed: dict[str, Any] = {"v": FORMAT, "fence": self.fence, "holder": self.holder, "ttl_ms": self.ttl_ms}
        fixed |= {"state": self.state, "host": self.host, "pid": self.pid}
        if self.forgotten:
            fixed["forgotten"] = True
        if self.store:
            fixed["store"] = self.store
        # Without the unknown fields where there is no room for them, and if need be without the orders.
        ordered = {**fixed, "orders": dict(self.orders)} if self.orders else fixed
        parts = [{**self.unknown, **ordered}] * bool(self.unknown) + [ordered] + [fixed] * bool(self.orders)
        heads = [_encode(fields, "an unknown field")[:-1] for fields in parts]
        # Always there, and `true` is shorter than `false`, so that any record has room for the request.
        asked = "true" if self.asked else "false"
        # A record that fits in one state must fit in every other.
        room = MAX_BYTES - max(map(len, State)) + len(self.state)

        def rewrite(seq: int, at_ms: int, note: Mapping[str, Any]) -> bytes:
            text = _encode(note, "the note")
            if _is_deep(text, note, MAX_DEPTH - 1):
                raise BadPolicy(f"the note is nested more than {MAX_DEPTH - 1} deep")
            data = b""
            for head in heads:
                data = f'{head},"seq":{seq},"at_ms":{at_ms},"asked":{asked},"note":{text}}}'.encode()
                if len(data) <= room:
                    return data
            size = len(data) + MAX_BYTES - room
            raise BadPolicy(f"the record would have {size} bytes, {MAX_BYTES} at most: shorten the note")

        return rewrite


def carry_on(orders: Mapping[str, Any], found: Record, holder: str) -> Mapping[str, Any]:
    """Return the orders that `holder` writes over the record that it has `found`; it knows of `orders`.

    In a record of its own they are what operators have made of them. In a vacancy that somebody else has posted there
    are only those that were given since then.
    """
    return found.orders if found.holder == holder else {**orders, **found.orders}


Rewriter = Callable[[int, int, Mapping[str, Any]], bytes]
"""Takes `seq`, `at_ms` and `note`; returns the bytes of a record. Raises `BadPolicy` if the note does not fit."""


def _is_deep(text: str, value: object, levels: int) -> bool:
    """Return whether `value`, which is `text` in JSON, is nested so deeply that a deep stack could not write it."""
    return text.count("[") + text.count("{") > levels and _deeper(value, levels)


def _deeper(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_deeper(inner, levels - 1) for inner in value)


def _is_generation(text: str) -> bool:
    return len(text) <= MAX_STORE and text.isascii() and text.isprintable()


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_DECODE = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse).decode
_ENCODE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _encode(value: Mapping[str, Any], what: str) -> str:
    try:
        return _ENCODE(value if type(value) is dict else dict(value)) if value != {} else "{}"
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadPolicy(f"{what} cannot be written as JSON: {exc}") from exc


_TYPES: dict[str, type] = {
    "fence": int, "holder": str, "seq": int, "ttl_ms": int, "state": str,
    "host": str, "pid": int, "at_ms": int, "note": dict, "asked": bool,
    "forgotten": bool, "orders": dict, "store": str,
}  # fmt: skip
_STATES = {str(state): state for state in State}
_REQUIRED = ("fence", "holder", "seq", "ttl_ms", "state")


def decode(name: str, data: bytes) -> Record:
    """Return the record in the cell `name`.

    Whatever is returned can be written again by whoever holds the lease next.

    Raises:
        BadRecord: it is not one of ours; the message names the cell.
    """
    fields = None
    with contextlib.suppress(ValueError, RecursionError):
        if len(data) <= MAX_BYTES:
            text = data.decode()
            fields = _DECODE(text)
            fields = None if _is_deep(text, fields, MAX_DEPTH) else fields
    if not isinstance(fields, dict) or fields.pop("v", None) != FORMAT:
        raise BadRecord(f"the cell {name!r} holds something that is not a lease of ours: {data[:40]!r}{REMEDY}")
    known = {key: fields.pop(key) for key in _TYPES if key in fields}
    wrong = [key for key in _REQUIRED if key not in known]
    wrong += [key for key, value in known.items() if type(value) is not _TYPES[key]]
    if not wrong and known["state"] not in _STATES:
        wrong.append("state")
    # Refuse numbers that are too large to compute with, and leases that last for ever.
    wrong += [key for key, value in known.items() if type(value) is int and not 0 <= value <= MAX_NUMBER]
    if not wrong and not 0 < known["ttl_ms"] <= MAX_TTL * 1000:
        wrong.append("ttl_ms")
    if not wrong and not _is_generation(known.get("store", "")):
        wrong.append("store")
    if wrong:
        raise BadRecord(f"the lease in the cell {name!r} has no usable {', '.join(wrong)}: {data[:200]!r}{REMEDY}")
    # For people, so it stops nobody, whatever it is; but neither a log nor a terminal must obey it.
    host = known.get("host", "")[:MAX_HOST]
    if not host.isprintable():
        host = "".join(each if each.isprintable() else "\ufffd" for each in host)
    known["host"] = host
    return Record(**{**known, "state": _STATES[known["state"]]}, unknown=fields)


def no_room(name: str) -> BadRecord:
    """Return the error that a lease has the largest fence that there is, so that nobody may follow its holder."""
    return BadRecord(f"the lease in the cell {name!r} has a fence above which there is no room: {MAX_NUMBER}{REMEDY}")


def is_usable(name: str, data: bytes) -> bool:
    """Return whether the record in the cell `name` can be read, and can have a successor."""
    try:
        return decode(name, data).fence < MAX_NUMBER
    except BadRecord:
        return False


def find_fence(data: bytes, wall_ms: int) -> int:
    """Return the fence in a record that cannot be used, if one can be found there and is believed; else 0.

    Fences begin at the wall clock in milliseconds. One that is more than a year ahead of ours, `wall_ms`, is none.
    """
    found = re.search(rb'"fence"\s*:\s*(\d{1,16})\s*[,}]', data[:MAX_BYTES])
    fence = int(found[1]) if found else 0
    return fence if fence <= wall_ms + YEAR else 0


def check_name(name: str) -> str:
    """Return `name` itself, if it can name a lease.

    Raises:
        BadPolicy: it is not text, is empty, has control characters or is longer than 80 bytes of UTF-8.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise BadPolicy(f"a lease's name must be printable text and not empty, not {name!r}")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadPolicy(f"a lease's name has {MAX_NAME_BYTES} bytes at most, not {len(name.encode())}: {name!r}")
    return name

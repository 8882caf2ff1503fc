"""What is written into a store's cell: versioned JSON of at most 1 KB. Pure."""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from election.errors import BadPolicy, BadRecord

FORMAT = 1
MAX_BYTES = 1024
MAX_NAME_BYTES = 80
MAX_TTL = 3600


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
    rule reads it. `unknown` keeps the fields that a later version has added.
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
    note: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)

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
            BadPolicy: the note is not JSON, or makes the record longer than `MAX_BYTES`.
        """
        fields = {
            **self.unknown,
            "v": FORMAT,
            "fence": self.fence,
            "holder": self.holder,
            "seq": self.seq,
            "ttl_ms": self.ttl_ms,
            "state": self.state,
            "host": self.host,
            "pid": self.pid,
            "at_ms": self.at_ms,
            # Always there, and `true` is shorter than `false`, so that any record has room for the request.
            "asked": self.asked,
        }
        try:
            data = _ENCODE({**fields, "note": dict(self.note)}).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise BadPolicy(f"the note cannot be written as JSON: {exc}") from exc
        # A record that fits in one state must fit in every other.
        if len(data) - len(self.state) + max(map(len, State)) > MAX_BYTES:
            raise BadPolicy(f"the record would have {len(data)} bytes, {MAX_BYTES} at most: shorten the note")
        return data


_ENCODE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

_TYPES: dict[str, type] = {
    "fence": int, "holder": str, "seq": int, "ttl_ms": int, "state": str,
    "host": str, "pid": int, "at_ms": int, "note": dict, "asked": bool,
}  # fmt: skip
_REQUIRED = ("fence", "holder", "seq", "ttl_ms", "state")


def decode(name: str, data: bytes) -> Record:
    """Return the record in the cell `name`.

    Raises:
        BadRecord: it is not one of ours; the message names the cell.
    """
    try:
        fields = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or fields.pop("v", None) != FORMAT:
        raise BadRecord(f"the cell {name!r} holds something that is not a lease of ours: {data[:40]!r}")
    known = {key: fields.pop(key) for key in _TYPES if key in fields}
    wrong = [key for key in _REQUIRED if key not in known]
    wrong += [key for key, value in known.items() if type(value) is not _TYPES[key]]
    if not wrong and known["state"] not in list(State):
        wrong.append("state")
    # Refuse numbers that are too large to compute with, and leases that last for ever.
    wrong += [key for key, value in known.items() if type(value) is int and not 0 <= value < 2**63]
    if not wrong and not 0 < known["ttl_ms"] <= MAX_TTL * 1000:
        wrong.append("ttl_ms")
    if wrong:
        raise BadRecord(f"the lease in the cell {name!r} has no usable {', '.join(wrong)}: {data[:200]!r}")
    record = Record(**{**known, "state": State(known["state"])}, unknown=fields)
    try:
        # Later holders must be able to write it again: NaN, for instance, can be read but not written.
        record.encode()
    except BadPolicy as exc:
        raise BadRecord(f"the lease in the cell {name!r} could not be written again: {exc}") from exc
    return record


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

"""The format of an announcement: the text of one DNS TXT record. Pure.

Such a text is a sequence of strings `key=value`, each with its length in one byte before it. Keys that begin with an
underscore belong to the beacon: the name of the announcement, which comes first, the addresses of the announcing
machine, its period, and the number of the update.

The name by which ordinary browsers list an announcement is for people (`instance`). We go by the name in the text.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from discovery.errors import BadAnnouncement

PERIOD = 3.0
"""Seconds between two heartbeats, unless a beacon is given another period."""
PERIODS = 3
"""Periods for which an announcement is believed after it was last heard. So two heartbeats may be lost."""
LIFETIME = PERIODS * PERIOD
"""Seconds for which an announcement with the default period is believed. It may be one second more."""
SHORTEST, LONGEST = 0.1, 60.0
"""Seconds that a period may have."""
MAX_SIZE = 1100
"""Bytes of an announcement's packed properties. With what the beacon adds, they fit into one packet."""
MAX_HEAD = 242
"""Bytes that the beacon adds at most."""
MAX_ADDRESSES = 8
"""Addresses that an announcement names at most."""
MAX_LABEL = 63
"""Bytes of one part of a DNS name."""
TYPE = "_politics._tcp.local."
"""The DNS-SD service type of all announcements."""

Change = Literal["added", "changed", "removed"]
_NAME = re.compile(rb"_id=(([a-z]{0,40})-[0-9a-f]{16})")
_ID, _ADDRESSES, _PERIOD, _REVISION = "_id", "_at", "_every", "_rev"
_GONE = b"\x04gone"
"""What follows the name when an announcement was withdrawn. No properties are packed like this: it has no `=`."""


@dataclass(frozen=True)
class Sighting:
    """An announcement that was heard.

    Attributes:
        kind: what is announced, a word.
        name: unique to this announcement.
        properties: what was announced.
        addresses: those of the announcing machine.
        period: seconds between two heartbeats of the announcing beacon.
    """

    kind: str
    name: str
    properties: Mapping[str, str]
    addresses: tuple[str, ...]
    period: float = PERIOD


def pack(properties: Mapping[str, str]) -> bytes:
    """Return the properties as they are sent.

    Raises:
        BadAnnouncement: they cannot be sent; the message names the property or the limit.
    """
    if reserved := [key for key in properties if isinstance(key, str) and key.startswith("_")]:
        raise BadAnnouncement(f"keys that begin with an underscore are reserved: {reserved[0]!r}")
    packed = _strings(properties.items())
    if len(packed) > MAX_SIZE:
        raise BadAnnouncement(f"properties have room for {MAX_SIZE} bytes together; these need {len(packed)}")
    return packed


def head(name: str, addresses: Sequence[str], period: float, revision: int) -> bytes:
    """Return what the beacon sends before the properties."""
    known = ",".join(addresses[:MAX_ADDRESSES])
    return _strings([(_ID, name), (_ADDRESSES, known), (_PERIOD, f"{period:g}"), (_REVISION, str(revision))])


def goodbye(name: str) -> bytes:
    """Return the text of an announcement that was withdrawn."""
    return _strings([(_ID, name)]) + _GONE


def with_period(text: bytes, period: float) -> bytes:
    """Return the same announcement with another period in its head."""
    start, key = 0, f"{_PERIOD}=".encode()
    while start < len(text):
        end = start + 1 + text[start]
        if text[start + 1 : end].startswith(key):
            return text[:start] + _strings([(_PERIOD, f"{period:g}")]) + text[end:]
        start = end
    return text


def name_in(text: bytes) -> str:
    """Return the name of the announcement to which a text belongs, without reading the rest; empty: to none of ours."""
    named = _NAME.fullmatch(text[1 : 1 + text[0]]) if text else None
    return named[1].decode() if named else ""


def parse(text: bytes) -> Sighting | None:
    """Return what was announced, or None if this is no announcement of ours."""
    name = name_in(text)
    if not name or len(text) > MAX_SIZE + MAX_HEAD:
        return None
    found: dict[str, str] = {}
    while text:
        size, text = text[0], text[1:]
        pair, text = text[:size], text[size:]
        try:
            key, equals, value = pair.decode().partition("=")
        except UnicodeDecodeError:
            return None
        if len(pair) != size or not key or not equals or key in found:
            return None
        found[key] = value
    try:
        period = float(found.get(_PERIOD, PERIOD))
    except ValueError:
        return None
    if not SHORTEST <= period <= LONGEST:
        return None
    addresses = tuple(filter(None, found.get(_ADDRESSES, "").split(",")))
    if len(addresses) > MAX_ADDRESSES or not all(map(_is_address, addresses)):
        return None
    properties = {key: value for key, value in found.items() if not key.startswith("_")}
    return Sighting(name.partition("-")[0], name, properties, addresses, period)


def _is_address(text: str) -> bool:
    """Whether this is an IPv4 address. A name would have to be looked up by whoever follows the announcement."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def instance(subject: str, host: str, pid: int, number: int) -> str:
    """Return the name by which people know an announcement, such as `Stock on web1 (4711)`: one part of a DNS name.

    Args:
        subject: what is announced.
        host: where.
        pid: by which process.
        number: which of those by this process that would have the same name, from 1.
    """
    tail = f" on {_part(host, 24)} ({pid})" + (f" {number}" if number > 1 else "")
    return _part(subject, MAX_LABEL - len(tail.encode())) + tail


def seconds_to_live(period: float) -> int:
    """Return the lifetime for the record: whole seconds, and more than a withdrawn one has, which is 1."""
    return max(2, math.ceil(PERIODS * period))


def _part(text: str, size: int) -> str:
    """Return a text as it may stand in one part of a DNS name, in at most `size` bytes."""
    return re.sub(r"[.\x00-\x1f\x7f]", "_", text).encode(errors="replace")[:size].decode(errors="ignore")


def _strings(pairs: Iterable[tuple[str, str]]) -> bytes:
    packed = b""
    for key, value in pairs:
        if not isinstance(key, str) or not isinstance(value, str) or not key or "=" in key:
            raise BadAnnouncement(f"properties are texts, with no = in their keys; got {key!r}: {value!r}")
        text = f"{key}={value}".encode()
        if len(text) > 255:
            raise BadAnnouncement(f"key and value have room for 254 bytes together; {key!r} needs {len(text) - 1}")
        packed += bytes([len(text)]) + text
    return packed

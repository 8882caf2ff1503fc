"""What one message may hold and cost: depth, lists, digits, and comparisons of what shares a hash."""

import decimal
import re
import threading
from collections import Counter
from collections.abc import Collection
from itertools import chain
from typing import Any

from discovery.errors import BadMessage
from discovery.remote.encoding.values import inside

__all__ = ["MAX_BITS", "MAX_DEPTH", "MAX_DIGITS", "MAX_LISTS", "begin", "spread", "too_deep"]

MAX_DEPTH = 100
"""Containers within containers, at most: deep enough for data, too shallow to exhaust anybody's stack."""

MAX_LISTS = 1_000_000
"""Lists, tuples, sets and so on in one message. An empty set takes 24 times as many bytes here as on the way."""

MAX_BITS, MAX_DIGITS = 14_284, 4_300
"""Of an int, and of a Decimal. Python itself prints no longer ints, and the time for comparing the two is quadratic."""

_FLAT, _LISTS = {str, int, float, bool, type(None), bytes}, {list, tuple}
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')
_message = threading.local()  # `left`: the comparisons that the message may still cost that this thread decodes


def begin(data: bytes | bytearray) -> int:
    """Begin a message; return at most how deep its values can be nested.

    Raises:
        BadMessage: There are too many values in it.
    """
    lists = data.count(b"[")
    if lists > MAX_LISTS and _STRINGS.sub(b"", data).count(b"[") > MAX_LISTS:
        raise BadMessage(f"more than {MAX_LISTS} lists, tuples, sets and so on")
    _message.left = 1000 + len(data) // 2
    return lists


def too_deep(value: Any) -> bool:
    """Return whether a value is nested more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 2):
        held = [item if type(item) in _LISTS else inside(item) for item in level if type(item) not in _FLAT]
        level = list(chain.from_iterable(held))
        if not level:
            return False
    return True


def spread(members: list[Any]) -> list[Any]:
    """Return those members, or raise `BadMessage` if comparing those that share a hash is beyond the budget.

    Everybody can find numbers that share a hash. A set of half a million of them fits into one message. Building it
    takes half an hour, and the interpreter does nothing else meanwhile.
    """
    if len(members) > 1:
        hashes = [hash(member) for member in members]
        if len(set(hashes)) < len(hashes):
            _comparisons(members, hashes)
    return members


def _comparisons(members: Collection[Any], hashes: list[int]) -> int:
    """Return at least how many comparisons a set of these members needs, and take them off the budget."""
    alike = Counter(hashes)
    needed = sum(alike[own] * _size(member) for member, own in zip(members, hashes, strict=True) if alike[own] > 1)
    _message.left -= needed
    if _message.left < 0:
        raise BadMessage("too many members of sets, or keys of dictionaries, share a hash")
    return needed


def _size(value: Any) -> int:
    """Return what one comparison of that value costs, and take the work for finding out off the budget."""
    if isinstance(value, int | decimal.Decimal):
        digits = len(str(value)) if isinstance(value, decimal.Decimal) else value.bit_length() * 3 // 10
        return 1 + (digits // 16) ** 2 // 10  # an int beside a Decimal is converted, in quadratic time
    held = inside(value)
    if not held:
        return 1
    _message.left -= len(held)
    if _message.left < 0:
        raise BadMessage("too many members of sets, or keys of dictionaries, share a hash")
    size = 1 + sum(map(_size, held))
    return size + _comparisons(held, list(map(hash, held))) if isinstance(value, frozenset) else size

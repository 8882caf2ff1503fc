"""What one message may hold and cost: depth, lists, digits, and comparisons of what shares a hash.

Each rule depends on the value alone, not on what else is in its message. So what was let in can be sent on, and is let
in there. Otherwise a stranger could write tuples that nobody can take.
"""

import decimal
import re
from collections import Counter
from collections.abc import Collection
from itertools import chain
from typing import Any

from discovery.errors import BadMessage
from discovery.remote.encoding.values import inside

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "MAX_INT", "MAX_LISTS", "lists", "spread", "too_deep"]

MAX_DEPTH = 100
"""Containers within containers, at most: deep enough for data, too shallow to exhaust anybody's stack."""

MAX_LISTS = 1_000_000
"""Lists, tuples, sets and so on in one message. An empty set takes 24 times as many bytes here as on the way."""

MAX_DIGITS = 4_300
MAX_INT = 10**MAX_DIGITS - 1
"""Of a Decimal, and of an int. Python itself prints no longer ints, and the time to compare the two is quadratic."""

MAX_ALIKE, MAX_LEVELS = 16, 3
"""Comparisons that the members of a set may need on average, where they share a hash, and how often sets with such
members may be members of each other."""

_FLAT, _LISTS = {str, int, float, bool, type(None), bytes}, {list, tuple}
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')


def lists(data: bytes | bytearray) -> int:
    """Return how many lists, tuples, sets and so on are in a message. To count all its brackets first is quicker."""
    return _STRINGS.sub(b"", data).count(b"[")


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
    """Return those members, or raise `BadMessage` if those that share a hash would take long to compare.

    Everybody can find numbers that share a hash. A set of half a million of them fits into one message. Building it
    takes half an hour, and the interpreter does nothing else meanwhile.
    """
    if len(members) > 1:
        hashes = [hash(member) for member in members]
        if len(set(hashes)) < len(hashes):
            size, comparisons, levels = _alike(members, hashes)
            if comparisons > MAX_ALIKE * size or levels > MAX_LEVELS:
                raise BadMessage("too many members of a set, or keys of a dictionary, share a hash")
    return members


def _alike(members: Collection[Any], hashes: list[int]) -> tuple[int, int, int]:
    """Return the size of those members that share a hash, how much is to be compared, and in how many levels."""
    count = Counter(hashes)
    size = comparisons = levels = 0
    for member, own in zip(members, hashes, strict=True):
        if count[own] > 1:
            its_size, its_cost, its_levels = _cost(member)
            size += its_size
            comparisons += count[own] * its_cost
            levels = max(levels, its_levels + 1)
    return size, comparisons, levels


def _cost(value: Any) -> tuple[int, int, int]:
    """Return a value's size, what one comparison of it costs, and in how many levels it holds sets as in `_alike`.

    The work is linear in the size, since a set of more than `MAX_LEVELS` levels has been refused when it was built.
    """
    if isinstance(value, int | decimal.Decimal):
        digits = len(str(value)) if isinstance(value, decimal.Decimal) else value.bit_length() * 3 // 10
        return 1 + digits // 16, 1 + (digits // 16) ** 2 // 10, 0  # an int beside a Decimal is converted
    size, cost, levels = 1, 1, 0
    for held in inside(value):
        its_size, its_cost, its_levels = _cost(held)
        size, cost, levels = size + its_size, cost + its_cost, max(levels, its_levels)
    if isinstance(value, set | frozenset | dict):
        _, comparisons, its_levels = _alike(value, [hash(member) for member in value])
        cost, levels = cost + comparisons, max(levels, its_levels)
    return size, cost, levels

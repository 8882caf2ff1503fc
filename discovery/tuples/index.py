"""Find tuples by template, and templates by tuple, without a scan. Pure.

Both indexes return candidates, oldest first. Every match is among them, but the caller must still check each one.
All dictionaries are ordered ones: to find its first item, a plain one walks over everything that was removed.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from discovery.tuples.template import PLAIN, Shape, Stored, Template, hashable, shape


class HasTuple(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def stored(self) -> Stored: ...


class HasTemplate(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def template(self) -> Template: ...


T = TypeVar("T", bound=HasTuple)
W = TypeVar("W", bound=HasTemplate)
_UNHASHABLE = object()  # the key of every value that has no hash
_number = attrgetter("number")


class _Table(Generic[T]):
    """The tuples of one shape. For each field that a template had a literal in, it has the tuples by value.

    Many values belong to a single tuple, which is then in the index itself: a dictionary for it takes 400 bytes.
    """

    def __init__(self) -> None:
        self.all: OrderedDict[int, T] = OrderedDict()
        self.fields: dict[Any, dict[Any, T | OrderedDict[int, T]]] = {}

    def file(self, field: Any, item: T) -> None:
        values, value = self.fields[field], item.stored[field]
        key = value if type(value) in PLAIN or hashable(value) else _UNHASHABLE
        there = values.setdefault(key, item)
        if isinstance(there, OrderedDict):
            there[item.number] = item
        elif there is not item:
            values[key] = OrderedDict(((there.number, there), (item.number, item)))

    def unfile(self, field: Any, item: T) -> None:
        values, value = self.fields[field], item.stored[field]
        key = value if type(value) in PLAIN or hashable(value) else _UNHASHABLE
        there = values[key]
        if isinstance(there, OrderedDict):
            del there[item.number]
        if there is item or not there:
            del values[key]

    def by_value(self, field: Any, value: Any) -> list[Collection[T]]:
        if field not in self.fields:
            self.fields[field] = {}
            for item in self.all.values():
                self.file(field, item)
        values = self.fields[field]
        # What has no hash may equal what has one, as {1} equals frozenset({1}).
        found: list[Collection[T]] = []
        for there in (values.get(value), values.get(_UNHASHABLE)):
            if there is not None:
                found.append(there.values() if isinstance(there, OrderedDict) else (there,))
        return found


class TupleIndex(Generic[T]):
    """Tuples, found by template. A field gets its index when the first template has a literal in it."""

    def __init__(self) -> None:
        self._tables: dict[Shape, _Table[T]] = {}

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(table.all.values() for table in self._tables.values())

    def __len__(self) -> int:
        return sum(len(table.all) for table in self._tables.values())

    def add(self, item: T) -> None:
        """Add an item. Its `number` must be higher than those of all items before it."""
        kind = shape(item.stored)
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _Table()
        table.all[item.number] = item
        for field in table.fields:
            table.file(field, item)

    def remove(self, item: T) -> None:
        kind = shape(item.stored)
        table = self._tables[kind]
        del table.all[item.number]
        for field in table.fields:
            table.unfile(field, item)
        if not table.all:
            del self._tables[kind]

    def candidates(self, template: Template) -> Iterable[T]:
        """Return the items that may match, by the literal that leaves the fewest; without one, all of that shape."""
        table = self._tables.get(template.shape)
        if table is None:
            return ()
        best: list[Collection[T]] = [table.all.values()]
        fewest = len(table.all)
        for field, value in template.literals:
            buckets = table.by_value(field, value)
            size = sum(map(len, buckets))
            if size < fewest:
                best, fewest = buckets, size
        return _merged(best)


class TemplateIndex(Generic[W]):
    """Things that wait, found by the tuple that came. Each is filed under its template's first literal."""

    def __init__(self) -> None:
        self._tables: dict[Shape, dict[Any, dict[Any, OrderedDict[int, W]]]] = {}
        self.size = 0  # mostly 0, and asked for by each write

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[W]:
        for table in self._tables.values():
            for values in table.values():
                for bucket in values.values():
                    yield from bucket.values()

    def add(self, item: W) -> None:
        field, value = _first_literal(item.template)
        table = self._tables.setdefault(item.template.shape, {})
        table.setdefault(field, {}).setdefault(value, OrderedDict())[item.number] = item
        self.size += 1

    def remove(self, item: W) -> None:
        field, value = _first_literal(item.template)
        table = self._tables[item.template.shape]
        del table[field][value][item.number]
        self.size -= 1
        if not table[field][value]:
            del table[field][value]
        if not table[field]:
            del table[field]
        if not table:
            del self._tables[item.template.shape]

    def candidates(self, stored: Stored) -> Iterable[W]:
        """Return the items whose template may match, in the order in which they were added."""
        buckets: list[Iterable[W]] = []
        for field, values in self._tables.get(shape(stored), {}).items():
            value = None if field is None else stored[field]
            if hashable(value):
                buckets += [values[value].values()] if value in values else []
            else:
                buckets += [bucket.values() for bucket in values.values()]
        return _merged(buckets)


def _first_literal(template: Template) -> tuple[Any, Any]:
    return template.literals[0] if template.literals else (None, None)


def _merged(buckets: list[Any]) -> Iterable[Any]:
    if len(buckets) < 2:
        return buckets[0] if buckets else ()
    return heapq.merge(*buckets, key=_number)

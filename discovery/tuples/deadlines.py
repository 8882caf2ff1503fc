"""What is due, and when. Pure: the time comes in as an argument."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """A heap of deadlines. Moving or dropping one costs no more than setting one.

    Old deadlines of moved and dropped items stay in the heap until they are half of it. Then they are removed, so an
    item that is renewed again and again does not pile up.
    """

    def __init__(self) -> None:
        self._when: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0

    def set(self, item: T, when: float) -> None:
        """Set or replace the item's deadline; infinity means none."""
        if when == inf:
            return self.drop(item)
        self._when[item] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, item))
        return self._tidy()

    def drop(self, item: T) -> None:
        """Remove the item's deadline, if it has one."""
        if self._when.pop(item, None) is not None:
            self._tidy()

    @property
    def next(self) -> float:
        """When the next item is due, infinity if none is. It may be too early, never too late."""
        return self._heap[0][0] if self._heap else inf

    def pop(self, now: float) -> T | None:
        """Return an item that is due, the earliest first, and remove its deadline. Return None if none is due."""
        while self._heap and self._heap[0][0] <= now:
            when, _, item = heapq.heappop(self._heap)
            if self._when.get(item) == when:
                del self._when[item]
                return item
        return None

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._when) + 64:
            self._heap = [entry for entry in self._heap if self._when.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

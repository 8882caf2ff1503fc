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
        self._latest: dict[T, int] = {}  # which of an item's places in the heap counts
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self.next = inf  # when the next item is due, infinity if none is; it may be too early, never too late

    def set(self, item: T, when: float) -> None:
        """Set or replace the item's deadline; infinity means none."""
        if when == inf:
            return self.drop(item)
        self._count += 1
        self._latest[item] = self._count
        heapq.heappush(self._heap, (when, self._count, item))
        self._tidy()
        self.next = self._heap[0][0]
        return None

    def drop(self, item: T) -> None:
        """Remove the item's deadline, if it has one."""
        if self._latest.pop(item, None) is not None:
            self._tidy()
            self.next = self._heap[0][0] if self._heap else inf

    def pop(self, now: float) -> T | None:
        """Return an item that is due, the earliest first, and remove its deadline. Return None if none is due."""
        while self._heap and self._heap[0][0] <= now:
            _, number, item = heapq.heappop(self._heap)
            self.next = self._heap[0][0] if self._heap else inf
            if self._latest.get(item) == number:
                del self._latest[item]
                return item
        return None

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._latest) + 64:
            self._heap = [entry for entry in self._heap if self._latest.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

"""What is due when. Pure: the time comes in as an argument."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """A heap in which a deadline can be moved or dropped at the price of setting one.

    Moved and dropped ones stay in the heap until they are half of it, so a thing that is renewed for ever, or taken
    long before it would have expired, does not pile up.
    """

    def __init__(self) -> None:
        self._when: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0

    def set(self, item: T, when: float) -> None:
        """Replaces the item's deadline; infinity means none."""
        if when == inf:
            return self.drop(item)
        self._when[item] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, item))
        return self._tidy()

    def drop(self, item: T) -> None:
        if self._when.pop(item, None) is not None:
            self._tidy()

    @property
    def next(self) -> float:
        """When something is due, at the earliest; infinity when nothing is. May be too early, never too late."""
        return self._heap[0][0] if self._heap else inf

    def pop(self, now: float) -> T | None:
        """One thing that is due, the earliest first, which then has no deadline any more."""
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

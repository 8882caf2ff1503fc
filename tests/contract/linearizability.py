"""Whether what several clients saw of one cell can be explained by one order of their calls. Pure.

The search is that of Wing and Gong (1993) with Lowe's memory of what was tried (2017), made narrow for a cell of which
every write has data of its own: a read, or a swap that was rightly refused, changes nothing, so it is put into the
order as soon as it fits. Only writes are tried one after another, and of these only those that expect what is there.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEVER = math.inf
"""When an operation returned of which nobody knows whether it has happened."""


@dataclass(frozen=True)
class Read:
    """A read that found `found` (None: no cell)."""

    who: str
    invoked: float
    returned: float
    found: bytes | None


@dataclass(frozen=True)
class Swap:
    """A swap that wrote `data`, which no other swap writes, over `expected` (None: it created the cell).

    `won` is None after `StoreUnavailable`: it may have happened at any time after it was invoked, or never. `excused`:
    if it was refused, that may be since its version could no longer be compared, whatever the cell held.
    """

    who: str
    invoked: float
    returned: float
    expected: bytes | None
    data: bytes
    won: bool | None
    excused: bool = False


Operation = Read | Swap
Span = tuple[float, float]
_Node = tuple[int, int, bytes | None, float]


def flaw(history: Iterable[Operation], losses: Sequence[Span] = (), first: bytes | None = None) -> str:
    """Return why no order explains this history; "" if one does.

    Args:
        history: what was done with one cell, in any order.
        losses: from when to when the cell may have been lost, each any number of times.
        first: what it held at the beginning.
    """
    return _Search(history, losses).run(first)


class _Search:
    """`certain` operations have an answer, sorted by when they were invoked; `writes`: by what they expect."""

    def __init__(self, history: Iterable[Operation], losses: Sequence[Span]) -> None:
        known = [each for each in history if not (isinstance(each, Swap) and each.excused and each.won is False)]
        self.all = sorted(known, key=lambda each: each.invoked)
        self.losses = losses
        self.writes: dict[bytes | None, list[int]] = defaultdict(list)
        self.certain: list[int] = []
        data = set[bytes]()
        for number, each in enumerate(self.all):
            if isinstance(each, Swap) and each.won is not False:
                self.writes[each.expected].append(number)
            if not (isinstance(each, Swap) and each.won is None):
                self.certain.append(number)
            if isinstance(each, Swap):
                assert each.data not in data, f"{each.data!r} was written by two swaps: they cannot be told apart"
                data.add(each.data)

    def run(self, first: bytes | None) -> str:
        """Try the orders depth first.

        A node: how many of `certain` are done without a gap, what is done, what the cell holds, and the latest moment
        at which anything that is done was invoked.
        """
        begin = (0, 0, first, -NEVER)
        stack, tried, furthest = [begin], {begin}, begin
        while stack:
            node = stack.pop()
            node = self._observe(node)
            if node[0] == len(self.certain):
                return ""
            furthest = max(node, furthest, key=lambda each: each[1].bit_count())
            for following in self._steps(node):
                if following not in tried:
                    tried.add(following)
                    stack.append(following)
        return self._why(furthest)

    def _window(self, place: int, done: int) -> tuple[list[int], float]:
        """Return the certain operations that may be next, and the moment before which what is next was invoked."""
        window, end = list[int](), NEVER
        for number in map(self.certain.__getitem__, range(place, len(self.certain))):
            if self.all[number].invoked > end:
                break
            if not done >> number & 1:
                window.append(number)
                end = min(end, self.all[number].returned)
        return [number for number in window if self.all[number].invoked <= end], end

    def _observe(self, node: _Node) -> _Node:
        """Take all that fits and changes nothing: whatever comes later, it might as well have come first."""
        place, done, state, latest = node
        while True:
            while place < len(self.certain) and done >> self.certain[place] & 1:
                place += 1
            for number in self._window(place, done)[0]:
                if self._fits(number, state) and not self._closes(number, latest):
                    done |= 1 << number
                    latest = max(latest, self.all[number].invoked)
                    break
            else:
                return place, done, state, latest

    def _fits(self, number: int, state: bytes | None) -> bool:
        """Return whether this is a read of that state, or a swap that it refuses."""
        each = self.all[number]
        return each.found == state if isinstance(each, Read) else each.won is False and each.expected != state

    def _closes(self, number: int, latest: float) -> bool:
        """Return whether a loss may come before this, and no longer after it: then it is no step for nothing."""
        return any(latest <= end < self.all[number].invoked for _, end in self.losses)

    def _steps(self, node: _Node) -> Iterable[_Node]:
        place, done, state, latest = node
        window, end = self._window(place, done)
        for since, until in self.losses if state is not None else ():
            if since <= end and latest <= until:
                yield place, done, None, max(latest, since)
        for number in window:
            if self._fits(number, state):
                yield place, done | 1 << number, state, max(latest, self.all[number].invoked)
        for number in self.writes[state]:
            each = self.all[number]
            if not done >> number & 1 and each.invoked <= end:
                assert isinstance(each, Swap)
                yield place, done | 1 << number, each.data, max(latest, each.invoked)

    def _why(self, node: _Node) -> str:
        place, done, state, _ = node
        window = "".join(f"\n    {self.all[number]}" for number in self._window(place, done)[0])
        before = [self.all[number] for number in range(len(self.all)) if done >> number & 1]
        last = "".join(f"\n    {each}" for each in before[-8:])
        return (
            f"after these, and {len(before[:-8])} before them,{last}\nit held {state!r}, and none can follow:{window}"
        )

"""Watches for what must never happen."""

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's leadership: from `since` to `until`, in seconds on a clock that all claims share."""

    since: float
    until: float
    fence: int
    who: str = ""

    def __str__(self) -> str:
        """One line for a log file, which `parse` reads."""
        return f"{self.since!r} {self.until!r} {self.fence} {self.who}"

    @classmethod
    def parse(cls, line: str) -> "Claim":
        """The claim that such a line states."""
        since, until, fence, *who = line.split(maxsplit=3)
        return cls(float(since), float(until), int(fence), "".join(who).strip())


class Verifier:
    """Watches claims of leadership for what must never happen: two at one time, or a fence that does not grow.

    Claims may come in any order. Claims of one fence are one term, from the first `since` to the last `until`.
    """

    def __init__(self) -> None:
        self._terms: dict[int, Claim] = {}
        self._fences: list[int] = []

    @property
    def terms(self) -> list[Claim]:
        """The terms so far, in the order of their fences, which is the order of time."""
        return [self._terms[fence] for fence in self._fences]

    def claim(self, claim: Claim) -> None:
        """Note that somebody led.

        Raises:
            AssertionError: somebody else led at that time or with that fence, or the fence has not grown.
        """
        known = self._terms.get(claim.fence)
        if known is None:
            bisect.insort(self._fences, claim.fence)
        else:
            assert known.who == claim.who, f"two leaders with one fence: {known} and {claim}"
            claim = replace(known, since=min(known.since, claim.since), until=max(known.until, claim.until))
        self._terms[claim.fence] = claim
        place = bisect.bisect(self._fences, claim.fence)
        for earlier, later in itertools.pairwise(self._fences[max(0, place - 2) : place + 1]):
            self._compare(self._terms[earlier], self._terms[later])

    def _compare(self, earlier: Claim, later: Claim) -> None:
        assert earlier.until <= later.since, f"two leaders at one time, or a fence that shrinks: {earlier} and {later}"

    def end(self, fence: int, at: float) -> None:
        """Note that the term with this fence ended at `at`, before the `until` that was claimed for it."""
        if fence in self._terms:
            self._terms[fence] = replace(self._terms[fence], until=min(at, self._terms[fence].until))

    def read(self, lines: Iterable[str]) -> None:
        """Note each claim of a log, one per line.

        Raises:
            AssertionError: as `claim`.
        """
        for line in lines:
            self.claim(Claim.parse(line))

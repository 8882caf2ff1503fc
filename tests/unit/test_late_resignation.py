"""A resignation that is held up harms nobody."""

from typing import Any

from election import Candidate, LeasePolicy
from election.stores.memory import MemoryRegister


class Clock:
    """A clock that a test sets."""

    time = 0.0

    def now(self) -> float:
        """What the test has set."""
        return self.time

    def wait(self, event: object, seconds: float) -> bool:
        """Fail: nothing may wait in this test."""
        raise AssertionError("nobody waits here")


class HeldUp(MemoryRegister):
    """A store in which much happens right after a swap that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = True
        self.meanwhile: Any = None

    def lose(self) -> None:
        """Forget every cell, and remember that something was lost."""
        self._cells.clear()
        self.sure = False

    def remembers(self, seconds: float) -> bool:
        """Return True until something was lost."""
        return self.sure

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        """Swap as usual. After a failed swap, call `meanwhile`, as if the process was paused."""
        version = super().swap(name, data, expected)
        if version is None and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return version


def test_a_leader_that_is_paused_while_it_resigns_frees_no_later_leaders_lease() -> None:
    """A vacant record is opened only by a holder that saw it before its own deadline."""
    store, clock, policy = HeldUp(), Clock(), LeasePolicy(ttl=10)

    def candidate() -> Candidate:
        return Candidate(store, "group", policy, clock=clock, renew_with=lambda _register, _term: None)

    first = candidate().attempt()
    assert first is not None
    second, third, fourth = candidate(), candidate(), candidate()
    terms = []

    def meanwhile() -> None:
        # The first leader is paused: the second is elected after a whole lease, and then its record is lost as well.
        assert second.attempt() is None
        clock.time += 11
        terms.append(second.attempt())
        store.lose()
        assert third.attempt() is None

    store.lose()
    store.meanwhile = meanwhile
    first.resign()
    assert terms[0] is not None
    assert terms[0].valid
    assert fourth.attempt() is None

"""The search that judges histories: tested with some that are judged by hand, by brute force, and of broken stores."""

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from election import Register
from election.register import Cell
from election.stores.memory import MemoryRegister
from tests.contract.histories import Recorder
from tests.contract.linearizability import NEVER, Operation, Read, Span, Swap, flaw


def read(invoked: float, returned: float, found: str | None) -> Read:
    """A read of this text."""
    return Read("r", invoked, returned, found.encode() if found else None)


def swap(
    invoked: float, returned: float, expected: str | None, data: str, won: bool | None = True, **more: Any
) -> Swap:
    """A swap of this text; of one whose fate is unknown nobody knows when it returns."""
    returned = NEVER if won is None else returned
    return Swap("s", invoked, returned, expected.encode() if expected else None, data.encode(), won, **more)


GOOD: dict[str, tuple[list[Operation], list[Span]]] = {
    "nothing": ([], []),
    "one after another": ([swap(0, 1, None, "a"), read(2, 3, "a"), swap(4, 5, "a", "b"), read(6, 7, "b")], []),
    "a read at the same time finds what was": ([swap(0, 1, None, "a"), swap(2, 5, "a", "b"), read(3, 4, "a")], []),
    "a read at the same time finds what will be": ([swap(0, 1, None, "a"), swap(2, 5, "a", "b"), read(3, 4, "b")], []),
    "of two at a time one wins": ([swap(0, 3, None, "a"), swap(1, 2, None, "b", False), read(4, 5, "a")], []),
    "an unknown write that landed": ([swap(0, 1, None, "a", None), read(2, 3, "a")], []),
    "an unknown write that never landed": ([swap(0, 1, None, "a", None), read(2, 3, None), swap(4, 5, None, "b")], []),
    "an unknown write that lands late": ([swap(0, 1, None, "a", None), read(2, 3, None), read(4, 5, "a")], []),
    "an unknown write that only a refusal shows": (
        [swap(0, 1, None, "a"), swap(2, 3, "a", "b", None), swap(4, 5, "a", "c", False)],
        [],
    ),
    "a chain whose answers come in the wrong order": (
        [swap(0, 9, None, "a"), swap(0, 8, "b", "c"), swap(0, 7, "a", "b"), read(10, 11, "c")],
        [],
    ),
    "a version of another connection": (
        [swap(0, 1, None, "a"), swap(2, 3, "a", "b", False, excused=True), read(4, 5, "a")],
        [],
    ),
    "a loss": ([swap(0, 1, None, "a"), read(4, 5, None), swap(6, 7, None, "b")], [(2, 3)]),
    "a loss that is not needed": ([swap(0, 1, None, "a"), read(4, 5, "a")], [(2, 3)]),
    "two losses in one time": ([swap(0, 1, None, "a"), swap(2, 3, None, "b"), read(4, 5, None)], [(0, 4)]),
    "a loss while a read is under way that fits before it, too": (
        [swap(0, 1, None, "a"), read(2, 6, "a"), swap(5, 8, None, "b"), read(5, 9, "b")],
        [(3, 4)],
    ),
}
BAD: dict[str, tuple[list[Operation], list[Span]]] = {
    "a lost update": (
        [swap(0, 1, None, "a"), swap(2, 3, "a", "b"), swap(2, 3, "a", "c"), read(4, 5, "c")],
        [],
    ),
    "a stale read": ([swap(0, 1, None, "a"), swap(2, 3, "a", "b"), read(4, 5, "a")], []),
    "a read that goes back while a write is under way": (
        [swap(0, 1, None, "a"), swap(2, 9, "a", "b"), read(3, 4, "b"), read(5, 6, "a")],
        [],
    ),
    "a value from nowhere": ([swap(0, 1, None, "a"), read(2, 3, "x")], []),
    "a value of a refused swap": (
        [swap(0, 1, None, "a"), swap(2, 3, None, "b", False), read(4, 5, "b")],
        [],
    ),
    "a swap that landed and was refused as it was sent again": (
        [swap(0, 1, None, "a"), swap(2, 3, "a", "b", False), swap(4, 5, "b", "c"), read(6, 7, "c")],
        [],
    ),
    "a double win": ([swap(0, 3, None, "a"), swap(1, 2, None, "b")], []),
    "a refusal without a cause": ([swap(0, 1, None, "a"), swap(2, 3, "a", "b", False)], []),
    "a write that is forgotten": ([swap(0, 1, None, "a"), read(2, 3, None)], []),
    "a value that is there before it is written": ([read(0, 1, "a"), swap(2, 3, None, "a")], []),
    "an unknown write that lands twice": (
        [swap(0, 1, None, "a", None), read(2, 3, "a"), swap(4, 5, "a", "b"), read(6, 7, "a")],
        [],
    ),
    "an unknown write over what is gone": (
        [swap(0, 1, None, "a"), swap(2, 3, "a", "b", None), swap(4, 5, "a", "c"), read(6, 7, "b")],
        [],
    ),
    "an old value that comes back": (
        [swap(0, 1, None, "a"), swap(2, 3, "a", "b"), read(6, 7, "a")],
        [(4, 5)],
    ),
    "a loss before there was a fault": ([swap(0, 1, None, "a"), read(2, 3, None)], [(4, 5)]),
    "a loss long after the fault": (
        [swap(0, 1, None, "a"), swap(4, 5, "a", "b"), read(6, 7, None)],
        [(2, 3)],
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_has_an_order_is_linearizable(case: str) -> None:
    """Histories that one order of their calls explains have no flaw."""
    assert flaw(*GOOD[case]) == ""


@pytest.mark.parametrize("case", BAD)
def test_what_has_no_order_is_a_flaw(case: str) -> None:
    """Histories that no order explains are refused, with the calls at which it ends."""
    assert "none can follow" in flaw(*BAD[case])


def explained(left: list[Operation], state: bytes | None, at: float, losses: list[Span]) -> bool:
    """The same judgement by brute force: every order, and every moment at which the cell may be lost."""
    if all(isinstance(each, Swap) and each.won is None for each in left):
        return True
    end = min(each.returned for each in left)
    for each in left:
        if each.invoked > end:
            continue
        rest, then = [other for other in left if other is not each], max(at, each.invoked)
        if isinstance(each, Read):
            fits, after = each.found == state, state
        elif each.won is False:
            fits, after = each.expected != state, state
        else:
            fits, after = each.expected == state, each.data
        if fits and explained(rest, after, then, losses):
            return True
    return state is not None and any(
        since <= end and at <= until and explained(left, None, max(at, since), losses) for since, until in losses
    )


def test_the_search_says_what_brute_force_says() -> None:
    """Of small histories that are made at random, the search calls the same ones good as trying all orders does."""
    rng, good = random.Random(5), 0
    for _ in range(1500):
        history: list[Operation] = []
        for number in range(rng.randint(2, 6)):
            invoked = rng.uniform(0, 10)
            times = (invoked, invoked + rng.choice([0.5, 3.0, 8.0]))
            known = rng.choice([None, *"abcdef"[: number + 1]])
            if rng.random() < 0.4:
                history.append(read(*times, known))
            else:
                history.append(swap(*times, known, "abcdef"[number], rng.choice([True, True, False, None])))
        losses = [(begin, begin + 2) for begin in [rng.uniform(0, 8)] if rng.random() < 0.4]
        known_good = explained(history, None, -NEVER, losses)
        assert (flaw(history, losses) == "") == known_good, f"{history} {losses}"
        good += known_good
    assert 100 < good < 1400  # both kinds are there


class Broken(MemoryRegister):
    """Cells of which one call in five goes wrong. A call takes a while, as one to a server, so threads take turns."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.before: dict[str, Cell | None] = {}

    def wrong(self) -> bool:
        """Whether this is the one."""
        time.sleep(0.0002)
        return self.chance.random() < 0.2


class StaleReads(Broken):
    """It answers with what was there before, as a replica does."""

    def read(self, name: str) -> Cell | None:
        return self.before.get(name) if self.wrong() else super().read(name)

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        found = super().read(name)
        version = super().swap(name, data, expected)
        if version is not None:
            self.before[name] = found
        return version


class WinsTwice(Broken):
    """It writes although somebody else was first."""

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        cell = super().read(name) if self.wrong() else None
        return super().swap(name, data, cell.version if cell else expected)


class ForgetsWrites(Broken):
    """It confirms a write that it drops."""

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        cell = super().read(name)
        if self.wrong() and expected == (cell.version if cell else None):
            return next(self._versions)
        return super().swap(name, data, expected)


class ForgetsCells(Broken):
    """It loses a cell now and then."""

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        if self.wrong():
            self._cells.pop(name, None)
        return super().swap(name, data, expected)


class SendsTwice(Broken):
    """It sends a swap again when the answer is lost, and so says that it lost what it won."""

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        version = super().swap(name, data, expected)
        return super().swap(name, data, expected) if version is not None and self.wrong() else version


class Restores(Broken):
    """It comes back with an old state, as from a backup."""

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        version = super().swap(name, data, expected)
        if version is not None and self.wrong():
            self._cells[name], self.before[name] = self.before.get(name) or Cell(data, version), Cell(data, version)
        elif version is not None:
            self.before.setdefault(name, Cell(data, version))
        return version


@pytest.mark.parametrize("make", [StaleReads, WinsTwice, ForgetsWrites, ForgetsCells, SendsTwice, Restores])
@pytest.mark.parametrize("seed", range(5))
def test_a_broken_register_is_caught_within_a_run(make: Callable[[int], Register], seed: int) -> None:
    """Each way of being wrong shows in a history as long as those that are recorded of stores."""
    register, recorder = make(seed), Recorder(["a", "b"])
    recorder.run([register] * 4, seed=seed)
    assert any(recorder.flaws())


def test_a_register_that_works_is_not_called_broken() -> None:
    """The same run with nothing going wrong has no flaw."""
    register = MemoryRegister()
    for seed in range(5):
        recorder = Recorder(names := [f"{seed} a", f"{seed} b"])
        recorder.run([register] * 4, seed=seed)
        assert recorder.flaws() == []
        assert all(register.read(name) for name in names)
    assert len(list(itertools.chain(*recorder.histories().values()))) > 200

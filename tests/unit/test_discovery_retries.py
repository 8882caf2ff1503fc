"""Trying again: spread out, said as often as it failed, and ended at once."""

import random
import threading
from collections.abc import Callable

import pytest

from discovery.errors import ConnectionLost
from discovery.retries import retrying

OUTAGE = 60.0
LONGEST = 5.0


def member_of_a_fleet() -> list[float]:
    """Lose a server at 0 that is back at `OUTAGE`, on a clock of our own; return when it was tried."""
    now = 0.0
    tried: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def call() -> None:
        tried.append(now)
        if now < OUTAGE:
            raise ConnectionLost("the server is away")

    retrying(threading.Event(), longest=LONGEST, sleep=sleep)(call)
    return tried


def test_a_fleet_of_a_hundred_comes_back_spread_out() -> None:
    """All lose one server at the same moment; after the outage no tenth of a second has more than a few of them."""
    random.seed(8)
    fleet = [member_of_a_fleet() for _ in range(100)]
    back = sorted(tried[-1] for tried in fleet)
    assert back[0] >= OUTAGE
    assert back[-1] < OUTAGE + LONGEST
    assert max(sum(begin <= at < begin + 0.1 for at in back) for begin in back) < 12
    assert max(len(tried) for tried in fleet) < 100, "the server is not bothered much meanwhile"


def test_a_short_outage_costs_little() -> None:
    """The first waits are short, whatever the longest is."""
    random.seed(8)
    assert all(sum(at < 1.0 for at in member_of_a_fleet()) >= 3 for _ in range(100))


def test_each_failure_is_told_with_its_number() -> None:
    """The caller can log the first failure only; what the function returns in the end is returned."""
    told: list[tuple[str, int]] = []
    left = [OSError("one"), ConnectionLost("two")]

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    again = retrying(
        threading.Event(), failed=lambda exc, n: told.append((str(exc), n)), sleep=lambda seconds: None
    )  # fmt: skip
    assert again(call) == "done"
    assert told == [("one", 1), ("two", 2)]


def test_an_error_of_any_class_is_tried_again() -> None:
    """A stranger's answer may be a ValueError, and the machine may be out of threads: the caller's thread lives."""
    left = [ValueError("a stranger's"), RuntimeError("can't start new thread"), MemoryError()]

    def call() -> str:
        if left:
            raise left.pop()
        return "done"

    assert retrying(threading.Event(), sleep=lambda seconds: None)(call) == "done"


def test_the_end_of_the_process_is_not_tried_again() -> None:
    """Ctrl-C is raised at once."""
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrying(threading.Event(), sleep=lambda seconds: None)(call)
    assert calls == [1]


def test_stopping_ends_the_longest_wait() -> None:
    """The event ends it at once, and the result is None."""
    stop, waiting = threading.Event(), threading.Event()
    results: list[object] = []

    def call() -> str:
        raise ConnectionLost("away")

    def work(again: Callable[[Callable[[], str]], str]) -> None:
        results.append(again(call))

    again = retrying(stop, first=1e6, longest=1e6, failed=lambda exc, n: waiting.set())
    thread = threading.Thread(target=work, args=(again,), daemon=True)
    thread.start()
    assert waiting.wait(10)
    stop.set()
    thread.join(10)
    assert results == [None]

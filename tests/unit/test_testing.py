"""The fakes themselves: a clock that jumps, a verifier that sees."""

import threading

import pytest
from hypothesis import settings

from election.testing import Claim, FakeClock, Verifier


def test_clock() -> None:
    """It stands still, moves when told, and jumps over a wait unless the event is set."""
    moves: list[float] = []
    clock, event = FakeClock(5, on_advance=moves.append), threading.Event()
    assert (clock.now(), clock.now()) == (5, 5)
    clock.advance(2)
    assert not clock.wait(event, 3)
    event.set()
    assert clock.wait(event, 100)
    assert moves == [7, 10]


def test_clock_wait_is_cut_short_by_the_world() -> None:
    """What the world does during a jump may set the event."""
    event = threading.Event()
    assert FakeClock(on_advance=lambda _now: event.set()).wait(event, 1)


def test_skewed_clock() -> None:
    """A worse clock shows another time and runs at another speed."""
    clock = FakeClock(100)
    fast = clock.skewed(rate=2, offset=7)
    assert fast.now() == 207
    fast.wait(threading.Event(), 4)
    assert (clock.now(), fast.now()) == (102, 211)


@pytest.mark.parametrize(
    ("claims", "complaint"),
    [
        ([(0, 5, 1, "a"), (5, 9, 2, "b")], ""),
        ([(5, 9, 2, "b"), (0, 5, 1, "a")], ""),
        ([(0, 5, 1, "a"), (3, 8, 1, "a"), (8, 9, 2, "a")], ""),
        ([(0, 5, 1, "a"), (4, 9, 2, "b")], "two leaders at one time"),
        ([(4, 9, 2, "b"), (0, 5, 1, "a")], "two leaders at one time"),
        ([(0, 5, 1, "a"), (6, 9, 2, "b"), (5, 7, 1, "a")], "two leaders at one time"),
        ([(0, 9, 1, "a"), (3, 4, 3, "c"), (9, 9, 2, "b")], "two leaders at one time"),
        ([(0, 5, 2, "a"), (6, 9, 1, "b")], "a fence that shrinks"),
        ([(0, 5, 1, "a"), (6, 9, 1, "b")], "two leaders with one fence"),
    ],
)
def test_verifier(claims: list[tuple[float, float, int, str]], complaint: str) -> None:
    """It sees every overlap, every fence that shrinks and every fence that two leaders share, in any order."""
    verifier = Verifier()
    lines = [str(Claim(*claim)) for claim in claims]
    if complaint:
        with pytest.raises(AssertionError, match=complaint):
            verifier.read(lines)
    else:
        verifier.read(lines)
        assert [term.fence for term in verifier.terms] == sorted({claim[2] for claim in claims})


def test_verifier_end() -> None:
    """A term that ended early makes room for the next."""
    verifier = Verifier()
    verifier.claim(Claim(0, 10, 1, "a"))
    verifier.end(1, at=4)
    verifier.claim(Claim(4, 8, 2, "b"))
    assert verifier.terms == [Claim(0, 4, 1, "a"), Claim(4, 8, 2, "b")]


def test_claim_line() -> None:
    """A claim survives the log file, whatever its owner is called."""
    for claim in (Claim(1 / 3, 2.5, 7, "worker 1 of 3"), Claim(0, 1, 2)):
        assert Claim.parse(f"{claim}\n") == claim


def test_no_example_fails_because_the_machine_is_busy() -> None:
    """Hypothesis sets no time limit for an example."""
    assert settings().deadline is None

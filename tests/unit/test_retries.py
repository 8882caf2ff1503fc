"""Trying again: pauses that grow, are random, and end; a fleet that comes back spread out."""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import retry_if_exception_type, stop_after_attempt

from election import Candidate, LeasePolicy, NotElected, StoreUnavailable
from election.forks import fork_detector
from election.retries import Reminder, backoff, retrying
from election.testing import FakeClock, FaultyRegister, FaultyStore
from tests.contract.test_register import in_fork
from tests.unit.fakes import NAME

FLEET = 100


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 0.1, 0.2), (2, 0.2, 0.4), (3, 0.4, 0.8), (4, 0.5, 1.0), (10_000_000, 0.5, 1.0)]
)
def test_the_limit_doubles_until_it_is_longest(failures: int, least: float, most: float) -> None:
    """A pause lies between half of its limit and all of it, however long an outage lasts."""
    assert backoff(failures, 0.0, first=0.2, longest=1.0) == pytest.approx(least)
    assert backoff(failures, 0.999999, first=0.2, longest=1.0) == pytest.approx(most, rel=1e-5)


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True), st.floats(0.1, 3600))
def test_no_pause_breaks_the_promise(failures: int, chance: float, ttl: float) -> None:
    """Somebody leads within a second more than a lease and a poll: a last try of half a second and a pause fit in."""
    policy = LeasePolicy(ttl)
    pause = backoff(failures, chance, first=policy.poll, longest=policy.longest_pause)
    assert 0 < pause <= policy.longest_pause <= 0.5


def test_a_pause_ends_when_the_event_is_set_or_the_time_is_over() -> None:
    """One that is told to stop does not wait, and a deadline cuts the last pause short."""
    clock, wake, tried = FakeClock(), threading.Event(), []

    def fail() -> None:
        tried.append(clock.now())
        if len(tried) == 3:
            wake.set()
        raise StoreUnavailable("silent")

    again = retrying(
        clock,
        first=4.0,
        longest=4.0,
        retry=retry_if_exception_type(StoreUnavailable),
        wake=wake,
        stop=stop_after_attempt(4),
        left=lambda: 1003.0 - clock.now(),
        chance=lambda: 0.0,
    )
    with pytest.raises(StoreUnavailable, match="silent"):
        again(fail)
    assert tried == [1000.0, 1002.0, 1003.0, 1003.0]


def questions_after_an_outage(seconds: float, chances: Callable[[int], Callable[[], float]]) -> list[float]:
    """Let a fleet campaign that lost its store at one moment; return when each member asks the store that is back."""
    asked: list[float] = []
    for number in range(FLEET):
        clock, stop = FakeClock(), threading.Event()
        link, back = FaultyStore(clock).link(), clock.now() + seconds

        def before(
            _method: str, clock: FakeClock = clock, link: FaultyRegister = link, stop: threading.Event = stop
        ) -> None:
            link.cut = clock.now() < back  # noqa: B023
            if not link.cut:
                asked.append(clock.now() - back)  # noqa: B023
                stop.set()

        link.before = before
        candidate = Candidate(link, NAME, clock=clock, chance=chances(number), renew_with=lambda _r, _t: None)
        with pytest.raises(NotElected):
            candidate.campaign(stop=stop, plan=lambda _view: None)
    assert len(asked) == FLEET
    return asked


def most_at_once(asked: list[float]) -> int:
    """Return how many ask in the same twentieth of the longest pause."""
    longest = LeasePolicy().longest_pause
    return max(Counter(int(20 * moment / longest) for moment in asked).values())


@pytest.mark.parametrize("seconds", [3.0, 60.0, 600.0])
def test_a_fleet_comes_back_spread_out_after_an_outage(seconds: float) -> None:
    """Of a hundred that lost their store at one moment, few ask it at one moment when it is back, and all do soon."""
    asked = questions_after_an_outage(seconds, lambda number: random.Random(f"{seconds} {number}").random)
    assert max(asked) <= LeasePolicy().longest_pause
    assert most_at_once(asked) <= 0.15 * FLEET


def test_a_fleet_with_a_fixed_pause_would_come_back_in_step() -> None:
    """Without jitter all hundred ask at the same moment: the test above would see it."""
    assert most_at_once(questions_after_an_outage(60.0, lambda _number: lambda: 0.5)) == FLEET


def test_a_seed_repeats_its_retries() -> None:
    """The same random numbers give the same moments."""
    first, second = (questions_after_an_outage(3.0, lambda number: random.Random(number).random) for _ in range(2))
    assert first == second


def test_a_silent_store_is_asked_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    """The pauses grow to half a second, which is logged once; and the first after an outage is short again."""
    caplog.set_level(logging.INFO, "election")
    clock = FakeClock()
    link = FaultyStore(clock).link()
    candidate = Candidate(link, NAME, clock=clock, chance=lambda: 0.999999, renew_with=lambda _r, _t: None)
    tried: list[float] = []
    link.before = lambda _method: tried.append(clock.now())
    for _ in range(2):
        tried.clear()
        link.cut = True
        with pytest.raises(NotElected):
            candidate.campaign(timeout=2.0, plan=lambda _view: None)
        assert [round(moment - tried[0], 3) for moment in tried] == [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]
        link.cut = False
        candidate.attempt(plan=lambda _view: None)
        with pytest.raises(NotElected):
            candidate.campaign(timeout=0, plan=lambda _view: None)
    said = [record.getMessage() for record in caplog.records]
    assert (
        said == [f"{NAME}: waiting for the store: the link to the store is cut", f"{NAME}: the store answers again"] * 2
    )


def test_an_outage_that_lasts_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """With how long it has lasted; as an event it begins once, and as one it ends."""
    caplog.set_level(logging.INFO, "election")
    clock, events = FakeClock(), list[str]()
    link = FaultyStore(clock).link()
    candidate = Candidate(link, NAME, clock=clock, on_event=lambda event: events.append(str(event.kind)))
    link.cut = True
    with pytest.raises(NotElected):
        candidate.campaign(timeout=150.0, plan=lambda _view: None)
    link.cut = False
    with pytest.raises(NotElected):
        candidate.campaign(timeout=0, plan=lambda _view: None)
    first, second, third, end = [record.getMessage() for record in caplog.records]
    assert first == f"{NAME}: waiting for the store: the link to the store is cut"
    assert second.startswith(f"{NAME}: waiting for the store for 60 s: ")
    assert third.startswith(f"{NAME}: waiting for the store for 120 s: ") or "for 121 s: " in third
    assert end == f"{NAME}: the store answers again"
    assert [event for event in events if event.startswith("store")] == ["store_silent", "store_answers"]


def test_a_trouble_is_logged_when_it_begins_changes_or_has_lasted_a_minute() -> None:
    """And anew once it was over."""
    clock = FakeClock()
    reminder, begun, lasted = Reminder(logging.getLogger("election"), clock), clock.now(), []

    def due(trouble: str, after: float) -> bool:
        clock.advance(begun + after - clock.now())
        return reminder.due(trouble)

    assert not reminder.over()
    for trouble, after in (
        ("cut", 0.0),
        ("cut", 59),
        ("cut", 61),
        ("cut", 119),
        ("full", 120),
        ("full", 121),
        ("full", 181),
    ):
        lasted.append(reminder.lasted if due(trouble, after) else None)
    assert lasted == [0.0, None, 61.0, None, 0.0, None, 61.0]
    assert reminder.over()
    assert due("full", 182)


def test_fork_detector() -> None:
    """It says no in the process that made it, and yes in a forked child, where a new one says no."""
    forked = fork_detector()
    assert not forked()
    assert in_fork(lambda: forked() and not fork_detector()())
    assert not forked()

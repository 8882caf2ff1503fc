"""How often a beacon speaks, and when it answers, as a function of how many it hears."""

import pytest

from discovery.beacon.format import LONGEST, PERIODS
from discovery.beacon.pace import ANSWERED, CROWD, LONGEST_SPREAD, STEP, next_pace, rest, spread
from politics.group.peers import LISTEN


def settled(period: float, heard: int, pace: float = 0.0) -> float:
    """The pace at which a beacon stays."""
    pace = pace or period
    for _ in range(100):
        pace = next_pace(pace, period, heard)
    assert next_pace(pace, period, heard) == pace
    return pace


@pytest.mark.parametrize("period", [0.1, 4.0, 60.0])
def test_among_few_the_period_is_as_it_was_set(period: float) -> None:
    """Up to forty announcements, and after the others have gone."""
    assert settled(period, 0) == settled(period, CROWD) == settled(period, CROWD, pace=LONGEST) == period


def test_among_many_it_grows_with_their_root() -> None:
    """So four times as many are heard twice as often in all; and no period is longer than a minute."""
    assert settled(4.0, 160) == pytest.approx(8.0, rel=0.25)
    assert settled(4.0, 4000) == pytest.approx(40.0, rel=0.25)
    assert settled(4.0, 10**6) == LONGEST
    assert settled(60.0, 10**6) == 60.0
    rates = [heard / settled(4.0, heard) for heard in (40, 160, 1000, 10_000)]
    assert rates == sorted(rates)
    assert rates[-1] <= 300


def test_one_heartbeat_may_be_lost_while_the_period_grows() -> None:
    """The last one that was heard is believed until the one after the lost one comes."""
    pace = 4.0
    for _ in range(20):
        after = next_pace(pace, 4.0, 10_000)
        assert after <= STEP * pace
        assert pace + after < PERIODS * pace
        pace = after


def test_it_does_not_change_with_every_member() -> None:
    """A change is parsed by everybody, so there is none until a third more or fewer are heard."""
    pace = settled(4.0, 1000)
    assert all(next_pace(pace, 4.0, heard) == pace for heard in range(950, 1050))
    down, up = (settled(4.0, heard, pace) for heard in (400, 2500))
    assert down < pace < up


def test_answers_are_spread_by_how_many_are_heard() -> None:
    """A listener's buffer holds some two hundred packets. All have answered before a new listener has waited."""
    assert spread(1) == spread(10) < spread(100) < spread(700) < spread(10_000) == spread(20_000) == LONGEST_SPREAD
    assert all(max(spread(heard), rest(heard)) < ANSWERED < LISTEN for heard in range(0, 20_000, 100))

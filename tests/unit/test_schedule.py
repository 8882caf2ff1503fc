"""When ticks come due: cron expressions in time zones, by the rules of Debian's cron, and intervals."""

import itertools
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from election.errors import BadPolicy
from politics.worker.schedule import NICKNAMES, YEAR_9999, Cron, Every, as_time, find_zone


def ms(text: str) -> int:
    """An instant, from a time in ISO 8601 with its offset."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def ticks(expression: str, timezone: str, after: str, count: int) -> list[str]:
    """The first ticks after an instant, as times of day in that zone."""
    found = itertools.islice(Cron(expression, timezone).after(ms(after)), count)
    return [as_time(tick).astimezone(find_zone(timezone)).isoformat() for tick in found]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "schedule '' is empty: write five fields, such as '0 3 * * *'"),
        ("  ", "schedule '  ' is empty: write five fields, such as '0 3 * * *'"),
        (None, "schedule None is empty: write five fields, such as '0 3 * * *'"),
        (
            "@reboot",
            "schedule '@reboot' is none that we know: there are @hourly, @daily, @midnight, @weekly, @monthly, "
            "@yearly, @annually",
        ),
        (
            "* * *",
            "schedule '* * *' has 3 fields; there are five: minute hour day month weekday, or six with seconds first",
        ),
        (
            "* * * * * * *",
            "schedule '* * * * * * *' has 7 fields; there are five: minute hour day month weekday, or six with "
            "seconds first",
        ),
        ("60 * * * *", "schedule '60 * * * *' is no cron expression: bad minute"),
        ("* 24 * * *", "schedule '* 24 * * *' is no cron expression: bad hour"),
        ("* * 32 * *", "schedule '* * 32 * *' is no cron expression: bad day-of-month"),
        ("* * * 13 *", "schedule '* * * 13 *' is no cron expression: bad month"),
        ("* * * * 8", "schedule '* * * * 8' is no cron expression: bad day-of-week"),
        ("60 * * * * *", "schedule '60 * * * * *' is no cron expression: bad second"),
        ("*/0 * * * *", "schedule '*/0 * * * *' is no cron expression: bad minute"),
        ("x * * * *", "schedule 'x * * * *' is no cron expression: bad minute"),
        ("0 3 * * MON-XYZ", "schedule '0 3 * * MON-XYZ' is no cron expression: bad day-of-week"),
        ("0 0 31 2 *", "schedule '0 0 31 2 *' never fires: no month that it names has such a day"),
        ("0 0 31 4,6 *", "schedule '0 0 31 4,6 *' never fires: no month that it names has such a day"),
    ],
)
def test_a_mistake_in_an_expression_is_named(expression: Any, message: str) -> None:
    """One sentence has the expression and what is wrong with it."""
    with pytest.raises(BadPolicy) as caught:
        Cron(expression)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("timezone", "message"),
    [
        ("Europe/Berlim", "there is no time zone 'Europe/Berlim': did you mean 'Europe/Berlin'?"),
        ("qqqq", "there is no time zone 'qqqq', as in 'Europe/Berlin'"),
        ("", "there is no time zone '', as in 'Europe/Berlin'"),
        ("../etc/passwd", "there is no time zone '../etc/passwd'"),
        (7, "there is no time zone 7"),
    ],
)
def test_a_mistake_in_a_time_zone_is_named(timezone: Any, message: str) -> None:
    """One sentence says which zone was meant, if one is near."""
    with pytest.raises(BadPolicy) as caught:
        Cron("0 3 * * *", timezone)
    assert str(caught.value).startswith(message)


def test_a_machine_without_time_zones_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and slim images have none. UTC needs none."""
    before = zoneinfo.TZPATH
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath(to=[])
    try:
        assert find_zone("UTC") is UTC
        with pytest.raises(BadPolicy, match="pip install tzdata"):
            find_zone("No/Where")
    finally:
        zoneinfo.reset_tzpath(to=before)


@pytest.mark.parametrize(("nickname", "expression"), NICKNAMES.items())
def test_nicknames(nickname: str, expression: str) -> None:
    """Each stands for an expression, in upper and lower case."""
    for name in (nickname, f" {nickname.upper()} "):
        assert list(itertools.islice(Cron(name).after(0), 5)) == list(itertools.islice(Cron(expression).after(0), 5))


def test_six_fields_have_seconds_first() -> None:
    """So a schedule may have several ticks in a minute."""
    found = ticks("*/20 30 12 * * *", "UTC", "2026-11-24T12:00:00+00:00", 4)
    assert [time[11:19] for time in found] == ["12:30:00", "12:30:20", "12:30:40", "12:30:00"]


def test_a_leap_day_is_found() -> None:
    """Also across a century that has none."""
    assert ticks("0 0 29 2 *", "UTC", "2097-01-01T00:00:00+00:00", 1) == ["2104-02-29T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("timezone", "expression", "after", "found"),
    [
        # In the gap: at once when the clocks have been put forward, and once if there are two.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30"]),
        ("Europe/Berlin", "0,30 2 * * *", "2026-03-28T12:00:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02"]),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00:00-05:00", ["2026-03-08T03:00:00-04:00", "2026-03-09T02"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", ["2026-10-04T02:30:00+11:00", "2026-10-05"]),
        # Repeated: once, the first time.
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00+02:00", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00", ["2026-11-01T01:30:00-04:00", "2026-11-02T01"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:30:00+02:00", ["2026-10-26T02:30:00+01:00", "2026-10-27T02"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:00:00+01:00", ["2026-10-26T02:30:00+01:00", "2026-10-27T02"]),
        # Every hour follows the time that passes.
        ("Europe/Berlin", "30 * * * *", "2026-03-29T01:00:00+01:00", ["2026-03-29T01:30:00+01", "2026-03-29T03:30"]),
        ("Europe/Berlin", "30 * * * *", "2026-10-25T02:00:00+02:00", ["2026-10-25T02:30:00+02", "2026-10-25T02:30"]),
        ("Europe/Berlin", "1 30 2 * * *", "2026-10-25T02:00:00+02:00", ["2026-10-25T02:30:01+02", "2026-10-25T02:30"]),
        ("Europe/Berlin", "0 30 2 * * *", "2026-03-28T12:00:00+01:00", ["2026-03-30T02:30:00+02:00", "2026-03-31T02"]),
    ],
)  # fmt: skip
def test_when_clocks_are_put_forward_and_back(timezone: str, expression: str, after: str, found: list[str]) -> None:
    """A time that is skipped comes due at once, one that is shown twice comes due once."""
    for expected, tick in zip(found, ticks(expression, timezone, after, len(found)), strict=True):
        assert tick.startswith(expected)


ZONES = {
    "UTC": "2026-03-29T01:00:00+00:00",
    "Europe/Berlin": "2026-03-29T01:00:00+00:00",
    "Europe/London": "2026-10-25T01:00:00+00:00",
    "America/New_York": "2026-11-01T06:00:00+00:00",
    "America/St_Johns": "2026-03-08T05:30:00+00:00",
    "Asia/Kathmandu": "2026-03-08T05:30:00+00:00",
    "Africa/Casablanca": "2026-02-15T02:00:00+00:00",
    "Australia/Lord_Howe": "2026-04-04T15:00:00+00:00",
    "Pacific/Apia": "2011-12-30T10:00:00+00:00",
    "America/Havana": "2026-03-08T05:00:00+00:00",
}
"""Zones, and a moment when their clocks are put forward or back, if they are."""
EXPRESSIONS = ("0 3 * * *", "30 2 * * *", "*/7 1-3 * * *", "0,45 0,1,2 * * *", "15 * * * *", "* * * * *", "5 */2 * * *",
               "30 1 * * SUN", "0 12 1 */3 *", "*/30 15 2 * * *", "0 0 * * *", "59 23 28-31 * *")  # fmt: skip


@given(
    st.sampled_from(sorted(ZONES)), st.sampled_from(EXPRESSIONS), st.integers(0, 4 * 86400), st.integers(0, 3 * 86400)
)
@settings(deadline=None)
def test_the_ticks_are_the_same_wherever_one_begins(zone: str, expression: str, begin: int, later: int) -> None:
    """So all members of a group name the same ticks, whichever they have heard of last."""
    cron, first = Cron(expression, zone), ms(ZONES[zone]) - 2 * 86_400_000 + begin * 1000
    second = first + later * 1000 + 250
    all_of_them = list(itertools.takewhile(lambda tick: tick <= second + 86_400_000, cron.after(first)))
    assert all_of_them == sorted(set(all_of_them))
    expected = [tick for tick in all_of_them if tick > second][:5]
    assert list(itertools.islice(cron.after(second), len(expected))) == expected


@given(st.sampled_from(sorted(ZONES)), st.sampled_from(EXPRESSIONS), st.integers(0, 3 * 86400))
@settings(deadline=None)
def test_the_ticks_are_those_of_cronsim(zone: str, expression: str, begin: int) -> None:
    """From a moment that its clocks show once, in order, and each once."""
    start = datetime.fromisoformat(ZONES[zone]).astimezone(find_zone(zone)) - timedelta(days=2, hours=3)
    start += timedelta(seconds=begin)
    if start.replace(fold=1).utcoffset() != start.replace(fold=0).utcoffset():
        return
    instant = round(start.timestamp() * 1000)
    theirs = [round(at.timestamp() * 1000) for at in itertools.islice(CronSim(expression, start), 40)]
    theirs = sorted({tick for tick in theirs if tick > instant})[:20]
    assert list(itertools.islice(Cron(expression, zone).after(instant), 20))[: len(theirs)] == theirs


@given(st.sampled_from([0.1, 0.25, 1, 2.5, 60, 86400]), st.integers(-(10**12), YEAR_9999))
def test_an_interval_counts_from_1970(seconds: float, instant: int) -> None:
    """Its ticks are the multiples, so all members agree on them."""
    step = round(seconds * 1000)
    first, second = itertools.islice(Every(seconds).after(instant), 2)
    assert first % step == 0
    assert instant < first <= instant + step
    assert second == first + step


@pytest.mark.parametrize("seconds", [0, 0.09, -1, 366 * 86400 + 1, float("nan"), float("inf"), True, "60", None])
def test_an_interval_that_cannot_be_is_named(seconds: Any) -> None:
    """From a tenth of a second to a year."""
    with pytest.raises(BadPolicy) as caught:
        Every(seconds)
    expected = f"an interval must be a number of seconds from 0.1 to a year, not {seconds!r}"
    assert str(caught.value) == expected


@pytest.mark.parametrize("expression", ["0 0 * * *", "0 0 29 2 *", "* * * * *"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_there_is_an_end_of_time(expression: str, zone: str) -> None:
    """Ticks end with the year 9999 and raise nothing, whatever a note says."""
    end = ms("9999-12-31T22:00:00+00:00")
    assert len(list(itertools.islice(Cron(expression, zone).after(end), 200))) <= 120


def test_schedules_say_what_they_are() -> None:
    """In a log line or an error."""
    assert (str(Cron("@daily", "Europe/Berlin")), str(Every(2.5))) == ("'@daily' in Europe/Berlin", "every 2.5 s")

"""What cannot be a schedule is refused when the worker is made, in one sentence that names it."""

from typing import Any

import pytest

from politics import BadPolicy, TokenWorker

OPTIONS: dict[str, Any] = {"group": "bills", "store": "memory://bills", "announce": False}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"schedule": "61 * * * *"}, "schedule '61 * * * *' is no cron expression: bad minute"),
        ({"schedule": "0 3 * * noday"}, "schedule '0 3 * * noday' is no cron expression: bad day-of-week"),
        ({"schedule": "0 3 * * * * *"}, "schedule '0 3 * * * * *' has 7 fields; there are five"),
        ({"schedule": "at three"}, "schedule 'at three' has 2 fields; there are five: minute hour day month weekday"),
        ({"schedule": ""}, "schedule '' is empty: write five fields, such as '0 3 * * *'"),
        ({"schedule": 3600}, "schedule 3600 "),
        ({"schedule": "@reboot"}, "schedule '@reboot' is none that we know: there are @hourly, @daily"),
        ({"schedule": "0 3 31 2 *"}, "schedule '0 3 31 2 *' never fires: no month that it names has such a day"),
        (
            {"schedule": "@daily", "timezone": "Europe/Berlni"},
            "time zone 'Europe/Berlni': did you mean 'Europe/Berlin'",
        ),
        ({"schedule": "@daily", "timezone": "Mars"}, "there is no time zone 'Mars'"),
        ({"schedule": "@daily", "timezone": ""}, "there is no time zone ''"),
        ({"schedule": "@daily", "timezone": 1}, "there is no time zone 1"),
        ({"schedule": "@daily", "timezone": "../../etc/passwd"}, "there is no time zone '../../etc/passwd'"),
        ({"schedule": "@daily", "catch_up": "last"}, "catch_up must be 'latest', 'all' or 'skip', not 'last'"),
        (
            {"schedule": "@daily", "deadline": -1},
            "deadline must be a positive number of seconds, a year at most, not -1",
        ),
        ({"schedule": "@daily", "deadline": 0}, "deadline must be a positive number of seconds, a year at most, not 0"),
        ({"schedule": "@daily", "deadline": "1h"}, "deadline must be a positive number of seconds, a year at most"),
        ({"schedule": "@daily", "jitter": -5}, "jitter must be a positive number of seconds, a year at most, not -5"),
        (
            {"schedule": "@daily", "jitter": True},
            "jitter must be a positive number of seconds, a year at most, not True",
        ),
        ({"schedule": "@daily", "jitter": "5"}, "jitter must be a positive number of seconds, a year at most, not '5'"),
        (
            {"schedule": "@daily", "iteration_length": 30},
            "has both schedule='@daily' and iteration_length=30: choose one",
        ),
        ({"timezone": "Europe/Berlin"}, "timezone='Europe/Berlin' is for a schedule, and Bills has none"),
        ({"catch_up": "all"}, "catch_up='all' is for a schedule, and Bills has none"),
        ({"deadline": 60}, "deadline=60 is for a schedule, and Bills has none"),
        ({"jitter": 60}, "jitter=60 is for a schedule, and Bills has none"),
    ],
)
@pytest.mark.parametrize("way", ["keyword", "class"])
def test_what_cannot_work_is_refused(given: dict[str, Any], sentence: str, way: str) -> None:
    """Whether it is a keyword argument or an attribute of the class."""
    kind = type("Bills", (TokenWorker,), given if way == "class" else {})
    with pytest.raises(BadPolicy) as refused:
        kind(**OPTIONS, **(given if way == "keyword" else {}))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [30, 60])
def test_a_schedule_of_the_class_is_not_replaced_by_an_interval(length: float) -> None:
    """It is refused, also if the interval is the one that a worker has by itself."""

    class Bills(TokenWorker):
        schedule = "@daily"

    with pytest.raises(BadPolicy, match=f"has both schedule='@daily' and iteration_length={length}: choose one"):
        Bills(**OPTIONS, iteration_length=length)


def test_an_interval_of_the_class_is_not_replaced_by_a_schedule() -> None:
    """Nobody may have to guess which of the two counts."""

    class Bills(TokenWorker):
        iteration_length = 30

    with pytest.raises(BadPolicy, match="has both schedule='@daily' and iteration_length=30: choose one"):
        Bills(**OPTIONS, schedule="@daily")


@pytest.mark.parametrize("misspelt", ["shedule", "time_zone", "catchup", "dead_line", "jiter"])
def test_a_misspelt_setting_is_refused(misspelt: str) -> None:
    """It would be ignored, and the work would run at other times than was meant."""
    with pytest.raises(BadPolicy, match=f"Bills.{misspelt} is no setting of a TokenWorker: did you mean"):
        type("Bills", (TokenWorker,), {misspelt: "@daily"})(**OPTIONS)


def test_a_worker_says_what_it_works_by() -> None:
    """Its repr names the schedule."""
    assert repr(TokenWorker(**OPTIONS, schedule="0 3 * * *")) == "<TokenWorker group='bills' schedule='0 3 * * *'>"

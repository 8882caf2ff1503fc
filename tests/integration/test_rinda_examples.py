"""The examples about tuples run by themselves, and print what they are about."""

import re
import subprocess
import sys
from pathlib import Path

from tests.waiting import DEADLINE

EXAMPLES = Path(__file__).parents[2] / "examples" / "rinda"


def lines(name: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout.splitlines()


def test_counting_with_read_loses_updates() -> None:
    """Ten threads that read, wait and write back end far from a hundred."""
    (line,) = lines("counter_with_read")
    said = re.fullmatch(r"counted to (\d+); (\d+) updates were lost", line)
    assert said is not None
    assert int(said[1]) < 50
    assert int(said[1]) + int(said[2]) == 100


def test_counting_with_take_loses_none() -> None:
    """The same with take in place of read counts to exactly a hundred."""
    assert lines("counter_with_take") == ["counted to 100"]


def test_loggers_are_told_apart_by_template() -> None:
    """The vague template reads the oldest, the others the one that they describe."""
    assert lines("loggers") == [
        "disk: keeps a week",
        "console: forgets",
        "vault: keeps everything",
        "vault: keeps everything",
        "named: level 1 to 4",
    ]


def test_observers_hear_everything_in_order() -> None:
    """Writes and takes, the expiry, and one close at the end."""
    assert lines("observers") == [
        "write: ('service', 'hello')",
        "take: ('service', 'hello')",
        "write: ('service', 'hello')",
        "delete: ('service', 'hello')",
        "close: None",
    ]


def test_tuples_live_as_long_as_they_were_given() -> None:
    """The limited one five times, the numeric one its time; the eternal and the simple one are still there."""
    *said, eternal, simple = lines("renewing")
    assert (eternal, simple) == ("eternal is still there", "simple is still there")
    lived = [line for line in said if "lives on" in line]
    assert lived == [f"limited lives on, {number} left" for number in (4, 3, 2, 1, 0)]
    gone = dict(re.findall(r"(\w+) is gone after (\d+\.\d\d) s", "\n".join(said)))  # a slow machine may swap them
    assert gone.keys() == {"limited", "numeric"}
    assert float(gone["limited"]) >= 0.25
    assert float(gone["numeric"]) >= 0.8


def test_a_job_that_fails_is_tried_again() -> None:
    """In its old place, before the jobs that came after it."""
    assert lines("jobs") == [
        "job 1 is done",
        "job 2 failed, disk full, and is still there",
        "job 2 is done",
        "job 3 is done",
    ]

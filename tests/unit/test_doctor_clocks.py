"""What the doctor makes of the wall clocks that leaders have written into their records."""

from typing import Any

import pytest

from election.record import Record, State
from politics.doctor.clocks import Difference, Look, compare, of_clocks
from politics.doctor.findings import Level

TICK = {"tick": 1000, "work": "ran"}


def look(asked: float, at: float, *, seq: int = 1, state: State = State.HELD, note: Any = None) -> Look:
    """A look of ours at `asked` that took a tenth of a second, at a record that was written at `at` on its clock."""
    record = Record(7, "me", seq, 10_000, state, "web-1", 4711, at_ms=round(at * 1000), note=note or {})
    return Look("bills", record, asked, asked + 0.1)


@pytest.mark.parametrize(
    ("before", "after", "ahead"),
    [
        ([look(100.0, 98.0)], [look(104.0, 102.0, seq=2)], [0.0]),  # written between our two looks
        ([look(100.0, 138.0)], [look(104.0, 142.1, seq=2)], [38.0]),  # ahead of the second
        ([look(100.0, 68.0)], [look(104.0, 72.0, seq=2)], [-28.0]),  # behind the first
        ([look(100.0, 98.0)], [look(104.0, 98.0)], []),  # not renewed meanwhile: maybe behind, maybe in order
        ([look(100.0, 142.1)], [look(104.0, 142.1)], [38.0]),  # not renewed, but written in our future
        ([], [look(104.0, 20.0)], []),  # its leader may be dead
        ([look(100.0, 98.0)], [look(104.0, 142.1, seq=2, state=State.OPEN)], []),  # nobody leads
    ],
)
def test_clocks_are_compared_if_the_record_was_written_meanwhile(
    before: list[Look], after: list[Look], ahead: list[float]
) -> None:
    """Only a difference that is certain counts."""
    assert [each.ahead for each in compare(before, after)] == pytest.approx(ahead)


def test_whether_there_is_a_schedule_is_in_the_note() -> None:
    """The work of other groups does not depend on wall clocks."""
    before = [look(100.0, 98.0)]
    assert [each.scheduled for each in compare(before, [look(104.0, 102.0, seq=2, note=TICK)])] == [True]
    assert [each.scheduled for each in compare(before, [look(104.0, 102.0, seq=2)])] == [False]


@pytest.mark.parametrize(
    ("ahead", "scheduled", "level", "text"),
    [
        (1.9, True, Level.FINE, "those of 1 leaders and ours agree within 2 s"),
        (-1.9, True, Level.FINE, "those of 1 leaders and ours agree within 2 s"),
        (30.0, True, Level.ADVICE, "that of its leader web-1:4711 is 30 s ahead of ours"),
        (-30.0, False, Level.ADVICE, "that of its leader web-1:4711 is 30 s behind ours"),
        (-90.0, False, Level.ADVICE, "that of its leader web-1:4711 is 90 s behind ours"),
        (
            -90.0,
            True,
            Level.DANGER,
            "90 s behind ours: ticks are run at the wrong time, and after a loss of the record",
        ),
    ],
)
def test_a_large_difference_is_reported(ahead: float, scheduled: bool, level: Level, text: str) -> None:
    """More than a minute matters where there is a schedule."""
    (finding,) = of_clocks([Difference("bills", "web-1:4711", ahead, scheduled)])
    assert (finding.level, text in finding.text) == (level, True), finding
    assert bool(finding.remedy) == (level is not Level.FINE)

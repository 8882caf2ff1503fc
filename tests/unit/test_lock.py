"""What `politics lock` makes of the record that it finds."""

import pytest

from election.record import Record, State
from election.rules import View
from politics.cli.lock import held

NOW = 1_000_000


def view(state: State = State.HELD, seq: int = 1, age_ms: int = 0) -> View:
    """A look at a lease of ten seconds, written `age_ms` ago by its writer's clock."""
    return View(Record(7, "holder", seq, 10_000, state, at_ms=NOW - age_ms))


@pytest.mark.parametrize(
    ("first", "now", "expected", "why"),
    [
        (View(), View(), False, "there is no record"),
        (view(State.OPEN), view(State.OPEN), False, "it was resigned"),
        (view(State.VACANT), view(State.VACANT), False, "the store had lost it"),
        (view(), view(), True, "it is held, and fresh"),
        (view(age_ms=9_999), view(age_ms=9_999), True, "it is held, and just fresh enough"),
        (view(age_ms=10_000), view(age_ms=10_000), False, "it is as old as the lease is long"),
        (view(age_ms=-60_000), view(age_ms=-60_000), False, "its date is far in the future, which proves nothing"),
        (view(seq=1, age_ms=60_000), view(seq=2, age_ms=60_000), True, "it changes, whatever its date is"),
        (View(), view(age_ms=60_000), False, "it appeared, and is old"),
    ],
)
def test_a_holder_seems_to_be_alive(first: View, now: View, expected: bool, why: str) -> None:
    """One that seems to be is not waited for; where it may have died, the lease's time is worth waiting."""
    assert held(first, now, NOW) is expected, why

"""What `politics lock` makes of the record that it finds, and how commands wait for a store."""

import signal
import threading
from pathlib import Path

import pytest
import typer

from discovery.signals import SignalQueue
from election import StoreUnavailable
from election.clock import SystemClock
from election.record import Record, State
from election.rules import View
from politics.cli import common
from politics.cli.lock import LEASE_LOST, LONGEST, run_while, seconds
from politics.command.leases import RAN, carried, held, ran_within

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


DAY = 86_400
HOUR_MS = 3_600_000
TODAY = 1_800_000_000_000


@pytest.mark.parametrize(
    ("hours", "once_per", "skipped", "why"),
    [
        (0.0, DAY, True, "it has just begun"),
        (21.5, DAY, True, "it is less than nine tenths of a day ago"),
        (21.7, DAY, False, "it is more"),
        (23.0, DAY, False, "the next day may begin after 23 hours"),
        (0.9, None, False, "nobody asks for it"),
        (-12.0, DAY, True, "a clock is ahead"),
        (-22.0, DAY, False, "a clock that is far ahead does not keep everybody out"),
    ],
)
def test_a_run_is_skipped_after_one_that_ended_well(
    hours: float, once_per: float | None, skipped: bool, why: str
) -> None:
    """If that began within the time, less a tenth, by the wall clocks of the two machines."""
    record = Record(7, "holder", 1, 10_000, State.OPEN, note={RAN: TODAY - int(hours * HOUR_MS)})
    assert bool(ran_within(record, once_per, TODAY)) is skipped, why


@pytest.mark.parametrize("note", [{}, {RAN: "yesterday"}, {RAN: True}, {RAN: -1}, {RAN: 2**60}, {"slot": 7}])
def test_a_note_of_somebody_else_skips_nothing(note: dict[str, object]) -> None:
    """Whatever is in a record, only a sensible moment counts, and only that is written again."""
    record = Record(7, "holder", 1, 10_000, State.OPEN, note=note)
    assert carried(record) == carried(None) == {}
    assert ran_within(record, DAY, TODAY) == ran_within(None, DAY, TODAY) == ""


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("12h", 43_200), ("28d", LONGEST)]
)
def test_a_time_has_a_unit(text: str, expected: float) -> None:
    """Seconds, minutes, hours or days."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1w", "nan", "inf", "1e9", "29d", "d", "1 d", "9" * 5000, "\u0661d"])
def test_a_time_that_makes_no_sense_is_refused(text: str) -> None:
    """The message shows the forms."""
    with pytest.raises(typer.BadParameter, match="such as 90s, 15m, 12h or 1d"):
        seconds(text)


class Late:
    """A lease of which a sixth is left: a command would be killed now."""

    name, reason, lost = "late", "", threading.Event()

    def remaining(self) -> float:
        return 0.5


def test_a_command_is_not_started_too_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this process was stopped after it got the lease, the command does not begin to work without it."""
    with SignalQueue(signal.SIGCHLD) as signals:
        assert run_while(Late(), 3.0, ["touch", str(tmp_path / "done")], {}, signals) == LEASE_LOST
    assert not (tmp_path / "done").exists()
    assert "late: not renewed in time: the command was not started" in capsys.readouterr().err


class Silent:
    """A store that answers after some failures."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable(f"gone, {self.failures}")
        return "the answer"


def test_a_store_is_waited_for_until_it_answers() -> None:
    """Each failure is told to `say`, and the answer is returned."""
    said: list[str] = []
    with SignalQueue() as signals:
        asking = common.when_the_store_answers(signals, float("inf"), 0.01, said.append)
        assert asking(Silent(3)) == "the answer"
    assert said == [f"waiting for the store: gone, {left}" for left in (2, 1, 0)]


def test_a_store_is_not_waited_for_past_the_end() -> None:
    """Its error is raised then, and at once if there is no time at all."""
    said: list[str] = []
    now = SystemClock().now
    with SignalQueue() as signals:
        with pytest.raises(StoreUnavailable, match="gone, 98"):
            common.when_the_store_answers(signals, now(), 1.0, said.append)(Silent(99))
        assert said == []
        with pytest.raises(StoreUnavailable):
            common.when_the_store_answers(signals, now() + 0.05, 3600.0, said.append)(Silent(99))
        assert said != []


def test_a_signal_ends_the_wait_for_a_store() -> None:
    """With 128 and its number, as a shell has it; one that is only news does not."""
    with SignalQueue(signal.SIGINT) as signals:
        for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGINT):
            signals.put(number)
        with pytest.raises(typer.Exit) as left:
            common.when_the_store_answers(signals, float("inf"), 3600.0, lambda _: None)(Silent(99))
    assert left.value.exit_code == 130


def test_clients_that_failed_together_do_not_come_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of a hundred commands grow up to the longest, and differ."""
    waits: list[list[float]] = []
    monkeypatch.setattr(common, "pause", lambda _, seconds: waits[-1].append(seconds))
    with SignalQueue() as signals:
        for _ in range(100):
            waits.append([])
            common.when_the_store_answers(signals, float("inf"), 2.0, lambda _: None)(Silent(10))
    assert all(0.05 <= seconds <= 2.0 for each in waits for seconds in each)
    assert max(each[0] for each in waits) <= 0.1
    last = sorted(each[-1] for each in waits)
    assert last[-1] - last[0] > 1.0
    assert len(set(last)) > 90

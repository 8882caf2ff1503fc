"""What Celery beats hand over in their record, and that no tick is lost or doubled, in a world without real time."""

import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab, schedule, solar

from election import Candidate, look
from election.record import MAX_BYTES, MAX_HOST, MAX_NAME_BYTES, MAX_NUMBER, Record, State
from election.stores.memory import MemoryRegister
from politics.integrations.beat_agenda import BeatAgenda, microseconds, moment
from politics.integrations.beat_record import Position, digest_of, last_of_interval
from politics.integrations.celery import LeaderScheduler, last_run

SECOND = 1_000_000
NOON = round(datetime(2026, 11, 24, 12, 0, 0, 123_456, tzinfo=UTC).timestamp() * SECOND)


def scheduler(entries: Mapping[str, Any], zone: str = "Europe/Berlin") -> Any:
    """Celery's own scheduler with these entries, each a number of seconds or a schedule."""
    app = Celery("shop", set_as_current=False)
    schedules = {name: {"task": "record", "schedule": when} for name, when in entries.items()}
    app.conf.update(timezone=zone, result_expires=None, beat_schedule=schedules)
    return Scheduler(app)


def agenda(
    entries: Mapping[str, Any], position: Position | None = None, catch_up: float = 60.0, **more: Any
) -> BeatAgenda:
    """The agenda of a beat that has just started and found this in the record."""
    made = BeatAgenda(scheduler(entries, **more), last_run, catch_up)
    made.learn(position)
    return made


def send_until(beat: BeatAgenda, now: int, end: int) -> list[tuple[str, int]]:
    """All that a beat sends when nothing disturbs it: names and instants."""
    sent = []
    while now < end:
        found = beat.next(now)
        if isinstance(found, float):
            now += max(1, min(microseconds(min(found, 3600.0)), end - now))
        else:
            assert beat.position
            sent.append((found.name, beat.position.at))
            beat.sent()
    return sent


def at(text: str) -> int:
    """An instant in microseconds."""
    return round(datetime.fromisoformat(text).timestamp() * SECOND)


def test_there_and_back() -> None:
    """What was written into a record is what is read from it."""
    position = Position(1, 2, 3, digest_of("daily"))
    assert Position.read(position.note()) == position


@pytest.mark.parametrize(
    "change",
    [{"since_us": None}, {"at_us": 1}, {"begun_us": True}, {"at_us": 3.0}, {"at_us": MAX_NUMBER + 1}, {"since_us": -1},
     {"entry": 7}, {"entry": "x" * 17}, {"entry": None}, {"since_us": 99}],
    ids=str,
)  # fmt: skip
def test_nonsense_in_a_record(change: dict[str, Any]) -> None:
    """A note that no beat has written is read as none."""
    assert Position.read(dict(Position(2, 2, 3, "a").note()) | change) is None
    assert Position.read({}) is None


def test_it_fits() -> None:
    """The longest note that there can be fits into the fullest record, however many entries there are."""
    position = Position(MAX_NUMBER, MAX_NUMBER, MAX_NUMBER, digest_of("x" * 1000))
    record = Record(MAX_NUMBER, "h" * 32, MAX_NUMBER, 3_600_000, State.HELD, "h" * MAX_HOST, 4_194_304, MAX_NUMBER)
    note = position.note()
    size = len(record.rewriter()(MAX_NUMBER, MAX_NUMBER, note))
    assert size + MAX_NAME_BYTES < MAX_BYTES / 2


def test_who_knows_more() -> None:
    """A beat believes its own memory rather than the record only if it says at least as much of every tick."""
    early, later = Position(0, 10, 20, "a"), Position(0, 10, 20, "b")
    assert later.covers(early)
    assert not early.covers(later)
    assert later.passed(30).covers(later)
    assert not later.passed(30).covers(Position(0, 25, 40, "a"))
    assert Position(0, 20, 50, "a").covers(later)
    assert not Position(0, 10, 50, "z").covers(later)


def test_intervals_have_a_rhythm() -> None:
    """An interval is counted from when the first beat began, exactly, also after years."""
    year = 365 * 24 * 3600 * SECOND
    assert last_of_interval(7 * SECOND, NOON, NOON + 20 * SECOND) == NOON + 14 * SECOND
    assert last_of_interval(700_001, NOON, NOON + 700_001 * year) == NOON + 700_001 * year


def test_the_first_beat_of_all() -> None:
    """The first beat sends nothing at its start: an interval later for the first time, a crontab when it is due."""
    sent = send_until(agenda({"often": 7, "cron": crontab()}), NOON, NOON + 61 * SECOND)
    assert sent[0] == ("often", NOON + 7 * SECOND)
    assert [when for name, when in sent if name == "cron"] == [NOON - 123_456 + 60 * SECOND]
    assert [when for name, when in sent if name == "often"] == [NOON + n * 7 * SECOND for n in range(1, 9)]


def test_a_new_beat_keeps_the_rhythm() -> None:
    """A beat that starts later counts intervals from the record, not from its own start."""
    position = Position.first(NOON).passed(NOON + 100 * SECOND)
    sent = send_until(agenda({"slow": 60}, position), NOON + 111 * SECOND, NOON + 200 * SECOND)
    assert sent == [("slow", NOON + 120 * SECOND), ("slow", NOON + 180 * SECOND)]


def test_missed_in_a_handover() -> None:
    """Ticks that were due while nobody led are all sent, in their order, each under its own instant."""
    position = Position.first(NOON).passed(NOON + 10 * SECOND)
    sent = send_until(agenda({"a": 10, "b": 15}, position), NOON + 41 * SECOND, NOON + 42 * SECOND)
    assert sorted(when - NOON for name, when in sent if name == "a") == [20 * SECOND, 30 * SECOND, 40 * SECOND]
    assert [when - NOON for _, when in sent] == [n * SECOND for n in (15, 20, 30, 30, 40)]


def test_missed_long_ago() -> None:
    """Of the ticks that are older than `catch_up` one is sent for each entry, also when a beat dies meanwhile."""
    entries, position = {"a": 10, "b": 15, "rare": 86400}, Position.first(NOON)
    now = NOON + 3600 * SECOND
    beat, sent = agenda(entries, position, catch_up=30), []
    while not isinstance(found := beat.next(now), float):
        assert beat.position
        sent.append((found.name, beat.position.at - now))
        beat.sent()
        beat = agenda(entries, Position.read(beat.position.note()), catch_up=30)
    old = [name for name, age in sent if age == -30 * SECOND]
    assert sorted(old) == ["a", "b"]
    assert [age // SECOND for name, age in sent if name == "a" and age > -30 * SECOND] == [-20, -10, 0]


@pytest.mark.parametrize("seed", range(30))
def test_killed_at_any_moment(seed: int) -> None:
    """However often the sender dies, at any moment, no tick is missing, and only one that is in doubt is sent twice."""
    rng = random.Random(seed)
    entries = {f"every-{n}": n for n in (0.7, 3, 10, 25)} | {"cron": crontab(), "third": crontab(minute="*/3")}
    record: Position | None = Position.first(NOON)
    now, end = NOON, NOON + 900 * SECOND
    sent, doubts = list[tuple[str, int]](), 0
    beat = agenda(entries, record, catch_up=3600)

    def die() -> None:
        nonlocal beat, now
        now += rng.randrange(30 * SECOND)
        beat = agenda(entries, record, catch_up=3600)

    while now < end:
        found = beat.next(now)
        assert beat.position
        if isinstance(found, float):
            if rng.random() < 0.3:
                record = Position.read(beat.position.note())  # the lease is renewed
            now += 1 + min(microseconds(min(found, 10.0)), rng.randrange(2 * SECOND))
        else:
            if rng.random() < 0.05:
                die()
                continue
            sent.append((found.name, beat.position.at))
            if rng.random() < 0.05:
                doubts += 1
                die()
                continue
            beat.sent()
            record = Position.read(beat.position.note())
        if rng.random() < 0.02:
            die()
    sent += send_until(beat, now, end := now + 60 * SECOND)
    times = Counter(sent)
    assert sum(times.values()) - len(times) <= doubts
    first = NOON - NOON % (60 * SECOND)
    grids = {name: (NOON, microseconds(n)) for name, n in entries.items() if isinstance(n, int | float)}
    grids |= {"cron": (first, 60 * SECOND), "third": (first, 180 * SECOND)}
    for name, (start, step) in grids.items():
        assert sorted(when for entry, when in times if entry == name) == list(range(start + step, end, step))


def test_many_entries_of_one_instant() -> None:
    """Three hundred entries that are due at once are each sent once, though each beat dies after one of them."""
    entries = {f"report {n}": crontab() for n in range(300)}
    record, now, sent = Position.first(NOON), NOON + 60 * SECOND, list[str]()
    beat = agenda(entries, record)
    while not isinstance(found := beat.next(now), float):
        sent.append(found.name)
        beat.sent()
        assert beat.position
        found_again = Position.read(beat.position.note())
        if len(sent) % 10 == 0:
            beat = agenda(entries, found_again)
    assert sorted(sent) == sorted(entries)


def test_summer_and_winter() -> None:
    """A crontab means the local time, and an interval the time that passes, on the day on which the clocks go back."""
    start = at("2026-10-24T20:00:00+02:00")
    sent = send_until(agenda({"night": crontab(minute="0", hour="6"), "hours": 7200}), start, start + 86400 * SECOND)
    assert [when for name, when in sent if name == "night"] == [at("2026-10-25T06:00:00+01:00")]
    assert [when - start for name, when in sent if name == "hours"] == [n * 7200 * SECOND for n in range(1, 12)]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2027-03-27T20:00:00+01:00", ["03-28T03:30:00+02:00", "03-29T02:30:00+02:00"]),
        ("2026-10-24T20:00:00+02:00", ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]),
    ],
    ids=["forward", "back"],
)
@pytest.mark.parametrize("minutes", [5, 25, 60 * 48])
def test_the_hour_that_is_missing_or_double(start: str, expected: list[str], minutes: int) -> None:
    """A crontab in the hour in which clocks change is sent once that day, however many beats follow each other then."""
    entries, position, sent = {"night": crontab(minute="30", hour="2"), "other": 600}, Position.first(at(start)), []
    for number in range(48 * 60 // minutes):
        beat, now = agenda(entries, position), at(start) + number * minutes * 60 * SECOND
        sent += send_until(beat, now, now + minutes * 60 * SECOND)
        position = beat.position
    zone = ZoneInfo("Europe/Berlin")
    assert [moment(when, zone).isoformat()[5:] for name, when in sent if name == "night"] == expected


def test_relative_intervals() -> None:
    """A relative interval is rounded to the hour as Celery does it, and does not move when others are sent."""
    start = at("2026-11-24T10:37:12+01:00")
    entries = {"relative": schedule(timedelta(hours=2), relative=True), "other": 600}
    sent = send_until(agenda(entries), start, start + 6 * 3600 * SECOND)
    hours = [moment(when, UTC).strftime("%H:%M:%S") for name, when in sent if name == "relative"]
    assert hours == ["11:00:00", "13:00:00", "15:00:00"]


def test_sunsets() -> None:
    """Each sunset is sent once, though many beats follow each other and other entries are sent all the time."""
    start, hour = at("2026-03-15T12:00:00+01:00"), 3600 * SECOND
    entries = {"sunset": solar("sunset", 52.5, 13.4), "other": 600}
    position, sent = Position.first(start), list[tuple[str, int]]()
    for number in range(0, 20 * 24, 5):
        beat = agenda(entries, position)
        sent += send_until(beat, start + number * hour, start + (number + 5) * hour)
        assert beat.position
        position = beat.position
    sunsets = [when for name, when in sent if name == "sunset"]
    assert len(sunsets) == 20
    assert {round((later - earlier) / hour) for earlier, later in pairwise(sunsets)} == {24}


def test_a_clock_that_is_behind() -> None:
    """A successor whose clock is behind sends nothing again, and leaves nothing out: it is late by the difference."""
    ahead = agenda({"a": 10}, Position.first(NOON))
    sent = send_until(ahead, NOON, NOON + 25 * SECOND)
    assert ahead.position
    behind = agenda({"a": 10}, Position.read(ahead.position.note()))
    sent += send_until(behind, NOON + 5 * SECOND, NOON + 41 * SECOND)
    assert [(when - NOON) // SECOND for _, when in sent] == [10, 20, 30, 40]


def test_other_entries() -> None:
    """An entry that is added while a beat runs begins then, and one that is taken away is sent no more."""
    inner = scheduler({"old": 10})
    beat = BeatAgenda(inner, last_run, 60.0)
    assert [name for name, _ in send_until(beat, NOON, NOON + 11 * SECOND)] == ["old"]
    del inner.schedule["old"]
    inner.add(name="new", task="record", schedule=crontab())
    sent = send_until(beat, NOON + 90 * SECOND, NOON + 125 * SECOND)
    assert {name for name, _ in sent} == {"new"}


class NeverDue(schedule):  # type: ignore[misc]
    """One that is not due, and says this of when to ask again; an error is raised."""

    def __init__(self, again: Any) -> None:
        super().__init__(1)
        self.again, self.asked = again, 0

    def is_due(self, _last: datetime) -> Any:
        """Count the questions."""
        self.asked += 1
        if isinstance(self.again, Exception):
            raise self.again
        return False, self.again


@pytest.mark.parametrize("again", [ValueError("no"), None, 0, -1.0, float("nan"), "later"], ids=repr)
def test_an_entry_that_cannot_say_when(again: Any) -> None:
    """It does not stop the others, nor take their time."""
    bad = NeverDue(again)
    assert [name for name, _ in send_until(agenda({"bad": bad, "good": 5}), NOON, NOON + 11 * SECOND)] == 2 * ["good"]
    assert bad.asked < 3000


def test_an_entry_whose_interval_cannot_be_read() -> None:
    """It does not stop the others either."""
    bad = schedule(1)
    inner = scheduler({"bad": bad, "good": 5})
    bad.run_every = None
    sent = send_until(BeatAgenda(inner, last_run, 60.0), NOON, NOON + 11 * SECOND)
    assert [name for name, _ in sent] == 2 * ["good"]


def test_names_that_are_no_strings() -> None:
    """They are sent, as Celery does."""
    assert [name for name, _ in send_until(agenda({1: 5}), NOON, NOON + 6 * SECOND)] == [1]  # type: ignore[dict-item]


def test_no_entries() -> None:
    """Without entries there is nothing to send, and nothing to wait for."""
    assert agenda({}).next(NOON) == float("inf")


class Interrupted(MemoryRegister):
    """A store: a signal interrupts whoever has just taken the lease."""

    def swap(self, name: str, data: bytes, expected: Any) -> Any:
        version = super().swap(name, data, expected)
        if b'"state":"held"' in data:
            raise SystemExit
        return version


def tick_for_ever(beat: LeaderScheduler) -> NoReturn:
    """What Celery does, until a signal ends it."""
    while True:
        beat.tick()


def test_ended_in_the_takeover() -> None:
    """A beat that is told to end after its takeover was written, and before it knows, hands over nevertheless."""
    store = Interrupted()
    app = Celery("shop", set_as_current=False)
    app.conf.update(politics_store=store, result_expires=None)
    beat = LeaderScheduler(app)
    with pytest.raises(SystemExit):
        tick_for_ever(beat)
    found = look(store, "shop.beat")
    assert found
    assert found.state is State.HELD
    beat.close()
    found = look(store, "shop.beat")
    assert found
    assert found.state is State.OPEN


def test_lazy() -> None:
    """A scheduler that Celery makes for its banner writes nothing, and closes."""
    store = MemoryRegister()
    app = Celery("shop", set_as_current=False)
    app.conf.update(politics_store=store, politics_group="bank beats", politics_lease_ttl=3)
    beat = LeaderScheduler(app, lazy=True)
    assert "bank beats, 3 s" in beat.info
    beat.close()
    assert look(store, "bank beats") is None


def test_one_stream_of_hints() -> None:
    """A beat that stands by keeps its stream of hints from one look to the next, and ends it when it closes."""
    store = MemoryRegister()
    app = Celery("shop", set_as_current=False)
    app.conf.update(politics_store=store, politics_group="beats", result_expires=None)
    beat = LeaderScheduler(app)
    with Candidate(store, "beats").campaign() as term:
        held = len(store._watches["beats"])
        beat.tick()
        assert len(store._watches["beats"]) == held + 1
        beat.tick()
        assert len(store._watches["beats"]) == held + 1
        beat.close()
        assert len(store._watches["beats"]) == held
        assert term.valid

"""Which tick is due, which are skipped and why, and what a note says of it: pure rules."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from election.errors import BadPolicy
from election.record import MAX_BYTES, Record, State
from politics.worker import ticks
from politics.worker.schedule import YEAR_9999, Cron, Every
from politics.worker.ticks import (
    CATCH_UP,
    DOUBT_MS,
    FAILED,
    LONGEST_TRIGGER,
    MOST,
    MOST_SKIPS,
    NONE,
    RAN,
    REASONS,
    RUNNING,
    SKIPPED,
    STATES,
    Rules,
    Skip,
    Tick,
    TickTurn,
    ahead,
    ended,
    make_rules,
    merge,
    next_turn,
    read_note,
    wait,
)

MINUTE = 60_000
RULES = Rules("job", Every(60))
T = 30_000_000 * MINUTE
"""Some tick."""


def skips(turn: TickTurn) -> list[tuple[int, int | None, str]]:
    """What a turn skips: the last tick in minutes after T, how many, and why."""
    return [((skip.last - T) // MINUTE, skip.count, skip.reason) for skip in turn.tick.skipped]


def at(minutes: float) -> int:
    """An instant, in minutes after T."""
    return T + round(minutes * MINUTE)


def test_the_first_election_begins_with_the_next_tick() -> None:
    """Where nothing is known nothing was missed, and the moment of the election is written down."""
    turn = next_turn(None, RULES, at(0.5))
    assert (turn.tick, turn.run, turn.news, turn.following) == (Tick(at(0.5), NONE), False, True, at(1))
    later = next_turn(turn.tick, RULES, at(1))
    assert (later.tick, later.run, later.takeover) == (Tick(at(1)), True, False)


def test_nothing_is_written_while_nothing_is_due() -> None:
    """A leader that waits for its next tick has no news."""
    turn = next_turn(Tick(T, RAN), RULES, at(0.9))
    assert (turn.run, turn.news, turn.tick) == (False, False, Tick(T, RAN))


@pytest.mark.parametrize("work", [RAN, FAILED, SKIPPED, NONE])
@pytest.mark.parametrize("wall", [-3.0, 0.0, 0.99])
def test_a_clock_that_is_behind_runs_nothing_that_is_recorded(work: str, wall: float) -> None:
    """The tick after the recorded one is the next, whatever the clock shows."""
    turn = next_turn(Tick(T, work), RULES, at(wall))
    assert (turn.run, turn.following) == (False, at(1))


@pytest.mark.parametrize(
    ("catch_up", "run", "skipped"),
    [("latest", 3, [(2, 2, "later")]), ("all", 1, []), ("skip", 3, [(2, 2, "missed")])],
)
def test_missed_ticks(catch_up: str, run: int, skipped: list[Any]) -> None:
    """The latest one is run, or each from the oldest on, or only one that is on time."""
    turn = next_turn(Tick(T, RAN), replace(RULES, catch_up=catch_up), at(3.1))
    assert (turn.run, turn.tick.at, skips(turn)) == (True, at(run), skipped)


def test_a_tick_that_is_not_on_time_is_skipped_if_nothing_is_made_up_for() -> None:
    """On time is what can begin within the lease and two seconds, by then the leader has been replaced."""
    rules = replace(RULES, catch_up="skip")
    assert next_turn(Tick(T, RAN), rules, at(1) + rules.lateness).run
    turn = next_turn(Tick(T, RAN), rules, at(1) + rules.lateness + 1)
    assert (turn.run, turn.tick.work, turn.tick.at, skips(turn)) == (False, SKIPPED, at(1), [(1, 1, "missed")])


def test_a_tick_is_not_begun_after_its_deadline() -> None:
    """Those that are too late are skipped, also where each is made up for."""
    rules = replace(RULES, catch_up="all", deadline=90_000)
    turn = next_turn(Tick(T, RAN), rules, at(3.1))
    assert (turn.tick.at, skips(turn)) == (at(2), [(1, 1, "deadline")])
    turn = next_turn(Tick(T, RAN), replace(rules, catch_up="latest"), at(4))
    assert (turn.tick.at, skips(turn)) == (at(4), [(2, 2, "deadline"), (3, 1, "later")])


def test_of_very_many_missed_ticks_the_last_hundred_are_made_up_for() -> None:
    """The older ones are skipped together, and counted if there are not too many of them."""
    rules = replace(RULES, catch_up="all")
    turn = next_turn(Tick(T, RAN), rules, at(150))
    assert (turn.tick.at, skips(turn)) == (at(51), [(50, 50, "many")])
    turn = next_turn(Tick(T, RAN), rules, at(1_000_000))
    assert (turn.tick.at, skips(turn)) == (at(999_901), [(999_900, None, "many")])
    turn = next_turn(Tick(T, RAN), RULES, at(1_000_000))
    assert (turn.tick.at, skips(turn)) == (at(1_000_000), [(999_900, None, "later"), (999_999, 99, "later")])


def test_a_tick_that_was_left_running_is_run_again_also_while_paused() -> None:
    """As a takeover, and before those that came due since."""
    turn = next_turn(Tick(T), RULES, at(5), paused=True)
    assert (turn.tick, turn.run, turn.takeover) == (Tick(T), True, True)


def test_a_tick_that_was_left_running_is_given_up_if_nothing_may_run_twice() -> None:
    """It counts as skipped, and the next one is run."""
    turn = next_turn(Tick(T), replace(RULES, rerun=False), at(1))
    assert (turn.tick.at, turn.run, turn.takeover, skips(turn)) == (at(1), True, False, [(0, 1, "interrupted")])
    turn = next_turn(Tick(T), replace(RULES, rerun=False), at(0))
    assert (turn.tick.at, turn.tick.work, turn.run, turn.news) == (T, ticks.INTERRUPTED, False, True)


def test_after_the_loss_of_a_leader_with_its_record_ticks_are_takeovers_for_a_minute() -> None:
    """Its clock may have been ahead by that much, so it may have begun them."""
    turn = next_turn(Tick(T, RAN), RULES, at(2), lost=True)
    assert (turn.tick.at, turn.takeover, turn.tick.doubt) == (at(2), True, at(2) + DOUBT_MS)
    known = replace(turn.tick, work=RAN)
    assert [next_turn(known, RULES, at(wall)).takeover for wall in (3, 4)] == [True, False]
    assert "doubt" not in Tick(at(4), RAN, doubt=at(3)).note(None)
    assert next_turn(None, RULES, at(0.5), lost=True).tick == Tick(at(0.5), NONE, doubt=at(0.5) + DOUBT_MS)


def test_what_a_lost_leader_may_have_begun_is_not_run_if_nothing_may_run_twice() -> None:
    """It is skipped, until the minute is over."""
    rules = replace(RULES, rerun=False, catch_up="all")
    turn = next_turn(Tick(T, RAN), rules, at(2), lost=True)
    assert (turn.run, skips(turn)) == (False, [(2, 2, "doubt")])
    turn = next_turn(turn.tick, rules, at(4))
    assert (turn.tick.at, turn.run, turn.takeover) == (at(4), True, False)


def test_a_pause_skips_what_is_due() -> None:
    """Ticks of a paused group are not made up for later."""
    turn = next_turn(Tick(T, RAN), replace(RULES, catch_up="all"), at(2), paused=True)
    assert (turn.run, turn.tick.at, turn.tick.work, skips(turn)) == (False, at(2), SKIPPED, [(2, 2, "paused")])


def test_an_order_runs_once_at_once_after_what_is_due() -> None:
    """It has a name of its own, and is written down with its tick; also where no tick is known, and while paused."""
    turn = next_turn(Tick(T, RAN), RULES, at(1), trigger="a")
    assert (turn.tick.at, turn.tick.trigger) == (at(1), "")
    turn = next_turn(Tick(at(1), RAN), RULES, at(1.5), trigger="a", paused=True)
    assert (turn.run, turn.takeover, turn.tick) == (True, False, Tick(at(1.5) + 1, trigger="a"))
    assert not next_turn(replace(turn.tick, work=RAN), RULES, at(1.6), trigger="a").run
    assert next_turn(replace(turn.tick, work=RAN), RULES, at(1.6), trigger="b").run


def test_an_order_from_before_a_group_worked_by_slots_is_not_carried_out_again() -> None:
    """Slots leave the order in the record and say nothing of it; a new order is carried out."""
    turn = next_turn(None, RULES, at(1.5), trigger="a")
    assert (turn.run, turn.tick) == (False, Tick(at(1.5), ticks.NONE, trigger="a"))
    assert next_turn(turn.tick, RULES, at(1.6), trigger="b").run


def test_a_run_that_was_ordered_takes_no_tick_away() -> None:
    """It is named before the next tick, which may wait for its jitter or be a millisecond away."""
    rules = replace(RULES, jitter=50_000)
    wall = next(wall for wall in itertools.count(at(1)) if rules.due(at(1)) > wall)
    turn = next_turn(Tick(T, RAN), rules, wall, trigger="a")
    assert (turn.tick.at, turn.following) == (at(1) - 1, at(1))
    assert not next_turn(replace(turn.tick, work=RAN), rules, wall, trigger="b").run
    assert next_turn(Tick(T, RAN), Rules("job", Every(2.5)), T + 2499, trigger="a").tick.at == T + 2499


def test_the_name_of_a_run_that_was_ordered_is_no_whole_second() -> None:
    """So it is that of no tick of a cron expression."""
    turn = next_turn(Tick(T, RAN), RULES, at(0.5) - 1, trigger="a")
    assert turn.tick.at == at(0.5) + 1
    turn = next_turn(Tick(1_000_000 * 501, RAN), Rules("job", Every(0.501)), 1_000_000 * 501 + 498, trigger="a")
    assert turn.tick.at % 1000
    assert turn.tick.at < 1_000_001 * 501


def test_ticks_that_come_due_while_one_runs_are_skipped() -> None:
    """They are not missed, and not made up for; the note says up to where."""
    turn = ended(Tick(T), RAN, replace(RULES, catch_up="all"), at(0), at(2.5))
    assert (turn.tick.at, turn.tick.work, turn.tick.through) == (T, RAN, at(2))
    assert (turn.following, skips(turn)) == (at(3), [(2, 2, "overrun")])
    assert next_turn(turn.tick, replace(RULES, catch_up="all"), at(3)).tick == Tick(at(3), skipped=turn.tick.skipped)


def test_ticks_that_were_due_before_the_work_began_are_left() -> None:
    """What is made up for one by one is not lost because it takes its time."""
    turn = ended(Tick(T), RAN, RULES, at(1.5), at(2.5))
    assert (turn.tick, skips(turn)) == (Tick(T, RAN), [])


def test_what_is_skipped_is_in_the_note_until_it_is_reported() -> None:
    """Whoever reads it then reports it again, since nobody knows whether it was."""
    turn = next_turn(Tick(T, RAN), RULES, at(3))
    assert "skipped" not in turn.note(reported=True)
    seen = read_note(turn.note(reported=False))
    assert seen is not None
    again = next_turn(replace(seen, work=RAN), RULES, at(5))
    assert again.tick.skipped == (Skip(at(2), 2, "later", again=True), Skip(at(4), 1, "later"))
    assert ended(seen, RAN, RULES, at(3), at(3)).tick.skipped == ()


def test_of_too_many_skips_the_first_are_made_one() -> None:
    """However many leaders are lost one after the other, the note stays small and counts all of them."""
    tick = Tick(T, RAN)
    for _ in range(3 * MOST_SKIPS):
        tick = replace(next_turn(tick, RULES, tick.at + 2 * MINUTE).tick, work=RAN)
    assert len(tick.skipped) == MOST_SKIPS
    assert sum(skip.count or 0 for skip in tick.skipped) == 3 * MOST_SKIPS
    tick = replace(next_turn(tick, RULES, tick.at + 10_000 * MINUTE).tick, work=RAN)
    assert next_turn(tick, RULES, tick.at + 20 * MINUTE).tick.skipped[0].count is not None


@pytest.mark.parametrize(("minutes", "found"), [(-3.0, 0), (0, 0), (1, 0), (1.001, 60_060), (60, 60 * MINUTE)])
def test_a_tick_that_is_too_far_ahead_is_noticed(minutes: float, found: int) -> None:
    """Two clocks of a group may be a minute apart, and no more. Whichever is wrong, nothing is run twice."""
    known = Tick(at(minutes), RAN)
    assert ahead(known, T) == found
    assert ahead(None, T) == 0
    assert next_turn(known, RULES, T).run is (minutes < 0)


def test_jitter_is_the_same_for_all_and_different_for_each() -> None:
    """It follows from the names of group and tick, and is below what was asked for."""
    mine, other = (replace(RULES, group=group, jitter=10_000) for group in ("a", "b"))
    late = [mine.due(at(n)) - at(n) for n in range(1000)]
    assert late == [mine.due(at(n)) - at(n) for n in range(1000)]
    assert late != [other.due(at(n)) - at(n) for n in range(1000)]
    assert 0 <= min(late) < 500 < 9500 < max(late) < 10_000


def test_how_long_a_leader_may_rest() -> None:
    """Until the next tick is due, its jitter included; for ever if there is none."""
    assert wait(Tick(T, RAN, through=at(2)), RULES, at(2.5)) == MINUTE // 2
    assert wait(Tick(T, RAN), RULES, at(5)) == 0
    jitter = replace(RULES, jitter=9000)
    assert wait(Tick(T, RAN), jitter, at(0)) == jitter.due(at(1)) - T
    assert wait(Tick(YEAR_9999 - 1, RAN), RULES, T) is None


NOTES = st.fixed_dictionaries(
    {},
    optional={
        "tick": st.integers() | st.booleans() | st.none() | st.floats() | st.text(),
        "work": st.sampled_from(STATES) | st.text() | st.lists(st.integers()),
        "through": st.integers() | st.text(),
        "doubt": st.integers() | st.none(),
        "trigger": st.text() | st.integers(),
        "skipped": st.none() | st.lists(st.lists(st.integers() | st.none() | st.sampled_from([*REASONS]) | st.text())),
    },
)


@given(NOTES)
def test_a_forged_note_is_none_or_one_of_ours(note: dict[str, Any]) -> None:
    """Whatever is in the record, what is read of it can be written again and reckoned with."""
    tick = read_note(note)
    if tick is not None:
        # A doubt that does not go beyond the tick says nothing, and is not written.
        assert read_note(tick.note(None)) == replace(tick, doubt=tick.doubt if tick.doubt > tick.at else 0)
        for schedule in (Every(0.1), Cron("0 0 29 2 *", "Europe/Berlin")):
            turn = next_turn(tick, Rules("job", schedule), T, lost=True, trigger="a")
            assert read_note(turn.note(reported=False)) is not None


@pytest.mark.parametrize("tick", [True, "7", 7.0, -1, YEAR_9999, None])
def test_what_is_no_tick_is_ignored(tick: object) -> None:
    """A note without a tick of ours says nothing."""
    assert read_note({"tick": tick, "work": RAN}) is None
    assert read_note({"tick": 7, "work": RAN}) == Tick(7, RAN)
    assert read_note({"tick": 7, "work": "odd"}) is None


@pytest.mark.parametrize(
    "entries",
    [
        "x",
        [[7, 1]],
        [[7, 1, "odd"]],
        [[-1, 1, "later"]],
        [[7, "1", "later"]],
        [[7, 1, "later"]] * 7,
        [[7, 10**300, "later"]],
    ],
)
def test_what_is_no_skip_is_ignored(entries: object) -> None:
    """The tick counts all the same."""
    assert read_note({"tick": 7, "work": RAN, "skipped": entries}) == Tick(7, RAN)


def test_the_longest_note_fits_into_a_record_with_the_longest_orders() -> None:
    """No order and no number of skipped ticks stops the election."""
    trigger = '"' * LONGEST_TRIGGER
    longest = YEAR_9999 - 1
    skipped = tuple(Skip(longest, longest, "interrupted") for _ in range(MOST_SKIPS))
    note = Tick(longest - 2, ticks.INTERRUPTED, longest - 1, longest, trigger, skipped).note(longest)
    orders = {"paused": True, "trigger": trigger}
    record = Record(2**53, "f" * 32, 2**53, 10**10, State.VACANT, "h" * 64, 2**31, 2**53, note=note, orders=orders)
    assert b'"paused":true' in record.encode()
    assert len(record.encode()) < MAX_BYTES
    assert read_note({"tick": 1, "work": RAN, "trigger": trigger + "x"}) == Tick(1, RAN)
    assert ticks.read_trigger("é") == ticks.read_trigger("\n") == ticks.read_trigger(7) == ""


INSTANTS = st.integers(T, T + 100 * MINUTE)
TICKS = st.builds(
    Tick,
    INSTANTS,
    st.sampled_from(STATES),
    st.just(0) | INSTANTS,
    st.just(0) | INSTANTS,
    st.sampled_from(["", "a", "b"]),
)


@given(st.lists(TICKS, min_size=1))
def test_what_is_known_only_grows(looks: list[Tick]) -> None:
    """In whatever order looks arrive: no earlier tick comes back, and what has ended does not begin again."""
    known: Tick | None = None
    for seen in looks:
        before, known = known, merge(merge(known, seen), None)
        assert known is not None
        if before is not None:
            assert (known.passed, known.at) >= (before.passed, before.at)
            assert known.doubt >= before.doubt
            if (known.passed, known.at) == (before.passed, before.at):
                assert not (known.work == RUNNING != before.work)


@given(
    st.sampled_from(CATCH_UP),
    st.none() | st.integers(1, 10 * MINUTE),
    st.sampled_from([0, 0, 30_000, 200_000]),
    st.booleans(),
    st.sampled_from(["", "a"]),
    st.booleans(),
    st.booleans(),
    TICKS,
    st.integers(T - 20 * MINUTE, T + 400 * MINUTE),
)
def test_each_due_tick_is_run_or_skipped_or_left(
    catch_up: str,
    deadline: int | None,
    jitter: int,
    paused: bool,
    trigger: str,
    rerun: bool,
    lost: bool,
    known: Tick,
    wall: int,
) -> None:
    """Whatever the settings: those before the one that is run are skipped and counted, and those after it are left."""
    rules = Rules("job", Every(60), catch_up, deadline, jitter, rerun=rerun)
    turn = next_turn(known, rules, wall, lost=lost, paused=paused, trigger=trigger)
    assert turn.tick.passed >= known.passed
    assert turn.news or turn.tick == known
    if known.work == RUNNING and rerun:
        assert (turn.run, turn.takeover, turn.tick.at) == (True, True, known.at)
        return
    due = list(itertools.takewhile(lambda tick: rules.due(tick) <= wall, Every(60).after(known.passed)))
    skipped = [skip for skip in turn.tick.skipped if skip.reason != "interrupted"]
    ordered = turn.run and turn.tick.at % MINUTE > 0
    last = turn.tick.at - MINUTE if turn.run and not ordered else skipped[-1].last if skipped else known.passed
    gone = [tick for tick in due if tick <= last]
    if all(skip.count is not None for skip in skipped):
        assert sum(skip.count or 0 for skip in skipped) == len(gone)
    assert [skip.last for skip in skipped] == sorted({skip.last for skip in skipped})
    assert all(skip.last in due for skip in skipped)
    if turn.run and not ordered:
        assert turn.tick.at in due
        assert not paused
        assert (
            catch_up == "all"
            or turn.tick.at == due[-1]
            or any(
                (deadline is not None and rules.due(tick) + deadline < wall) or catch_up == "skip" or not rerun
                for tick in due
                if tick > turn.tick.at
            )
        )
    elif due:
        assert skipped[-1].last == due[-1]
    if ordered:
        assert trigger == turn.tick.trigger != known.trigger
        assert turn.following is None or turn.tick.at < turn.following
        assert len(due) <= MOST or catch_up != "all" or paused or deadline is not None or not rerun


@given(TICKS, st.integers(0, 5 * MINUTE), st.integers(-5 * MINUTE, 300 * MINUTE), st.sampled_from([RAN, FAILED]))
def test_the_end_of_the_work_accounts_for_those_that_came_due_meanwhile(
    tick: Tick, late: int, ran: int, work: str
) -> None:
    """Each of them is skipped, and no other; they are counted up to some two hundred."""
    tick = replace(tick, work=RUNNING, through=0)
    begun = tick.at + late
    turn = ended(tick, work, RULES, begun, begun + ran)
    due = list(itertools.takewhile(lambda at: at <= begun + ran, RULES.schedule.after(tick.at)))
    expected = due if due and due[0] > begun else []
    assert turn.tick.passed == (expected[-1] if expected else tick.at)
    if all(skip.count is not None for skip in turn.tick.skipped):
        assert sum(skip.count or 0 for skip in turn.tick.skipped) == len(expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-90, 90), st.booleans(), st.booleans()), max_size=40))
def test_ticks_only_grow_whatever_the_clocks_of_the_leaders_show(leaders: list[tuple[int, int, bool, bool]]) -> None:
    """Of four processes each leads from time to time, with a wall clock that shows anything; none runs a tick twice."""
    record: dict[str, Any] = {}
    knows: dict[int, Tick | None] = {}
    run: list[int] = []
    for who, minutes, finishes, ordered in leaders:
        known = merge(knows.get(who), read_note(record))
        turn = next_turn(known, RULES, at(minutes), trigger=f"order {len(run)}" if ordered else "")
        record, knows[who] = turn.note(reported=True), turn.tick
        if turn.run and not turn.takeover:
            run.append(turn.tick.at)
        if turn.run and finishes:
            turn = ended(turn.tick, RAN, RULES, at(minutes), at(minutes))
            record, knows[who] = turn.note(reported=True), turn.tick
    assert run == sorted(set(run))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"catch_up": "every"}, "catch_up must be 'latest', 'all' or 'skip', not 'every'"),
        ({"deadline": 0}, "deadline must be a positive number of seconds, a year at most, not 0"),
        ({"deadline": True}, "deadline must be a positive number of seconds, a year at most, not True"),
        ({"jitter": -1}, "jitter must be a positive number of seconds, a year at most, not -1"),
        ({"jitter": False}, "jitter must be a positive number of seconds, a year at most, not False"),
        ({"jitter": "1"}, "jitter must be a positive number of seconds, a year at most, not '1'"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], message: str) -> None:
    """One sentence says which."""
    given_all = {"catch_up": "latest", "deadline": None, "jitter": 0.0} | settings
    with pytest.raises(BadPolicy) as caught:
        make_rules("job", Every(60), lease_ttl=10, rerun=True, **given_all)
    assert str(caught.value) == message


def test_settings_are_kept_in_milliseconds() -> None:
    """A tick is on time within the lease and two seconds."""
    rules = make_rules("job", Every(60), catch_up="all", deadline=1.5, jitter=2, lease_ttl=10, rerun=False)
    assert rules == Rules("job", rules.schedule, "all", 1500, 2000, 12_000, rerun=False)

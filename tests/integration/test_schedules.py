"""Workers with schedules, as users have them: real processes and stores, signals, and clocks that are wrong."""

import contextlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from election import Candidate, LeasePolicy, open_register
from election.clock import wall_ms
from politics import Term, TokenWorker
from tests import commands
from tests.integration.conftest import MakeStage
from tests.integration.harness import Event, Process, Stage
from tests.memcached import Memcached
from tests.processes import Process as Command
from tests.processes import running
from tests.waiting import until

BILLS = """
from politics import TokenWorker

class Bills(TokenWorker):
    group = "bills"
    schedule = "30 2 * * *"
    timezone = "Europe/Berlin"
    jitter = 60

    def perform(self, term):
        print("billed", term.tick, flush=True)

class Prompt(Bills):
    jitter = 0

class Slots(TokenWorker):
    group = "slots"

class Broken(Bills):
    schedule = "nonsense"
"""
EACH_SECOND = "* * * * * *"
SECOND = timedelta(seconds=1)
ENDS = ("slot_done", "slot_failed", "slot_interrupted")


def instant(text: str) -> datetime:
    """The instant that an event names."""
    return datetime.fromisoformat(text)


def starts(stage: Stage) -> list[Event]:
    """The ticks that were begun, in this order."""
    return stage.events("tick", kind="slot_started")


def skips(stage: Stage) -> list[Event]:
    """What was skipped."""
    return stage.events("tick", kind="slots_skipped")


def ends(stage: Stage, begun: Event) -> list[Event]:
    """How the worker that has begun a tick says that it ended."""
    same = stage.events("tick", who=begun["who"], tick=begun["tick"], fence=begun["fence"])
    return [event for event in same if event["kind"] in ENDS]


def make(make_stage: MakeStage, store: str, **options: Any) -> Stage:
    """A stage for workers with a schedule."""
    given = {"schedule": EACH_SECOND, "iteration_length": None, "seconds": 0.3, "program": "tests.integration.ticker"}
    return make_stage(store, **given | options)


def check_each_second(stage: Stage) -> None:
    """Each second from the first tick on was run or skipped, and none was run twice but as a takeover."""
    begun = starts(stage)
    fresh = [event["tick"] for event in begun if not event["takeover"]]
    assert len(fresh) == len(set(fresh)), f"a tick was begun twice: {fresh}"
    assert [instant(tick) for tick in fresh] == sorted(map(instant, fresh))
    killed = {name for name, process in stage.processes.items() if process.popen.poll() == -signal.SIGKILL}
    assert {len(ends(stage, each)) for each in begun[:-1] if each["who"] not in killed} <= {1}
    seen = {instant(event["tick"]) for event in begun}
    for event in skips(stage):
        seen |= {instant(event["tick"]) - number * SECOND for number in range(event["count"])}
    first, last = min(seen), max(seen)
    every = {first + number * SECOND for number in range((last - first) // SECOND + 1)}
    assert every == seen, f"lost: {sorted(every - seen)}"


def begins(stage: Stage, after: float, **fields: Any) -> tuple[Process, Event]:
    """The first tick that is begun after that time, and by whom."""
    event = stage.wait("tick", after=after, kind="slot_started", **fields)
    return stage.processes[event["who"]], event


@pytest.fixture(params=["memcached", "sqlite"])
def each_store(request: pytest.FixtureRequest) -> str:
    """The URLs of a memcached and of a file; the file is so old that nobody takes it that a record was lost."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("old_store"))
    memcached: Memcached = request.getfixturevalue("old_memcached")
    return memcached.url


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_ticks_go_on_when_the_leader_goes(make_stage: MakeStage, each_store: str, how: signal.Signals) -> None:
    """Another one goes on within a lease: with the tick that was interrupted, as a takeover; none is lost."""
    stage = make(make_stage, each_store)
    stage.start(seconds=3600.0)
    leader, begun = begins(stage, after=0.0)
    stage.start()
    gone = leader.send(how)
    successor, again = begins(stage, after=gone)
    assert successor is not leader
    assert (again["tick"], again["takeover"]) == (begun["tick"], True)
    if how == signal.SIGSTOP:
        woken = leader.send(signal.SIGCONT)
        until(lambda: ends(stage, begun), "its end")
        assert stage.wait("lost", after=woken, who=leader.name)
    elif how == signal.SIGTERM:
        assert leader.wait() == 0
    _, following = begins(stage, after=again["t"])
    assert not following["takeover"] or "sqlite" not in each_store
    begins(stage, after=following["t"])
    check_each_second(stage)
    assert stage.log(successor.name, f"tick {begun['tick']} runs, which an earlier leader may have begun")


def test_ticks_go_on_while_the_store_is_restarted(make_stage: MakeStage, own_memcached: Memcached) -> None:
    """A leader that lives puts its record back, with the last tick and what was ordered in it."""
    stage = make(make_stage, own_memcached.url, lease_ttl=2.0)
    stage.start(2)
    _, first = begins(stage, after=0.0)
    own_memcached.restart()
    _, after = begins(stage, after=first["t"] + 3.0)
    assert after["fence"] == first["fence"]
    check_each_second(stage)
    begun = [event["tick"] for event in starts(stage)]
    assert len(begun) == len(set(begun))


class Clock:
    """A wall clock that the workers of a test share, and that is set by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, text: str) -> None:
        """Let it be this time now; from then on it goes as all clocks do."""
        new = self.path.with_suffix(".new")
        new.write_text(str(int(instant(text).timestamp() * 1000) - wall_ms()))
        new.replace(self.path)  # nobody reads the half of a number

    def wait(self, text: str) -> None:
        """Wait until it shows this time."""
        moment = instant(text).timestamp() * 1000
        until(lambda: wall_ms() + int(self.path.read_text()) >= moment, text)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that shows half past twelve."""
    clock = Clock(tmp_path / "clock")
    clock.set("2030-01-01T00:30:00Z")
    return clock


def hourly(make_stage: MakeStage, store: str, clock: Clock, **options: Any) -> Stage:
    """A stage for workers that work at each full hour."""
    return make(make_stage, store, schedule="@hourly", seconds=0.0, clock=str(clock.path), **options)


def start_before_one(stage: Stage, clock: Clock, count: int = 1, **options: Any) -> Process:
    """Start workers, and let it strike one when somebody leads; return the leader."""
    stage.start(count, **options)
    leader, _ = stage.elected()
    clock.set("2030-01-01T00:59:59Z")
    return leader


def hours(stage: Stage, kind: str = "slot_started") -> list[int]:
    """The hours of the ticks of which this was reported."""
    return [instant(event["tick"]).hour for event in stage.events("tick", kind=kind)]


@pytest.mark.parametrize(
    ("options", "run", "skipped", "reason"),
    [
        ({}, [6], [(5, 4)], "a later one is run"),
        ({"catch_up": "all"}, [2, 3, 4, 5, 6], [], ""),
        ({"catch_up": "skip"}, [], [(6, 5)], "it was missed"),
        ({"catch_up": "all", "deadline": 9000}, [5, 6], [(4, 3)], "it could not begin within its deadline"),
        ({"deadline": 1200}, [], [(6, 5)], "it could not begin within its deadline"),
    ],
)
def test_what_was_missed_while_nobody_was_there(
    make_stage: MakeStage,
    old_store: str,
    clock: Clock,
    options: dict[str, Any],
    run: list[int],
    skipped: list[tuple[int, int]],
    reason: str,
) -> None:
    """All were down from one to half past six: what is made up for, and what is skipped, is as the class says."""
    stage = hourly(make_stage, old_store, clock, lease_ttl=10.0, **options)
    first = start_before_one(stage, clock)
    stage.wait("tick", kind="slot_done")
    assert first.send(signal.SIGTERM)
    assert first.wait() == 0
    clock.set("2030-01-01T06:30:00Z")
    stage.start()
    until(lambda: hours(stage)[1:] == run and len(skips(stage)) == len(skipped), "what was missed")
    assert [(instant(e["tick"]).hour, e["count"]) for e in skips(stage)] == skipped
    assert all(reason in event["reason"] for event in skips(stage))
    clock.set("2030-01-01T06:59:59Z")
    until(lambda: hours(stage, "slot_done") == [1, *run, 7], "the next one")
    assert not any(event["takeover"] for event in starts(stage))


def test_a_clock_that_is_set_back_fires_nothing_twice(make_stage: MakeStage, old_store: str, clock: Clock) -> None:
    """It strikes one again, for the same leader and for its successor, and nothing is run before it is two."""
    stage = hourly(make_stage, old_store, clock)
    leader = start_before_one(stage, clock, count=2)
    stage.wait("tick", kind="slot_done")
    clock.set("2030-01-01T00:59:59Z")
    clock.wait("2030-01-01T01:00:01.500Z")
    clock.set("2030-01-01T00:30:00Z")
    gone = leader.send(signal.SIGKILL)
    stage.elected(after=gone)
    clock.set("2030-01-01T00:59:59Z")
    clock.wait("2030-01-01T01:00:01.500Z")
    clock.set("2030-01-01T01:59:59Z")
    until(lambda: hours(stage, "slot_done") == [1, 2], "two o'clock")
    assert hours(stage) == [1, 2]


def test_a_clock_that_is_set_forward_misses_nothing(make_stage: MakeStage, old_store: str, clock: Clock) -> None:
    """What lies between is made up for as after any absence."""
    stage = hourly(make_stage, old_store, clock, catch_up="all")
    start_before_one(stage, clock)
    stage.wait("tick", kind="slot_done")
    clock.set("2030-01-01T04:10:00Z")
    until(lambda: hours(stage, "slot_done") == [1, 2, 3, 4], "what lies between")
    assert not skips(stage)


def test_a_tick_whose_work_fails_has_failed(make_stage: MakeStage, old_store: str, clock: Clock) -> None:
    """The leader stays, and goes on with the next tick."""
    stage = hourly(make_stage, old_store, clock, work="fail")
    start_before_one(stage, clock)
    failed = stage.wait("tick", kind="slot_failed")
    assert (failed["tick"], failed["reason"]) == ("2030-01-01T01:00:00Z", "ValueError: the pork is off")
    until(lambda: stage.record().note["work"] == "failed")
    clock.set("2030-01-01T01:59:59Z")
    until(lambda: hours(stage, "slot_failed") == [1, 2], "the next one")
    assert len(stage.events("elected")) == 1


def test_a_tick_that_is_to_be_retried_is_run_again_by_another(
    make_stage: MakeStage, old_store: str, clock: Clock
) -> None:
    """With `on_error="retry"` the one that failed hands over, and the same tick is run as a takeover."""
    stage = hourly(make_stage, old_store, clock, on_error="retry")
    start_before_one(stage, clock, work="fail")
    failed = stage.wait("tick", kind="slot_failed")
    stage.start()
    done = stage.wait("tick", kind="slot_done")
    (again,) = [event for event in starts(stage) if event["who"] == done["who"]]
    assert (again["tick"], again["takeover"], done["tick"]) == (failed["tick"], True, failed["tick"])
    assert done["who"] != failed["who"]


# politics trigger, pause, resume and status


def politics(stage: Stage, command: str, *options: object) -> commands.Result:
    """Run a command about the group of the stage."""
    return commands.politics(command, stage.options["group"], *options, "--store", stage.options["store"])


def test_trigger_runs_the_work_once(make_stage: MakeStage, old_store: str) -> None:
    """It says who has run it; the next leader does not run it again."""
    stage = make(make_stage, old_store, schedule="@yearly")
    stage.start(2)
    leader, election = stage.elected()
    ended = politics(stage, "trigger")
    assert ended.status == 0, ended
    ran = f":{leader.pid} (fence {election['fence']})"
    assert re.search(rf"^ordered that .* runs now\n.*{re.escape(ran)} (runs|has run) it as ", ended.out)
    (begun,) = starts(stage)
    assert (begun["who"], begun["takeover"]) == (leader.name, False)
    assert f"has run it as {begun['tick']}\n" in ended.out
    successor, _ = stage.elected(after=leader.send(signal.SIGKILL))
    assert politics(stage, "pause").status == 0
    assert politics(stage, "trigger", "--wait", 60).status == 0, "also while the group is paused"
    assert [event["who"] for event in starts(stage)] == [leader.name, successor.name]


def test_trigger_tells_how_it_ended(make_stage: MakeStage, old_store: str) -> None:
    """Work that fails is exit status 1, and what has not ended in time is 75."""
    stage = make(make_stage, old_store, schedule="@yearly")
    stage.start(work="fail")
    stage.elected()
    ended = politics(stage, "trigger")
    assert (ended.status, "and it failed: the log says why" in ended.err) == (1, True), ended
    stage.start()
    stage.elected(after=next(iter(stage.processes.values())).send(signal.SIGTERM))
    stage.end()
    late = politics(stage, "trigger", "--wait", 0.2)
    assert (late.status, late.err) == (75, "politics: it was not carried out within 0.2 s; the order stays\n")


def test_an_order_waits_for_the_next_leader(make_stage: MakeStage, old_store: str) -> None:
    """If nobody leads the command says so, and whoever leads next runs it once, also if it was said twice."""
    stage = make(make_stage, old_store, schedule="@yearly")
    (first,) = stage.start()
    stage.elected()
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    assert "nobody leads now: the next leader carries it out" in politics(stage, "trigger", "--wait", 0.1).out
    assert politics(stage, "trigger", "--wait", 0).status == 0
    stage.start()
    stage.wait("tick", kind="slot_done")
    assert politics(stage, "trigger").status == 0
    assert len(starts(stage)) == 2


def test_ctrl_c_ends_the_waiting_and_not_the_order(make_stage: MakeStage, old_store: str) -> None:
    """Exit status 130, and the work runs all the same."""
    stage = make(make_stage, old_store, schedule="@yearly")
    (first,) = stage.start()
    stage.elected()
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    words = ("-m", "politics", "trigger", stage.options["group"], "--store", old_store)
    with running(sys.executable, *words) as command:
        command.line("nobody leads now")
        command.popen.send_signal(signal.SIGINT)
        status, said = command.result()
    assert (status, "Traceback" in said) == (130, False)
    stage.start()
    stage.wait("tick", kind="slot_done")


@contextlib.contextmanager
def ordered_while_nobody_leads(make_stage: MakeStage, server: Memcached) -> Iterator[tuple[Stage, Command]]:
    """A group whose only worker has stopped, and `politics trigger`, which waits for the next leader."""
    stage = make(make_stage, server.url, schedule="@yearly")
    (first,) = stage.start()
    stage.elected()
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    words = ("-m", "politics", "trigger", stage.options["group"], "--store", server.url)
    with running(sys.executable, *words) as command:
        command.line("nobody leads now")
        yield stage, command


def test_trigger_waits_for_a_store_that_falls_silent(make_stage: MakeStage, own_memcached: Memcached) -> None:
    """It says so once, and goes on when the store answers again."""
    with ordered_while_nobody_leads(make_stage, own_memcached) as (stage, command):
        own_memcached.freeze()
        command.line("politics: waiting for the store")
        own_memcached.thaw()
        stage.start()
        status, said = command.result()
    assert (status, said.count("waiting for the store")) == (0, 1), said


def test_an_order_that_the_store_loses_is_told(make_stage: MakeStage, own_memcached: Memcached) -> None:
    """Nobody leads who could put the record back: exit status 1, and what to do."""
    with ordered_while_nobody_leads(make_stage, own_memcached) as (_, command):
        own_memcached.restart()
        status, said = command.result()
    assert (status, "the order was lost together with the record: say it again" in said) == (1, True), said


def test_who_cannot_be_given_orders_is_told_why(make_stage: MakeStage, old_store: str) -> None:
    """A group without a record, one without a schedule, and wrong usage: one sentence each."""
    slots = make_stage(old_store, iteration_length=3600.0)
    assert politics(slots, "trigger").said.startswith("politics: there is no record of 'group")
    assert politics(slots, "pause").status == politics(slots, "resume").status == 1
    slots.start()
    slots.wait("claim")
    ended = politics(slots, "trigger")
    assert (ended.status, "has no schedule: its workers run every iteration_length" in ended.err) == (1, True), ended
    assert politics(slots, "trigger", "--wait", "nan").status == 2
    with (
        contextlib.closing(open_register(old_store)) as register,
        Candidate(register, "lock", LeasePolicy(ttl=0.5)).campaign(),
    ):
        ended = commands.politics("pause", "lock", "--store", old_store)
    assert (ended.status, "holds 'lock' and is no worker" in ended.err) == (1, True), ended
    assert commands.politics("pause", " ", "--store", old_store).status == 2
    silent = commands.politics("pause", "pork", "--servers", "127.0.0.1:1")
    assert (silent.status, "memcached at 127.0.0.1:1 did not answer" in silent.said) == (1, True)


def test_a_pause_outlives_leaders(make_stage: MakeStage, own_memcached: Memcached) -> None:
    """And a restart of the store under a living leader: each tick is skipped with an event, until it is resumed."""
    stage = make(make_stage, own_memcached.url)
    stage.start(2)
    leader, _ = begins(stage, after=0.0)
    ended = politics(stage, "pause")
    assert (ended.status, "is paused: what comes due is skipped" in ended.out) == (0, True), ended
    skipped = stage.wait("tick", kind="slots_skipped", reason="the group is paused")
    assert "is paused already" in politics(stage, "pause").out
    successor, _ = stage.elected(after=leader.send(signal.SIGKILL))
    after = stage.wait("tick", after=skipped["t"], kind="slots_skipped", who=successor.name)
    own_memcached.restart()
    stage.wait("tick", after=after["t"] + 2, kind="slots_skipped", who=successor.name)
    (row,) = json.loads(politics(stage, "status", "--json").out)
    assert (row["paused"], row["work"], row["slot"]) == (True, "skipped", None)
    assert instant(row["next"]) - instant(row["tick"]) == SECOND
    assert "paused: what comes due is skipped" in politics(stage, "status").out
    last = starts(stage)[-1]
    assert "goes on with what comes due next" in politics(stage, "resume").out
    begins(stage, after=last["t"], who=successor.name)
    assert "is not paused" in politics(stage, "resume").out
    check_each_second(stage)


def test_a_group_without_a_schedule_is_paused_too(make_stage: MakeStage, old_store: str) -> None:
    """Its slots are skipped, with an event for each, until it is resumed."""
    stage = make_stage(old_store, iteration_length=0.3, seconds=0.0)
    events: list[Any] = []
    worker = stage.thread()
    worker.on_event = events.append  # type: ignore[method-assign]
    stage.wait("done")
    assert politics(stage, "pause").status == 0
    skipped = until(lambda: [event for event in events if event.reason == "the group is paused"], "a skipped slot")
    until(lambda: [e for e in events if e.reason == skipped[0].reason and e.slot > skipped[0].slot], "another one")
    before = max(event["slot"] for event in stage.events("slot"))
    assert politics(stage, "resume").status == 0
    resumed = until(lambda: [e for e in stage.events("slot") if e["slot"] > before], "a slot that is run")[0]
    assert resumed["slot"] > before + 2


def test_a_log_line_about_a_tick_has_its_name(old_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """The field `tick`, beside those that lines about slots have."""
    caplog.set_level("DEBUG", "politics")
    done: list[Term] = []
    worker = TokenWorker(group="bills", store=old_store, schedule=EACH_SECOND, announce=False)
    worker.start(done.append)
    until(lambda: any(getattr(record, "event", "") == "slot_done" for record in caplog.records))
    worker.stop()
    tick = done[0].tick
    assert tick is not None
    lines = [record for record in caplog.records if getattr(record, "event", "") in ("slot_started", "slot_done")]
    assert {getattr(record, "tick", "") for record in lines[:2]} == {tick.strftime("%Y-%m-%dT%H:%M:%SZ")}


# politics next

SHOP = """
from politics import Scheduler

jobs, nothing = Scheduler("shop"), Scheduler("nothing")

@jobs.every(60)
def drain(term): ...

@jobs.cron("0 2 * * *", timezone="Europe/Berlin")
def bill(term): ...
"""


def test_next_shows_the_ticks_of_a_worker(tmp_path: Path) -> None:
    """In the zone of its class and in UTC, also across a change of the clocks; it asks no store."""
    (tmp_path / "bills.py").write_text(BILLS)
    begin = ("--after", "2026-03-28T00:00:00+01:00")
    ended = commands.politics("next", "bills.py:Bills", "-n", 2, *begin, cwd=tmp_path)
    assert ended.status == 0, ended
    assert re.fullmatch(
        r"Sat 2026-03-28 02:30:00 CET   2026-03-28T01:30:00Z  (in \S+ .*|.* ago)\n"
        r"Sun 2026-03-29 03:00:00 CEST  2026-03-29T01:00:00Z  (in \S+ .*|.* ago)\n"
        r"each begins up to 60 s later: that is the jitter\n",
        ended.out,
    ), ended
    shown = commands.politics("next", "bills:Bills", "-n", 3, *begin, "--json", cwd=tmp_path)
    assert json.loads(shown.out) == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    assert (ended.err, shown.err) == ("", "")


def test_next_shows_the_ticks_of_all_jobs_of_a_scheduler(tmp_path: Path) -> None:
    """In the order in which they come due, each with the name of its job; in JSON the instants alone."""
    (tmp_path / "shop.py").write_text(SHOP)
    begin = ("--after", "2026-03-28T00:59:30Z", "-n", 3)
    ended = commands.politics("next", "shop.py:jobs", *begin, cwd=tmp_path)
    assert [[*re.split("  +", line)[:2], line.split()[-1]] for line in ended.out.splitlines()] == [
        ["Sat 2026-03-28 01:00:00 UTC", "2026-03-28T01:00:00Z", "shop/drain"],
        ["Sat 2026-03-28 02:00:00 CET", "2026-03-28T01:00:00Z", "shop/bill"],
        ["Sat 2026-03-28 01:01:00 UTC", "2026-03-28T01:01:00Z", "shop/drain"],
    ]
    shown = commands.politics("next", "shop:jobs", *begin, "--json", cwd=tmp_path)
    assert json.loads(shown.out) == ["2026-03-28T01:00:00Z", "2026-03-28T01:00:00Z", "2026-03-28T01:01:00Z"]
    none = commands.politics("next", "shop:nothing", cwd=tmp_path)
    assert none.status == 2
    assert "shop:nothing has no jobs: write @jobs.cron(...) above a function" in none.err


def test_next_shows_the_ticks_of_an_expression() -> None:
    """Five from now on, unless other options are given."""
    first = json.loads(commands.politics("next", "@hourly", "--json").out)
    assert len(first) == 5
    assert 0 < instant(first[0]).timestamp() - wall_ms() / 1000 <= 3600
    shown = commands.politics("next", "0 3 29 2 *", "--timezone", "Europe/Berlin", "--after", "9990-01-01T00:00Z")
    assert [line.split()[1] for line in shown.out.splitlines()[:-1]] == ["9992-02-29", "9996-02-29"]
    assert shown.out.endswith("there are no more\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["0 3 31 2 *"], "schedule '0 3 31 2 *' never fires"),
        (["0 3 * *"], "schedule '0 3 * *' has 4 fields"),
        (["@daily", "--timezone", "Europe/Berlni"], "there is no time zone 'Europe/Berlni': did you mean"),
        (
            ["@daily", "--after", "2026-11-24T03:00"],
            "does not say in which time zone: write 2026-11-24T03:00:00Z for UTC",
        ),
        (["@daily", "--after", "tomorrow"], "--after 'tomorrow' is no instant; write it as in 2026-11-24T03:00:00Z"),
        (["@daily", "--after", "0001-01-01T00:00+14:00"], "must be from 1970 to 9998"),
        (["@daily", "--after", "9999-12-31T23:59-14:00"], "--after '9999-12-31T23:59-14:00'"),
        (["@daily", "-n", "0"], "'-n'"),
        (["bills.py:Bills", "--timezone", "UTC"], "--timezone is for a cron expression"),
        (["bills.py:Slots"], "bills.py:Slots has no schedule: it works every 60 s"),
        (["bills.py:Beef"], "Beef in bills.py does not exist; workers there: Bills, Broken, Prompt, Slots"),
        (["bills.py:Broken"], "schedule 'nonsense' has 1 fields"),
        (["bills.py"], "is not path/to/file.py:Class"),
    ],
)
def test_next_refuses_what_is_no_schedule(tmp_path: Path, words: list[str], sentence: str) -> None:
    """Wrong usage: exit status 2, and a sentence that says what is wrong."""
    (tmp_path / "bills.py").write_text(BILLS)
    ended = commands.politics("next", *words, cwd=tmp_path)
    assert (ended.status, sentence in ended.said) == (2, True), ended
    assert "Traceback" not in ended.err


def test_run_takes_another_schedule_than_that_of_the_class(tmp_path: Path, old_store: str) -> None:
    """`politics run --schedule` and `--timezone` are instead of the class's."""
    (tmp_path / "bills.py").write_text(BILLS)
    words = ("run", f"{tmp_path}/bills.py:Prompt", "--store", old_store, "--schedule", EACH_SECOND, "--timezone", "UTC")
    with running(sys.executable, "-m", "politics", *words) as command:
        command.line("billed ")
        assert command.stop() == 0

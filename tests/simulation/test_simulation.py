"""The promise, under attack in a simulated world; `make simulate` goes on for longer."""

import re
from pathlib import Path

import pytest

from tests.simulation import backups, breakages, broken_ticks
from tests.simulation.attack import SECONDS, breaks, shrink, steps_until_caught, worlds
from tests.simulation.backups import RESTORES, BackupWorld
from tests.simulation.breakages import Breakage
from tests.simulation.hints import CALM, HINTS, HintWorld
from tests.simulation.ticks import LEAPS, TICKS, LeapWorld, TickWorld
from tests.simulation.world import EDITS, KINDS, Broken, World, random_faults

CAUGHT = breakages.CAUGHT + backups.CAUGHT + broken_ticks.CAUGHT

SAFETY = Path(__file__).parents[2] / "docs" / "safety.md"


def test_there_are_never_two_leaders_and_somebody_leads_again_when_the_faults_stop() -> None:
    """A hundred and fifty thousand steps of bad luck break nothing."""
    done = list(worlds(150_000))
    assert sum(world.terms for world in done) > 100, "hardly anybody was elected: this attacks nothing"
    assert sum(world.takeovers for world in done) > 10, "hardly any slot was interrupted: this attacks nothing"
    assert sum(world.looks for world in done) > 1000, "hardly anybody looked at a version alone"
    assert sum(world.batches for world in done) > 100, "hardly any leases were renewed together"


def test_nobody_leads_beside_a_holder_whose_record_was_spoilt_and_forgotten() -> None:
    """Records that nobody can read, and `politics forget` at any moment, break nothing."""
    done = list(worlds(60_000, kinds=EDITS))
    assert sum(world.forgotten for world in done) > 15, "hardly anything was forgotten: this attacks nothing"
    assert sum(world.terms for world in done) > 30, "hardly anybody was elected: this attacks nothing"


def test_nobody_leads_by_what_the_store_has_brought_back() -> None:
    """A store that comes back with an earlier state, at any moment and in another generation, breaks nothing."""
    done = list(worlds(60_000, kinds=RESTORES, make=BackupWorld))
    assert sum(world.restores for world in done if isinstance(world, BackupWorld)) > 30, "hardly anything was restored"
    assert sum(world.terms for world in done) > 60, "hardly anybody was elected: this attacks nothing"


def test_each_tick_runs_once_or_as_a_takeover_and_each_is_accounted_for() -> None:
    """Clocks that are wrong and set, and orders, beside all other faults: ticks grow, and none is lost."""
    done = list(worlds(150_000, kinds=TICKS, make=TickWorld))
    assert sum(len(world.accounts) for world in done if isinstance(world, TickWorld)) > 150, "hardly a tick came due"
    figures = {"terms": 60, "takeovers": 10, "skips": 50, "overruns": 15, "pauses": 10, "triggers": 15}
    for name, least in figures.items():
        assert sum(getattr(world, name) for world in done) > least, f"hardly any {name}: this attacks nothing"


@pytest.mark.parametrize(("kinds", "make"), [(LEAPS, LeapWorld), ((*TICKS, *["spoil"] * 4), TickWorld)], ids=str)
def test_ticks_grow_whatever_clocks_show_and_also_if_records_are_spoilt(
    kinds: tuple[str, ...], make: type[World]
) -> None:
    """While no record is lost no clock matters; and a record that is forgotten costs a takeover at most."""
    done = list(worlds(40_000, kinds=kinds, make=make))
    assert sum(world.terms for world in done) > 15, "hardly anybody was elected: this attacks nothing"


def test_hints_decide_nothing_and_one_that_is_lost_costs_nine_polls() -> None:
    """Hints that are late, lost, repeated or needless, beside all other faults, break nothing; and in calm, who has
    died is replaced when the lease is free, and who has stopped after ten polls at most, heard of or not."""
    rough = list(worlds(40_000, kinds=HINTS, make=HintWorld))
    calm = list(worlds(80_000, kinds=CALM, make=HintWorld))
    done = [world for world in (*rough, *calm) if isinstance(world, HintWorld)]
    assert sum(world.terms for world in rough) > 30, "hardly anybody was elected: this attacks nothing"
    assert sum(world.hints for world in done) > 5_000, "hardly any hints"
    assert sum(world.lost_hints for world in done) > 1_000, "hardly any hint was lost"
    assert sum(world.replaced for world in done) > 3, "hardly anybody was replaced in calm"


@pytest.mark.parametrize("breakage", CAUGHT, ids=str)
def test_a_broken_rule_is_seen(breakage: Breakage) -> None:
    """Each rule is needed: without it, the verifier sees the promise broken within the steps that are stated."""
    assert steps_until_caught(breakage, breakage.within), f"not seen in {breakage.within} steps"


OWN_FAULTS = {(b.kinds, b.world) for b in CAUGHT} - {(KINDS, World), (RESTORES, BackupWorld), (TICKS, TickWorld)}


@pytest.mark.parametrize(("kinds", "make"), sorted(OWN_FAULTS, key=str), ids=str)
def test_the_faults_that_show_a_broken_rule_break_no_promise(kinds: tuple[str, ...], make: type[World]) -> None:
    """Where a rule is attacked with faults of its own, it is the broken rule that the verifier sees, not the faults."""
    done = list(worlds(30_000, kinds=kinds, make=make))
    assert sum(world.terms for world in done) > 10, "hardly anybody was elected: this attacks nothing"


def test_the_documentation_lists_each_broken_rule() -> None:
    """docs/safety.md has one row for each broken rule, and no step at which it is seen is beyond the limit."""
    rows = re.findall(r"^\| (\S+) \| ([^|]+) \| ([\d,]+) \|$", SAFETY.read_text(), re.M)
    stated = {(rule, what): int(steps.replace(",", "")) for rule, what, steps in rows}
    limits = {(b.rule, b.what): b.within for b in CAUGHT}
    assert stated.keys() == limits.keys()
    assert [row for row, steps in stated.items() if steps > limits[row]] == []


def test_a_seed_repeats_its_run() -> None:
    """The same seed gives the same world, to the last step."""
    first, second = (World(5, random_faults(5, SECONDS), SECONDS).run() for _ in range(2))
    assert (first.steps, first.terms, first.highest_fence) == (second.steps, second.terms, second.highest_fence)


def test_what_breaks_the_promise_is_shrunk_to_what_it_takes() -> None:
    """Of the faults of a failing run, those remain without which it would not fail."""
    breakage = next(b for b in breakages.CAUGHT if b.rule == "11")
    with breakage():
        seed = next(n for n in range(50) if breaks(n, random_faults(n, SECONDS)))
        faults = random_faults(seed, SECONDS)
        few = shrink(seed, faults)
        assert len(few) < len(faults) / 4
        with pytest.raises(Broken):
            World(seed, few, SECONDS).run()
        assert not any(breaks(seed, few[:n] + few[n + 1 :]) for n in range(len(few)))

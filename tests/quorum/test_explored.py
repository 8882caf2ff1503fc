"""The rules of a quorum, explored: `make simulate` goes on for longer."""

import re
from pathlib import Path

import pytest

from tests.quorum.breakages import BY_HAND, CAUGHT, NEVER_CAUGHT, Breakage, count_until_caught
from tests.quorum.explore import Small, explore, run_large
from tests.quorum.small import SHORT

SAFETY = Path(__file__).parents[2] / "docs" / "safety.md"


@pytest.mark.parametrize("small", SHORT, ids=lambda small: small.name)
def test_no_interleaving_of_a_small_world_breaks_the_register(small: Small) -> None:
    """Every order in which requests land, time out and are forgotten leaves one register."""
    count, all_of_them = explore(small)
    assert all_of_them
    assert count > 1000, "hardly anything can happen: this attacks nothing"


def test_chance_breaks_no_register_and_in_quiet_it_is_whole_again() -> None:
    """Sixty thousand moves of up to eight threads and five servers, of which a minority or all forget."""
    totals = run_large(60_000, 7)
    for outcome in ("create", "swap", "swap unknown", "old unknown", "settle", "repair", "NoChoice", "TooFew"):
        assert totals.get(outcome, 0) > 3, f"hardly any {outcome!r}: this attacks nothing"


@pytest.mark.parametrize("breakage", CAUGHT, ids=str)
def test_a_broken_rule_of_the_quorum_is_seen(breakage: Breakage) -> None:
    """Each rule is needed: without it, the register breaks within the states or steps that are stated."""
    assert count_until_caught(breakage, breakage.within), f"not seen in {breakage.within}"


def test_the_documentation_lists_each_broken_rule_of_the_quorum() -> None:
    """docs/safety.md has one row for each, and no more steps than the limit."""
    rows = re.findall(r"^\| quorum: ([^|]+) \| ([^|]+) \|$", SAFETY.read_text(), re.M)
    limits = {breakage.what: breakage.within for breakage in CAUGHT}
    stated = {what: int(seen.replace(",", "")) for what, seen in rows if seen.replace(",", "").isdecimal()}
    assert stated.keys() == limits.keys()
    assert [what for what, count in stated.items() if count > limits[what]] == []
    assert {what for what, _ in rows} - stated.keys() == {breakage.what for breakage in BY_HAND + NEVER_CAUGHT}

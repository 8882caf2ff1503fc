"""What a candidate and a holder do next: each rule, on both sides of each deadline."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from election import LeasePolicy
from election.lease import Lease
from election.record import Record, State
from election.rules import (
    Adopt,
    Ask,
    Lost,
    Post,
    Rewrite,
    Step,
    Take,
    View,
    Wait,
    after_hint,
    is_own_takeover,
    next_look,
    next_step,
    reconcile,
    renewed,
)

POLICY = LeasePolicy(10, drift=0.01)
WALL = 5_000
HELD = Record(fence=7, holder="other", seq=3, ttl_ms=10_000, state=State.HELD)
OPEN, VACANT = replace(HELD, state=State.OPEN), replace(HELD, state=State.VACANT)
MINE = replace(HELD, holder="me")
FOREIGN = {record.state: replace(record, store="g1").found_in("g2") for record in (HELD, OPEN, VACANT)}
FOREIGN_MINE = replace(MINE, store="g1").found_in("g2")


def view(record: Record | None, **more: Any) -> View:
    """What is known after one look, at 100 s."""
    return replace(View(**more).see(record, "version", 100.0), attempt=more.get("attempt"))


def just_before(moment: float) -> float:
    """Return a moment a microsecond earlier."""
    return moment - 1e-6


STEPS: list[tuple[str, View, float, bool | None, Step]] = [
    # rule 5: nothing is there
    ("empty", view(None), 100, None, Post(fence=0)),
    ("empty, after a leader", view(None, fence=9_000), 100, None, Post(fence=9_000)),
    ("empty, though the store remembers", view(None), 100, True, Post(fence=0)),
    # rule 3: somebody's
    ("held", view(HELD), 100, None, Wait(until=110.1)),
    ("held, the store's word is worth nothing", view(HELD), 100, True, Wait(until=110.1)),
    ("held, just before its end", view(HELD), just_before(110.1), None, Wait(until=110.1)),
    ("held, at its end", view(HELD), 110.1, None, Take(fence=WALL)),
    ("held, after a higher fence was seen", view(HELD, fence=9_000), 110.1, None, Take(fence=9_001)),
    ("held, for longer than is our way", view(replace(HELD, ttl_ms=60_000)), 110.1, None, Wait(until=160.6)),
    ("held, for shorter than is our way", view(replace(HELD, ttl_ms=1_000)), 101.01, None, Take(fence=WALL)),
    # rule 4: resigned
    ("open", view(OPEN), 100, None, Take(fence=WALL)),
    ("open, of a leader whose clock was ahead", view(replace(OPEN, fence=9_000)), 100, None, Take(fence=9_001)),
    # rule 5: vacant
    ("vacant", view(VACANT), 100, None, Ask(seconds=10.1)),
    ("vacant, and the store remembers", view(VACANT), 100, True, Take(fence=WALL)),
    ("vacant, and the store does not", view(VACANT), 100, False, Wait(until=110.1)),
    ("vacant, just before the end", view(VACANT), just_before(110.1), False, Wait(until=110.1)),
    ("vacant, at the end", view(VACANT), 110.1, None, Take(fence=WALL)),
    ("vacant, of a short lease", view(replace(VACANT, ttl_ms=500)), 100.6, False, Wait(until=110.1)),
    ("vacant, after a long lease", view(VACANT, ttl=60), 110.1, None, Ask(seconds=60.6)),
    ("vacant, after a long lease, refused", view(VACANT, ttl=60), 110.1, False, Wait(until=160.6)),
    ("vacant, with a high fence", view(replace(VACANT, fence=9_000)), 110.1, None, Take(fence=9_001)),
    # rule 12: brought back
    *[(f"{state}, brought back", view(FOREIGN[state]), 100, None, Wait(until=110.1)) for state in State],
    *[(f"{state}, brought back, at the end", view(FOREIGN[state]), 110.1, None, Take(fence=WALL)) for state in State],
    ("brought back, the store's word is worth nothing", view(FOREIGN[State.OPEN]), 100, True, Wait(until=110.1)),
    (
        "brought back, of a long lease",
        view(replace(FOREIGN[State.OPEN], ttl_ms=60_000)),
        110.1,
        None,
        Wait(until=160.6),
    ),
    ("brought back, after a long lease", view(FOREIGN[State.HELD], ttl=60), 110.1, None, Wait(until=160.6)),
    ("ours, brought back", view(FOREIGN_MINE, attempt=(3, 95.0)), 100, None, Wait(until=110.1)),
    # an unanswered takeover
    ("ours", view(MINE, attempt=(3, 95.0)), 100, None, Adopt(sent=95.0)),
    ("ours, just before its end", view(MINE, attempt=(3, 95.0)), just_before(104.9), None, Adopt(sent=95.0)),
    ("ours, too late", view(MINE, attempt=(3, 95.0)), 104.9, None, Wait(until=110.1)),
    ("ours, from another write", view(MINE, attempt=(4, 95.0)), 100, None, Wait(until=110.1)),
    ("ours, not attempted", view(MINE), 100, None, Wait(until=110.1)),
    ("somebody's with the same number", view(HELD, attempt=(3, 95.0)), 100, None, Wait(until=110.1)),
    ("our vacancy", view(replace(MINE, state=State.VACANT), attempt=(3, 95.0)), 100, False, Wait(until=110.1)),
]


@pytest.mark.parametrize(("seen", "now", "remembers", "step"), [s[1:] for s in STEPS], ids=[s[0] for s in STEPS])
def test_next_step(seen: View, now: float, remembers: bool | None, step: Step) -> None:
    """Each of the rules decides as it says."""
    found = next_step(seen, "me", POLICY, now, WALL, remembers)
    if isinstance(step, Wait | Ask):
        assert type(found) is type(step)
        found, step = (vars_of(found), vars_of(step))  # type: ignore[assignment]
        assert found == pytest.approx(step)
    else:
        assert found == step


def vars_of(step: Step) -> float:
    """The time in a Wait or an Ask."""
    return step.until if isinstance(step, Wait) else step.seconds  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("seen", "own"),
    [
        (view(None), False),
        (view(None, attempt=(3, 95.0)), False),
        (view(MINE), False),
        (view(MINE, attempt=(3, 95.0)), True),
        (view(MINE, attempt=(4, 95.0)), False),
        (view(HELD, attempt=(3, 95.0)), False),
        (view(FOREIGN_MINE, attempt=(3, 95.0)), False),
    ],
)
def test_own_takeover(seen: View, own: bool) -> None:
    """A record is our own unconfirmed takeover if we wrote it in the attempt that was not answered."""
    assert is_own_takeover(seen, "me") is own


LEASE = Lease(MINE, "v3", 100.0, POLICY)  # until 109.9
RECONCILED: list[tuple[str, Record | None, float, Rewrite | Lost]] = [
    ("gone", None, 105, Rewrite()),
    ("gone, just before the deadline", None, just_before(109.9), Rewrite()),
    ("gone, at the deadline", None, 109.9, Lost("not renewed within 9.9 s")),
    ("vacant", replace(VACANT, fence=99), 105, Rewrite()),
    ("ours, from a write that was not answered", replace(MINE, seq=9), 105, Rewrite()),
    ("ours, and asked for", replace(MINE, asked=True), 105, Rewrite(asked=True)),
    ("ours, too late", MINE, 109.9, Lost("not renewed within 9.9 s")),
    ("ours of another term", replace(MINE, fence=8), 105, Lost("taken over by :0 (fence 8)")),
    ("somebody's", replace(HELD, fence=8, host="h", pid=1), 105, Lost("taken over by h:1 (fence 8)")),
    *[(f"{state}, brought back", FOREIGN[state], 105, Rewrite()) for state in State],
    ("brought back, too late", FOREIGN[State.HELD], 109.9, Lost("not renewed within 9.9 s")),
    ("resigned by somebody", replace(OPEN, fence=8), 105, Lost("taken over by :0 (fence 8)")),
]


@pytest.mark.parametrize(("found", "now", "verdict"), [r[1:] for r in RECONCILED], ids=[r[0] for r in RECONCILED])
def test_reconcile(found: Record | None, now: float, verdict: Rewrite | Lost) -> None:
    """A holder puts back what is its own and yields to everything else (rule 6)."""
    assert reconcile(LEASE, found, now) == verdict


def test_renewed() -> None:
    """A renewal counts from when it was sent, if its answer arrives before the old deadline, and for nothing at it."""
    assert renewed(LEASE, "v4", 103.0, just_before(109.9)) == Lease(MINE, "v4", 103.0, POLICY)
    assert renewed(LEASE, "v4", 103.0, 109.9) == Lost("not renewed within 9.9 s")


def test_since() -> None:
    """The wait begins when a write is first received, and anew with each other write, vacancy and emptiness."""
    seen = view(HELD)
    assert seen.see(HELD, "another version", 105).since == 100
    assert seen.see(replace(HELD, asked=True), "v", 105).since == 100
    assert seen.see(replace(HELD, seq=4), "v", 105).since == 105
    assert seen.see(replace(HELD, holder="third"), "v", 105).since == 105
    assert seen.see(None, None, 105).see(HELD, "v", 106).since == 106


def test_the_wait_begins_anew_in_another_generation() -> None:
    """A restored backup may bring back the very record that a candidate saw long ago, and others may lead."""
    seen = View().see(HELD, ("g1", 1), 100.0, "g1")
    assert seen.see(HELD, ("g1", 1), 105, "g1").since == 100
    back = seen.see(HELD, ("g2", 1), 105, "g2")
    assert (back.since, back.generation) == (105, "g2")
    assert back.after_trying((1, 106.0)).see(HELD, ("g2", 1), 107, "g2").since == 105


HISTORY = [replace(record, seq=seq) for seq, record in enumerate((HELD, HELD, replace(HELD, fence=9), OPEN, VACANT))]
HISTORY += [replace(HELD, ttl_ms=90_000, seq=9), replace(HELD, seq=10, asked=True)]


@given(
    st.lists(st.sampled_from([None, *HISTORY])),
    st.lists(st.floats(0, 30), min_size=20, max_size=20),
    st.sampled_from([None, True, False]),
)
def test_any_history(records: list[Record | None], pauses: list[float], remembers: bool | None) -> None:
    """Whatever was seen, what is taken has a fence above all of it, and was not held too lately."""
    now, seen, free = 100.0, View(), 0.0
    for record, pause in zip(records, pauses, strict=False):
        now += pause
        if record and (seen.record is None or record.key != seen.record.key) and record.state is State.HELD:
            free = now + POLICY.distrusted(record.ttl)
        seen = seen.see(record, "v", now)
        step = next_step(seen, "me", POLICY, now, WALL, remembers)
        if isinstance(step, Take):
            assert seen.record is not None
            assert all(step.fence > earlier.fence for earlier in records[: records.index(record)] if earlier)
            assert step.fence > seen.record.fence
            assert seen.record.state is not State.HELD or now >= free


# The polls of POLICY are 0.25 s.
PACES: list[tuple[str, View, float, bool, float]] = [
    ("held, by polls alone", view(HELD), 100, False, 0.25),
    ("held, by polls alone, just before its end", view(HELD), 110.0, False, 0.25),
    ("held, with hints", view(HELD), 100, True, 2.5),
    ("held, with hints, near its end", view(HELD), 109.1, True, 1.0),
    ("held, with hints, at its end", view(HELD), 110.1, True, 0.25),
    ("held, with hints, after its end", view(HELD), 150, True, 0.25),
    ("held for longer, with hints, near its end", view(replace(HELD, ttl_ms=60_000)), 159.6, True, 1.0),
    ("open, with hints", view(OPEN), 100, True, 0.25),
    ("vacant, with hints", view(VACANT), 100, True, 0.25),
    ("empty, with hints", view(None), 100, True, 0.25),
]


@pytest.mark.parametrize(
    ("seen", "now", "live", "seconds"), [case[1:] for case in PACES], ids=[case[0] for case in PACES]
)
def test_next_look(seen: View, now: float, live: bool, seconds: float) -> None:
    """A standby whose hints are live looks at a leader a tenth as often, and when the lease is free."""
    assert next_look(seen, POLICY, now, live) == pytest.approx(seconds)


def test_a_storm_of_hints() -> None:
    """Whenever they come, hints cause ten looks at once and then ten in a poll; each comes late by a poll at most."""
    full, looks = 0.0, list[float]()
    for hint in range(10_000):
        now = 100 + hint / 10_000
        if not looks or looks[-1] <= now:  # while a look is planned, no other is
            look_at, full = after_hint(full, POLICY, now)
            assert now <= look_at <= now + POLICY.poll
            looks.append(look_at)
    assert looks[:10] == [100 + hint / 10_000 for hint in range(10)]
    assert len(looks) <= 10 + 4 * 10 + 1


def test_a_hint_after_a_storm() -> None:
    """A hint that comes a poll after others causes a look at once."""
    full = 0.0
    for _ in range(100):
        _, full = after_hint(full, POLICY, 100.0)
    assert after_hint(full, POLICY, full)[0] == full
    assert after_hint(0.0, POLICY, 5.0)[0] == 5.0

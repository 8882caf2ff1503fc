"""Each rule of the protocol, broken on purpose: to show that the simulation would see it.

A breakage is a patch of the product's behaviour, or of the world's, for the time of a run. The rules are numbered as in
docs/design.md.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import election.candidate
import election.rules
import election.term
import politics.worker.agenda
import politics.worker.duty
from election import Candidate, LeaseTerm, StoreUnavailable
from election.lease import Lease, LeasePolicy
from election.record import State
from election.rules import FEWER, Lost, Post, Rewrite, Take, View, Wait
from election.term import Renewal
from politics.worker.slots import Slot, Turn, next_turn
from tests.simulation.hints import CALM, HINTS, HintWorld
from tests.simulation.store import Link, Store
from tests.simulation.threads import Process, world
from tests.simulation.world import KINDS, World

_next_step, _reconcile, _renewed = election.rules.next_step, election.rules.reconcile, election.rules.renewed
_swap, _resign, _free_at, _see, _fork = Store.swap, LeaseTerm.resign, View.free_at, View.see, World.fork
_lead, _look, _nudge = Candidate._lead, Candidate._look, Candidate.nudge
_end_renewal, _is_unchanged = LeaseTerm.end_renewal, LeaseTerm.is_unchanged


@dataclass(frozen=True)
class Breakage:
    """What is done to which rule, in the words of docs/safety.md, and within how many steps the verifier sees it.

    `kinds` are the faults that it takes, `first` is the seed to begin with: one that showed it soon when it was tried,
    `world` is where.
    """

    rule: str
    what: str
    within: int
    patches: tuple[tuple[Any, str, Any], ...]
    kinds: tuple[str, ...] = KINDS
    first: int = 0
    world: type[World] = World

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for place, name, instead in self.patches:
                stack.enter_context(patch.object(place, name, instead))
            yield

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def expiring_swap(self: Store, name: str, data: bytes, expected: int | None) -> int | None:
    version = _swap(self, name, data, expected)
    if version is not None:
        w = world()

        def expire() -> None:
            if self.cells.get(name, (b"", 0))[1] == version:
                del self.cells[name]

        w.after(w.rng.uniform(0.02, 0.99), expire)
    return version


def deadline_from_answer(lease: Lease, version: Any, sent: float, now: float) -> Any:
    return _renewed(lease, version, now, now)


def lead_from_answer(self: Candidate, lease: Lease, *rest: Any) -> LeaseTerm | None:
    return _lead(self, replace(lease, sent=self._clock.now()), *rest)


def late_answer_counts(lease: Lease, version: Any, sent: float, now: float) -> Any:
    return Lease(lease.record, version, now, lease.policy)


def unanswered_renewal_counts(self: LeaseTerm, renewal: Renewal, version: Any) -> bool:
    silent = isinstance(version, StoreUnavailable)
    return _end_renewal(self, renewal, renewal.lease.version if silent else version)


def look_counts_as_renewal(self: LeaseTerm) -> bool:
    sent = self._clock.now()
    unchanged = _is_unchanged(self)
    if unchanged:
        self._accept(self._lease.version, sent)
    return unchanged


def version_without_its_record(self: Candidate, *, polled: bool) -> None:
    if polled and self.view.record and (version := self._register.version(self.name)):
        self.view = replace(self.view, version=version)
    else:
        _look(self, polled=False)


def free_before_its_time(self: View, policy: LeasePolicy) -> float:
    return self.since + (_free_at(self, policy) - self.since) * 0.7


def sighting_ignores_seq(self: View, record: Any, version: Any, received: float, generation: str = "") -> View:
    seen = _see(self, record, version, received, generation)
    if self.record and record and self.record.holder == record.holder:
        return replace(seen, since=self.since)
    return seen


def hand_over_while_valid(self: LeaseTerm) -> None:
    with self._writing:
        with contextlib.suppress(StoreUnavailable):
            if self.valid:
                self._open(self._lease)
        self.lost.wait(0.3)
    _resign(self)


def missing_is_free(view: View, *rest: Any) -> Any:
    step = _next_step(view, *rest)
    return Take(step.fence + 1) if isinstance(step, Post) else step


def vacancy_is_free(self: View, policy: LeasePolicy) -> float:
    return self.since if self.record and self.record.state is State.VACANT else _free_at(self, policy)


def forgotten_is_lost(view: View, *rest: Any) -> Any:
    if view.record:
        view = replace(view, record=replace(view.record, forgotten=False))
    return _next_step(view, *rest)


class WaitOverAbsence:
    """The rule as it was first thought of: find the cell empty for a whole lease, then create a held record."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def __call__(self, view: View, me: str, policy: LeasePolicy, now: float, wall_ms: int, remembers: Any) -> Any:
        if view.record is not None:
            self.since.pop(me, None)
            return _next_step(view, me, policy, now, wall_ms, remembers)
        until = self.since.setdefault(me, now) + policy.distrusted(policy.ttl)
        return Wait(until) if now < until else Take(max(view.fence + 1, wall_ms))


def put_back_at_once(self: LeaseTerm, note: Any) -> Any:
    return self.register.swap(self.name, self._encode(note, None), None)


def never_put_back(lease: Lease, found: Any, now: float) -> Any:
    verdict = _reconcile(lease, found, now)
    gone = found is None or found.state is State.VACANT
    return Lost("the record is gone") if gone and isinstance(verdict, Rewrite) else verdict


def overwrite_anything(lease: Lease, found: Any, now: float) -> Any:
    return Rewrite()


def same_fence(view: View, *rest: Any) -> Any:
    step = _next_step(view, *rest)
    return Take(view.record.fence) if isinstance(step, Take) and view.record else step


def fence_without_clock(view: View, me: str, policy: LeasePolicy, now: float, wall_ms: int, remembers: Any) -> Any:
    return _next_step(view, me, policy, now, 0, remembers)


def name_moves(self: Link) -> Store:
    return next((store for store in self.world.stores if self.world.now >= store.down_until), self.world.stores[0])


def child_leads(self: World, process: Process) -> None:
    _fork(self, process, process.pid)


def clock_sleeps(self: Process) -> float:
    slept = sum(max(0.0, min(self.world.now, end) - begun) for begun, end in self.pauses)
    return self.offset + self.rate * (self.world.now - slept)


def slot_is_not_written(self: Slot, now: float) -> dict[str, Any]:
    return {"slot": self.number - 1, "work": "done", "left_ms": round((self.ends - now) * 1000)}


def rerun_unmarked(*args: Any, **kwargs: Any) -> Turn:
    return replace(next_turn(*args, **kwargs), takeover=False)


def hint_restarts_the_wait(self: Candidate) -> None:
    self.view = replace(self.view, since=self._clock.now())
    _nudge(self)


def hint_ends_the_wait(self: Candidate) -> None:
    self.view = replace(self.view, since=self.view.since - self.policy.ttl)
    _nudge(self)


def waits_past_the_end(view: View, policy: LeasePolicy, now: float, live: bool) -> float:
    return FEWER * policy.poll if live else policy.poll


FAILURES = ("fail", "fail", "fail", "fail", "kill", "pause", "cut", "flush", "restart", "stop", "ask")

_step, _term = election.candidate, election.term

CAUGHT = (
    Breakage(
        "1",
        "the store's expiry ends a lease, and an empty cell is free",
        1_000,
        ((Store, "swap", expiring_swap), (_step, "next_step", missing_is_free)),
    ),
    Breakage(
        "2",
        "the deadline counts from the answer, not from the request",
        100_000,
        ((_term, "renewed", deadline_from_answer), (Candidate, "_lead", lead_from_answer)),
        ("late", "cut", "pause"),
    ),
    Breakage(
        "2",
        "a late answer makes an ended term valid again",
        100_000,
        ((_term, "renewed", late_answer_counts),),
        ("late", "kill"),
        first=4,
    ),
    Breakage(
        "2",
        "a renewal that was not answered, among others, counts",
        50_000,
        ((LeaseTerm, "end_renewal", unanswered_renewal_counts),),
        ("cut",),
    ),
    Breakage(
        "2",
        "a look that finds the version unchanged counts as a renewal",
        50_000,
        ((LeaseTerm, "is_unchanged", look_counts_as_renewal),),
        ("cut", "pause"),
    ),
    Breakage(
        "3",
        "a look takes over a new version without its record",
        2_000,
        ((Candidate, "_look", version_without_its_record),),
    ),
    Breakage("3", "a challenger waits for 0.7 of a lease", 100_000, ((View, "free_at", free_before_its_time),)),
    Breakage("3", "a renewal does not restart the wait", 2_000, ((View, "see", sighting_ignores_seq),)),
    Breakage(
        "4", "a leader resigns while its term is still valid", 2_000, ((LeaseTerm, "resign", hand_over_while_valid),)
    ),
    Breakage("5", "an empty cell is free", 50_000, ((_step, "next_step", missing_is_free),)),
    Breakage("5", "a vacant cell is free at once", 50_000, ((View, "free_at", vacancy_is_free),)),
    Breakage(
        "5",
        "a candidate waits while the cell is empty, instead of writing a vacant record first",
        100_000,
        ((_step, "next_step", WaitOverAbsence()), (LeaseTerm, "_post", put_back_at_once)),
        # A candidate that sees nothing for a while, during which the record is lost, put back and lost again.
        ("flush", "flush", "flush", "cut", "pause"),
        first=100,
    ),
    Breakage(
        "5",
        "a record that was overwritten counts as lost, so that the store is asked whether it remembers",
        20_000,
        ((_step, "next_step", forgotten_is_lost),),
        ("spoil", "spoil", "cut"),
    ),
    Breakage("6", "a lost record is not put back", 100_000, ((_term, "reconcile", never_put_back),)),
    Breakage("7", "a successor keeps the fence that it finds", 1_000, ((_step, "next_step", same_fence),)),
    Breakage(
        "7",
        "a fence may be below the wall clock",
        100_000,
        ((_step, "next_step", fence_without_clock),),
        ("restart", "kill", "pause"),
    ),
    Breakage("9", "a name moves to another server", 50_000, ((Link, "home", name_moves),)),
    Breakage("10", "a forked child counts as leader", 20_000, ((World, "fork", child_leads),)),
    Breakage("11", "the clock stops while the machine sleeps", 50_000, ((Process, "local", clock_sleeps),)),
    Breakage(
        "hints",
        "a hint counts as a sighting, and the wait begins again",
        100_000,
        ((Candidate, "nudge", hint_restarts_the_wait),),
        ("kill", "noise"),
        first=20,
        world=HintWorld,
    ),
    Breakage(
        "hints",
        "a hint says that the lease is over",
        2_000,
        ((Candidate, "nudge", hint_ends_the_wait),),
        HINTS,
        world=HintWorld,
    ),
    Breakage(
        "hints",
        "a standby that relies on hints does not look when the lease is free",
        100_000,
        ((_step, "next_look", waits_past_the_end),),
        CALM,
        first=10,
        world=HintWorld,
    ),
    Breakage("slots", "a new slot is not written into the record", 2_000, ((Slot, "note", slot_is_not_written),)),
    Breakage(
        "slots",
        "a rerun is not marked as a takeover",
        100_000,
        ((politics.worker.agenda, "next_turn", rerun_unmarked),),
    ),
    Breakage(
        "slots",
        "a slot that failed and is to be run again counts as done",
        50_000,
        ((politics.worker.duty, "is_done", lambda failed, retry: True),),
        FAILURES,
    ),
)

# These were never caught, in a million steps each. `make simulate` tries them too, and reports if one is.
NEVER_CAUGHT = (
    # Needed, and tested against real memcached: it takes a restart between a look and the swap that follows from it,
    # another user of the connection who reconnects in that moment, and the same CAS id.
    Breakage(
        "8",
        "a version is compared on another connection",
        0,
        ((World, "comparable", lambda self, then, now: True),),
        ("restart", "restart", "pause", "pause", "ask", "stop"),
    ),
    # Not needed for safety: before a holder's own deadline nobody else has the right to its cell. Kept because it ends
    # the term at once where somebody has edited the cell by hand.
    Breakage("6", "a holder overwrites whatever it finds", 0, ((_term, "reconcile", overwrite_anything),)),
)

"""Each rule of the protocol, broken on purpose: to show that the simulation would see it.

A breakage is a patch of the product's behaviour for the time of a run. Each says within how many steps it is caught.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import election.candidate
import election.rules
import election.term
from election import Candidate, State, Term
from election.lease import Lease, LeasePolicy
from election.rules import Lost, Post, Rewrite, Take, View, Wait
from politics.slots import Slot, Turn
from tests.simulation.threads import Process
from tests.simulation.world import Link, Store, World


@dataclass(frozen=True)
class Breakage:
    """One rule, what is done to it, and the number of steps within which the verifier sees it."""

    rule: str
    what: str
    within: int
    patches: tuple[tuple[Any, str, Any], ...]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for place, name, instead in self.patches:
                stack.enter_context(patch.object(place, name, instead))
            yield


def breaking(rule: str, what: str, within: int, *patches: tuple[Any, str, Any]) -> Breakage:
    return Breakage(rule, what, within, patches)


_next_step, _reconcile, _renewed, _swap = election.rules.next_step, election.rules.reconcile, election.rules.renewed, Store.swap
_resign, _free_at, _see, _fork = Term.resign, View.free_at, View.see, World.fork


def store_forgets_on_expiry(self: Store, name: str, data: bytes, expected: int | None) -> int | None:
    """The store expires a cell after the lease, and an empty cell is free: what every peer on memcached does."""
    from tests.simulation.threads import world

    w = world()
    version = _swap(self, name, data, expected)
    if version is not None:
        w.after(1.0 * w.rng.uniform(0.02, 0.99), lambda: self.cells.get(name, (b"", 0))[1] == version and self.cells.pop(name))
    return version


def deadline_from_answer(lease: Lease, record: Any, version: Any, sent: float, now: float) -> Any:
    return _renewed(lease, record, version, now, now)


def late_answer_revives(lease: Lease, record: Any, version: Any, sent: float, now: float) -> Any:
    return Lease(record, version, now, lease.policy)


def free_before_its_time(self: View, policy: LeasePolicy) -> float:
    return self.since + (_free_at(self, policy) - self.since) * 0.7


def sighting_ignores_seq(self: View, record: Any, version: Any, received: float) -> View:
    seen = _see(self, record, version, received)
    if self.record and record and self.record.holder == record.holder:
        return replace(seen, since=self.since)
    return seen


def tell_before_disbelieving(self: Term) -> None:
    with self._writing:
        with contextlib.suppress(election.StoreUnavailable):
            if self.valid:
                self._open(self._lease)
        self.lost.wait(0.3)
    _resign(self)


def missing_is_free(view: View, *rest: Any) -> Any:
    step = _next_step(view, *rest)
    return Take(step.fence + 1) if isinstance(step, Post) else step


def vacancy_is_free(self: View, policy: LeasePolicy) -> float:
    return self.since if self.record and self.record.state is State.VACANT else _free_at(self, policy)


class WaitOverAbsence:
    """The rule as it was first designed: look at the empty cell for a whole lease, then create a held record."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def __call__(self, view: View, me: str, policy: LeasePolicy, now: float, wall_ms: int, remembers: Any) -> Any:
        if view.record is not None:
            self.since.pop(me, None)
            return _next_step(view, me, policy, now, wall_ms, remembers)
        if now < (until := self.since.setdefault(me, now) + policy.distrusted(policy.ttl)):
            return Wait(until)
        return Take(max(view.fence + 1, wall_ms))


def never_put_back(lease: Lease, found: Any, now: float) -> Any:
    verdict = _reconcile(lease, found, now)
    gone = found is None or found.state is State.VACANT
    return Lost("the record is gone") if gone and isinstance(verdict, Rewrite) else verdict


def overwrite_anything(lease: Lease, found: Any, now: float) -> Any:
    return Rewrite()


def same_fence(view: View, *rest: Any) -> Any:
    step = _next_step(view, *rest)
    return Take(view.record.fence) if isinstance(step, Take) and view.record else step


def low_fence(view: View, me: str, policy: LeasePolicy, now: float, wall_ms: int, remembers: Any) -> Any:
    return _next_step(replace(view, fence=0), me, policy, now, 0, remembers)


def done_is_not_told(self: Slot, now: float) -> dict[str, Any]:
    return {"slot": self.number - 1, "work": "done", "left_ms": round((self.ends - now) * 1000)}


def rerun_in_silence(*args: Any, **kwargs: Any) -> Turn:
    from politics.slots import next_turn

    return replace(next_turn(*args, **kwargs), takeover=False)


def clock_sleeps(self: Process) -> float:
    """CLOCK_MONOTONIC: it stands still while the process's machine sleeps."""
    now = self.world.now
    slept = sum(max(0.0, min(now, end) - begun) for begun, end in self.pauses)
    return self.offset + self.rate * (now - slept)


def child_believes(self: World, process: Process) -> None:
    _fork(self, process, process.pid)


def name_moves(self: Link) -> Store:
    return next((store for store in self.world.stores if self.world.now >= store.down_until), self.world.stores[0])

"""What a candidate or a holder does next, as functions of what it has seen and of `now`. Pure.

The product, the tests and the simulation call the same functions. Times are seconds on the candidate's own clock;
no two clocks are ever compared. The rules are numbered as in docs/design.md.
"""

from dataclasses import dataclass, replace
from typing import Any

from election.lease import Lease, LeasePolicy
from election.record import Record, State


@dataclass(frozen=True, slots=True)
class View:
    """What a candidate knows of one cell.

    `record` and `version` are what it saw last (None: the cell was empty), in this `generation` of the store. `since`
    is when it first received a record with this key, in this generation. `fence` and `ttl` are the highest ever seen.
    `attempt` is the last takeover that the store did not answer: the `seq` of its record, and when it was sent.
    """

    record: Record | None = None
    version: Any = None
    since: float = 0.0
    fence: int = 0
    ttl: float = 0.0
    attempt: tuple[int, float] | None = None
    generation: str = ""

    def see(self, record: Record | None, version: Any, received: float, generation: str = "") -> "View":
        """Return this view after one more look at the cell, whose answer arrived at `received`.

        A store that begins another `generation` may bring back the very record that was seen before it was replaced.
        So the wait begins anew.
        """
        if record is None:
            return replace(self, record=None, version=None, since=received)
        known = self.record is not None and (self.record.key, self.generation) == (record.key, generation)
        since = self.since if known else received
        fence, ttl = max(self.fence, record.fence), max(self.ttl, record.ttl)
        return View(record, version, since, fence, ttl, self.attempt, generation)

    def after_trying(self, attempt: tuple[int, float] | None) -> "View":
        """Return this view with another `attempt`."""
        return View(self.record, self.version, self.since, self.fence, self.ttl, attempt, self.generation)

    def free_at(self, policy: LeasePolicy) -> float:
        """Return when the record proves nothing any more, if it does not change until then (rules 3, 4, 5)."""
        if self.record is None or self.record.state is State.OPEN:
            return self.since
        # The length of the lost lease is unknown: assume the longest that was ever seen.
        ttl = max(policy.ttl, self.ttl) if self.record.state is State.VACANT else self.record.ttl
        return self.since + policy.distrusted(ttl)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, unless the cell changes."""

    until: float


@dataclass(frozen=True, slots=True)
class Post:
    """Write a vacant record into the empty cell, so that absence can be watched (rule 5).

    `fence` is only what this candidate has seen: the write may land much later.
    """

    fence: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the store whether a cell written in the last `seconds` may have been lost; if not, nobody leads (rule 5)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Take:
    """Swap the exact version that was seen for a held record with this fence (rules 3, 4, 7)."""

    fence: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Lead: the unanswered takeover that was sent at `sent` has landed (rule 2)."""

    sent: float


Step = Wait | Post | Ask | Take | Adopt

FEWER = 10
"""How many polls go by between two looks at a leader while hints tell of changes, and how many looks in the time of one
poll a storm of hints can cause."""


def next_look(view: View, policy: LeasePolicy, now: float, live: bool) -> float:
    """Return in how many seconds a standby looks again, if neither a hint nor a nudge comes first.

    While hints are `live` it looks at a leader's record a tenth as often, and at the moment when the lease is free. A
    hint that is lost so costs no more than that. In any other state, time may do what no hint tells of: a store comes
    to remember, or a candidate that could have led decides to.
    """
    led = view.record is not None and view.record.state is State.HELD
    free_in = view.free_at(policy) - now
    return min(FEWER * policy.poll, free_in) if live and led and free_in > 0 else policy.poll


def after_hint(full: float, policy: LeasePolicy, now: float) -> tuple[float, float]:
    """Return when to look because of a hint that came at `now`, and the next value of `full`.

    Many hints, from whomever, cause ten looks at once and then one in each tenth of a poll. `full` is when a new burst
    of ten is possible; 0.0 at first.
    """
    step = policy.poll / FEWER
    look_at = max(now, full - policy.poll + step)
    return look_at, max(look_at, full) + step


def is_own_takeover(view: View, me: str) -> bool:
    """Return whether the record that is there is the takeover of candidate `me` that the store did not answer.

    One that the store has brought back is not: others may have led since then.
    """
    record = view.record
    if record is None or record.foreign or view.attempt is None:
        return False
    return (record.holder, record.seq) == (me, view.attempt[0])


def next_step(view: View, me: str, policy: LeasePolicy, now: float, wall_ms: int, remembers: bool | None) -> Step:
    """Return what the candidate `me`, which does not lead, does next.

    `wall_ms` is the wall clock in milliseconds; no new fence is below it. `remembers` is the store's answer to `Ask`,
    None if it was not asked.
    """
    record = view.record
    if record is None:
        return Post(fence=view.fence)
    if view.attempt is not None and is_own_takeover(view, me):
        sent = view.attempt[1]
        if now < sent + policy.trusted and record.state is State.HELD:
            return Adopt(sent)
    free_at = view.free_at(policy)
    # A record that was overwritten was not lost, so what the store remembers says nothing of its holder. Nor is one
    # lost that the store has brought back from an earlier generation.
    vacant = record.state is State.VACANT and not record.forgotten
    if now >= free_at or (vacant and remembers):
        # The clock always counts, not only over an empty cell: what is there may have been put back late, after the
        # record of a later leader was lost before we saw it.
        return Take(fence=max(view.fence + 1, record.fence + 1, wall_ms))
    if vacant and remembers is None:
        return Ask(seconds=policy.distrusted(max(policy.ttl, view.ttl)))
    return Wait(until=free_at)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Write our record again, over exactly what was found; `asked` passes on that somebody asked us to resign."""

    asked: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease is over, for this reason."""

    reason: str


def reconcile(lease: Lease, found: Record | None, now: float) -> Rewrite | Lost:
    """Return what the holder of `lease` does after its write failed and it has read the cell again.

    A record of its own, from whichever write, a vacant one or none at all is put right while its own deadline has not
    passed (rule 6); so is one that the store has brought back, which counts as vacant (rule 12). Anything else was
    written by somebody who had the right to take the lease.
    """
    if now >= lease.deadline:
        return Lost(expired(lease))
    if found is None or found.state is State.VACANT:
        return Rewrite()
    if (found.holder, found.fence) == (lease.record.holder, lease.record.fence):
        return Rewrite(asked=found.asked)
    return Lost(f"taken over by {found}")


def renewed(lease: Lease, version: Any, sent: float, now: float) -> Lease | Lost:
    """Return the lease after a write of its holder has succeeded, whose answer arrived at `now`.

    An answer that arrives after the old deadline revives nothing (rule 2): in between, this holder did not lead.
    """
    if now >= lease.deadline:
        return Lost(expired(lease))
    return Lease(lease.record, version, sent, lease.policy)


def expired(lease: Lease) -> str:
    """Return why a lease that was not renewed in time is over, in words."""
    return f"not renewed within {lease.policy.trusted:.3g} s"

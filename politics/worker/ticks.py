"""Which tick of a schedule is due, and whether its work is run. Pure.

A tick is named by its scheduled instant, in milliseconds since 1970. What is known of the last one is in the lease's
note, as `{"tick": 1764036000000, "work": "ran", "next": 1764122400000}`. Wall clocks decide when a tick is run, and
never who runs it. The ticks in the note only grow, whatever the clocks do.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from election.errors import BadPolicy
from politics.worker.schedule import YEAR_9999, Schedule

YEAR = 366 * 24 * 3600.0
RUNNING, RAN, FAILED, INTERRUPTED, SKIPPED, NONE = "running", "ran", "failed", "interrupted", "skipped", "none"
STATES = (RUNNING, RAN, FAILED, INTERRUPTED, SKIPPED, NONE)
CATCH_UP = ("latest", "all", "skip")
MOST = 100
"""Missed ticks that are made up for at most."""
DOUBT_MS = 60_000
"""After a leader was lost together with its record, ticks up to so long from now may have begun: no two wall clocks of
a group are further apart."""
LATENESS_MS = 2000
"""A tick is on time if it can begin within the lease and this, so also when the leader dies just before it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The last tick that was begun or skipped, or a moment before all ticks (`NONE`).

    Args:
        at: its name, the scheduled instant.
        work: how it is, or how it ended: one of `STATES`.
        through: ticks up to this instant are accounted for; as a rule it is `at`.
        doubt: ticks up to this instant may have been begun by a leader that was lost together with its record.
        trigger: the last order to run at once that was carried out.
    """

    at: int
    work: str = RUNNING
    through: int = 0
    doubt: int = 0
    trigger: str = ""

    @property
    def passed(self) -> int:
        """The instant up to which ticks are accounted for."""
        return max(self.at, self.through)

    def note(self, following: int | None) -> dict[str, Any]:
        """Return what to tell the others; `following` is the next tick, for people."""
        told: dict[str, Any] = {"tick": self.at, "work": self.work}
        if following is not None:
            told["next"] = following
        if self.through > self.at:
            told["through"] = self.through
        if self.doubt > self.at:
            told["doubt"] = self.doubt
        if self.trigger:
            told["trigger"] = self.trigger
        return told


@dataclass(frozen=True, slots=True)
class Skip:
    """Ticks that are not run: the first and the last of them, how many (None: not counted), and why."""

    first: int
    last: int
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What a leader does next: what it writes first, the ticks that it skips, and whether it runs the work of `tick`.

    `following` is the next tick after these, `news` whether anything has to be written.
    """

    tick: Tick
    run: bool
    takeover: bool = False
    skipped: tuple[Skip, ...] = ()
    following: int | None = None
    news: bool = True

    @property
    def note(self) -> dict[str, Any]:
        """What to tell the others before anything is done."""
        return self.tick.note(self.following)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a group does with its ticks: the settings of `TokenWorker`, in milliseconds."""

    group: str
    schedule: Schedule
    catch_up: str = "latest"
    deadline: int | None = None
    jitter: int = 0
    lateness: int = 10_000 + LATENESS_MS
    rerun: bool = True

    def due(self, tick: int) -> int:
        """Return when a tick comes due: `jitter` is derived from group and tick, so that all members agree on it."""
        if not self.jitter:
            return tick
        digest = hashlib.sha256(f"{self.group} {tick}".encode()).digest()
        return tick + int.from_bytes(digest[:8]) * self.jitter // 2**64

    def following(self, tick: int) -> int | None:
        """Return the next tick after this one; None if there is none before the year 9999."""
        return next((at for at in self.schedule.after(tick) if at < YEAR_9999), None)


def make_rules(
    group: str,
    schedule: Schedule,
    *,
    catch_up: str,
    deadline: float | None,
    jitter: float,
    lease_ttl: float,
    rerun: bool,
) -> Rules:
    """Return the rules that these settings make; times are in seconds.

    Raises:
        BadPolicy: one of them cannot work; the message names it.
    """
    if catch_up not in CATCH_UP:
        raise BadPolicy(f"catch_up must be 'latest', 'all' or 'skip', not {catch_up!r}")
    if deadline is not None:
        check_seconds("deadline", deadline)
    if jitter != 0 or isinstance(jitter, bool):
        check_seconds("jitter", jitter)
    return Rules(
        group,
        schedule,
        catch_up,
        None if deadline is None else round(deadline * 1000),
        round(jitter * 1000),
        round(lease_ttl * 1000) + LATENESS_MS,
        rerun,
    )


def check_seconds(what: str, seconds: object) -> None:
    """Refuse what is no positive number of seconds, a year at most. Raises `BadPolicy`, which names it."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= YEAR:
        raise BadPolicy(f"{what} must be a positive number of seconds, a year at most, not {seconds!r}")


def read_note(note: Mapping[str, Any]) -> Tick | None:
    """Return the tick in a note; None if there is none."""
    at, work, through, doubt = note.get("tick"), note.get("work"), note.get("through", 0), note.get("doubt", 0)
    numbers = all(type(number) is int and 0 <= number < YEAR_9999 for number in (at, through, doubt))
    trigger = note.get("trigger", "")
    if not numbers or work not in STATES or not isinstance(trigger, str):
        return None
    assert isinstance(at, int)
    return Tick(at, work, through, doubt, trigger)


def merge(known: Tick | None, seen: Tick | None) -> Tick | None:
    """Return what is known after one more look. Ticks only grow, and what has ended does not begin again."""
    if known is None or seen is None:
        return seen or known
    doubt = max(known.doubt, seen.doubt)
    if (seen.passed, seen.at, seen.work != RUNNING) >= (known.passed, known.at, known.work != RUNNING):
        return replace(seen, doubt=doubt)
    return replace(known, doubt=doubt)


def next_turn(
    known: Tick | None, rules: Rules, wall: int, *, lost: bool = False, paused: bool = False, trigger: str = ""
) -> Turn:
    """Return what to do as the leader at `wall`, the wall clock in milliseconds.

    Where nothing at all is known, the first tick is the next one. If the record may have been `lost` together with a
    leader, the ticks that may have begun since are takeovers. A tick that was left running was interrupted. It is run
    again, or counts as skipped.

    Args:
        known: the last tick that is known of.
        rules: the group's.
        wall: now.
        lost: a leader may have been lost together with its record.
        paused: ticks are skipped until somebody resumes.
        trigger: the last order to run at once; it is carried out once, after ticks that are due.
    """
    news = known is None
    known = known or Tick(wall, NONE, trigger=trigger)
    if lost:
        known = replace(known, doubt=max(known.doubt, wall + DOUBT_MS))
    skipped: tuple[Skip, ...] = ()
    if known.work == RUNNING:
        if rules.rerun:
            return Turn(known, run=True, takeover=True, following=rules.following(known.passed))
        known = replace(known, work=INTERRUPTED)
        skipped = (Skip(known.at, known.at, 1, "it was interrupted, and is not run again"),)
    chosen, missed = _choose(known.passed, rules, wall, paused)
    if chosen is None and trigger and trigger != known.trigger:
        known, chosen = replace(known, trigger=trigger), _name_of_trigger(max(known.passed, wall))
        takeover = False
    else:
        takeover = chosen is not None and chosen <= known.doubt
    skipped += missed
    if chosen is not None:
        tick = replace(known, at=chosen, work=RUNNING, through=0)
    elif missed:
        tick = replace(known, at=missed[-1].last, work=SKIPPED, through=0)
    else:
        tick = known
    news = news or lost or chosen is not None or bool(skipped)
    return Turn(tick, chosen is not None, takeover, skipped, rules.following(tick.passed), news)


def ended(tick: Tick, work: str, rules: Rules, begun: int, wall: int) -> Turn:
    """Return what to write when the work of a tick has ended as `work` says. It began at `begun`.

    Ticks that came due while it ran are skipped: they are not missed, and not made up for. Those that were due before
    it began are left.
    """
    tick = replace(tick, work=work)
    first = next(_due(tick.passed, rules, wall), None)
    skipped: tuple[Skip, ...] = ()
    if first is not None and rules.due(first) > begun:
        recent, count = _recent(tick.passed, rules, wall)
        tick = replace(tick, through=recent[-1])
        skipped = (Skip(first, recent[-1], count, "it came due while the one before still ran"),)
    return Turn(tick, run=False, skipped=skipped, following=rules.following(tick.passed))


def wait(tick: Tick, rules: Rules, wall: int) -> int | None:
    """Return the milliseconds from `wall` until the next tick after `tick` is due; None if there is none."""
    following = rules.following(tick.passed)
    return None if following is None else max(0, rules.due(following) - wall)


def _choose(after: int, rules: Rules, wall: int, paused: bool) -> tuple[int | None, tuple[Skip, ...]]:
    """Return the tick to run of those that are due, if any, and those before it that are skipped."""
    first = next(_due(after, rules, wall), None)
    if first is None:
        return None, ()
    recent, count = _recent(after, rules, wall)
    if paused:
        return None, (Skip(first, recent[-1], count, "the group is paused"),)
    late = set()
    if rules.deadline is not None:
        late = {tick for tick in recent if rules.due(tick) + rules.deadline < wall}
    left = [tick for tick in recent if tick not in late]
    if rules.catch_up == "skip":
        left = [tick for tick in left if rules.due(tick) >= wall - rules.lateness]
        why = "it was missed, and catch_up is 'skip'"
    elif rules.catch_up == "latest":
        why = "a later one is run, as catch_up is 'latest'"
    else:
        why = f"{MOST} later ones are made up for, and no more"
    if rules.catch_up != "all":
        left = left[-1:]
    chosen = left[0] if left else None
    passed = [tick for tick in recent if chosen is None or tick < chosen]
    uncounted = None if count is None else count - len(recent)
    skipped = []
    if late and rules.deadline is not None:
        reason = f"it could not begin within its deadline of {rules.deadline / 1000:g} s"
        skipped.append((reason, [tick for tick in passed if tick in late]))
    skipped.append((why, [tick for tick in passed if tick not in late]))
    found = []
    for reason, ticks in skipped:
        if ticks or uncounted != 0:
            # What lies before those that were looked at goes with the earliest of them.
            last, number = (
                (ticks[-1] if ticks else recent[0] - 1),
                None if uncounted is None else len(ticks) + uncounted,
            )
            found.append(Skip(first if uncounted != 0 or not ticks else ticks[0], last, number, reason))
            uncounted = 0
    return chosen, tuple(found)


def _due(after: int, rules: Rules, wall: int) -> Iterator[int]:
    """Yield the ticks after `after` that are due, in order."""
    return itertools.takewhile(lambda tick: rules.due(tick) <= wall, rules.schedule.after(after))


def _recent(after: int, rules: Rules, wall: int) -> tuple[list[int], int | None]:
    """Return the last `MOST` ticks that are due after `after`, and how many there are; None if nobody counts them.

    After a long time there may be millions, so only those in a window before now are looked at.
    """
    found = list(itertools.islice(_due(after, rules, wall), MOST + 1))
    if len(found) <= MOST:
        return found, len(found)
    window = 2 * (found[-1] - found[0] + rules.jitter)
    while True:
        begin = max(after, wall - window)
        found = list(_due(begin, rules, wall))
        if len(found) >= MOST or begin == after:
            return found[-MOST:], len(found) if begin == after else None
        window *= 2


def _name_of_trigger(instant: int) -> int:
    """Return a name after `instant` for a run that was ordered: one that no scheduled tick has."""
    name = instant + 1
    return name + (name % 1000 == 0)

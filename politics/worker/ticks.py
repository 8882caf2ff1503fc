"""Which tick of a schedule is due, and whether its work is run. Pure.

A tick is named by its scheduled instant, in milliseconds since 1970. What is known of the last one is in the lease's
note, as `{"tick": 1764036000000, "work": "ran", "next": 1764122400000}`. Wall clocks decide when a tick is run, and
never who runs it. The ticks in the note only grow, whatever the clocks do.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from election.errors import BadPolicy
from politics.worker.schedule import YEAR_9999, Schedule

YEAR = 366 * 24 * 3600.0
RUNNING, RAN, FAILED, INTERRUPTED, SKIPPED, NONE = "running", "ran", "failed", "interrupted", "skipped", "none"
STATES = (RUNNING, RAN, FAILED, INTERRUPTED, SKIPPED, NONE)
CATCH_UP = ("latest", "all", "skip")
REASONS = {
    "interrupted": "it was interrupted, and is not run again",
    "doubt": "a leader that was lost with its record may have begun it, and it is not run again",
    "overrun": "it came due while the one before still ran",
    "paused": "the group is paused",
    "deadline": "it could not begin within its deadline",
    "missed": "it was missed, and catch_up is 'skip'",
    "later": "a later one is run in its place",
    "many": "a hundred later ones are made up for, and no more",
}
"""Why ticks are not run: the word in the note, and a sentence for people."""
MOST_SKIPS = 6
"""Entries for skipped ticks in one note, so that it fits into a record."""
LONGEST_TRIGGER = 64
"""Characters in the name of an order to run at once: printable ASCII, so that a note with it fits into a record."""
MOST = 100
"""Missed ticks that are made up for at most."""
DOUBT_MS = 60_000
"""After a leader was lost together with its record, ticks up to so long from now may have begun: no two wall clocks of
a group are further apart."""
LATENESS_MS = 2000
"""A tick is on time if it can begin within the lease and this, so also when the leader dies just before it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Ticks that follow each other and are not run: the last of them, how many (None: not counted), and why.

    `reason` is one of `REASONS`. `again`: an earlier leader may have reported them.
    """

    last: int
    count: int | None
    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """The last tick that was begun or skipped, or a moment before all ticks (`NONE`).

    Args:
        at: its name, the scheduled instant.
        work: how it is, or how it ended: one of `STATES`.
        through: ticks up to this instant are accounted for; as a rule it is `at`.
        doubt: ticks up to this instant may have been begun by a leader that was lost together with its record.
        trigger: the last order to run at once that was carried out.
        skipped: the ticks before it that are not run, until they have been reported.
    """

    at: int
    work: str = RUNNING
    through: int = 0
    doubt: int = 0
    trigger: str = ""
    skipped: tuple[Skip, ...] = ()

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
        if self.skipped:
            told["skipped"] = [[skip.last, skip.count, skip.reason] for skip in self.skipped]
        return told


@dataclass(frozen=True, slots=True)
class TickTurn:
    """What a leader does next: what it writes first, with the ticks that it skips, and whether it runs that of `tick`.

    `following` is the next tick after these, `news` whether anything has to be written.
    """

    tick: Tick
    run: bool
    takeover: bool = False
    following: int | None = None
    news: bool = True

    def note(self, *, reported: bool) -> dict[str, Any]:
        """Return what to tell the others; what is skipped only until it is `reported`."""
        return (replace(self.tick, skipped=()) if reported else self.tick).note(self.following)


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
        following = next(iter(self.schedule.after(tick)), None)
        return following if following is not None and following < YEAR_9999 else None


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
    if not all(map(_is_number, (at, through, doubt))) or work not in STATES:
        return None
    assert isinstance(at, int)
    return Tick(at, work, through, doubt, read_trigger(note.get("trigger")), _read_skipped(note.get("skipped")))


def _read_skipped(entries: object) -> tuple[Skip, ...]:
    """Return what a note says of skipped ticks; nothing if any of it is nothing that we write."""
    found = []
    for entry in entries if isinstance(entries, list) and len(entries) <= MOST_SKIPS else []:
        match entry:
            case [last, count, str(reason)] if _is_number(last) and (count is None or _is_number(count)):
                found.append(Skip(last, count, reason, again=True))
            case _:
                return ()
    return tuple(found) if all(skip.reason in REASONS for skip in found) else ()


def _is_number(value: object) -> bool:
    """Return whether it may be an instant of ours, or a number of ticks."""
    return type(value) is int and 0 <= value < YEAR_9999


def read_trigger(name: object) -> str:
    """Return the name of an order to run at once; empty if it is none that a note has room for."""
    if not isinstance(name, str) or len(name) > LONGEST_TRIGGER:
        return ""
    return name if name.isascii() and name.isprintable() else ""


def merge(known: Tick | None, seen: Tick | None) -> Tick | None:
    """Return what is known after one more look. Ticks only grow, and what has ended does not begin again."""
    if known is None or seen is None:
        return seen or known
    doubt, trigger = max(known.doubt, seen.doubt), seen.trigger or known.trigger
    if (seen.passed, seen.at, seen.work != RUNNING) >= (known.passed, known.at, known.work != RUNNING):
        return replace(seen, doubt=doubt, trigger=trigger)
    return replace(known, doubt=doubt, trigger=trigger)


def next_turn(
    known: Tick | None, rules: Rules, wall: int, *, lost: bool = False, paused: bool = False, trigger: str = ""
) -> TickTurn:
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
    # Only a group that has ticks is given an order. Where none is known, the order is from before it worked by slots.
    known = known or Tick(wall, NONE, trigger=trigger)
    if lost:
        known = replace(known, doubt=max(known.doubt, wall + DOUBT_MS))
    skipped = list(known.skipped)
    if known.work == RUNNING:
        if rules.rerun:
            return TickTurn(known, run=True, takeover=True, following=rules.following(known.passed))
        known = replace(known, work=INTERRUPTED)
        skipped.append(Skip(known.at, 1, "interrupted"))
    chosen, missed = _choose(known, rules, wall, paused)
    if chosen is None and trigger and trigger != known.trigger:
        chosen = _name_of_trigger(missed[-1].last if missed else known.passed, rules, wall)
        known = known if chosen is None else replace(known, trigger=trigger)
    takeover = chosen is not None and chosen <= known.doubt
    skipped += missed
    known = replace(known, skipped=_shorten(skipped))
    if chosen is not None:
        tick = replace(known, at=chosen, work=RUNNING, through=0)
    elif missed:
        tick = replace(known, at=missed[-1].last, work=SKIPPED, through=0)
    else:
        tick = known
    news = news or lost or chosen is not None or bool(skipped)
    return TickTurn(tick, chosen is not None, takeover, rules.following(tick.passed), news)


def ended(tick: Tick, work: str, rules: Rules, begun: int, wall: int) -> TickTurn:
    """Return what to write when the work of a tick has ended as `work` says. It began at `begun`.

    Ticks that came due while it ran are skipped: they are not missed, and not made up for. Those that were due before
    it began are left.
    """
    older, recent = _due(tick.passed, rules, wall)
    tick = replace(tick, work=work, skipped=())
    if recent and rules.due(older.first if older else recent[0]) > begun:
        tick = replace(tick, through=recent[-1], skipped=_shorten(_skip(older, recent, lambda _tick: "overrun")))
    return TickTurn(tick, run=False, following=rules.following(tick.passed))


def ahead(known: Tick | None, wall: int) -> int:
    """Return by how many milliseconds the last tick is ahead of `wall`; 0 if the clocks of a group may differ so much.

    Nothing is run until then. That cannot be mended here: an early clock of ours and a wrong tick look the same, and
    whoever went back for the second would run everything twice because of the first.
    """
    difference = known.passed - wall if known else 0
    return difference if difference > DOUBT_MS else 0


def wait(tick: Tick, rules: Rules, wall: int) -> int | None:
    """Return the milliseconds from `wall` until the next tick after `tick` is due; None if there is none."""
    following = rules.following(tick.passed)
    return None if following is None else max(0, rules.due(following) - wall)


@dataclass(frozen=True, slots=True)
class _Older:
    """Ticks that are due before the last `MOST`: the first, the last, and how many (None: nobody counts them)."""

    first: int
    last: int
    count: int | None


def _choose(known: Tick, rules: Rules, wall: int, paused: bool) -> tuple[int | None, list[Skip]]:
    """Return the tick to run of those that are due, if any, and those before it that are skipped."""
    older, recent = _due(known.passed, rules, wall)

    def unfit(tick: int) -> str:
        """Return why a tick cannot be run; empty if it can."""
        if paused:
            return "paused"
        if tick <= known.doubt and not rules.rerun:
            return "doubt"
        if rules.deadline is not None and rules.due(tick) + rules.deadline < wall:
            return "deadline"
        if rules.catch_up == "skip" and rules.due(tick) < wall - rules.lateness:
            return "missed"
        return ""

    fit = [tick for tick in recent if not unfit(tick)]
    every = rules.catch_up == "all"
    chosen = fit[0 if every else -1] if fit else None
    passed = [tick for tick in recent if chosen is None or tick < chosen]
    return chosen, _skip(older, passed, lambda tick: unfit(tick) or ("many" if every else "later"))


def _skip(older: _Older | None, ticks: list[int], why: Callable[[int], str]) -> list[Skip]:
    """Return these ticks as skipped, those that follow each other for the same reason together."""
    found = [Skip(older.last, older.count, why(older.last))] if older else []
    for reason, group in itertools.groupby(ticks, why):
        same = list(group)
        found.append(Skip(same[-1], len(same), reason))
    return found


def _shorten(skipped: list[Skip]) -> tuple[Skip, ...]:
    """Return no more entries than a note has room for: the first of too many are made one."""
    first, rest = skipped[: 1 - MOST_SKIPS], skipped[1 - MOST_SKIPS :]
    if len(first) < 2:
        return tuple(skipped)
    counts = [skip.count for skip in first]
    count = None if None in counts else sum(filter(None, counts))
    return (replace(first[-1], count=count, again=any(skip.again for skip in first)), *rest)


def _due(after: int, rules: Rules, wall: int) -> tuple[_Older | None, list[int]]:
    """Return the last `MOST` ticks after `after` that are due, and what there is of older ones.

    After a long time there may be millions, so only those in a window before now are looked at.
    """

    def since(instant: int) -> Iterator[int]:
        return itertools.takewhile(lambda tick: rules.due(tick) <= wall, rules.schedule.after(instant))

    found = list(itertools.islice(since(after), MOST + 1))
    if len(found) <= MOST:
        return None, found
    first, window = found[0], 2 * (found[-1] - found[0] + rules.jitter)
    while True:
        begin = max(after, wall - window)
        found = list(since(begin))
        if len(found) > MOST or begin == after:
            count = len(found) - MOST if begin == after else None
            return _Older(first, found[-MOST - 1], count), found[-MOST:]
        window *= 2


def _name_of_trigger(after: int, rules: Rules, wall: int) -> int | None:
    """Return a name for a run that was ordered; None if there is none before the next tick.

    It is that of no tick, and before all that are still to come: one may wait for its jitter.
    """
    name, following = max(after, wall) + 1, rules.following(after)
    end = YEAR_9999 if following is None else following
    name = min(name, end - 1)
    if name % 1000 == 0:
        name += 1 if name + 1 < end else -1
    return name if name > after else None

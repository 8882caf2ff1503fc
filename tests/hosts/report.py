"""What a diary proves: that the promise was kept or broken, and how long nobody led. Pure."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from election.testing import Claim, Verifier

TTL, DRIFT, POLL = 1.0, 0.01, 0.05
"""The lease of all the workers, and how often a standby of such a lease looks."""

BOUND = TTL * (1 + DRIFT) + POLL + 1.0
"""Seconds in which somebody leads after a single fault, if all that has to run for it runs within a second."""
SPARED = TTL / 2
"""Seconds without a claim, after the loss of one server of several, that are more than a busy machine's delays."""
_SAID = re.compile(r"slots? (\d+)(?: to (\d+) have passed unused| may be unfinished)")
SEVERAL = "two at once"

Event = dict[str, Any]


@dataclass(frozen=True)
class Injection:
    """One fault, or several at once: when it began and when it was mended.

    `hides`: nobody reached the store meanwhile. `amnesia`: the record and its leader may have been lost together.
    `spares`: the leader was to go on.
    """

    kind: str
    began: float
    ended: float
    hides: bool = False
    amnesia: bool = False
    spares: bool = False


@dataclass
class Report:
    """What happened; `broken` are the lines that must not be there."""

    injections: list[Injection]
    late: list[str] = field(default_factory=list)
    noticed: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    terms: int = 0
    slots: Counter[str] = field(default_factory=Counter)
    fenced_off: int = 0
    effects: int = 0
    longest: float = 0.0
    after: dict[str, float] = field(default_factory=dict)
    recovery: dict[str, float] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        """One line for each thing that must never happen and did."""
        return self.overlaps + self.repeated + self.left_behind + self.trouble

    def __str__(self) -> str:
        faults = Counter(injection.kind for injection in self.injections)
        figures = {
            "faults injected": sum(faults.values()),
            "terms": self.terms,
            "overlaps": len(self.overlaps),
            "slots run": self.slots["run"],
            "slots run again, as a takeover": self.slots["run again"],
            "slots run again, unannounced": len(self.repeated),
            "slots skipped": self.slots["skipped"],
            "slots skipped without a word": self.slots["unsaid"],
            "times that slots began at 1": self.slots["eras"],
            "effects": self.effects,
            "effects refused by the fence": self.fenced_off,
            "processes left behind": len(self.left_behind),
            "longest time without a leader": f"{self.longest:.2f} s",
            f"single faults above {BOUND:.2f} s": len(self.late),
        }
        if any(injection.spares for injection in self.injections):
            figures[f"losses of one server above {SPARED:.2f} s"] = len(self.noticed)
        lines = [f"{what:<31} {figure}" for what, figure in figures.items()]
        lines += self.late + self.noticed + [f"BROKEN: {line}" for line in self.broken]
        lines.append(f"{'fault':<29} times   longest without a leader   longest wait for one after its end")
        for kind, times in sorted(faults.items()):
            lines.append(f"{kind:<29} {times:5} {self.after[kind]:24.2f} s {self.recovery[kind]:34.2f} s")
        return "\n".join(lines)


def study(events: Iterable[Event], injections: list[Injection], bound: float = BOUND) -> Report:
    """The report on these events of a diary, in the order in which they were written.

    `bound`: seconds without a leader after which a single fault counts as late.
    """
    report, events = Report(injections), list(events)
    claims = [event for event in events if "until" in event]
    terms = list(_terms(events, claims))
    report.terms = len(terms)
    report.overlaps += itertools.chain(_overlaps(terms), _usurped(events))
    for era in _eras(events, injections):
        report.repeated += _repeated(era)
        report.slots += _count(era, events) + Counter({"eras": 1})
    # All workers use one store, whatever has become of it.
    report.trouble += [f"{e['who']}: {e['text']}" for e in events if "SPLIT" in e.get("text", "")]
    report.effects = sum(event["event"] == "effect" for event in events)
    report.fenced_off = sum(event["event"] == "fenced off" for event in events)
    times = sorted(claim["t"] for claim in claims)
    report.longest = longest(times)
    for this, following in _following(injections):
        gap = longest(times, this.began, following.began if following else float("inf"))
        wait = next((t for t in times if t > this.ended), this.ended) - this.ended
        # While nobody reaches the store, nobody can lead: then the time counts from the end of the fault.
        if (wait if this.hides else gap) > bound and this.kind != SEVERAL:
            report.late.append(f"LATE: {this} left nobody to lead for {gap:.2f} s, for {wait:.2f} s once it had ended")
        if this.spares and gap > SPARED:
            report.noticed.append(f"NOTICED: {this} left nobody to lead for {gap:.2f} s")
        report.after[this.kind] = max(gap, report.after.get(this.kind, 0.0))
        report.recovery[this.kind] = max(wait, report.recovery.get(this.kind, 0.0))
    return report


def longest(times: list[float], since: float = 0.0, until: float = float("inf")) -> float:
    """The longest time between two claims, of those that began between these moments or a few claims before."""
    since, until = since - 0.1, until - 0.1
    return max((b - a for a, b in itertools.pairwise(times) if since < a < until), default=0.0)


def _terms(events: list[Event], claims: list[Event]) -> Iterable[Claim]:
    """One claim for each fence and claimant: from the first moment to the last that it claimed."""
    resigned = {(e["who"], e["fence"]): e["t"] for e in reversed(events) if e["event"] in ("lost", "over")}
    exited = {e["who"]: e["t"] for e in events if e["event"] == "exit"}
    by_term: dict[tuple[str, int], list[Event]] = {}
    for claim in claims:
        by_term.setdefault((claim["who"], claim["fence"]), []).append(claim)
    for (who, fence), mine in by_term.items():
        until = max(claim["until"] for claim in mine)
        end = min(resigned.get((who, fence), until), exited.get(who, until))
        # Whoever ended before the moment that it had claimed has resigned: then its last line is all that is known.
        last = max(claim["t"] for claim in mine) if end < until else until
        yield Claim(min(claim["t"] for claim in mine), last, fence, who)


def _overlaps(terms: list[Claim]) -> Iterable[str]:
    verifier = Verifier()
    for term in terms:
        try:
            verifier.claim(term)
        except AssertionError as exc:
            yield str(exc).splitlines()[0]


def _usurped(events: list[Event]) -> Iterable[str]:
    """A holder says this if another has taken its lease before its own deadline: both have led."""
    return (f"{event['who']}: {event['text']}" for event in events if "taken over by" in event.get("text", ""))


def _eras(events: list[Event], injections: list[Injection]) -> Iterable[list[Event]]:
    """The slots that were begun, in the order of time, and divided where the numbers began again at 1.

    That may happen where the record and its leader were lost together: then a newcomer cannot know of earlier slots.
    """
    slots = sorted((event for event in events if event["event"] == "slot"), key=lambda event: event["t"])
    losses = [(i.began, after.began if after else float("inf")) for i, after in _following(injections) if i.amnesia]
    era: list[Event] = []
    for event in slots:
        if event["slot"] == 1 and era and any(began < event["t"] < end for began, end in losses):
            yield era
            era = []
        era.append(event)
    yield era


def _repeated(era: list[Event]) -> Iterable[str]:
    """Each slot whose work was started again, and the work was not told that it is a takeover."""
    begun: dict[int, Event] = {}
    for event in era:
        if event["slot"] in begun and not event["takeover"]:
            yield f"slot {event['slot']} was begun twice: {begun[event['slot']]} and {event}"
        begun[event["slot"]] = event


def _count(era: list[Event], events: list[Event]) -> Counter[str]:
    again = sum(event["takeover"] for event in era)
    numbers = {event["slot"] for event in era}
    skipped = set(range(min(numbers, default=0), max(numbers, default=0))) - numbers
    said = [_SAID.search(event.get("text", "")) for event in events]
    unsaid = skipped.difference(*(range(int(m[1]), int(m[2] or m[1]) + 1) for m in said if m))
    return Counter({"run": len(era) - again, "run again": again, "skipped": len(skipped), "unsaid": len(unsaid)})


def _following(injections: list[Injection]) -> Iterable[tuple[Injection, Injection | None]]:
    return itertools.zip_longest(injections, injections[1:])

"""How the wall clocks of leaders differ from ours, as `politics doctor` reports it. Pure.

A record has the wall clock of its leader at the moment when it was written. If it was written between two looks of
ours, that is compared with our clock at these two looks. So what is reported is certain, and the true difference may be
larger by the time between them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from election.record import Record, State
from politics.doctor.findings import Finding, advice, danger, fine
from politics.worker import ticks

DIFFERS = 2.0
"""Seconds from which on a difference is reported."""


@dataclass(frozen=True, slots=True)
class Look:
    """A record, and what our wall clock showed before it was asked for and after it was there, in seconds."""

    group: str
    record: Record
    asked: float
    answered: float


@dataclass(frozen=True, slots=True)
class Difference:
    """By how many seconds, at least, the wall clock of a group's leader is ahead of ours; negative: behind."""

    group: str
    leader: str
    ahead: float
    scheduled: bool


def compare(before: Sequence[Look], after: Sequence[Look]) -> Iterator[Difference]:
    """Yield the difference for each group that is led and whose record was written between the two looks.

    A record that has not changed was written before the first look. So its leader is only compared if it is ahead.
    """
    earlier = {look.group: look for look in before}
    for look in after:
        first, at = earlier.get(look.group), look.record.at_ms / 1000
        renewed = first is not None and first.record.key != look.record.key
        ahead = max(0.0, at - look.answered)
        if renewed and first is not None and at < first.asked:
            ahead = at - first.asked
        if look.record.state is State.HELD and (renewed or ahead):
            leader = f"{look.record.host}:{look.record.pid}"
            yield Difference(look.group, leader, ahead, ticks.read_note(look.record.note) is not None)


def of_clocks(differences: Sequence[Difference]) -> Iterator[Finding]:
    """Yield what there is to say of the wall clocks of leaders."""
    for each in differences:
        subject, size = f"wall clock of {each.group}", abs(each.ahead)
        if size < DIFFERS:
            continue
        text = f"that of its leader {each.leader} is {size:.0f} s {'ahead of' if each.ahead > 0 else 'behind'} ours"
        if each.scheduled and size > ticks.DOUBT_MS / 1000:
            text += ": ticks are run at the wrong time, and after a loss of the record twice without a warning"
            yield danger(subject, text, "run NTP on both machines")
        else:
            yield advice(subject, text, "run NTP on both: schedules, fences and status use wall clocks, leases do not")
    agree = [each.group for each in differences if abs(each.ahead) < DIFFERS]
    if agree:
        yield fine("wall clocks", f"those of {len(agree)} leaders and ours agree within {DIFFERS:g} s")

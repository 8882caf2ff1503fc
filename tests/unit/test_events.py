"""What a hook and the log hear of leases and slots."""

import dataclasses
import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from election import Candidate, Event, LeaseTerm
from election.events import EventKind
from politics import TokenWorker
from tests.unit.fakes import NAME, World
from tests.waiting import until


def candidate(world: World, hook: Callable[[Event], object], link: Any = None) -> Candidate:
    """One that reports to `hook`."""
    renew_with: Callable[[Any, LeaseTerm], None] = lambda _register, term: world.renewer.add(term)  # noqa: E731
    return Candidate(
        link or world.store.link(), NAME, world.policy, clock=world.clock, renew_with=renew_with, on_event=hook
    )


def kinds(events: list[Event]) -> list[EventKind]:
    """Of these events."""
    return [event.kind for event in events]


def test_a_term_from_its_election_to_its_end() -> None:
    """A leader hears that it was elected and until when, of each renewal, and once why it ended."""
    world, events = World(), list[Event]()
    term = candidate(world, events.append).attempt()
    assert term is not None
    assert kinds(events) == [EventKind.LEADERLESS, EventKind.ELECTED]
    assert events[1].takeover is False
    assert events[1].until == pytest.approx(world.clock.now() + 9.9)
    world.live(7)
    assert kinds(events[2:]) == [EventKind.RENEWED] * 2
    assert events[-1].until == pytest.approx(world.clock.now() + term.remaining())
    term.ask_to_stop("asked by a test")
    term.resign()
    term.resign()
    assert kinds(events[4:]) == [EventKind.ENDED]
    assert (events[-1].group, events[-1].fence, events[-1].reason) == (NAME, term.fence, "asked by a test")


def test_a_standby_hears_who_leads_and_when_nobody_does() -> None:
    """One event for each change, and a takeover is called one."""
    world, events = World(), list[Event]()
    first = world.leader()
    standby = candidate(world, events.append)
    for _ in range(3):
        assert standby.attempt() is None
    assert [(event.kind, event.fence) for event in events] == [(EventKind.LED, first.fence)]
    world.clock.advance(10.2)
    assert standby.attempt()
    assert [(event.kind, event.takeover) for event in events[1:]] == [
        (EventKind.LEADERLESS, None),
        (EventKind.ELECTED, True),
    ]


def test_a_store_that_falls_silent() -> None:
    """The leader hears of each renewal that failed, a candidate of the beginning and the end of the silence."""
    world, events, waiting = World(), list[Event](), list[Event]()
    link = world.store.link()
    term = candidate(world, events.append, link).attempt()
    assert term is not None
    link.cut = True
    world.live(4)
    assert set(kinds(events[2:])) == {EventKind.RENEWAL_FAILED}
    assert "cut" in (events[-1].reason or "")
    other = candidate(world, waiting.append, link)
    with pytest.raises(Exception, match="not elected"):
        other.campaign(timeout=30)
    link.cut = False
    assert other.campaign(timeout=30)
    assert kinds(waiting) == [
        EventKind.STORE_SILENT, EventKind.LED, EventKind.STORE_ANSWERS, EventKind.LEADERLESS, EventKind.ELECTED
    ]  # fmt: skip


def test_a_hook_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """The lease is won, kept and handed over, and the log says what the hook did."""

    def hook(event: Event) -> None:
        raise ZeroDivisionError(event.kind)

    world = World()
    term = candidate(world, hook).attempt()
    assert term is not None
    world.live(30)
    assert term.valid
    term.resign()
    assert world.leader().valid
    assert "on_event failed for renewed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_event_is_frozen_and_knows_its_fields() -> None:
    """It cannot be changed by a hook, and the log gets only what applies."""
    event = Event(EventKind.SLOT_DONE, "pork", fence=7, slot=3, seconds=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.fence = 8  # type: ignore[misc]
    assert event.fields == {"event": "slot_done", "group": "pork", "fence": 7, "slot": 3, "seconds": 0.5}


class Worker(TokenWorker):
    """Slots that are done, that fail and that are interrupted, in turn."""

    iteration_length = 0.05
    lease_ttl = 0.5
    sticky = True

    def __init__(self, **options: Any) -> None:
        super().__init__(group="events", store=f"memory://{uuid.uuid4()}", **options)
        self.events: list[Event] = []
        self.enough = threading.Event()

    def on_event(self, event: Event) -> None:
        """Collect."""
        self.events.append(event)
        if event.kind is EventKind.SLOT_INTERRUPTED:
            self.enough.set()

    def perform(self, term: Any) -> None:
        """One of each."""
        match [event.kind for event in self.events].count(EventKind.SLOT_STARTED):
            case 1:
                return
            case 2:
                raise ValueError("bad pork")
            case 3:
                term.lost.wait(4 * self.iteration_length)
            case _:
                threading.Timer(0.01, self.stop).start()
                term.lost.wait(10)
                term.check()


def test_slots_by_their_results(caplog: pytest.LogCaptureFixture) -> None:
    """The hook of a worker hears of its slots; the log lines have the same fields."""
    caplog.set_level(logging.DEBUG, "politics")
    worker = Worker()
    worker.start()
    assert worker.enough.wait(10)
    worker.stop()
    slots = [event for event in worker.events if event.slot is not None]
    assert [event.kind for event in slots if event.kind is not EventKind.SLOT_STARTED] == [
        EventKind.SLOT_DONE,
        EventKind.SLOT_FAILED,
        EventKind.SLOT_DONE,
        EventKind.SLOTS_SKIPPED,
        EventKind.SLOT_INTERRUPTED,
    ]
    skipped, interrupted = slots[-3], slots[-1]
    assert (skipped.count or 0) >= 3
    assert "asked to stop" in (interrupted.reason or "")
    logged = [vars(record) for record in caplog.records if getattr(record, "event", "").startswith("slot")]
    assert [entry["event"] for entry in logged] == [str(event.kind) for event in slots]
    assert all((entry["group"], entry["fence"]) == ("events", slots[0].fence) for entry in logged)
    ends = [vars(record) for record in caplog.records if getattr(record, "event", "") in ("elected", "ended")]
    assert [(entry["event"], entry["slot"]) for entry in ends] == [("elected", 1), ("ended", 1)]


@pytest.mark.parametrize(("end", "reason"), [(SystemExit(3), "SystemExit(3)"), (KeyboardInterrupt(), "Keyboard")])
def test_work_that_ends_its_worker_was_interrupted(end: BaseException, reason: str) -> None:
    """Its slot began and has an end, like every other. Whoever leads next runs it again."""
    events = list[Event]()
    worker = TokenWorker(group="ends", store=f"memory://{uuid.uuid4()}", announce=False, on_event=events.append)

    def work(_term: object) -> None:
        raise end

    worker.start(work)
    until(lambda: not worker.running, "the end of the worker")
    assert kinds([event for event in events if event.slot]) == [EventKind.SLOT_STARTED, EventKind.SLOT_INTERRUPTED]
    assert f"the worker ends: {reason}" in str(events[-2].reason)


def test_a_hook_can_be_passed_instead() -> None:
    """As with every other option, the argument overrides the class."""
    events, elected = list[Event](), threading.Event()

    def hook(event: Event) -> None:
        events.append(event)
        elected.set()

    worker = Worker(on_event=hook)
    worker.start()
    assert elected.wait(10)
    assert worker.running
    worker.stop()
    assert not worker.running
    assert worker.events == []


def test_the_core_does_without_the_exporter() -> None:
    """Nobody needs, or pays for, the Prometheus library who does not serve metrics."""
    code = "import sys, politics, politics.cli; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0

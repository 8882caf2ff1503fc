"""What the metrics make of events."""

from typing import Any

import pytest

from election import Event
from election.events import EventKind
from politics.metrics import Families, Metrics


class Scene:
    """Metrics of one group on a clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.metrics = Metrics("pork", now=lambda: self.time, wall=lambda: self.time + 1e9)

    def see(self, kind: EventKind, **fields: Any) -> None:
        """One event."""
        self.metrics.see(Event(kind, "pork", **fields))

    def __getitem__(self, name: str) -> float | None:
        """The value of a sample, as scraped now; `name` may end in a result, as in `slots_total:done`."""
        name, _, result = name.partition(":")
        labels = {"group": "pork"} | ({"result": result} if result else {})
        return self.metrics.registry.get_sample_value(f"politics_{name}", labels)


@pytest.fixture
def scene() -> Scene:
    """Nothing has happened yet."""
    return Scene()


def test_a_leader_is_one_for_as_long_as_its_lease_proves_it(scene: Scene) -> None:
    """No event has to come for that to end."""
    scene.see(EventKind.ELECTED, fence=7, until=1009.9, takeover=True)
    assert (scene["is_leader"], scene["fence"], scene["terms_total"], scene["takeovers_total"]) == (1, 7, 1, 1)
    scene.time = 1003.0
    scene.see(EventKind.RENEWED, fence=7, until=1012.9, seconds=0.002)
    assert scene["lease_remaining_seconds"] == pytest.approx(9.9)
    assert scene["renewal_seconds_count"] == 1
    assert scene["renewal_seconds_sum"] == 0.002
    assert scene["leaderless_seconds"] == 0
    scene.time = 1015.0
    assert (scene["is_leader"], scene["lease_remaining_seconds"]) == (0, 0)
    assert scene["leaderless_seconds"] == pytest.approx(2.1)


def test_how_long_without_a_leader(scene: Scene) -> None:
    """From the end of our own term, or from when nobody was seen to lead, until somebody is."""
    scene.time = 1005.0
    assert scene["leaderless_seconds"] == 5
    scene.see(EventKind.LED, fence=3)
    assert (scene["leaderless_seconds"], scene["fence"], scene["is_leader"]) == (0, 3, 0)
    scene.see(EventKind.LEADERLESS)
    scene.time = 1007.0
    scene.see(EventKind.STORE_SILENT, reason="down")
    scene.time = 1008.0
    assert scene["leaderless_seconds"] == 3
    scene.see(EventKind.ELECTED, fence=4, until=1017.0)
    scene.time = 1010.0
    scene.see(EventKind.ENDED, fence=4)
    assert scene["is_leader"] == 0
    scene.time = 1012.0
    assert scene["leaderless_seconds"] == 2
    assert (scene["terms_total"], scene["takeovers_total"]) == (1, 0)


def test_slots_and_failures_are_counted(scene: Scene) -> None:
    """Each result by itself; a slot that starts is none yet."""
    for kind in (
        EventKind.SLOT_STARTED,
        EventKind.SLOT_DONE,
        EventKind.SLOT_DONE,
        EventKind.SLOT_FAILED,
        EventKind.SLOT_INTERRUPTED,
    ):
        scene.see(kind, slot=1)
    scene.see(EventKind.SLOTS_SKIPPED, slot=9, count=7)
    scene.see(
        EventKind.SLOTS_SKIPPED, tick="2026-11-24T03:00:00Z", count=None, reason="so many that nobody counts them"
    )
    scene.see(EventKind.RENEWAL_FAILED, reason="down")
    found = {result: scene[f"slots_total:{result}"] for result in ("done", "failed", "interrupted", "skipped")}
    assert found == {"done": 2, "failed": 1, "interrupted": 1, "skipped": 8}
    assert scene["renewals_failed_total"] == 1


def test_when_the_last_slot_was_done_and_how_long_work_takes(scene: Scene) -> None:
    """The time of day of the last one that was done, 0 before; and the durations, by result."""
    assert scene["last_slot_done_timestamp_seconds"] == 0
    scene.see(EventKind.SLOT_DONE, slot=1, seconds=2.0)
    scene.time = 1100.0
    scene.see(EventKind.SLOT_FAILED, slot=2, seconds=70.0)
    scene.see(EventKind.SLOT_DONE, slot=3, seconds=4.0)
    scene.time = 1200.0
    scene.see(EventKind.SLOT_INTERRUPTED, slot=4, seconds=1.0)
    assert scene["last_slot_done_timestamp_seconds"] == 1e9 + 1100.0
    assert (scene["slot_seconds_count:done"], scene["slot_seconds_sum:done"]) == (2, 6.0)
    assert (scene["slot_seconds_sum:failed"], scene["slot_seconds_sum:interrupted"]) == (70.0, 1.0)


def test_several_groups_share_one_registry() -> None:
    """Each metric is there once, with a sample for each group."""
    families = Families()
    first, second = Metrics("pork", families), Metrics("beans", families)
    first.see(Event(EventKind.ELECTED, "pork", fence=7, until=1e12))
    assert first.registry is second.registry
    values = [families.registry.get_sample_value("politics_is_leader", {"group": g}) for g in ("pork", "beans")]
    assert values == [1, 0]

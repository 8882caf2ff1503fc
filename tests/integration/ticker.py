"""A worker with a schedule and a diary, whose wall clock may be wrong.

    python -m tests.integration.ticker DIARY NAME '{"store": "memcached://…", "group": "pork", "schedule": "@hourly"}'

It writes a line `tick` for each event of a tick. `clock` names a file with the milliseconds that its wall clock is
ahead, which may be changed at any moment.
"""

from pathlib import Path
from typing import Any

from election import Event
from election.clock import wall_ms
from election.events import EventKind
from politics.worker import agenda
from tests.integration.worker import Diarist, Diary, main

OF_TICKS = {
    EventKind.SLOT_STARTED, EventKind.SLOT_DONE, EventKind.SLOT_FAILED, EventKind.SLOT_INTERRUPTED,
    EventKind.SLOTS_SKIPPED,
}  # fmt: skip


class Ticker(Diarist):
    """Writes down what becomes of each tick."""

    def __init__(self, diary: Diary, name: str, *, clock: str = "", **options: Any) -> None:
        if clock:
            agenda.wall_ms = lambda: wall_ms() + int(Path(clock).read_text())
        super().__init__(diary, name, **options)

    def on_event(self, event: Event) -> None:
        """Write down the events of ticks."""
        if event.kind in OF_TICKS:
            told = event.fields
            self.tell("tick", kind=told.pop("event"), **told)


if __name__ == "__main__":
    main(Ticker)

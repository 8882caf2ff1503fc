"""What happens to a lease, as one frozen object for hooks and for the fields of log lines."""

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("election")


class EventKind(enum.StrEnum):
    """What has happened."""

    ELECTED = "elected"
    """We lead until `until`; `takeover`: we replaced a leader that fell silent."""
    RENEWED = "renewed"
    """The renewal took `seconds`; we lead until `until`."""
    RENEWAL_FAILED = "renewal_failed"
    """A renewal failed, for this `reason`; it is tried again."""
    ENDED = "ended"
    """Our term is over, for this `reason`. Reported when the term is left, which may be later than `until`."""
    LED = "led"
    """Somebody else was seen to lead, with this `fence`."""
    LEADERLESS = "leaderless"
    """Nobody was seen to lead."""
    STORE_SILENT = "store_silent"
    """The store stopped answering a candidate, for this `reason`."""
    STORE_ANSWERS = "store_answers"
    """The store answers again."""
    SLOT_STARTED = "slot_started"
    """The work of `slot` begins; `takeover`: again, after a leader that was interrupted."""
    SLOT_DONE = "slot_done"
    """The work returned, after `seconds`."""
    SLOT_FAILED = "slot_failed"
    """The work raised, after `seconds`; `reason` is what it raised."""
    SLOT_INTERRUPTED = "slot_interrupted"
    """Leadership was lost, or the work was asked to stop, or ended its worker, after `seconds`, for this `reason`."""
    SLOTS_SKIPPED = "slots_skipped"
    """The last `count` slots before `slot` have passed without a run; or, of a schedule, the last `count` ticks up to
    and with `tick` (None: so many that nobody counts them), for this `reason`; `takeover`: an earlier leader may have
    reported them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that has happened to the lease `group`; fields that do not apply are None.

    `until` is a moment in seconds on the clock of `SystemClock`, and `tick` a scheduled instant as in
    2026-11-24T03:00:00Z. Where there is a schedule, `tick` is told of in the place of `slot`.
    """

    kind: EventKind
    group: str
    fence: int | None = None
    slot: int | None = None
    takeover: bool | None = None
    count: int | None = None
    seconds: float | None = None
    until: float | None = None
    tick: str | None = None
    reason: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that apply, for `extra` of a log line; `kind` is called `event` there."""
        given = {name: getattr(self, name) for name in self.__slots__ if name != "kind"}
        return {"event": str(self.kind)} | {name: value for name, value in given.items() if value is not None}


OnEvent = Callable[[Event], object]
"""Called in the thread in which the event happens, maybe the one that renews leases. It must return at once."""


def tell(hook: OnEvent | None, event: Event) -> dict[str, Any]:
    """Pass `event` to the hook, log what the hook raises, and return the fields of the event."""
    try:
        if hook is not None:
            hook(event)
    except Exception:
        log.exception("%s: on_event failed for %s", event.group, event.kind)
    return event.fields

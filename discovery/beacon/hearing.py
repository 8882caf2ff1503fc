"""What a beacon has heard, and until when it believes that. It touches no network; the engine tells it what came."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Callable

from discovery.beacon.format import PERIODS, Change, Sighting, goodbye, name_in, parse, with_period
from discovery.beacon.packets import Packets

MAX_HEARD = 10_000
"""Announcements that a beacon remembers. It ignores more, so that a flood of names costs bounded memory."""
ASK = ""
"""The kind of an announcement that asks everyone for theirs."""
TICKS = 4
"""Ticks in a period."""
_UNHEARD = (None, None)

Callback = Callable[[Change, Sighting], object]
log = logging.getLogger("discovery")


class Hearing:
    """The announcements that are believed, on the engine's thread.

    Args:
        period: seconds between two heartbeats of our own, by which time is counted here: in `TICKS` ticks each.
        asked: called when somebody asks everyone for their announcements.
    """

    def __init__(self, period: float, asked: Callable[[], object]) -> None:
        self.period, self._asked = period, asked
        self.watchers: dict[object, tuple[str, Callback]] = {}
        self.heard: dict[str, tuple[bytes, Sighting]] = {}
        self.believed: dict[str, int] = {}  # until which tick
        self.packets = Packets()
        self.said: list[tuple[str, bytes]] = []  # what the packet says that is being parsed
        self.unclear = 0  # how many of its records are not among them
        self.full = False
        self.tick = 0

    def watch(self, key: object, kind: str, callback: Callback) -> None:
        """Call back for what is known and for what comes."""
        self.watchers[key] = kind, callback
        for _, sighting in list(self.heard.values()):
            if sighting.kind == kind:
                _call(callback, "added", sighting)

    def age(self) -> None:
        """Count one more tick, and forget those that have been silent for too long."""
        self.tick += 1
        for name in [name for name, until in self.believed.items() if until < self.tick]:
            self.forget(name)

    def knows(self, data: bytes) -> bool:
        """Return whether this very packet was heard before and says nothing new; it is a heartbeat then."""
        said = self.packets.said(data)
        if not said or any(self.heard.get(name, _UNHEARD)[0] is not text for name, text in said):
            return False
        for name, _ in said:
            self.believe(name)
        return True

    def learn(self, data: bytes, parse: Callable[[], None]) -> None:
        """Let zeroconf parse a packet, and keep it if all that it says of us is what is believed now.

        zeroconf does not tell of all records in it, and a goodbye or a question must not be missed when it comes again.
        So they are counted.
        """
        self.said, self.unclear = [], sum(struct.unpack_from("!3H", data, 6)) if len(data) >= 12 else 0
        parse()
        if self.said and not self.unclear:
            self.packets.keep(data, tuple(self.said))

    def take(self, text: bytes, *, ended: bool) -> None:
        """Take the text of one record; `ended` if its lifetime is over."""
        self.unclear += 1
        name = name_in(text)
        if ended or text == goodbye(name):
            self.forget(name)
        elif name:
            self.hear(name, text)

    def hear(self, name: str, text: bytes) -> None:
        """Take an announcement, or its repetition."""
        before = self.heard.get(name, _UNHEARD)[0]
        if before != text:
            sighting = parse(text)
            if sighting is None:
                return
            if sighting.kind == ASK:
                self._asked()
                return
            if before is None and not self.has_room():
                return
            self.heard[name] = text, sighting
            if before is None or with_period(before, 0) != with_period(text, 0):
                self.tell("added" if before is None else "changed", sighting)
        self.believe(name)
        self.unclear -= 1
        self.said.append((name, self.heard[name][0]))

    def has_room(self) -> bool:
        """Return whether one more announcement can be remembered; say so once when none can."""
        full = len(self.heard) >= MAX_HEARD
        if full and not self.full:
            log.warning("%d announcements are heard: more are ignored until some of these end", len(self.heard))
        self.full = full
        return not full

    def believe(self, name: str) -> None:
        """Believe an announcement for three of its periods from now."""
        period = self.heard[name][1].period
        self.believed[name] = self.tick + math.ceil(PERIODS * TICKS * period / self.period - 1e-6)

    def forget(self, name: str) -> None:
        """Forget an announcement, and tell everyone who browses for its kind."""
        if name in self.heard:
            del self.believed[name]
            self.tell("removed", self.heard.pop(name)[1])

    def tell(self, change: Change, sighting: Sighting) -> None:
        """Call everyone who browses for this kind."""
        for kind, callback in list(self.watchers.values()):
            if kind == sighting.kind:
                _call(callback, change, sighting)


def _call(callback: Callback, change: Change, sighting: Sighting) -> None:
    try:
        callback(change, sighting)
    except Exception:
        log.exception("the callback for %s %s raised", change, sighting.name)

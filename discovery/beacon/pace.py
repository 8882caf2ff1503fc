"""How often a beacon speaks where many are heard. Pure.

What a listener pays grows with the number of those whom it hears. So each of them speaks less often, and answers come
spread out. Every beacon counts for itself whom it hears, so all of a network find about the same times.
"""

from __future__ import annotations

import math

from discovery.beacon.format import LONGEST

CROWD = 40
"""Announcements on the network up to which the heartbeat is as often as it was set."""
STEP = 1.5
"""How many times as long the next pause between two heartbeats may be. Even if one is lost, nobody is forgotten."""
KEPT = 1.25
"""How far the pause may be from the right one before it is changed, since a change must be parsed by everybody."""
PER_NAME, LONGEST_SPREAD = 0.001, 0.8
"""Seconds over which answers are spread for each announcement that is heard, and at most."""
LONGEST_REST = 0.3
"""Seconds for which nobody answers again, at most. A registry listens 0.4 s for others that have its name."""
ANSWERED = 0.9
"""Seconds after which a question has been answered by all."""


def next_pace(pace: float, period: float, heard: int) -> float:
    """Return the seconds until the next heartbeat.

    The pace grows with the root of the number heard: four times as many are heard twice as often in all.

    Args:
        pace: the seconds between the last two.
        period: what the beacon was set to; the pace is never less.
        heard: how many announcements are heard.
    """
    wanted = max(period, min(LONGEST, period * math.sqrt(heard / CROWD)))
    if pace / KEPT <= wanted <= pace * KEPT and wanted != period:
        return pace
    return min(wanted, pace * STEP)


def spread(heard: int) -> float:
    """Return the seconds within which all answer who asks them, so that the answers do not overrun its buffer."""
    return min(LONGEST_SPREAD, max(0.03, PER_NAME * heard))


def rest(heard: int) -> float:
    """Return the seconds for which nobody who has just answered answers again."""
    return max(0.1, min(LONGEST_REST, 4 * PER_NAME * heard))

"""A written tuple, and how long it lives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf, isnan
from typing import Any, Literal, Protocol

from discovery.errors import BadTime
from discovery.tuples.state import Item
from discovery.tuples.template import Stored


class Renewer(Protocol):
    """Decides how long a tuple lives, again and again: `renew() -> seconds | None | False`.

    Seconds are added to the tuple's life, None lets it live for ever, False lets it end. Raising lets it end too. A
    `renew` that takes an argument is given the tuple. It is called on the writer's thread when the tuple is written,
    and after that on a thread of its own, shortly before the time is up. Until it has answered, an expired tuple is
    not seen.
    """

    @property
    def renew(self) -> Callable[..., float | Literal[False] | None]:
        """What is called, with the tuple or with nothing."""
        ...


Expiry = float | Renewer | None


class SimpleRenewer:
    """Keeps a tuple alive as long as its writer's process answers. It is asked every so many `seconds`."""

    def __init__(self, seconds: float = 180) -> None:
        self.seconds = seconds_or_forever(seconds)

    def renew(self) -> float:
        """Return the same number of seconds each time."""
        return self.seconds

    def __repr__(self) -> str:
        return f"SimpleRenewer({self.seconds:g})"


class EntryOwner(Protocol):
    """What an entry needs of its space."""

    now: Callable[[], float]

    def _renew(self, entry: Entry, expires: Expiry) -> bool: ...
    def _withdraw(self, entry: Entry) -> bool: ...


class Entry(Item):
    """A tuple that you wrote. `TupleSpace.write` returns it."""

    __slots__ = ("space",)

    def __init__(self, space: EntryOwner, stored: Stored) -> None:
        super().__init__(stored)
        self.space = space

    @property
    def alive(self) -> bool:
        """Whether the tuple is in the space and has not expired. A tuple that a take may still put back is alive."""
        return self.listed and self.expires > self.space.now()

    def renew(self, expires: Expiry) -> bool:
        """Let the tuple live so many seconds from now, or as `TupleSpace.write` says. Return False if it is gone."""
        return self.space._renew(self, expires)

    def cancel(self) -> bool:
        """Remove the tuple, which is a `delete`.

        Return False if it is gone, or if a take holds it; that take then cannot put it back.
        """
        return self.space._withdraw(self)

    def __repr__(self) -> str:
        left = "for ever" if self.expires == inf else f"{self.expires - self.space.now():.1f} s left"
        return f"<Entry {self.stored!r}, {left if self.alive else 'gone'}>"


def seconds_or_forever(value: Any) -> float:
    """Return a number of seconds, infinity for None.

    Raises:
        BadTime: for anything else, a bool and a negative number included.
    """
    if value is None:
        return inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or isnan(value) or value < 0:
        raise BadTime(f"expected a number of seconds, 0 or more, or None for ever; got {value!r}")
    return float(value)


def first_answer(expires: Expiry, stored: Stored) -> tuple[float, Renewer | None]:
    """Return how long a tuple lives at first, and who is asked then. What a renewer raises is passed on."""
    if expires is None:
        return inf, None
    if not isinstance(expires, (int, float)) and hasattr(expires, "renew"):
        return answer(expires, stored)
    return seconds_or_forever(expires), None


def answer(renewer: Renewer, stored: Stored) -> tuple[float, Renewer | None]:
    """Ask a renewer. Return its seconds, and the renewer again unless it said None or False and is asked no more."""
    given = renewer.renew(stored) if _wants_the_tuple(renewer.renew) else renewer.renew()
    if given is False:
        return 0.0, None
    seconds = seconds_or_forever(given)
    return seconds, None if seconds in (0, inf) else renewer


def _wants_the_tuple(renew: Callable[..., Any]) -> bool:
    try:
        inspect.signature(renew).bind(())
    except (TypeError, ValueError):
        return False
    return True

"""A written tuple and how long it lives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf, isnan
from typing import TYPE_CHECKING, Any, Literal, Protocol

from discovery.errors import BadTime
from discovery.tuples.template import Stored

if TYPE_CHECKING:
    from discovery.tuples.space import TupleSpace


class Renewer(Protocol):
    """Decides how long a tuple lives, again and again: `renew() -> seconds | None | False`.

    Seconds are added to the tuple's life, None lets it live for ever, False lets it end. Raising lets it end too. A
    `renew` that takes an argument is given the tuple. It is asked on the writer's thread when the tuple is written, and
    from then on, on a thread of its own, shortly before the time is up; until it has answered, an expired tuple is
    not seen.
    """

    @property
    def renew(self) -> Callable[..., float | Literal[False] | None]:
        """What is called, with the tuple or with nothing."""
        ...


Expiry = float | Renewer | None


class SimpleRenewer:
    """Keeps a tuple alive while the process that wrote it can be asked, which happens every so many seconds."""

    def __init__(self, seconds: float = 180) -> None:
        self.seconds = seconds_or_forever(seconds)

    def renew(self) -> float:
        """The same number of seconds each time."""
        return self.seconds

    def __repr__(self) -> str:
        return f"SimpleRenewer({self.seconds:g})"


class Entry:
    """A tuple that was written: what its writer holds of it."""

    __slots__ = ("asking", "expires", "held", "lead", "listed", "number", "renewer", "space", "stored")

    def __init__(self, space: TupleSpace, number: int, stored: Stored) -> None:
        self.space, self.number, self.stored = space, number, stored
        self.expires, self.lead = inf, 0.0
        self.renewer: Renewer | None = None
        self.listed, self.held, self.asking = True, False, False

    @property
    def alive(self) -> bool:
        """Whether the tuple is in the space, not expired; one that a take holds and may still put back is alive."""
        return self.listed and self.expires > self.space.now()

    def renew(self, expires: Expiry) -> bool:
        """Lets the tuple live so many seconds from now, or as `TupleSpace.write` says. False where it is gone."""
        return self.space._renew(self, expires)

    def cancel(self) -> bool:
        """Removes the tuple, which is a `delete`. False where it is gone or a take holds it: it never comes back."""
        return self.space._withdraw(self)

    def _due(self) -> None:
        self.space._entry_due(self)

    def __repr__(self) -> str:
        left = "for ever" if self.expires == inf else f"{self.expires - self.space.now():.1f} s left"
        return f"<Entry {self.stored!r}, {left if self.alive else 'gone'}>"


def seconds_or_forever(value: Any) -> float:
    """Seconds, with infinity for None. Raises `BadTime` for anything else, a bool and a negative number included."""
    if value is None:
        return inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or isnan(value) or value < 0:
        raise BadTime(f"expected a number of seconds, 0 or more, or None for ever; got {value!r}")
    return float(value)


def first_answer(expires: Expiry, stored: Stored) -> tuple[float, Renewer | None]:
    """How long a tuple lives at first, and who is asked then. What a renewer raises is the caller's."""
    if expires is not None and not isinstance(expires, (int, float)) and hasattr(expires, "renew"):
        return answer(expires, stored)
    return seconds_or_forever(expires), None


def answer(renewer: Renewer, stored: Stored) -> tuple[float, Renewer | None]:
    """Asks a renewer: the seconds it gives, and itself unless it gave None or False and need not be asked again."""
    given = renewer.renew(stored) if _wants_the_tuple(renewer.renew) else renewer.renew()
    if given is False:
        return 0.0, None
    seconds = seconds_or_forever(given)
    return seconds, None if seconds in (0, inf) else renewer


def lead(seconds: float) -> float:
    """How long before the time is up a renewer is asked, so that its answer is there in time."""
    return min(1.0, seconds / 10)


def _wants_the_tuple(renew: Callable[..., Any]) -> bool:
    try:
        inspect.signature(renew).bind(())
    except (TypeError, ValueError):
        return False
    return True

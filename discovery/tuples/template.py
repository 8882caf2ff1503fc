"""Which tuples a template matches. Pure: no clock and no network.

The idea is Linda's (Gelernter, 1985) by way of Ruby's Rinda. A template has the shape of the tuples that it matches,
and says for each field what may be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from discovery.errors import BadTemplate, BadTuple

Fields = Sequence[Any] | Mapping[str, Any]
Stored = tuple[Any, ...] | dict[str, Any]
Shape = int | frozenset[str]
PLAIN = frozenset({str, int, float, bool, bytes})
"""Classes whose values have a hash and are literals in a template. To look here first is quick."""


def freeze(fields: Fields, error: type[BadTuple | BadTemplate] = BadTuple) -> Stored:
    """Return a copy that later changes to `fields` do not reach. A named tuple stays what it is.

    Raises:
        BadTuple: (or the `error` that you name) for anything but a sequence or a mapping with string keys.
    """
    if isinstance(fields, tuple):
        return fields
    if isinstance(fields, Mapping) and all(isinstance(key, str) for key in fields):
        return dict(fields)
    if isinstance(fields, Sequence) and not isinstance(fields, (str, bytes, bytearray, memoryview)):
        return tuple(fields)
    raise error(f"expected a sequence or a mapping with string keys, got {fields!r}")


def thaw(stored: Stored) -> Stored:
    """Return what a reader may change without changing the tuple in the space."""
    return dict(stored) if isinstance(stored, dict) else stored


def shape(stored: Stored) -> Shape:
    """Return what must agree before fields are compared: the size of a sequence, the keys of a mapping."""
    return frozenset(stored) if isinstance(stored, dict) else len(stored)


def hashable(value: Any) -> bool:
    """Return whether an index can find `value` by its hash."""
    try:
        hash(value)
    except Exception:  # noqa: BLE001 - whatever a class of somebody else's raises
        return False
    return True


class Template:
    """What a tuple must look like: it has the same size, or for a mapping the same keys, and each field fits.

    | pattern | matches |
    |---|---|
    | `None` | anything |
    | a type | its instances, and itself; `int` does not match a bool |
    | a `range` | the whole numbers in it, `2.0` included; no bool |
    | a compiled regular expression | a str (or bytes) in which it is found anywhere |
    | an object with `matches(value)` | what that method says |
    | anything else, a literal | what equals it: `1` matches `1.0`, but a bool matches only itself |

    Raises:
        BadTemplate: it is made of anything but a sequence or a mapping with string keys.
    """

    __slots__ = ("_tests", "literals", "pattern", "shape")

    def __init__(self, pattern: Fields) -> None:
        self.pattern = freeze(pattern, BadTemplate)
        self.shape = shape(self.pattern)
        self.literals: list[tuple[int | str, Any]] = []
        self._tests: list[tuple[Any, Callable[[Any], bool]]] = []
        for field, wanted in self.pattern.items() if isinstance(self.pattern, dict) else enumerate(self.pattern):
            if wanted is None:
                continue
            plain = type(wanted) in PLAIN
            test = None if plain else _description(wanted)
            if test is None:
                test = _equality(wanted)
                if plain or hashable(wanted):
                    self.literals.append((field, wanted))
            self._tests.append((field, test))

    def matches(self, stored: Stored) -> bool:
        """Return whether the tuple has this shape and each field fits.

        Raises:
            BadTemplate: a pattern itself raised.
        """
        return shape(stored) == self.shape and self.fits(stored)

    def fits(self, stored: Stored) -> bool:
        """Return what `matches` does, for a tuple that is known to have this shape."""
        for field, test in self._tests:
            try:
                if not test(stored[field]):
                    return False
            except Exception as exc:
                wanted = self.pattern[field]
                raise BadTemplate(f"field {field!r} of the template, {wanted!r}, raised {exc!r}") from exc
        return True

    def __repr__(self) -> str:
        return f"Template({self.pattern!r})"


def _description(wanted: Any) -> Callable[[Any], bool] | None:
    """Return the test of a pattern that describes values, None for a literal."""
    if isinstance(wanted, type):
        if wanted is int:
            return lambda value: value is int or (isinstance(value, int) and not isinstance(value, bool))
        return lambda value: value is wanted or isinstance(value, wanted)
    if isinstance(wanted, range):
        # Only whole numbers are looked up: `0.5 in range(10**9)` would count its way through.
        return lambda value: (
            (type(value) is int or (type(value) is float and value.is_integer())) and (int(value) in wanted)
        )
    if isinstance(wanted, re.Pattern):
        return lambda value: isinstance(value, type(wanted.pattern)) and wanted.search(value) is not None
    # Asked of the class: a proxy answers to every attribute, and asking it may cross the network.
    if callable(getattr(type(wanted), "matches", None)):
        return lambda value: bool(wanted.matches(value))
    return None


def _equality(wanted: Any) -> Callable[[Any], bool]:
    if isinstance(wanted, bool):
        return lambda value: value is wanted

    def equal(value: Any) -> bool:
        try:
            return bool(wanted == value) and not isinstance(value, bool)
        except Exception:  # noqa: BLE001 - the fault of whoever wrote the value; the template is well
            return False

    return equal

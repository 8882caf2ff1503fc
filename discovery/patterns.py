"""Regular expressions that came from another process: matched under a limit that holds.

Python's own `re` cannot be interrupted, and the interpreter does nothing else meanwhile. `regex` has the same syntax, a
limit on its time, and can let other threads run.
"""

from __future__ import annotations

import re
import time
from typing import Any

from discovery.errors import BadTemplate

__all__ = ["MAX_PATTERN", "ForeignPattern"]

MAX_PATTERN = 1000
"""The most characters of a regular expression that travels."""

FLAGS = re.ASCII | re.IGNORECASE | re.LOCALE | re.MULTILINE | re.DOTALL | re.UNICODE | re.VERBOSE
"""The flags that travel. DEBUG, for one, prints."""

QUICK, LOCKED = 50e-6, 0.005
"""Seconds of CPU within which a search is not counted, and during which no other thread runs, at most."""

BURST = 0.1
"""Seconds of CPU that the searches of one pattern that are not quick may take together."""

PER_TEXT, PER_CHARACTER = 10e-6, 10e-9
"""Seconds that a pattern gains with each text, and with each of its characters, so that many texts are no fault."""

# What `regex` reads in braces other than a number of repeats ("fuzzy" matching), and [:alpha:], mean nothing to `re`.
_SAME_MEANING = re.compile(r"(?:\\.|\{\d*,?\d*\}|\[(?!:\^?\w+:\])|[^\\{\[])*+", re.DOTALL)


class ForeignPattern:
    """A regular expression that came from another process. In a template it is what `re.compile` makes: it matches.

    It is compiled when it is first used. Its searches together may take a tenth of a second of CPU, and ten
    microseconds more for each text and a hundredth of one for each character of it. For one thread at a time.

    Args:
        pattern: Its text, or its bytes.
        flags: As in `re.Pattern.flags`. Those that change nothing of what matches are left out.
    """

    __slots__ = ("_compiled", "_left", "flags", "pattern")

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self.pattern, self.flags = pattern, int(flags) & FLAGS
        self._compiled: Any = None
        self._left = BURST

    def compile(self) -> re.Pattern[Any]:
        """Return what the sender had: a pattern of Python's own, whose searches have no limit.

        Raises:
            re.error: It is no regular expression.
        """
        return re.compile(self.pattern, self.flags)

    def matches(self, value: Any) -> bool:
        """Return whether it is found anywhere in a text (or in bytes, if it is made of these).

        Raises:
            BadTemplate: It is no regular expression, or it takes too long.
        """
        if not isinstance(value, type(self.pattern)):
            return False
        if self._compiled is None:
            self._compiled = _compile(self.pattern, self.flags)
        long = PER_CHARACTER * len(value)
        self._left = min(BURST, self._left + PER_TEXT + long)
        try:
            return self._compiled.search(value, timeout=min(QUICK + long, LOCKED)) is not None
        except TimeoutError:
            return self._search_slowly(value)

    def _search_slowly(self, value: Any) -> bool:
        """Begin again, count the time, and let other threads run, which costs more than a quick search."""
        began = time.thread_time()
        try:
            if self._left <= 0:
                raise TimeoutError
            return self._compiled.search(value, timeout=self._left, concurrent=True) is not None
        except TimeoutError:
            raise BadTemplate(f"{self!r} takes too long to search") from None
        finally:
            self._left -= time.thread_time() - began

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ForeignPattern):
            return NotImplemented
        return (self.pattern, self.flags) == (other.pattern, other.flags)

    def __hash__(self) -> int:
        return hash((self.pattern, self.flags))

    def __repr__(self) -> str:
        return f"<ForeignPattern {self.pattern!r:.100}>"


def _compile(pattern: str | bytes, flags: int) -> Any:
    import regex  # only by those who are sent a pattern

    if not _SAME_MEANING.fullmatch(pattern if isinstance(pattern, str) else pattern.decode("latin-1")):
        raise BadTemplate(f"write a backslash before each brace and bracket that stands for itself: {pattern!r:.100}")
    # By name: the two number some flags differently.
    same = [getattr(regex, name) for name, flag in re.RegexFlag.__members__.items() if flags & FLAGS & flag]
    combined = regex.VERSION0
    for flag in same:
        combined |= flag
    return regex.compile(pattern, combined, cache_pattern=False)

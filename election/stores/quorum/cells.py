"""What each server of a quorum keeps for a name, what is asked of it, and what may be missing. Pure."""

import enum
import re
from dataclasses import dataclass
from typing import Any, NamedTuple


class Ballot(NamedTuple):
    """The number of a proposal; the proposer makes it unique."""

    round: int
    proposer: str


NEVER = Ballot(0, "0")
"""Below all others: what a cell has accepted in which nothing is accepted yet."""


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What one server's cell holds.

    `incarnation` is random. It is made when the cell is created, and made anew when the cell changes its lineage: so it
    names a span in which this server has forgotten nothing. `seen` are the incarnations of all servers as the proposer
    of the accepted value knew them; "" is none. A promise changes `promised` alone.
    """

    configuration: str
    lineage: str
    incarnation: str
    promised: Ballot
    accepted: Ballot
    seen: tuple[str, ...]
    value: bytes

    def encode(self) -> bytes:
        """Return the bytes for the server's cell."""
        promised, accepted = (f"{ballot.round}.{ballot.proposer}" for ballot in (self.promised, self.accepted))
        head = f"q1 {self.configuration} {self.lineage} {self.incarnation} {promised} {accepted} {','.join(self.seen)}"
        return head.encode() + b"\n" + self.value


_WORD = rb"([0-9a-z]{1,40})"
_CELL = re.compile(
    rb"q1 %b %b %b (\d{1,18})\.%b (\d{1,18})\.%b ([0-9a-z,]{1,400})\n" % (_WORD, _WORD, _WORD, _WORD, _WORD)
)


def decode(data: bytes) -> Acceptor | None:
    """Return what the cell holds; None if it is nothing of ours."""
    found = _CELL.match(data)
    if found is None:
        return None
    words = [word.decode() for word in found.groups()]
    promised, accepted = Ballot(int(words[3]), words[4]), Ballot(int(words[5]), words[6])
    return Acceptor(words[0], words[1], words[2], promised, accepted, tuple(words[7].split(",")), data[found.end() :])


class Sight(NamedTuple):
    """What one server says of its cell: None as version if there is none; None as cell if that is nothing of ours."""

    version: Any | None
    cell: Acceptor | None


class Write(NamedTuple):
    """Write `cell` over the version `expected`; None: if there is no cell."""

    cell: Acceptor
    expected: Any | None


@dataclass(frozen=True, slots=True)
class Read:  # no tuple: an empty one would count as false, as None does
    """Read the cell."""


Request = Read | Write | None
Answer = Sight | Any | None
"""To `Read` a `Sight`; to `Write` the new version, or `REFUSED`; `SILENT` if there was no answer or no request."""


class _Mark(enum.Enum):
    REFUSED = "refused"
    SILENT = "silent"


REFUSED, SILENT = _Mark.REFUSED, _Mark.SILENT


class NoChoice(NamedTuple):
    """A majority has answered, and no consistent set is left: the register is empty."""


class TooFew(NamedTuple):
    """Fewer than a majority have answered."""


class Moved(NamedTuple):
    """A cell belongs to another list of servers."""

    server: int


FIRST, LATER = "f", "l"
"""How the name of a lineage begins: one that took cells of which none existed, and one that did not."""


def is_first(lineage: str) -> bool:
    """Return whether this lineage began on a majority of servers that had no cell, so that nothing was overwritten."""
    return lineage.startswith(FIRST)

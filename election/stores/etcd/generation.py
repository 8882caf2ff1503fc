"""Whether an etcd cluster has gone back to an earlier state: what a snapshot cannot bring back."""

import re
from typing import NamedTuple

UNKNOWN = -(1 << 62)
"""A bound that is below all that there can be."""


class Generation(NamedTuple):
    """What the key `generation` says: a random name, in which cluster it began, and a bound (see `restored`)."""

    name: str
    cluster: str
    bound: int

    def dump(self) -> bytes:
        """Return it as the key's value."""
        return " ".join(map(str, self)).encode()


def parse_generation(value: bytes | None) -> Generation | None:
    """Return what was written with `dump`; None for anything else."""
    found = re.fullmatch(rb"([0-9a-f]{32}) (\d{1,20}) (-?\d{1,19})", value or b"")
    return Generation(found[1].decode(), found[2].decode(), int(found[3])) if found else None


class MemberState(NamedTuple):
    """A member's own state at one moment: the cluster's id, its revision, how many entries of its log are applied."""

    cluster: str
    revision: int
    applied: int | None


def restored(kept: Generation | None, first: MemberState, second: MemberState, seen: float) -> bool:
    """Return whether the cluster may have gone back to an earlier state since `kept` was written. Pure.

    Each revision is one applied entry of the cluster's log, so `applied - revision` never falls. A cluster that is
    restored from a snapshot keeps the revision and begins a new log: the difference falls below all that it was. The
    bound is less than or equal to the difference when it was written, and is in each later snapshot.

    Args:
        kept: what the key says; read before the two looks, through the same member, linearizably.
        first, second: two looks at that member, one after the other.
        seen: the largest revision that this process has seen in `kept`; infinite if another generation came later.
    """
    if kept is None or kept.cluster != second.cluster or second.revision < seen:
        return True
    # The two numbers of a look are not of one moment: an entry may be counted in one and not yet in the other.
    return second.applied is not None and second.applied + 1 - first.revision < kept.bound


def bound(first: MemberState, second: MemberState) -> int:
    """Return a number that `applied - revision` has reached at the second look."""
    return UNKNOWN if first.applied is None else first.applied - second.revision

"""What a member of a group says of itself, and what follows from what several of them say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONFIRM = 16.0
"""Seconds for which two members must differ before that is reported. A store that restarts gets a new identity, which
its users do not learn all at once; and whoever died or was cut off meanwhile still seems to use the old one, for as
long as the beacon believes in the dead (LIFETIME)."""
MAX_REPORTED = 100
"""Peers that one worker reports, so that a flood of forged ones does not fill its log."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A member of a group, as it was last heard; a hint, never an authority.

    `id` is random for each worker. `store` names the very store in which it looks for the lease, and is empty while it
    cannot tell. `fence` is that of its term while it leads, else None.
    """

    group: str
    id: str
    host: str
    pid: int
    store: str = ""
    fence: int | None = None

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        return self.fence is not None

    def properties(self) -> dict[str, str]:
        """As it is announced."""
        texts = {"group": self.group, "id": self.id, "host": self.host, "pid": str(self.pid), "store": self.store}
        return texts | ({} if self.fence is None else {"fence": str(self.fence)})


def understand(properties: Mapping[str, str]) -> Peer | None:
    """Whom these properties announce; None where they make no sense, or would confuse a terminal."""
    texts = [properties.get(key, "") for key in ("group", "id", "host", "pid", "store", "fence")]
    group, id_, host, pid, store, fence = texts
    numbers = all(number.isascii() and number.isdecimal() for number in (pid, fence or "0"))
    if not all((group, id_, host, numbers)) or not all(map(str.isprintable, texts)):
        return None
    return Peer(group, id_, host, int(pid), store, int(fence) if fence else None)


def stores(peers: Iterable[Peer]) -> set[str]:
    """The stores that are named; more than one is a split."""
    return {peer.store for peer in peers if peer.store}


@dataclass(slots=True)
class Doubts:
    """Which peers have been on another store than ours, and since when, by peer and both stores."""

    since: dict[tuple[str, str, str], float] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)

    def weigh(self, store: str, peers: Iterable[Peer], asked: float, now: float) -> list[Peer]:
        """Those to be reported now, which each is once.

        `asked` is when our own store was last asked who it is: whoever differs since later may be right.
        """
        apart = {(p.id, p.store, store): p for p in peers if store and p.store and p.store != store}
        self.since = {key: self.since.get(key, now) for key in apart}
        certain = [
            peer
            for key, peer in apart.items()
            if asked >= self.since[key] and now - self.since[key] >= CONFIRM and peer.id not in self.reported
        ][: MAX_REPORTED - len(self.reported)]
        self.reported |= {peer.id for peer in certain}
        return certain

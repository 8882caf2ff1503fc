"""What a member of a group announces, and what follows from the announcements of several. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from election.errors import BadPolicy
from election.record import check_name

KIND = "peer"
"""The kind of announcement by which a beacon knows a member."""
LISTEN = 1.0
"""Seconds in which every member answers a new listener. They answer at once, whatever the heartbeat is."""
QUIET = 0.2
"""Seconds without an answer after which a listener who has heard somebody takes it that all have answered."""
ASKED_AGAIN = 1 / 16
"""Part of a heartbeat after which a listener asks once more, in case that its first question was lost."""
MAX_PEERS = 1000
"""Peers of one group that are kept, so that a flood of forged ones costs bounded memory and time."""
LOOKERS = 8
"""Standbys, on average, that look at the store when its lease may be free. In a larger group all others poll anyway."""
SOON = 0.005
"""Seconds between two looks at a lease, by any standby, with which no nudge is needed."""
MAX_REPORTED = 100
"""Peers that one worker reports at most, so that a flood of forged ones does not fill its log."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A member of a group, as it was last heard. This is a hint, never an authority.

    `id` is random for each worker. `store` is the identity of the store in which it looks for the lease; it is empty
    while the store does not tell. `fence` is that of its term while it leads, else None.
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
        """Return the properties under which it is announced; `parse` reads them."""
        texts = {"group": self.group, "id": self.id, "host": self.host, "pid": str(self.pid), "store": self.store}
        return texts | ({} if self.fence is None else {"fence": str(self.fence)})


_FORMS = {"id": r"[\w-]{1,64}", "host": r"[\w.:-]{1,64}", "pid": "[0-9]{1,10}", "fence": "([0-9]{1,19})?"}
"""What the parts of an announcement look like, in ASCII. The group is the name of a lease, and the store any text."""


def parse(properties: Mapping[str, str]) -> Peer | None:
    """Return the peer that these properties announce; None if no worker would announce them.

    What is a peer here is safe to look up in a store and to show to people.
    """
    parts = {key: properties.get(key, "") for key in ("group", "store", *_FORMS)}
    well_formed = all(re.fullmatch(form, parts[key], re.ASCII) for key, form in _FORMS.items())
    try:
        group = check_name(parts["group"])
    except BadPolicy:
        return None
    if not well_formed or not parts["store"].isprintable():
        return None
    fence = int(parts["fence"]) if parts["fence"] else None
    return Peer(group, parts["id"], parts["host"], int(parts["pid"]), parts["store"], fence)


def known_as(host: str) -> str:
    """Return a host's name as it may be announced."""
    return re.sub(r"[^\w.:-]", "_", host, flags=re.ASCII)[:64] or "_"


def heard_all_at(begun: float, last: float | None, heartbeat: float) -> float:
    """Return when a listener has heard all members, unless another one answers before.

    Args:
        begun: when it asked, in seconds.
        last: when it last heard of a member, on the same clock; None if it has heard of none.
        heartbeat: seconds between two announcements of a member.
    """
    if last is None:
        return begun + LISTEN
    return min(begun + LISTEN, max(last, begun + ASKED_AGAIN * heartbeat) + QUIET)


class Heard:
    """The peers that were heard: by the name of their announcement, and `MAX_PEERS` of each group at most.

    One thread calls `take`; the other methods may be called on any.
    """

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self._groups: dict[str, dict[str, Peer]] = {}

    def take(self, name: str, after: Peer | None) -> tuple[Peer | None, Peer | None]:
        """Take what an announcement says now, None for nothing. Return what it said before, and what is kept of it."""
        before = self._peers.pop(name, None)
        if before:
            self._groups[before.group].pop(name)
            if not self._groups[before.group]:
                del self._groups[before.group]
        if after and len(self._groups.get(after.group, ())) >= MAX_PEERS:
            after = None
        if after:
            self._peers[name] = self._groups.setdefault(after.group, {})[name] = after
        return before, after

    def __len__(self) -> int:
        return len(self._peers)

    def count(self, group: str) -> int:
        """Return how many of the group were heard."""
        return len(self._groups.get(group, ()))

    def of(self, group: str) -> list[Peer]:
        """Return those of the group."""
        return list(self._groups.get(group, {}).values())

    def all(self) -> list[Peer]:
        """Return those of all groups, in the order of groups, hosts and pids."""
        return sorted(self._peers.values(), key=lambda peer: (peer.group, peer.host, peer.pid))

    def clear(self) -> None:
        """Forget them all."""
        self._peers, self._groups = {}, {}


def may_be_free(before: Peer | None, after: Peer | None) -> bool:
    """Return whether an announcement that has changed may mean that the lease of its group is free.

    A leader that resigns may seem to have ended before the store knows. So an update that changes nothing counts too,
    since each end of a term is announced, and so does a goodbye, of a leader or not. A peer that leads now has taken
    the lease: nobody else needs to look.
    """
    if after is None:
        return before is not None
    return not after.leads and before is not None and (before == after or before.leads)


def looks(peers: int, chance: float) -> bool:
    """Return whether a standby looks at the store, where `peers` of its group are heard and may look as well.

    Args:
        peers: how many of the group are heard.
        chance: a random number, at least 0 and less than 1.
    """
    return chance * peers < LOOKERS


def polls_suffice(peers: int, poll: float) -> bool:
    """Return whether so many standbys, each looking every `poll` seconds, notice a free lease without a nudge."""
    return poll <= SOON * peers


def stores(peers: Iterable[Peer]) -> set[str]:
    """Return the stores that these peers name. More than one for a group is a split."""
    return {peer.store for peer in peers if peer.store}


@dataclass(slots=True)
class SplitDetector:
    """Find the peers that use another store than ours, and for how long they have.

    A difference is reported after `confirm` seconds, which must be longer than the beacon believes in a peer that has
    died. A store that restarts gets a new identity, which its users do not learn all at once. A peer that died
    meanwhile still seems to use the old one until it is forgotten.
    """

    confirm: float
    suspects: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """Since when a peer has differed, by its id, its store and our store."""
    reported: set[str] = field(default_factory=set)

    def check(self, store: str, peers: Iterable[Peer], asked: float, now: float) -> list[Peer]:
        """Return the peers to report now. Each is returned once.

        Args:
            store: the identity of our own store; empty while it is unknown.
            peers: the other members of the group.
            asked: when our own store was last asked for its identity. A peer that differs since later may be right.
            now: the time, in seconds on the same clock.
        """
        differing = {(p.id, p.store, store): p for p in peers if store and p.store and p.store != store}
        self.suspects = {key: self.suspects.get(key, now) for key in differing}
        confirmed = [
            peer
            for key, peer in differing.items()
            if asked >= self.suspects[key] and now - self.suspects[key] >= self.confirm and peer.id not in self.reported
        ][: MAX_REPORTED - len(self.reported)]
        self.reported |= {peer.id for peer in confirmed}
        return confirmed

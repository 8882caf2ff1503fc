"""How long a lease is and what that proves: deadlines and margins. Pure."""

from dataclasses import dataclass, field
from typing import Any

from election.errors import BadPolicy
from election.record import MAX_TTL, Record

MIN_TTL = 0.1


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """The timings of a lease, in seconds. Every candidate of a name uses the same `ttl` and `drift`.

    `ttl`: a leader that falls silent is replaced after this long. `drift`: by how many seconds per second a clock may
    run too fast or too slow; the holder counts the lease that much shorter, and a challenger that much longer.
    `poll_every`: seconds between two looks of a standby; None: a fortieth of the ttl, at least 0.05 and at most 0.25.

    Raises:
        BadPolicy: a value is not a number or is out of range, or the values cannot work together.
    """

    ttl: float = 10.0
    drift: float = 0.01
    poll_every: float | None = None

    def __post_init__(self) -> None:
        _check("lease_ttl", self.ttl, MIN_TTL, MAX_TTL)
        _check("drift", self.drift, 0.0, 0.2)
        if self.poll_every is not None:
            _check("poll_every", self.poll_every, 0.001, self.ttl)

    @property
    def poll(self) -> float:
        """Seconds between two looks of a standby."""
        return self.poll_every or min(0.25, max(0.05, self.ttl / 40))

    @property
    def renew_every(self) -> float:
        """Seconds between two renewals: two may fail before the third is too late."""
        return self.ttl / 3

    @property
    def retry_every(self) -> float:
        """Seconds between two tries of a renewal that the store did not answer."""
        return self.ttl / 30

    @property
    def trusted(self) -> float:
        """Seconds for which a write proves leadership, from the moment before it was sent."""
        return self.ttl * (1 - self.drift)

    @property
    def longest_pause(self) -> float:
        """Seconds between two tries of a store that does not answer, at most.

        A tenth of the ttl, but half a second at most, and no less than a poll: so that somebody leads within a second
        more than a lease and a poll after the store is back, even if the last try before it took half a second.
        """
        return max(self.poll, min(0.5, self.ttl / 10))

    def distrusted(self, ttl: float) -> float:
        """Return the seconds after which a record of that `ttl` proves nothing, if unchanged since its receipt."""
        return ttl * (1 + self.drift)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a holder knows: the record of its takeover, the version of its last write, and when that was sent."""

    record: Record
    version: Any
    sent: float
    policy: LeasePolicy
    deadline: float = field(init=False)
    """The moment on the holder's clock from which this lease proves nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline", self.sent + self.policy.trusted)

    @property
    def renew_at(self) -> float:
        """When to renew."""
        return self.sent + self.policy.renew_every


def _check(what: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # the last: not a number
        raise BadPolicy(f"{what} must be a number of seconds, not {value!r}")
    if not low <= value <= high:
        raise BadPolicy(f"{what} must be between {low:g} and {high:g}, not {value!r}")

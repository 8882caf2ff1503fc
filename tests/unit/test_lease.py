"""The timings of a lease, and what they are checked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from election import BadPolicy, LeasePolicy
from election.lease import MAX_TTL, MIN_TTL, Lease
from election.record import Record, State


@pytest.mark.parametrize("ttl", [MIN_TTL, 0.5, 10, MAX_TTL])
def test_good_ttl(ttl: float) -> None:
    """From a tenth of a second to an hour."""
    assert LeasePolicy(ttl).ttl == ttl


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0999, 3600.1, float("nan"), float("inf"), float("-inf"), 10**400, "10", None, True, 1j]
)
def test_bad_ttl(ttl: Any) -> None:
    """Anything else is refused with a sentence that names it."""
    with pytest.raises(BadPolicy, match="lease_ttl"):
        LeasePolicy(ttl)


@pytest.mark.parametrize(("field", "value"), [("drift", -0.1), ("drift", 0.3), ("poll_every", 0), ("poll_every", 11)])
def test_bad_relations(field: str, value: float) -> None:
    """A drift that leaves no margin, or a poll that is longer than the lease, is refused."""
    with pytest.raises(BadPolicy, match=field):
        LeasePolicy(10, **{field: value})


@pytest.mark.parametrize(("ttl", "poll"), [(0.1, 0.05), (2, 0.05), (4, 0.1), (10, 0.25), (3600, 0.25)])
def test_poll(ttl: float, poll: float) -> None:
    """A standby looks every fortieth of the ttl, from 50 to 250 ms."""
    assert LeasePolicy(ttl).poll == poll


@given(st.floats(MIN_TTL, MAX_TTL), st.floats(0, 0.2))
def test_order(ttl: float, drift: float) -> None:
    """Retries come before renewals, two of which come before the deadline, which comes before the challenger."""
    policy = LeasePolicy(ttl, drift)
    assert 0 < policy.retry_every < policy.renew_every < 2 * policy.renew_every < policy.trusted
    assert policy.trusted <= ttl <= policy.distrusted(ttl)


def test_a_lease_begins_when_it_was_sent() -> None:
    """The deadline and the next renewal count from before the write was sent."""
    lease = Lease(Record(1, "me", 1, 10_000, State.HELD), "version", 100.0, LeasePolicy(10, 0.01))
    assert (lease.deadline, lease.renew_at) == (109.9, 100 + 10 / 3)

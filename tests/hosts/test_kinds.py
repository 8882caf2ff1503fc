"""Which faults each kind of store suffers."""

import pytest

from tests.hosts.faults import FAULTS, faults
from tests.hosts.kinds import KINDS


@pytest.mark.parametrize("store", KINDS)
def test_workers_are_struck_with_every_store(store: str) -> None:
    """Whatever keeps the record: leaders and standbys are killed, paused and stopped."""
    common = {"leader killed", "standby killed", "leader told to stop", "leader paused", "standby paused"}
    assert common <= faults(KINDS[store]).keys()


def test_a_store_without_a_server_suffers_no_other_faults() -> None:
    """A file has no wire to be cut, but for that between the workers."""
    assert faults(KINDS["sqlite"]).keys() < FAULTS.keys()
    assert not any(fault.store or fault.hides for fault in faults(KINDS["sqlite"]).values())


def test_only_memcached_is_made_to_forget() -> None:
    """A store that keeps what it has been told is restarted, stopped and frozen, and not flushed."""
    for store in ("redis", "postgresql", "etcd", "zookeeper"):
        struck = {name.removeprefix(f"{store} ") for name, fault in faults(KINDS[store]).items() if fault.store}
        assert struck == {"restarted", "down", "frozen"}
        assert not any(fault.amnesia for fault in faults(KINDS[store]).values())
    assert {"memcached flushed", "memcached filled", "leader and record lost"} <= FAULTS.keys()


def test_a_quorum_spares_its_leader_when_one_server_is_lost_and_nobody_leads_without_two() -> None:
    """One of three is restarted, replaced, frozen, flushed and cut off; two at a time hide the store."""
    of_quorum = faults(KINDS["quorum"])
    one = {name.removeprefix("one memcached ") for name, fault in of_quorum.items() if fault.spares}
    assert one == {"restarted", "replaced", "frozen", "flushed", "cut off"}
    assert not any(fault.moves or fault.hides for fault in of_quorum.values() if fault.spares)
    assert all(fault.hides for name, fault in of_quorum.items() if name.startswith("two "))

"""Workers race for a lease in etcd and in ZooKeeper, while leaders and servers are killed and frozen."""

import signal
from collections.abc import Iterator

import pytest

from tests.etcd_server import Etcd, cluster
from tests.integration.conftest import MakeStage
from tests.integration.harness import SLACK
from tests.integration.worker import now
from tests.zookeeper_server import ZooKeeper

TTL = 2.0


@pytest.fixture(params=[Etcd, ZooKeeper])
def server(request: pytest.FixtureRequest) -> Iterator[Etcd | ZooKeeper]:
    """A server for this test alone."""
    kind: type[Etcd] | type[ZooKeeper] = request.param
    with kind() as made:
        yield made


def test_leaders_and_the_server_are_killed(server: Etcd | ZooKeeper, make_stage: MakeStage) -> None:
    """A killed leader is replaced, a killed server that comes back costs no term, and a frozen one ends it in time."""
    stage = make_stage(server.url, lease_ttl=TTL)
    stage.start(3)
    killed, first = stage.elected()
    stage.wait("effect", who=killed.name)
    at = killed.send(signal.SIGKILL)
    leader, second = stage.elected(after=at)
    assert second["fence"] > first["fence"]

    stage.wait("effect", who=leader.name)
    before = stage.record()
    server.restart()
    back = now()
    stage.wait("effect", who=leader.name, after=back)
    after = stage.record()
    assert (after.holder, after.fence) == (before.holder, before.fence)

    server.freeze()
    refused = stage.wait("refused", who=leader.name)
    assert refused["t"] < max(claim["until"] for claim in stage.events("claim")) + SLACK
    server.thaw()
    assert stage.elected(after=refused["t"])[1]["fence"] > second["fence"]


def test_an_election_goes_on_without_any_one_member(make_stage: MakeStage) -> None:
    """With three members of etcd, killing the one that leads them, and later the leading worker, ends no election."""
    with cluster(3) as members:
        stage = make_stage("etcd://" + ",".join(member.address for member in members) + "?timeout=0.5", lease_ttl=4.0)
        stage.start(2)
        leader, first = stage.elected()
        stage.wait("effect", who=leader.name)
        next(member for member in members if member.leads()).stop()
        gone = now()
        stage.wait("effect", who=leader.name, after=gone + 4.0)
        assert stage.events("elected") == [first]
        at = leader.send(signal.SIGKILL)
        assert stage.elected(after=at)[1]["fence"] > first["fence"]

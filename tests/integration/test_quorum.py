"""Workers on three memcacheds, of which one dies, alone or together with the leader."""

import contextlib
import json
import signal
from collections.abc import Iterator

import pytest

from election import open_register
from election.stores.quorum import QuorumRegister
from politics.cli import doctor
from tests.commands import politics
from tests.integration.conftest import MakeStage
from tests.integration.harness import SLACK
from tests.memcached import Memcached
from tests.waiting import until

TTL = 1.0
POLL = 0.05
SUCCESSION = TTL * 1.01 + POLL + SLACK


@pytest.fixture
def three() -> Iterator[list[Memcached]]:
    """Three memcacheds of this test."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Memcached("-m", "8")) for _ in range(3)]


@pytest.fixture
def url(three: list[Memcached]) -> str:
    """The URL of their quorum."""
    return f"quorum+memcached://{','.join(server.address for server in three)}"


def test_a_killed_memcached_costs_no_leader(three: list[Memcached], url: str, make_stage: MakeStage) -> None:
    """The leader goes on with the same fence while one memcached is killed, and then each one is restarted in turn."""
    stage = make_stage(url)
    stage.start(2)
    leader, election = stage.elected()
    key = stage.record().key

    def renewed() -> bool:
        nonlocal key
        before, key = key, stage.record().key
        return key != before

    for server in three:
        server.stop()
        for _ in range(2):
            until(renewed, "a renewal without it")
        server.start()
        with contextlib.closing(open_register(url)) as register:
            assert isinstance(register, QuorumRegister)
            until(lambda r=register: in_step(r, stage.options["group"]), "the server in step again")
    assert stage.record().fence == election["fence"]
    assert len(stage.events("elected")) == 1
    assert not stage.events("lost", who=leader.name)


def in_step(register: QuorumRegister, name: str) -> bool:
    """Whether all three servers have a cell, and each knows the others."""
    cells = [getattr(sight, "cell", None) for sight in register.sights(name)]
    return all(cells) and all(cell.seen == tuple(each.incarnation for each in cells) for cell in cells)


def test_a_leader_that_dies_with_a_memcached(three: list[Memcached], url: str, make_stage: MakeStage) -> None:
    """If the leader and one memcached die together, another worker leads within a lease and a bit."""
    stage = make_stage(url)
    stage.start(2)
    leader, election = stage.elected()
    with contextlib.closing(open_register(url)) as register:
        assert isinstance(register, QuorumRegister)
        until(lambda: in_step(register, stage.options["group"]), "all servers in step")
    three[0].stop()
    killed = leader.send(signal.SIGKILL)
    _, succession = stage.elected(after=killed)
    assert succession["fence"] > election["fence"]
    assert succession["t"] - killed < SUCCESSION


def test_status_and_doctor(
    three: list[Memcached], url: str, make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`politics status` reads the record from the quorum, and `politics doctor` says which server does not answer."""
    monkeypatch.setattr(doctor, "WATCHED", 0.0)
    stage = make_stage(url)
    stage.start(1)
    stage.elected()
    ended = politics("status", stage.options["group"], "--store", url, "--json")
    assert json.loads(ended.out)[0]["state"] == "led"
    three[1].stop()
    ended = politics("doctor", "--store", url, "--json", POLITICS_INTERFACES="203.0.113.1")
    assert ended.status == 0
    said = {each["subject"]: each["text"] for each in json.loads(ended.out) if each["subject"].startswith("quorum")}
    assert "does not answer" in said[f"quorum server {three[1].address}"]
    assert "fail together" in said["quorum"]

"""memcached restarts, is flushed, evicts the record or goes away, each in the middle of a term."""

import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.integration.conftest import MakeStage
from tests.integration.harness import SLACK
from tests.integration.worker import now
from tests.memcached import Memcached
from tests.waiting import SOON, until

TTL = 1.5


def restart(server: Memcached) -> None:
    server.restart()


def flush(server: Memcached) -> None:
    assert server.ask("flush_all") == "OK"


def evict(server: Memcached) -> None:
    """Fill it with items of the record's size until the record has gone."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=SOON) as connection,
        connection.makefile("rb") as says,
    ):
        connection.sendall(b"mg politics:pork v\r\n")
        value = says.read(int(says.readline().split()[1]))
        assert says.readline() == b"\r\n"
        for batch in range(1000):
            items = (b"ms pork%08d:%08d %d q\r\n%b\r\n" % (batch, item, len(value), value) for item in range(1000))
            connection.sendall(b"".join(items) + b"mg politics:pork\r\n")
            if says.readline() == b"EN\r\n":
                return
    raise AssertionError("the record stays")


@pytest.fixture
def small_memcached() -> Iterator[Memcached]:
    """One that evicts the oldest item first, however often it is read."""
    with Memcached("-m", "2", "-o", "no_lru_maintainer,no_lru_crawler") as server:
        yield server


@pytest.mark.parametrize("lose", [restart, flush, evict])
def test_a_lost_record_costs_no_leadership(
    small_memcached: Memcached, make_stage: MakeStage, lose: Callable[[Memcached], None]
) -> None:
    """The healthy leader keeps its term and its fence; one that dies with its record is replaced a lease later."""
    stage = make_stage(small_memcached.url, group="pork", lease_ttl=TTL)
    stage.start(3)
    leader, election = stage.elected()
    stage.wait("effect", who=leader.name)
    before = stage.record()
    lost = now()
    lose(small_memcached)
    # Longer than any lease that was there before.
    stage.wait("effect", after=lost + 1.5 * TTL)
    assert [event["fence"] for event in stage.events("elected")] == [election["fence"]]
    after = stage.record()
    assert (after.holder, after.fence) == (before.holder, before.fence)
    assert after.seq > before.seq

    lost = now()
    leader.send(signal.SIGSTOP)
    lose(small_memcached)
    leader.send(signal.SIGKILL)
    _, succession = stage.elected(after=lost)
    assert succession["fence"] > election["fence"]
    assert stage.wait("slot", fence=succession["fence"])["takeover"]


@pytest.mark.parametrize(("on_failover", "uptime"), [("rerun", 0), ("skip", 0), ("rerun", 5)])
def test_a_slot_that_may_have_been_begun_is_a_takeover(
    own_memcached: Memcached, make_stage: MakeStage, on_failover: str, uptime: int
) -> None:
    """The record and its leader are lost in a slot of which nobody has heard: it is announced, or skipped, as asked.

    Also when memcached has been up for long enough to vouch that no lease is left.
    """
    options = {"iteration_length": 1.0, "seconds": 0.2, "sticky": True, "on_failover": on_failover}
    stage = make_stage(own_memcached.url, lease_ttl=1.0, **options)
    stage.start(2)
    leader, election = stage.elected()
    (standby,) = (process for process in stage.processes.values() if process is not leader)
    done = stage.wait("done", slot=1)["t"]
    until(lambda: now() > done + 0.5, "the standby to have heard of it")
    standby.send(signal.SIGSTOP)
    stage.wait("slot", slot=2)
    leader.send(signal.SIGSTOP)
    own_memcached.restart()
    leader.send(signal.SIGKILL)
    until(lambda: int(own_memcached.stats()["uptime"]) >= uptime, "an older memcached")
    standby.send(signal.SIGCONT)
    succession = stage.wait("elected", who=standby.name)
    assert succession["fence"] > election["fence"]
    number = int(stage.log(standby.name, "elected leader")["text"].split("slot ")[1].rstrip(")"))
    following = stage.wait("slot", who=standby.name, slot=number + 1)
    assert not following["takeover"]
    announced = [event["takeover"] for event in stage.events("slot", who=standby.name, slot=number)]
    assert announced == ([True] if on_failover == "rerun" else [])


def test_everybody_outlives_a_memcached_that_is_gone(own_memcached: Memcached, make_stage: MakeStage) -> None:
    """The leader steps down at its deadline and says so, standbys say once that they wait, and all recover."""
    stage = make_stage(own_memcached.url, lease_ttl=1.0)
    everybody = {process.name for process in stage.start(3)}
    leader, election = stage.elected()
    stage.wait("effect", who=leader.name)
    gone = now()
    own_memcached.stop()
    stopped = now()  # a renewal may have come before that
    refused = stage.wait("refused", who=leader.name)
    proven = max(claim["until"] for claim in stage.events("claim"))
    assert proven <= refused["t"] < proven + SLACK
    assert proven < stopped + 1.0
    stage.log(leader.name, "cannot renew")
    stage.log(leader.name, "not renewed within 0.99 s")
    until(lambda: now() > gone + 3, "many looks at a store that is not there")
    for name in everybody:
        stage.log(name, "waiting for the store")
    for phrase, most in (("waiting for the store", 3), ("cannot renew", 1), ("leadership ended", 1)):
        assert len([e for e in stage.events("log") if phrase in e["text"] and e["t"] > gone]) == most
    assert len([e for e in stage.events("log") if e["t"] > gone]) <= 6
    own_memcached.start()
    back = now()
    successor, succession = stage.elected(after=back)
    assert succession["fence"] > election["fence"]
    for name in everybody:
        stage.log(name, "the store answers again")
    # And so do those who did not win.
    killed = successor.send(signal.SIGKILL)
    stage.elected(after=killed)


def test_a_silent_memcached_is_a_memcached_that_is_gone(own_memcached: Memcached, make_stage: MakeStage) -> None:
    """A server that takes connections and says nothing ends the term at its deadline too, and is waited for."""
    stage = make_stage(own_memcached.url, lease_ttl=1.0)
    stage.start(2)
    leader, election = stage.elected()
    stage.wait("effect", who=leader.name)
    own_memcached.freeze()
    refused = stage.wait("refused", who=leader.name)
    assert refused["t"] < max(claim["until"] for claim in stage.events("claim")) + SLACK
    own_memcached.thaw()
    assert stage.elected(after=refused["t"])[1]["fence"] > election["fence"]

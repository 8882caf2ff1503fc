"""Processes that die, stop politely or fall asleep while they lead, and who works next."""

import signal
from pathlib import Path

import pytest

from tests.integration.conftest import MakeStage
from tests.integration.harness import SLACK, Stage
from tests.integration.worker import now
from tests.waiting import until

TTL = 1.0
POLL = 0.05  # what a standby of a lease of one second keeps to
SUCCESSION = TTL * 1.01 + POLL + SLACK


def test_one_of_three_works_in_each_slot_and_each_piece_of_pork_is_spent_once(stage: Stage) -> None:
    """Three processes, one group: one works per slot, and no piece is spent twice or forgotten."""
    pieces = [f"{number:02}.pork" for number in range(22)]
    for piece in pieces:
        (stage.folder / piece).touch()
    stage.start(3, work="spend", iteration_length=0.4)
    until(lambda: len(stage.events("effect")) >= len(pieces), "all of the pork to be spent")
    stage.end()
    assert sorted(effect["piece"] for effect in stage.events("effect")) == pieces
    slots = [event["slot"] for event in stage.events("slot")]
    assert slots == sorted(set(slots))
    for slot in slots:
        assert len(stage.events("slot", slot=slot)) == 1
        assert len({effect["who"] for effect in stage.events("effect", slot=slot)}) <= 1
    assert not any(event["takeover"] for event in stage.events("slot"))


@pytest.mark.parametrize("on_failover", ["rerun", "skip"])
def test_a_killed_leader_of_an_hour_is_replaced_within_its_lease(stage: Stage, on_failover: str) -> None:
    """SIGKILL in an hour-long slot: a successor within the lease, which runs the slot again or skips it, as asked."""
    stage.start(3, on_failover=on_failover)
    leader, election = stage.elected()
    stage.wait("effect", slot=1)
    killed = leader.send(signal.SIGKILL)
    successor, succession = stage.elected(after=killed)
    assert succession["t"] - killed < SUCCESSION
    assert succession["fence"] > election["fence"]
    if on_failover == "rerun":
        assert stage.wait("slot", fence=succession["fence"])["takeover"]
        stage.wait("effect", who=successor.name, slot=1)
    successor.send(signal.SIGTERM)
    assert successor.wait() == 0
    assert len(stage.events("slot", who=successor.name)) == (on_failover == "rerun")


def test_a_slot_that_is_done_is_not_run_again(stage: Stage) -> None:
    """The successor of a leader that died after its work waits for the next slot."""
    stage.start(3, seconds=0)
    leader, _ = stage.elected()
    done = stage.wait("done")
    until(lambda: stage.record().note["work"] == "done", "the note to say so")
    killed = leader.send(signal.SIGKILL)
    successor, succession = stage.elected(after=killed)
    successor.send(signal.SIGTERM)
    stage.wait("lost", fence=succession["fence"])
    third, _ = stage.elected(after=succession["t"])
    third.send(signal.SIGTERM)
    third.wait()
    assert [event["who"] for event in stage.events("slot")] == [done["who"]]


def test_a_polite_stop_hands_over_long_before_the_lease_ends(make_stage: MakeStage, old_store: str) -> None:
    """The lease would last for ten minutes more, and nobody waits for that."""
    stage = make_stage(old_store, lease_ttl=600.0)
    stage.start(4)
    leader, election = stage.elected()
    for _ in range(3):
        stage.wait("effect", who=leader.name)
        stopped = leader.send(signal.SIGTERM)
        successor, succession = stage.elected(after=stopped)
        assert succession["fence"] > election["fence"]
        assert leader.wait() == 0
        leader, election = successor, succession


def test_a_leader_that_slept_through_its_lease_neither_works_nor_harms_its_successor(stage: Stage) -> None:
    """SIGSTOP for three leases, SIGCONT: its check raises first of all; it neither deletes nor keeps alive a lease."""
    stage.start(2)
    leader, election = stage.elected()
    stage.wait("effect", who=leader.name)
    leader.send(signal.SIGSTOP)
    until(lambda: "T" in Path(f"/proc/{leader.pid}/stat").read_text().rpartition(")")[2], "the leader to stop")
    stopped = now()
    successor, succession = stage.elected(after=stopped)
    until(lambda: now() > stopped + 3 * TTL, "three leases to pass")
    woken = leader.send(signal.SIGCONT)
    refused = stage.wait("refused", who=leader.name)
    assert (refused["valid"], refused["left"]) == (False, 0)
    assert "not renewed within 0.99 s" in refused["why"]
    # The successor is renewed under its own name after the old one woke up and looked.
    stage.wait("lost", who=leader.name)
    seen = stage.record()
    assert (seen.fence, seen.pid) == (succession["fence"], successor.pid)
    later = until(lambda: (found := stage.record()).seq > seen.seq and found, "a renewal")
    assert (later.fence, later.pid) == (succession["fence"], successor.pid)
    stage.wait("effect", who=successor.name, after=woken + TTL)
    # Nobody but the successor keeps that lease alive.
    killed = successor.send(signal.SIGKILL)
    again, third = stage.elected(after=killed)
    assert again is leader
    assert third["fence"] > succession["fence"]
    assert third["t"] - killed < SUCCESSION
    assert not [e for e in stage.events("effect", fence=election["fence"]) if e["t"] > stopped]

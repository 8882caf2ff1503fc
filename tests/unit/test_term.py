"""A term proves what it can, for as long as it can, and hands over cleanly."""

import os
import threading
from typing import Any

import pytest

import election.term
from election import BadPolicy, Candidate, LeadershipLost, LeasePolicy, StoreUnavailable, look
from election.record import State
from election.stores.memory import MemoryRegister
from election.testing import FakeClock, Fault
from tests.contract.test_register import in_fork
from tests.unit.fakes import NAME, World


@pytest.fixture
def world() -> World:
    """A store that remembers, and a lease of 10 s."""
    return World()


def test_valid_until_the_deadline(world: World) -> None:
    """Leadership is proven for ttl * (1 - drift) from when it was written, and then no more."""
    term = world.leader()
    world.clock.advance(9.899)
    assert term.valid
    assert term.remaining() == pytest.approx(0.001)
    term.check()
    world.clock.advance(0.001)
    assert not term.valid
    assert term.remaining() == 0
    with pytest.raises(LeadershipLost, match=r"fence .*not renewed within 9\.9 s"):
        term.check()


def test_renew(world: World) -> None:
    """A renewal proves leadership anew, from when it was sent."""
    term, fence = world.leader(), None
    fence = term.fence
    for _ in range(10):
        world.clock.advance(5)
        term.renew()
    assert term.remaining() == pytest.approx(9.9)
    assert term.fence == fence


def test_slow_answer(world: World) -> None:
    """The time that an answer takes is not proven."""
    link = world.store.link()
    term = world.leader(link=link)
    link.after = lambda _method: world.clock.advance(3)
    term.renew()
    assert term.remaining() == pytest.approx(6.9)


def test_late_answer(world: World) -> None:
    """A renewal whose answer arrives past the old deadline revives nothing, though it has landed."""
    link = world.store.link()
    term = world.leader(link=link)
    link.after = lambda _method: world.clock.advance(9.9)
    term.renew()
    assert not term.valid
    assert "not renewed" in term.reason


def test_never_valid_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A term that was seen to be over stays so, though another thread is just installing a renewal."""
    term, renewed, seen = world.leader(), election.term.renewed, []

    def paused(*args: Any) -> Any:
        outcome = renewed(*args)
        world.clock.advance(9.9)
        seen.append(term.valid)
        world.clock._now -= 5  # the renewal was sent later than it seems: it would be good for a while yet
        return outcome

    monkeypatch.setattr(election.term, "renewed", paused)
    term.renew()
    assert seen == [False]
    assert not term.valid


@pytest.mark.parametrize("fault", [Fault.UNANSWERED, Fault.DROPPED, Fault.DELAYED])
def test_unanswered_renewal(world: World, fault: Fault) -> None:
    """A renewal without an answer proves nothing, and the next one puts it right, whatever became of it."""
    link = world.store.link()
    term = world.leader(link=link)
    world.clock.advance(5)
    link.fail(fault)
    with pytest.raises(StoreUnavailable):
        term.renew()
    assert term.remaining() == pytest.approx(4.9)
    term.renew()
    world.store.deliver()
    assert term.remaining() == pytest.approx(9.9)
    term.renew()
    assert term.valid


@pytest.mark.parametrize("loss", ["evict", "flush", "restart"])
def test_lost_record(world: World, loss: str) -> None:
    """A leader whose record is gone puts it back with its fence (rule 6)."""
    link = world.store.link()
    term = world.leader(link=link)
    getattr(world.store, loss)(*[NAME] * (loss == "evict"))
    term.renew()
    record = look(link, NAME)
    assert record is not None
    assert (record.fence, record.state) == (term.fence, State.HELD)
    assert term.remaining() == pytest.approx(9.9)


@pytest.mark.parametrize("together", [True, False])
def test_a_record_that_the_store_has_brought_back(world: World, together: bool) -> None:
    """A leader puts its own over it, with its fence and the present generation, alone or among other renewals."""
    link = world.store.link()
    backups = [{}, dict(world.store.cells)]
    world.leader(link=link).resign()
    backups.append(dict(world.store.cells))
    term = world.leader(link=link)
    backups.append(dict(world.store.cells))
    for generation, backup in enumerate(backups, start=2):
        world.store.restore(backup)
        found = look(link, NAME)
        assert found is None or found.foreign
        if together:
            refused = term.begin_renewal()
            assert refused is not None
            assert link.swap(*refused.swap) is None
        term.renew(changed=together)
        record = look(link, NAME)
        assert record is not None
        assert (record.fence, record.state, record.store) == (term.fence, State.HELD, str(generation))
        if together:
            renewal = term.begin_renewal()
            assert renewal is not None
            assert term.end_renewal(renewal, link.swap(*renewal.swap))
            assert look(link, NAME).store == str(generation)  # type: ignore[union-attr]
    assert term.remaining() == pytest.approx(9.9)


def test_a_resignation_over_what_the_store_has_brought_back(world: World) -> None:
    """It names the present generation, so that others may lead at once. After the deadline nothing is written."""
    term, late = world.leader(), world.leader("late")
    world.store.restore(world.store.cells)
    term.resign()
    assert world.candidate().attempt() is not None
    world.clock.advance(20)
    world.store.restore(world.store.cells)
    cells = dict(world.store.cells)
    late.resign()
    assert world.store.cells == cells


def test_lost_record_and_late_return(world: World) -> None:
    """Only a vacancy is ever created, so that a create which lands late looks like nobody's lease."""
    link = world.store.link()
    term = world.leader(link=link)
    world.store.evict(NAME)
    link.fail(None, Fault.DELAYED)
    with pytest.raises(StoreUnavailable):
        term.renew()
    world.store.deliver()
    record = look(link, NAME)
    assert record is not None
    assert record.state is State.VACANT


def test_taken_over(world: World) -> None:
    """A leader that finds somebody else's record is over at once, and touches nothing."""
    link = world.store.link()
    term = world.leader(link=link)
    elsewhere = World()
    elsewhere.leader()
    world.store.corrupt(NAME, elsewhere.store.cells[NAME].data)
    cell = link.read(NAME)
    term.renew()
    assert not term.valid
    assert "taken over by" in term.reason
    term.resign()
    assert link.read(NAME) == cell


def test_resign(world: World) -> None:
    """A leader that resigns leads no longer, and another leads at once, with a larger fence."""
    with world.leader() as term:
        assert term.valid
    assert not term.valid
    assert term.lost.is_set()
    assert term.reason == "resigned"
    successor = world.leader()
    assert successor.fence > term.fence
    term.resign()
    assert successor.valid


def test_resign_after_an_unanswered_renewal(world: World) -> None:
    """A renewal that landed without an answer does not keep the others waiting."""
    link = world.store.link()
    term = world.leader(link=link)
    link.fail(Fault.UNANSWERED)
    with pytest.raises(StoreUnavailable):
        term.renew()
    term.resign()
    assert world.candidate().attempt()


@pytest.mark.parametrize("loss", ["cut", "evict", "corrupt"])
def test_resign_without_a_store(world: World, loss: str) -> None:
    """Resigning never fails for the store's sake, and never makes a free lease out of nothing."""
    link = world.store.link()
    term = world.leader(link=link)
    if loss == "cut":
        link.cut = True
    else:
        getattr(world.store, loss)(NAME)
    term.resign()
    assert not term.valid
    assert (NAME in world.store.cells) is (loss != "evict")


def test_resign_of_a_dead_term(world: World) -> None:
    """A term that is over hands nothing over: it is not its to give."""
    term = world.leader()
    world.clock.advance(10)
    term.resign()
    assert look(world.store.link(), NAME).state is State.HELD  # type: ignore[union-attr]


def test_ask_to_stop(world: World) -> None:
    """A leader that was asked to stop is told so, with the first reason, and goes on being renewed."""
    term = world.leader()
    term.ask_to_stop("shutting down")
    term.ask_to_stop("again")
    assert term.lost.is_set()
    assert term.valid
    with pytest.raises(LeadershipLost, match="shutting down"):
        term.check()
    world.live(30)
    assert term.valid
    term.resign()
    assert term.reason == "shutting down"


def test_ask_to_stop_without_a_reason(world: World) -> None:
    """Not to give a reason is no reason to go on."""
    term = world.leader()
    term.ask_to_stop("")
    assert term.lost.wait(0)
    assert term.reason


def test_lost_wait(world: World) -> None:
    """Waiting ends at the timeout, at the deadline, when asked and when resigned, whichever is first."""
    term, begin = world.leader(), world.clock.now()
    assert not term.lost.wait(4)
    assert world.clock.now() == begin + 4
    assert not term.lost.wait(0)
    assert term.lost.wait(100)
    assert world.clock.now() == pytest.approx(begin + 9.9)
    assert term.lost.wait()


def test_lost_wait_is_prolonged_by_renewals(world: World) -> None:
    """A wait for the end of a term goes on when its deadline is moved meanwhile."""

    class Busy(FakeClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            if self.now() < 1030:
                term.renew()
            return super().wait(event, min(seconds, 5))

    world.clock = Busy()
    term = world.leader()
    assert term.lost.wait()
    assert world.clock.now() > 1030


def test_lost_wakes_other_threads() -> None:
    """A thread that waits is woken at once when the term is asked to stop."""
    term = Candidate(MemoryRegister(), "lease", LeasePolicy(3600)).campaign()
    thread = threading.Thread(target=term.lost.wait)
    thread.start()
    term.ask_to_stop("enough")
    thread.join(10)
    assert not thread.is_alive()
    term.resign()


def test_subscribers_are_told_to_look_again(world: World) -> None:
    """When the term is asked to stop and when it ends, until they end the subscription, which they may do twice."""
    term, news, others = world.leader(), list[bool](), list[bool]()
    unsubscribe = term.lost.subscribe(lambda: news.append(term.lost.is_set()))
    term.lost.subscribe(lambda: others.append(term.valid))
    term.ask_to_stop("enough")
    assert (news, others) == ([True], [True])
    unsubscribe()
    unsubscribe()
    term.resign()
    assert (news, others) == ([True], [True, False])


def test_proclaim(world: World) -> None:
    """A note is written at once, and again with each renewal."""
    link = world.store.link()
    term = world.leader(link=link)
    term.proclaim({"slot": 1})
    assert look(link, NAME).note == {"slot": 1}  # type: ignore[union-attr]
    term.proclaim(lambda now: {"at": now})
    world.live(5)
    assert look(link, NAME).note["at"] > 1000  # type: ignore[union-attr]


def test_bad_note_changes_nothing(world: World) -> None:
    """A note that cannot be written is refused, and the earlier one stays."""
    link = world.store.link()
    term = world.leader(link=link)
    term.proclaim({"slot": 1})
    with pytest.raises(BadPolicy):
        term.proclaim({"slot": "x" * 2000})
    term.renew()
    assert look(link, NAME).note == {"slot": 1}  # type: ignore[union-attr]


def test_proclaim_too_late(world: World) -> None:
    """Nothing is written in the name of a term that is over."""
    link = world.store.link()
    term = world.leader(link=link)
    world.clock.advance(10)
    cell = link.read(NAME)
    with pytest.raises(LeadershipLost):
        term.proclaim({"slot": 1})
    assert link.read(NAME) == cell


def test_a_fork_holds_nothing(world: World) -> None:
    """A child's copy is over, cannot renew, proclaim or hand over its parent's lease, and is not stuck on its locks."""
    term = world.leader()
    cells = dict(world.store.cells)

    def child() -> bool:
        term.resign()
        term.renew_at  # noqa: B018
        try:
            term.proclaim({"child": os.getpid()})
        except LeadershipLost as exc:
            told = "fork" in str(exc)
        return told and not term.valid and term.remaining() == 0 and term.lost.wait() and world.store.cells == cells

    with term._writing:  # as if another thread of the parent were just renewing
        assert in_fork(child)
    assert term.valid


def test_repr(world: World) -> None:
    """A term tells its story in a log line."""
    term = world.leader()
    assert "9.900 s left" in repr(term)
    term.resign()
    assert repr(term) == f"<Term 'lease' fence={term.fence} resigned>"

"""One thread renews every lease that is held through a store, and no lease waits for another's trouble."""

import gc
import itertools
import logging
import threading
import weakref

import pytest

from election import Candidate, LeasePolicy, ask_to_resign, look
from election.clock import SystemClock
from election.record import State
from election.renewer import LeaseRenewer, _renewers
from election.stores.memory import MemoryRegister
from election.testing import Fault
from tests.unit.fakes import NAME, World
from tests.waiting import DEADLINE, until


def renewer_threads() -> set[threading.Thread]:
    """The lease renewers that run in this process; those of earlier tests may be about to end."""
    return {thread for thread in threading.enumerate() if thread.name == "election-renewer"}


def test_renews_when_due() -> None:
    """A term is renewed at a third of its ttl, and not before."""
    world = World()
    term = world.leader()
    first = term.renew_at
    world.clock.advance(3.3)
    world.renewer.renew_due()
    assert term.renew_at == first
    world.clock.advance(0.1)
    world.renewer.renew_due()
    assert term.renew_at == pytest.approx(world.clock.now() + 10 / 3)
    assert term.remaining() == pytest.approx(9.9)


def test_what_is_due_goes_to_the_store_in_one_write() -> None:
    """A thousand leases that are due together take a call for each 256 of them."""
    world = World()
    link = world.store.link()
    terms = [world.leader(f"lease {number}", link) for number in range(1000)]
    world.clock.advance(3.4)
    calls = link.calls
    world.renewer.renew_due()
    assert link.calls == calls + 4
    assert all(term.remaining() == pytest.approx(9.9) for term in terms)


@pytest.mark.parametrize("fault", Fault)
def test_an_answer_that_is_lost_among_others(fault: Fault) -> None:
    """What the store answered before it fell silent counts, what it did not counts as unknown, and all is put right."""
    world = World()
    link = world.store.link()
    terms = [world.leader(f"lease {number}", link) for number in range(10)]
    world.clock.advance(3.4)
    link.fail(*[None] * 4, fault)
    world.renewer.renew_due()
    assert [round(term.remaining(), 1) for term in terms] == [9.9] * 4 + [6.5] * 6
    world.clock.advance(0.4)
    world.renewer.renew_due()
    world.store.deliver()
    world.live(20)
    assert all(term.valid for term in terms)


def test_a_renewal_and_a_proclamation_at_the_same_moment() -> None:
    """A note that is proclaimed while a renewal is under way is what the record holds, and the lease goes on."""
    world = World()
    link = world.store.link()
    term = world.leader(link=link)
    renewal = term.begin_renewal()
    assert renewal
    term.proclaim({"slot": 2})
    (answer,) = link.swap_many([renewal.swap])
    assert answer is None
    assert term.end_renewal(renewal, answer)  # there is nothing to put right
    assert look(link, NAME).note == {"slot": 2}  # type: ignore[union-attr]
    renewal = term.begin_renewal()
    assert renewal
    answers = link.swap_many([renewal.swap])
    term.proclaim({"slot": 3})
    assert term.end_renewal(renewal, *answers)
    assert look(link, NAME).note == {"slot": 3}  # type: ignore[union-attr]
    world.live(20)
    assert term.valid


def test_a_renewal_that_is_answered_after_its_holder_has_resigned() -> None:
    """A renewal that was under way revives no term, and the lease is open all the same."""
    world = World()
    link = world.store.link()
    term = world.leader(link=link)
    renewal = term.begin_renewal()
    assert renewal
    answers = link.swap_many([renewal.swap])
    term.resign()
    assert term.end_renewal(renewal, *answers)
    assert not term.valid
    assert look(link, NAME).state is State.OPEN  # type: ignore[union-attr]


def test_a_late_answer_among_others() -> None:
    """A renewal counts from before its batch was sent, and revives nothing if the answers come too late."""
    world = World()
    link = world.store.link()
    term = world.leader(link=link)
    link.after = lambda _method: world.clock.advance(3)
    world.clock.advance(3.4)
    world.renewer.renew_due()
    assert term.remaining() == pytest.approx(6.9)
    link.after = lambda _method: world.clock.advance(9.9)
    world.clock.advance(3.4)
    world.renewer.renew_due()
    assert not term.valid


def test_looks_between_renewals() -> None:
    """A leader looks at its cell every poll, and finds what happened to it long before it renews."""
    world = World()
    link = world.store.link()
    term = world.leader(link=link)
    assert world.renewer.renew_due() == pytest.approx(world.clock.now() + 0.25)
    ask_to_resign(world.store.link(), NAME)
    world.live(0.3)
    assert term.reason == "asked to hand over"
    world.store.evict(NAME)
    world.live(0.3)
    assert look(link, NAME).state is State.HELD  # type: ignore[union-attr]


def test_many_leases_are_not_looked_at_more_often() -> None:
    """However many leases there are, no more than 500 looks a second are made."""
    world = World(ttl=30)
    link = world.store.link()
    for number in range(1000):
        world.leader(f"lease {number}", link)
    calls = link.calls
    world.live(8)
    assert 8 * 500 * 0.7 < link.calls - calls < 8 * 500 * 1.1


def test_a_silent_store_is_not_looked_at() -> None:
    """Of a hundred leases one looks at a store that does not answer, and then none until it answers a renewal."""
    world = World()
    link = world.store.link()
    terms = [world.leader(f"lease {number}", link) for number in range(100)]
    link.cut, calls = True, link.calls
    world.live(3)
    assert link.calls == calls + 1
    world.live(1)
    link.cut = False
    world.live(1)
    calls = link.calls
    world.live(1)
    assert link.calls > calls + 100
    assert all(term.valid for term in terms)


def test_a_slow_store_is_not_looked_at_when_a_renewal_is_near() -> None:
    """No look holds up a renewal: with answers that take 0.3 s, a lease of a second is renewed in time."""
    world = World(ttl=1)
    link = world.store.link()
    term = world.leader(link=link)
    sent: list[float] = []

    def take_long(method: str) -> None:
        if method == "swap_many":
            sent.append(world.clock.now())
        world.clock.advance(0.3)

    link.before = take_long
    world.live(20)
    assert term.valid
    assert max(later - earlier for earlier, later in itertools.pairwise(sent)) < 0.5


def test_forgets_what_is_over() -> None:
    """A term that resigned is not renewed, and leaves the lease renewer with nothing to do."""
    world = World()
    term = world.leader()
    term.resign()
    world.clock.advance(5)
    assert world.renewer.renew_due() is None


def test_a_dead_store_costs_one_try() -> None:
    """Of a hundred leases that are due, one asks the store that does not answer, and all survive if it returns."""
    world = World()
    link = world.store.link()
    terms = [world.leader(f"lease {number}", link) for number in range(100)]
    link.cut, calls = True, link.calls
    world.clock.advance(4)
    world.renewer.renew_due()
    assert link.calls == calls + 1
    link.cut = False
    world.live(20)
    assert all(term.valid for term in terms)


def test_a_bad_cell_is_nobody_elses_trouble() -> None:
    """A cell that is not ours any more ends one lease, and not the others that are held through the store."""
    world = World()
    link = world.store.link()
    terms = [world.leader(f"lease {number}", link) for number in range(5)]
    world.store.corrupt("lease 0")
    world.live(20)
    assert [term.valid for term in terms] == [False, True, True, True, True]


def test_a_bad_note_is_nobody_elses_trouble() -> None:
    """A note that cannot be made ends one lease, and not the others."""
    world = World()
    link = world.store.link()
    bad = world.candidate("bad", link).attempt(plan=lambda _view: lambda now: {"share": 1 / (now < 1001)})
    good = world.leader("good", link)
    world.live(20)
    assert bad
    assert [bad.valid, good.valid] == [False, True]


def test_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A store that falls silent is reported once, and once more when it is back."""
    caplog.set_level(logging.INFO, "election")
    world = World()
    link = world.store.link()
    world.leader(link=link)
    link.cut = True
    world.live(6)
    link.cut = False
    world.live(6)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_thousand_leases_in_one_thread() -> None:
    """A thousand leases are renewed by a single thread, which ends when nothing is left."""
    register = MemoryRegister()
    before = renewer_threads()
    policy = LeasePolicy(4)  # on a busy machine a thousand elections take a while
    terms = [Candidate(register, f"lease {number}", policy).campaign() for number in range(1000)]
    (renewer,) = renewer_threads() - before
    first = [term.renew_at for term in terms]
    until(lambda: all(term.renew_at > earlier for term, earlier in zip(terms, first, strict=True)))
    assert all(term.valid for term in terms)
    for term in terms:
        term.resign()
    until(lambda: not renewer.is_alive())


def test_nothing_is_left_behind() -> None:
    """When nobody leads any more, the lease renewer and the register can go."""
    register = MemoryRegister()
    Candidate(register, "lease", LeasePolicy(0.1)).campaign().resign()
    gone = weakref.ref(register)
    thread = _renewers[register]._thread
    if thread:
        thread.join(DEADLINE)
    del register, thread
    gc.collect()
    assert gone() is None


def test_start_and_exit_race() -> None:
    """A lease that is won at the moment in which the thread ends is renewed all the same."""
    register, policy = MemoryRegister(), LeasePolicy(2.0)  # long enough for a busy machine to renew it
    for _ in range(5):
        term = Candidate(register, "lease", policy).campaign()
        first = term.renew_at
        until(lambda: term.renew_at > first)  # noqa: B023
        assert term.valid
        term.resign()
        renewer = _renewers[register]
        until(lambda: not renewer._due)  # noqa: B023


def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease renewer whose thread could not be started tries it again for the next lease."""
    world = World()
    renewer = LeaseRenewer(SystemClock())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _self: (_ for _ in ()).throw(RuntimeError("no more threads")))
        with pytest.raises(RuntimeError):
            renewer.start()
    renewer.start()
    until(lambda: renewer._thread is None)
    assert world.renewer.renew_due() is None

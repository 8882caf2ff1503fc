"""One thread renews every lease that is held through a store, and no lease waits for another's trouble."""

import gc
import logging
import threading
import weakref

import pytest

from election import Candidate, LeasePolicy
from election.clock import SystemClock
from election.renewer import LeaseRenewer, _renewers
from election.stores.memory import MemoryRegister
from tests.unit.fakes import World
from tests.waiting import DEADLINE, until


def renewer_threads() -> set[threading.Thread]:
    """The lease renewers that run in this process; those of earlier tests may be about to end."""
    return {thread for thread in threading.enumerate() if thread.name == "election-renewer"}


def test_renews_when_due() -> None:
    """A term is renewed at a third of its ttl, and not before."""
    world = World()
    link = world.store.link()
    term = world.leader(link=link)
    calls = link.calls
    world.clock.advance(3.3)
    assert world.renewer.renew_due() == pytest.approx(world.clock.now() + 10 / 3 - 3.3)
    assert link.calls == calls
    world.clock.advance(0.1)
    assert world.renewer.renew_due() == pytest.approx(world.clock.now() + 10 / 3)
    assert link.calls == calls + 1
    assert term.remaining() == pytest.approx(9.9)


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
    assert world.renewer.renew_due() == pytest.approx(world.clock.now() + 10 / 30)
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

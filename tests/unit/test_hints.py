"""Hints that a cell may have changed: what standbys and holders make of them, and what it costs when there are none."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from election import Candidate, LeasePolicy, LeaseTerm, NotElected, ask_to_resign, look
from election.cell import read_record
from election.clock import SystemClock
from election.record import State
from election.stores.hints import HintListener
from election.stores.memory import MemoryRegister
from election.testing import FaultyRegister, FaultyStore
from tests.contract.test_register import in_fork
from tests.unit.fakes import NAME, World
from tests.waiting import SOON, until

POLL, LONG = 0.25, 2.5
"""Of the default policy: seconds between two polls, and between two looks while hints are live."""


@pytest.fixture
def world() -> World:
    """A world whose store sends hints, and whose terms are renewed as its clock goes."""
    world = World()
    world.store.hints = True
    world.clock._on_advance = lambda _now: world.renewer.renew_due() and None
    return world


def standby(world: World, seconds: float, link: FaultyRegister | None = None) -> LeaseTerm | None:
    """Return what a new candidate's campaign comes to."""
    try:
        return world.candidate(link=link).campaign(seconds)
    except NotElected:
        return None


def test_a_standby_looks_a_tenth_as_often(world: World) -> None:
    """Beside a leader that renews, a standby whose hints are live asks once for each renewal, and each tenth poll."""
    world.leader()
    link = world.store.link()
    assert standby(world, 60, link) is None
    assert link.calls <= 60 / LONG + 2 * 60 / (10 / 3)
    link.calls, world.store.live = 0, False
    assert standby(world, 60, link) is None
    assert link.calls >= 60 / POLL


def test_a_standby_looks_when_the_lease_is_free(world: World) -> None:
    """A leader that has died is replaced at the moment at which its last record proves nothing any more."""
    world.leader()
    world.renewer = World().renewer  # nobody renews
    begun = world.clock.now()
    assert standby(world, 60)
    assert world.clock.now() - begun == pytest.approx(10.1)


def test_a_hint_that_is_lost_costs_ten_polls(world: World) -> None:
    """A standby that hears nothing of a resignation finds out after ten polls at most."""
    term = world.leader()
    link = world.store.link()
    world.store.mute = True
    link.after = lambda _method: term.resign()
    begun = world.clock.now()
    assert standby(world, 60, link)
    assert world.clock.now() - begun == pytest.approx(LONG)


def test_a_hint_is_looked_at_at_once(world: World) -> None:
    """A standby that hears of a resignation leads in that moment."""
    term = world.leader()
    link = world.store.link()
    link.after = lambda _method: term.resign()
    begun = world.clock.now()
    assert standby(world, 60, link)
    assert world.clock.now() == begun


def test_a_stream_that_is_lost_makes_a_standby_poll(world: World) -> None:
    """It is told that the stream is lost, and polls from then on."""
    term = world.leader()
    link = world.store.link()

    def lose(_method: str) -> None:
        if world.store.live:
            world.store.live, world.store.mute = False, True
            world.store.tell(NAME)
            term.resign()

    link.after = lose
    begun = world.clock.now()
    assert standby(world, 60, link)
    assert world.clock.now() - begun <= POLL


def test_a_storm_does_not_become_one_of_looks(world: World) -> None:
    """However many hints come, a standby looks ten times at once and then ten times in a poll; a holder does too."""
    holder, link = world.store.link(), world.store.link()
    term = world.leader(link=holder)

    def storm(_method: str) -> None:
        for _ in range(100):
            world.store.tell(NAME)

    link.before = storm
    assert standby(world, 5, link) is None
    most = 10 + 10 * 5 / POLL + 5
    assert most / 2 < link.calls < most
    assert most / 2 < holder.calls < most + 10
    assert term.valid


def test_the_holders_own_writes_cost_no_look(world: World) -> None:
    """Of the hints that its renewals cause, a holder takes one for each renewal as an echo of that."""
    link = world.store.link()
    term = world.leader(link=link)
    world.live(60)
    assert term.valid
    with_hints, renewals = link.calls, 60 / (10 / 3)
    assert with_hints <= renewals + 60 / LONG + 3
    world.store.live, link.calls = False, 0
    world.live(60)
    assert link.calls > 5 * with_hints


@pytest.mark.parametrize("since_written", [0.0, 0.01, 1.0])
def test_a_holder_hears_at_once_that_it_is_asked(world: World, since_written: float) -> None:
    """Whenever it has renewed, a holder finds in the moment of the hint that it is asked to hand over."""
    term = world.leader()
    world.live(3.4)
    term.renew()
    world.clock.advance(since_written)
    ask_to_resign(world.store.link(), NAME)
    world.renewer.renew_due()
    assert term.reason == "asked to hand over"


def test_a_request_that_no_hint_tells_of_costs_ten_polls(world: World) -> None:
    """A holder whose hints are lost looks a tenth as often, and finds that it is asked to hand over then."""
    term = world.leader()
    world.store.mute = True
    ask_to_resign(world.store.link(), NAME)
    world.live(LONG - 0.2)
    assert not term.lost.is_set()
    world.live(0.3)
    assert term.lost.is_set()


def test_a_request_whose_hint_is_taken_for_an_echo_costs_ten_polls(world: World) -> None:
    """If the hint of a renewal is lost and that of a request comes, the request is found by the next look."""
    term = world.leader()
    world.live(1)
    world.store.mute = True
    term.renew()
    world.store.mute = False
    ask_to_resign(world.store.link(), NAME)
    world.live(0.2)
    assert not term.lost.is_set()
    world.live(LONG)
    assert term.lost.is_set()


def test_a_hint_while_a_look_could_hold_up_a_renewal(world: World) -> None:
    """A hint that comes while the store is slow is not forgotten: it is looked at after a poll, or by the renewal."""
    link = world.store.link()
    term = world.leader(link=link)
    world.renewer._trip = 5.0
    ask_to_resign(world.store.link(), NAME)
    world.renewer.renew_due()
    assert not term.lost.is_set()
    world.renewer._trip = 0.0
    world.live(POLL + 0.1)
    assert term.lost.is_set()


def test_a_hint_while_the_holder_writes(world: World) -> None:
    """While another thread of the holder writes, a hint waits for the answer, which tells whose write it was."""
    link = world.store.link()
    term = world.leader(link=link)
    world.live(1)
    calls: list[str] = []

    def landed(method: str) -> None:
        if method == "swap":
            world.renewer.renew_due()
            calls.append("meanwhile")

    link.after, link.before = landed, calls.append
    term.proclaim({"slot": 2})
    world.live(0.1)
    assert calls == ["swap", "meanwhile"]


def test_watches_end(world: World) -> None:
    """With the campaign, with the observation, and a while after the term, the watches of a cell end."""
    watches = world.store._watches
    term = world.leader()
    assert len(watches) == 1
    standby(world, 1)
    assert len(watches) == 1
    observation = world.candidate().observe()
    next(observation)
    assert len(watches) == 2
    observation.close()  # type: ignore[attr-defined]
    assert len(watches) == 1
    term.resign()
    world.live(10 / 3 + 0.1)
    assert not watches


def test_hints_that_fail_cost_no_lease(world: World) -> None:
    """Hints of a store that a user wrote may raise errors: leases are renewed all the same, and polled for."""

    class Hints:
        @property
        def live(self) -> bool:
            raise OSError("no stream")

        def close(self) -> None:
            raise OSError("no stream")

    link = world.store.link()
    link.watch = lambda _name, _news: Hints()  # type: ignore[assignment, method-assign, return-value]
    term, other = world.leader("one", link), world.leader("other", link)
    world.live(20)
    other.resign()
    ask_to_resign(world.store.link(), "one")
    world.live(POLL + 0.1)
    assert term.reason == "asked to hand over"
    world.live(20)
    assert term.valid


def test_a_polite_handover_needs_no_poll() -> None:
    """Asked by an operator, a holder hands over and a standby leads, in a dozen requests of which none is a poll."""
    store = FaultyStore(SystemClock(), hints=True)
    asker, holder, link = store.link(), store.link(), store.link()
    policy = LeasePolicy(60, poll_every=60)  # nothing but hints in this test's time
    term = Candidate(holder, NAME, policy).campaign()
    led: list[LeaseTerm] = []
    thread = threading.Thread(target=lambda: led.append(Candidate(link, NAME, policy).campaign()))
    thread.start()
    until(lambda: link.calls)
    holder.calls = asker.calls = link.calls = 0
    ask_to_resign(asker, NAME)
    assert term.lost.wait(SOON)
    term.resign()
    thread.join(SOON)
    assert led
    assert asker.calls == 2  # it reads, and writes
    assert holder.calls <= 4  # finds the request, reads it, confirms it, resigns
    assert link.calls <= 5  # looks at each of these three writes, and takes the lease
    led[0].resign()


def test_a_fork_while_watching() -> None:
    """A child that goes on with an observation polls, and the parent hears as before."""
    register = MemoryRegister()
    policy = LeasePolicy(0.4)
    observation = Candidate(register, NAME, policy).observe()
    assert next(observation) is None
    leader = Candidate(register, NAME, policy)

    def child() -> bool:
        assert leader.attempt()
        assert len(register._watches[NAME]) == 1  # that of the child's own term
        return next(observation) is not None

    assert in_fork(child)
    assert list(register._watches) == [NAME]
    with leader.campaign():
        assert next(observation) is not None
    record = look(register, NAME)
    assert record
    assert record.state is State.OPEN
    assert next(observation) is None


def test_a_fork_before_watching() -> None:
    """A candidate that a child inherits watches there for itself, and ends its watch as any other does."""
    register = MemoryRegister()
    policy = LeasePolicy(60, poll_every=6)
    term, candidate = Candidate(register, NAME, policy).campaign(), Candidate(register, NAME, policy)

    def child() -> bool:
        observation = candidate.observe()
        assert next(observation)
        assert len(register._watches[NAME]) == 1
        record, version = read_record(register, NAME)
        assert record
        assert register.swap(NAME, replace(record, state=State.OPEN).encode(), version)
        assert next(observation) is None
        observation.close()  # type: ignore[attr-defined]
        return NAME not in register._watches

    assert in_fork(child)
    assert term.valid
    term.resign()


def test_thousands_of_names() -> None:
    """Three thousand leases in one process are watched, renewed and handed over, and then no watch is left."""
    world = World()
    world.store.hints = True
    link = world.store.link()
    terms = [world.leader(f"lease {number}", link) for number in range(3000)]
    world.live(15)
    assert all(term.valid for term in terms)
    ask_to_resign(world.store.link(), "lease 7")
    world.renewer.renew_due()
    assert [term.name for term in terms if term.lost.is_set()] == ["lease 7"]
    for term in terms:
        term.resign()
    world.live(10)
    assert not world.store._watches


class _Told:
    """A stream that brings nothing, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[list[str]]:
        yield []
        self._closed.wait(SOON)

    def want(self, name: str) -> None:
        self.told.append(f"want {name}")

    def forget(self, name: str) -> None:
        self.told.append(f"forget {name}")

    def close(self) -> None:
        self._closed.set()


def test_a_stream_is_told_what_nobody_watches_any_more() -> None:
    """A name is wanted once, however many watch it, and forgotten with the last of them."""
    stream = _Told()
    listener = HintListener(lambda: stream)
    first = listener.watch("a", lambda: None)
    until(lambda: first.live)
    other, second = listener.watch("b", lambda: None), listener.watch("a", lambda: None)
    first.close()
    first.close()
    assert not first.live
    assert second.live
    assert stream.told == ["want a", "want b"]
    second.close()
    assert stream.told == ["want a", "want b", "forget a"]
    other.close()

"""A candidate looks, waits, takes, and finds out what became of what it was not told."""

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from election import (
    BadPolicy,
    Candidate,
    LeasePolicy,
    LeaseTerm,
    NotElected,
    StoreUnavailable,
    ask_to_resign,
    look,
    open_register,
)
from election.candidate import Leader
from election.errors import BadRecord
from election.record import State, decode
from election.stores.memory import MemoryRegister
from election.testing import FakeClock, Fault
from tests.contract.test_register import in_fork
from tests.memcached import Memcached
from tests.unit.fakes import NAME, World
from tests.waiting import DEADLINE, until


@pytest.fixture
def world() -> World:
    """A store that remembers, and a lease of 10 s."""
    return World()


def test_constructing_does_nothing(world: World) -> None:
    """A candidate that has not looked yet has not touched the store; nonsense is refused at once."""
    link = world.store.link()
    world.candidate(link=link)
    assert link.calls == 0
    with pytest.raises(BadPolicy):
        Candidate(link, "")


def test_first_election_is_immediate(world: World) -> None:
    """In a store that remembers, the first look elects: read, post, ask, take."""
    link = world.store.link()
    assert world.leader(link=link).valid
    assert link.calls == 4


def test_one_leader(world: World) -> None:
    """While somebody leads, nobody else does; nor is the leader elected twice."""
    candidate = world.candidate()
    assert candidate.attempt()
    assert candidate.attempt() is None
    assert world.candidate().attempt() is None


def test_names_are_apart(world: World) -> None:
    """Each name is a lease of its own."""
    assert world.leader("one").valid
    assert world.leader("two").valid


@pytest.mark.parametrize(("fault", "lands"), [(Fault.UNANSWERED, True), (Fault.DROPPED, False), (Fault.DELAYED, True)])
def test_unanswered_takeover(world: World, fault: Fault, lands: bool) -> None:
    """A takeover without an answer is adopted if it has landed, from when it was sent, and made again if not."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    link.fail(None, fault)  # the vacancy, the takeover
    with pytest.raises(StoreUnavailable):
        candidate.attempt()
    world.clock.advance(3)
    world.store.deliver()
    term = candidate.attempt()
    assert term is not None
    assert term.remaining() == pytest.approx(6.9 if lands else 9.9)
    world.live(30)
    assert term.valid


@pytest.mark.parametrize("fault", Fault)
def test_unanswered_vacancy(world: World, fault: Fault) -> None:
    """Whatever became of the vacancy, the next look finds its way."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    link.fail(fault)
    with pytest.raises(StoreUnavailable):
        candidate.attempt()
    assert candidate.attempt()
    world.store.deliver()
    assert look(link, NAME).state is State.HELD  # type: ignore[union-attr]


def test_takeover_that_lands_too_late(world: World) -> None:
    """A takeover that is found to have landed after its lease was over is nobody's, and is waited out."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    link.fail(None, Fault.DELAYED)
    with pytest.raises(StoreUnavailable):
        candidate.attempt()
    world.clock.advance(9.9)
    world.store.deliver()
    assert candidate.attempt() is None
    world.clock.advance(10)
    assert candidate.attempt() is None
    world.clock.advance(0.2)
    assert candidate.attempt()


def test_answer_after_the_deadline(world: World) -> None:
    """A takeover whose answer takes longer than the lease does not lead."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    link.after = lambda method: world.clock.advance(10 if method == "swap" else 0)
    assert candidate.attempt() is None
    assert candidate.attempt() is None


def test_interrupted_takeover(world: World) -> None:
    """Ctrl-C in the middle of a takeover leaves a lease that the same candidate finds again."""
    link = world.store.link()
    candidate = world.candidate(link=link)

    def interrupt(method: str) -> None:
        record = decode(NAME, world.store.cells[NAME].data)
        if method == "swap" and record.state is State.HELD:
            link.after = lambda _method: None
            raise KeyboardInterrupt

    link.after = lambda method: interrupt(method) if world.store.cells else None
    with pytest.raises(KeyboardInterrupt):
        candidate.attempt()
    assert world.candidate().attempt() is None
    assert candidate.attempt()


def test_store_that_loses_between_answer_and_takeover(world: World) -> None:
    """A store's word that it remembers is worth nothing if the vacancy is gone when it is to be taken."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    link.after = lambda method: world.store.restart() if method == "remembers" else None
    assert candidate.attempt() is None
    link.after = lambda _method: None
    assert candidate.attempt() is None
    world.clock.advance(10.2)
    assert candidate.attempt()


def test_leader_and_rival_after_a_loss(world: World) -> None:
    """A rival that finds the cell empty does not lead before the leader's deadline, though the leader is cut off."""
    link = world.store.link()
    term, rival = world.leader(link=link), world.candidate()
    link.cut = True
    world.store.evict(NAME)
    while not (successor := rival.attempt()):
        world.clock.advance(0.1)
    assert not term.valid
    assert successor.fence > term.fence


def test_a_lease_of_a_fraction_of_a_millisecond_more() -> None:
    """The record never says less than its holder believes, so that no margin at all is enough where clocks agree."""
    world = World()
    world.policy = LeasePolicy(0.1004, drift=0)
    term, rival = world.leader(), world.candidate()
    assert rival.attempt() is None
    while not rival.attempt():
        world.clock.advance(0.00005)
    assert not term.valid


def test_plan(world: World) -> None:
    """The plan sees what is there, says what is written beside the lease, and may stand by."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    seen = []
    assert candidate.attempt(plan=lambda view: seen.append(view.record)) is None  # type: ignore[func-returns-value]
    assert seen == [None]
    assert world.store.cells == {}
    assert candidate.attempt(plan=lambda _view: {"slot": 4})
    assert look(link, NAME).note == {"slot": 4}  # type: ignore[union-attr]


def test_unknown_fields_survive(world: World) -> None:
    """What a later version has added to the record is kept by this one."""
    data = b'{"v":1,"fence":1,"holder":"x","seq":1,"ttl_ms":10000,"state":"open","later":{"a":1},"store":"1"}'
    world.store.corrupt(NAME, data)
    term = world.leader()
    term.renew()
    assert look(world.store.link(), NAME).unknown == {"later": {"a": 1}}  # type: ignore[union-attr]


def test_a_nudge_ends_a_pause_of_a_forked_child_too(world: World) -> None:
    """A campaign whose store is silent waits on the very event that `nudge` sets, also as the first act of a child."""
    link, stop = world.store.link(), threading.Event()
    link.cut = True
    woken: list[bool] = []

    class Clock(FakeClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            stop.set()
            candidate.nudge()
            woken.append(event.is_set())
            return super().wait(event, seconds)

    candidate = world.candidate(link=link, clock=Clock())

    def campaign() -> bool:
        with pytest.raises(NotElected, match="told to stop"):
            candidate.campaign(stop=stop)
        return woken == [True]

    assert in_fork(campaign)
    assert campaign()


def test_bad_record(world: World) -> None:
    """A cell that is not ours is an error that names it, and is left as it is."""
    link = world.store.link()
    world.store.corrupt(NAME, b"mine!")
    for act in (world.candidate(link=link).attempt, lambda: look(link, NAME), lambda: ask_to_resign(link, NAME)):
        with pytest.raises(BadRecord, match=f"'{NAME}'"):
            act()
    assert world.store.cells[NAME].data == b"mine!"


def test_reelection_spares_the_look(world: World) -> None:
    """A leader that resigned takes the lease back with one swap, unless somebody has been there since."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    candidate.attempt().resign()  # type: ignore[union-attr]
    calls = link.calls
    term = candidate.attempt()
    assert term
    assert link.calls == calls + 1
    term.resign()
    other = world.leader()
    assert candidate.attempt() is None
    assert other.valid


def test_campaign(world: World) -> None:
    """A campaign waits until it can lead, and is then followed by a larger fence each time."""
    leader, fences = world.leader(), []
    fences.append(leader.fence)
    for _ in range(3):
        with world.candidate().campaign() as term:
            fences.append(term.fence)
    assert fences == sorted(set(fences))


def test_campaign_timeout(world: World) -> None:
    """A campaign ends by its timeout, in time."""
    term, begin = world.leader(), world.clock.now()
    world.clock = FakeClock(begin, on_advance=lambda now: setattr(term._clock, "_now", now))
    with pytest.raises(NotElected, match="within 3 s"):
        world.candidate().campaign(timeout=3)
    assert world.clock.now() == pytest.approx(begin + 3)


def test_campaign_stop(world: World) -> None:
    """A campaign that is told to stop ends, before it has looked if it was told so early."""
    world.leader()
    stop = threading.Event()
    stop.set()
    with pytest.raises(NotElected, match="stop"):
        world.candidate().campaign(stop=stop)


def test_nudge_wakes_a_campaign() -> None:
    """A standby that is nudged looks at once, however long its polling interval is."""
    register, policy = MemoryRegister(), LeasePolicy(600, poll_every=600)
    leader, standby = Candidate(register, NAME, policy).campaign(), Candidate(register, NAME, policy)
    won: list[LeaseTerm] = []
    looked = threading.Event()

    def plan(_view: object) -> dict[str, int]:
        looked.set()
        return {}

    thread = threading.Thread(target=lambda: won.append(standby.campaign(plan=plan)))
    thread.start()
    assert looked.wait(DEADLINE)
    leader.resign()
    standby.nudge()
    thread.join(DEADLINE)
    assert won[0].valid
    won[0].resign()


def test_campaign_waits_for_the_store(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A store that does not answer is reported once, waited for, and reported once more when it is back."""
    caplog.set_level(logging.INFO, "election")
    link = world.store.link()
    link.cut = True
    candidate = world.candidate(link=link)
    with pytest.raises(NotElected):
        candidate.campaign(timeout=60)
    link.cut = False
    world.store.corrupt(NAME, world.store.cells[NAME].data if world.store.cells else b"{}")
    world.store.cells.clear()
    assert candidate.campaign(timeout=60).valid
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert candidate.attempt() is None


def test_a_poll_asks_for_the_version_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby reads the record at its first look, when it is another one, and after a nudge, and never else."""
    link = world.store.link()
    leader, reads = world.leader(), []
    versions = iter([None] * 4 + ["renew"] + [None] * 4 + ["nudge"] + [None] * 4 + ["stop"])
    stop = threading.Event()

    def version(name: str) -> object:
        match next(versions):
            case "renew":
                leader.renew()
            case "nudge":
                candidate.nudge()
            case "stop":
                stop.set()
        return world.store.cells[name].version

    monkeypatch.setattr(link, "version", version)
    link.before = lambda method: reads.append(method)
    candidate = world.candidate(link=link)
    with pytest.raises(NotElected):
        candidate.campaign(stop=stop)
    assert reads == ["read"] * 3
    assert candidate.view.version == world.store.cells[NAME].version


def test_what_was_left_is_forgotten_after_a_poll(world: World) -> None:
    """A candidate that comes back later looks first, since others have looked meanwhile."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    candidate.attempt().resign()  # type: ignore[union-attr]
    world.clock.advance(0.3)
    methods: list[str] = []
    link.before = methods.append
    assert candidate.attempt()
    assert methods == ["read", "swap"]


def test_an_outage_costs_few_tries(world: World) -> None:
    """A standby asks a store that refuses its connections two to four times a second, however long that lasts."""
    link = world.store.link()
    link.cut = True
    with pytest.raises(NotElected):
        world.candidate(link=link).campaign(timeout=600)
    assert 2 * 600 < link.calls < 4 * 600


def test_observe(world: World) -> None:
    """An observer hears of each leader once, and of the times when there is none."""
    stop = threading.Event()
    events: Iterator[Leader | None] = world.candidate("lease").observe(stop)
    assert next(events) is None
    term = world.leader()
    first = next(events)
    assert first is not None
    assert (first.fence, first.pid) == (term.fence, os.getpid())
    term.resign()
    assert next(events) is None
    second = world.leader()
    assert next(events).fence == second.fence  # type: ignore[union-attr]
    assert next(events) is None  # nobody renewed it
    stop.set()
    assert list(events) == []


def test_ask_to_resign(world: World) -> None:
    """The leader hears of it at its next renewal, hands over when it likes, and the request is then forgotten."""
    link = world.store.link()
    assert ask_to_resign(link, NAME) is None
    term = world.leader()
    assert ask_to_resign(link, NAME).fence == term.fence  # type: ignore[union-attr]
    assert look(link, NAME).asked  # type: ignore[union-attr]
    assert not term.lost.is_set()
    term.renew()
    assert term.reason == "asked to hand over"
    assert term.valid
    term.renew()
    assert not look(link, NAME).asked  # type: ignore[union-attr]
    term.resign()
    assert ask_to_resign(link, NAME) is None


def test_asking_is_tried_again_when_somebody_else_writes(world: World) -> None:
    """A request that lost against renewals is written again after a pause, which is short and grows."""
    term, link = world.leader(), world.store.link()
    renewals, begun = iter(range(3)), world.clock.now()
    link.before = lambda method: term.renew() if method == "swap" and next(renewals, None) is not None else None
    record = ask_to_resign(link, NAME, clock=world.clock)
    assert record is not None
    assert record.fence == term.fence
    assert look(link, NAME).asked  # type: ignore[union-attr]
    assert link.calls == 2 * 4 + 1
    assert 0 < world.clock.now() - begun < 0.1


def test_asked_before_it_knew(world: World) -> None:
    """A leader that was asked before it knew that it leads is told so when it finds out."""
    link = world.store.link()
    candidate = world.candidate(link=link)
    link.fail(None, Fault.UNANSWERED)
    with pytest.raises(StoreUnavailable):
        candidate.attempt()
    ask_to_resign(world.store.link(), NAME)
    term = candidate.attempt()
    assert term
    assert term.reason == "asked to hand over"


def test_asking_gives_no_dead_leader_more_time(world: World) -> None:
    """A lease that nobody renews ends when it would have, however often it is asked for."""
    world.leader()
    rival = world.candidate()
    assert rival.attempt() is None
    for _ in range(101):
        world.clock.advance(0.1)
        ask_to_resign(world.store.link(), NAME)
        if term := rival.attempt():
            break
    else:
        term = rival.attempt()
    assert term


def test_a_fork_is_another_candidate(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A forked child leads nothing, waits like everybody else, and is elected when its parent resigns."""
    register = open_register(f"sqlite:///{tmp_path_factory.mktemp('fork')}/store.db")
    candidate = Candidate(register, NAME, LeasePolicy(1))
    term = candidate.campaign()
    parent = candidate.id
    read, write = os.pipe()

    def child() -> bool:
        if candidate.attempt() is not None or candidate.id == parent or term.valid:
            return False
        os.write(write, b"waiting")
        with candidate.campaign(timeout=20) as mine:
            return mine.fence > term.fence

    resigner = threading.Thread(target=lambda: os.read(read, 7) and term.resign())  # type: ignore[func-returns-value]
    resigner.start()
    assert in_fork(child)
    resigner.join(DEADLINE)
    register.close()
    os.close(read)
    os.close(write)


def test_a_forked_leader_goes_on_in_its_parent(memcached: Memcached) -> None:
    """A child that uses the parent's register does not disturb the parent's renewals."""
    register = open_register(memcached.url)
    with Candidate(register, f"fork {os.getpid()}", LeasePolicy(3.0)).campaign() as term:
        renewed = term.renew_at
        assert in_fork(lambda: look(register, term.name) is not None)
        until(lambda: term.renew_at > renewed, "a renewal")
        assert term.valid
    register.close()

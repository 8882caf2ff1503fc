"""What becomes of a leader whose work forks, raises, overruns, ends the process or does not listen."""

import contextlib
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from election import Event, look, open_register
from election.clock import SystemClock
from election.events import EventKind
from election.stores.memory import MemoryRegister
from election.testing import Fault, FaultyStore
from politics import Term, TokenWorker
from politics.worker.daemon import OUTLASTED
from tests.integration.conftest import MakeStage
from tests.integration.harness import Stage
from tests.integration.worker import Diarist
from tests.memcached import Memcached
from tests.waiting import DEADLINE, until


@pytest.mark.parametrize("how", ["fork", "fork_by_multiprocessing", "fork_and_return"])
def test_a_fork_of_the_leader_does_not_lead(stage: Stage, how: str) -> None:
    """The child of a leader knows that it holds nothing, and however it ends, its parent goes on leading."""
    (process,) = stage.start(work=how)
    _, election = stage.elected()
    if how == "fork_and_return":
        forked = stage.wait("forked")
        assert forked["status"] == 0
    else:
        forked = stage.wait("child")
        assert (forked["valid"], forked["left"], forked["lost"]) == (False, 0, True)
        assert "this process is a fork of the leader" in forked["raised"]
    stage.wait("effect", fence=election["fence"], pid=process.pid, after=forked["t"] + 1.5)
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert len(stage.events("elected")) == len(stage.events("lost")) == 1
    assert {event["pid"] for event in stage.events("claim")} == {process.pid}


def test_a_fork_can_be_terminated_and_its_parent_goes_on(stage: Stage) -> None:
    """SIGTERM ends the child of a leader as it would end any process, and tells its parent nothing."""
    stage.start(work="terminate_a_fork")
    _, election = stage.elected()
    terminated = stage.wait("terminated")
    assert terminated["status"] == -signal.SIGTERM
    stage.wait("effect", fence=election["fence"], after=terminated["t"] + 1)
    assert not stage.events("lost")


def test_a_signal_that_another_thread_takes_stops_the_worker(stage: Stage) -> None:
    """The kernel may hand SIGTERM to any thread; the main thread hears of it all the same, before the work ends."""
    (process,) = stage.start(work="take_the_signal")
    assert process.wait() == 0
    assert len(stage.events("slot")) == len(stage.events("lost")) == 1


def test_a_worker_whose_work_raises_lives_on(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is logged, the slot counts as done, and the next one is run."""
    stage.thread(work="fail", iteration_length=0.2)
    until(lambda: len(stage.events("slot")) >= 3, "three slots")  # on a busy machine some pass unused
    assert not any(event["takeover"] for event in stage.events("slot"))
    failures = [record for record in caplog.records if "the work of slot" in record.getMessage()]
    assert "the work of slot 1 failed" in failures[0].getMessage()
    assert failures[0].exc_info is not None
    assert "the pork is off" in str(failures[0].exc_info[1])


def test_a_slot_that_failed_is_run_again_by_somebody_else(old_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """With `on_error="retry"` a worker out of descriptors hands its slot over: it is run as a takeover, and is done."""
    options = {"group": "retry", "store": old_store, "on_error": "retry", "announce": False, "iteration_length": 3600.0}
    failed: list[Event] = []

    def work_without_descriptors(_term: Term) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    ill = TokenWorker(**options, on_event=lambda event: event.kind is EventKind.SLOT_FAILED and failed.append(event))
    ill.start(work_without_descriptors)
    until(lambda: failed, "the first failure")
    done: list[Term] = []
    healthy = TokenWorker(**options)
    healthy.start(done.append)
    until(lambda: done, "the healthy worker's turn")
    with contextlib.closing(open_register(old_store)) as register:
        until(lambda: (record := look(register, "retry")) and record.note["work"] == "done", "the record of that")
    ill.stop()
    healthy.stop()
    assert (done[0].iteration, done[0].takeover) == (1, True)
    assert failed[0].reason == "OSError: [Errno 24] Too many open files"
    assert "the work of slot 1 failed, and the next leader runs it again" in caplog.text


def test_one_that_fails_again_and_again_pauses_longer_and_longer(old_store: str) -> None:
    """Up to a slot's length: it neither spins nor loses the slot, which it runs again when it is alone."""
    pauses: list[float] = []
    slots: list[tuple[int, bool]] = []

    class Clock(SystemClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            pauses.append(round(seconds, 3))
            return super().wait(event, min(seconds, 0.01))

    def fail(term: Term) -> None:
        slots.append((term.iteration, term.takeover))
        raise MemoryError

    options = {"group": "poor", "store": old_store, "on_error": "retry", "announce": False, "lease_ttl": 1.0}
    worker = TokenWorker(**options, iteration_length=3.0)
    worker._clock, worker._chance = Clock(), lambda: 0.0
    worker.start(fail)
    until(lambda: len(slots) == 9, "nine failures")
    worker.stop()
    assert slots == [(1, False)] + [(1, True)] * 8
    assert [pause for pause in pauses if pause > 0.06][:7] == [0.1, 0.2, 0.4, 0.8, 1.5, 1.5, 1.5]


def test_work_that_overruns_by_three_slots_loses_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The lease is kept meanwhile; the slots that passed are skipped, which is logged, and the next one is run."""
    stage.thread(sticky=True, seconds=0.85, iteration_length=0.2)
    stage.thread(sticky=True, seconds=0.85, iteration_length=0.2)
    until(lambda: len(stage.events("slot")) == 3, "three slots")
    slots = [event["slot"] for event in stage.events("slot")]
    passed = [record.getMessage() for record in caplog.records if "have passed unused" in record.getMessage()]
    assert len(stage.events("elected")) == 1
    assert not any(event["takeover"] for event in stage.events("slot"))
    for (earlier, later), line in zip(pairwise(slots), passed, strict=True):
        assert later - earlier >= 4
        assert f"slots {earlier + 1} to {later - 1} have passed unused" in line


def test_each_slot_is_a_new_race(stage: Stage) -> None:
    """Without `sticky`, the one that has just led lets the others look first: all of three get their turn."""
    workers = [stage.thread(seconds=0, iteration_length=0.2, lease_ttl=0.5) for _ in range(3)]
    until(lambda: {e["who"] for e in stage.events("slot")} == {w.name for w in workers}, "everybody's turn")
    slots = [event["slot"] for event in stage.events("slot")]
    assert slots == sorted(set(slots))


def test_a_sticky_leader_stays(stage: Stage) -> None:
    """With `sticky`, a healthy leader keeps its term from slot to slot."""
    for _ in range(3):
        stage.thread(sticky=True, seconds=0, iteration_length=0.2)
    until(lambda: len(stage.events("slot")) >= 6, "six slots")  # on a busy machine some pass unused
    assert len(stage.events("elected")) == 1
    assert len({event["fence"] for event in stage.events("slot")}) == 1


def test_one_that_is_not_eligible_never_leads(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Not while it says no, nor while it cannot say, which is logged once; it does as soon as it says yes."""
    answers: dict[str, object] = {"says": False, "asked": 0}

    class Shy(Diarist):
        def eligible(self) -> bool:
            answers["asked"] += 1
            if isinstance(answers["says"], Exception):
                raise answers["says"]
            return answers["says"]

    shy = Shy(stage.diary, "shy", **stage.options | {"seconds": 0, "iteration_length": 0.2, "lease_ttl": 0.5})
    stage.threads.append(shy)
    shy.start()
    stage.thread(seconds=0, iteration_length=0.2, lease_ttl=0.5)
    until(lambda: len(stage.events("slot")) >= 3, "three slots")  # on a busy machine some pass unused
    answers.update(says=OSError("the disk is full"), asked=0)
    until(lambda: answers["asked"] > 20, "twenty questions")
    assert not stage.events("elected", who="shy")
    assert caplog.text.count("eligible failed") == 1
    answers.update(says=True)
    stage.wait("slot", who="shy")


def test_hooks_are_called_in_order_and_may_raise(old_memcached: Memcached, caplog: pytest.LogCaptureFixture) -> None:
    """Elected, work, lost; again for each term; an error in a hook is logged and changes nothing."""
    calls: list[str] = []

    class Clumsy(TokenWorker):
        group = "clumsy"
        iteration_length = 0.2

        def on_elected(self, term: Term) -> None:
            calls.append(f"elected {term.valid}")
            raise ValueError("elected")

        def perform(self, term: Term) -> None:
            calls.append(f"work {term.valid}")

        def on_lost(self, term: Term) -> None:
            calls.append(f"lost {term.valid}")
            raise ValueError("lost")

    worker = Clumsy(store=old_memcached.url, lease_ttl=1.0)
    worker.start()
    until(lambda: len(calls) >= 6, "two terms")
    worker.stop()
    assert calls[:6] == ["elected True", "work True", "lost False"] * 2
    assert caplog.text.count("on_elected failed") == caplog.text.count("on_lost failed") == calls.count("lost False")


def test_work_that_is_asked_to_stop_is_still_led_until_it_returns(stage: Stage) -> None:
    """During the grace period the lease goes on being renewed, and only then is it handed over."""
    stage.start(2, work="ignore", seconds=4.0)
    leader, election = stage.elected()
    stage.wait("slot", who=leader.name)
    stopped = leader.send(signal.SIGTERM)
    done = stage.wait("done", who=leader.name)
    assert leader.wait() == 0
    assert done["t"] > stopped + 3 * 1.0
    mine = [claim["t"] for claim in stage.events("claim", who=leader.name, fence=election["fence"])]
    assert max(later - earlier for earlier, later in pairwise(mine)) < 1.0
    _, succession = stage.elected(after=stopped)
    assert done["t"] < succession["t"]
    assert not stage.events("slot", fence=succession["fence"])


@pytest.mark.parametrize("then", ["a second signal", "the end of the grace period"])
def test_work_that_does_not_listen_is_not_waited_for(make_stage: MakeStage, old_store: str, then: str) -> None:
    """The process ends with a status of its own and hands over, long before the lease ends; the work ends with it."""
    stage = make_stage(old_store, work="ignore", lease_ttl=600.0, grace=600.0 if then == "a second signal" else 0.3)
    stage.start(2)
    leader, _ = stage.elected()
    stage.wait("slot", who=leader.name)
    stopped = leader.send(signal.SIGTERM)
    stage.log(leader.name, "SIGTERM: stopping")
    if then == "a second signal":
        stopped = leader.send(signal.SIGINT)
    assert leader.wait() == OUTLASTED == 124
    stage.elected(after=stopped)
    stage.log(leader.name, "the work did not stop in time")
    stage.log(leader.name, "the process ends with status 124, and with it the work that has not returned")
    assert not stage.events("done", who=leader.name)


def test_sys_exit_in_the_work_ends_the_process_and_hands_over(make_stage: MakeStage, old_store: str) -> None:
    """The process ends with the status that the work gave; the slot counts as interrupted. Nobody waits for a lease."""
    stage = make_stage(old_store, work="leave", lease_ttl=600.0)
    leaver, stayer = stage.start(2)
    until(lambda: len(stage.events("exit")) == 2, "the end of both")
    first, second = stage.events("slot")
    assert {leaver.wait(), stayer.wait()} == {3}
    assert first["who"] != second["who"]
    assert second["takeover"]


def test_several_workers_share_one_register(old_memcached: Memcached, caplog: pytest.LogCaptureFixture) -> None:
    """One worker's end neither closes the register nor costs the others their terms."""
    register = open_register(old_memcached.url)
    terms: dict[str, list[Term]] = {}
    workers = [TokenWorker(group=f"shared {n}", store=register, lease_ttl=1.0) for n in range(4)]
    for worker in workers:
        terms[worker.group] = []
        worker.start(lambda term, mine=terms[worker.group]: mine.append(term) or term.lost.wait(60))
    until(lambda: all(terms.values()), "four leaders in one process")
    socket = register._connection.socket
    workers[0].stop()
    assert register._connection.socket is socket is not None
    first, *others = [term for (term,) in terms.values()]
    assert not first.valid
    ends = [term.remaining() for term in others]
    until(lambda: all(t.remaining() > e for t, e in zip(others, ends, strict=True)), "everybody's next renewal")
    for worker in workers:
        worker.stop()
    assert not any(term.valid for term in others)
    assert "cannot renew" not in caplog.text
    register.close()


def test_start_and_stop_from_any_thread(stage: Stage) -> None:
    """A worker is started once, stopped from any thread, and can be started again."""
    worker = stage.thread(start=False)
    worker.stop()
    worker.start()
    with pytest.raises(RuntimeError, match="runs already"):
        worker.start()
    stage.wait("effect")
    stoppers = [threading.Thread(target=worker.stop) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join(DEADLINE)
    assert stage.events(
        "refused", why=f"{worker.group}: leadership lost (fence {stage.events('lost')[0]['fence']}): asked to stop"
    )
    worker.start()
    again = stage.wait("slot", takeover=True)
    assert again["fence"] > stage.events("lost")[0]["fence"]


def test_work_may_stop_its_worker(stage: Stage) -> None:
    """`stop` in the work only asks; the worker hands over once the work has returned."""
    worker = stage.thread(start=False)
    seen: list[bool] = []

    def work(term: Term) -> None:
        worker.stop()
        seen.extend((term.lost.is_set(), term.valid))

    worker.start(work)
    assert worker._run is not None
    worker._run.thread.join(DEADLINE)
    assert seen == [True, True]
    stage.thread()
    assert not stage.wait("elected", who=stage.threads[-1].name)["t"] < stage.wait("lost", who=worker.name)["t"]


def test_a_worker_that_is_stopped_while_it_is_elected_does_not_work() -> None:
    """The request to stop came before the work began, so that it does not begin."""
    link = FaultyStore(SystemClock()).link()
    worked: list[Term] = []
    worker = TokenWorker(group="late", store=link)
    swaps = iter(("the vacancy", "the takeover"))
    link.after = lambda method: worker.stop() if method == "swap" and next(swaps, "") == "the takeover" else None
    worker.start(worked.append)
    assert worker._run is not None
    worker._run.thread.join(DEADLINE)
    assert not worker._run.thread.is_alive()
    assert not worked


def test_a_slot_is_recorded_as_soon_as_the_store_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """Work that returns in an outage is recorded soon after it, however long the lease is; both are logged once."""
    caplog.set_level(logging.INFO, "politics")
    link, refused, pauses = FaultyStore(SystemClock()).link(), [], []
    worker = TokenWorker(group="told", store=link, lease_ttl=600.0, iteration_length=3600.0, announce=False)

    class Clock(SystemClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            pauses.append(seconds)
            return super().wait(event, min(seconds, 0.01))

    worker._clock = Clock()

    def before(method: str) -> None:
        if link.cut and threading.current_thread().name == "politics-told":
            refused.append(method)
            link.cut = len(refused) < 3

    def work(_term: Term) -> None:
        link.cut = True

    link.before = before
    worker.start(work)
    until(lambda: "is recorded now" in caplog.text, "the end of the outage")
    record, tried_after = look(link, "told"), list(pauses)
    worker.stop()
    assert len(tried_after) == 2
    assert max(tried_after) <= worker.policy.longest_pause
    assert record is not None
    assert record.note["work"] == "done"
    assert caplog.text.count("slot 1 cannot be recorded yet") == caplog.text.count("slot 1 is recorded now") == 1


QUIET = """
import sys, threading
from politics import TokenWorker
done = threading.Event()
worker = TokenWorker(group="quiet", store="memory://", announce=False)
worker.start(lambda term: done.set())
assert done.wait(20)
worker.stop()
print(*{name.partition(".")[0] for name in sys.modules} & {"discovery", "zeroconf", "asyncio", "tornado"})
"""


def test_a_worker_that_does_not_announce_imports_no_network() -> None:
    """Neither multicast DNS nor anything else of `discovery` is loaded by `import politics` or by such a worker."""
    ended = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == []


def test_a_takeover_that_the_store_did_not_confirm_interrupts_nobody() -> None:
    """The slot that it names has not begun: it is run, for the first time, even if failovers skip."""
    link = FaultyStore(SystemClock()).link()
    link.fail(Fault.UNANSWERED, Fault.UNANSWERED)
    terms: list[Term] = []
    worker = TokenWorker(group="unsure", store=link, on_failover="skip", lease_ttl=5.0)
    worker.start(terms.append)
    until(lambda: terms, "the work")
    worker.stop()
    assert (terms[0].iteration, terms[0].takeover) == (1, False)


def test_a_worker_that_is_alone_begins_each_slot_at_once() -> None:
    """Between two slots it waits for nobody, since nobody stands by: from the end of one to the start of the next."""

    class Clock(SystemClock):
        """Counts the waits that only a stop ends."""

        waits = 0

        def wait(self, event: threading.Event, seconds: float) -> bool:
            run = worker._run
            self.waits += run is not None and event is run._stop
            return super().wait(event, seconds)

    done = threading.Event()
    worker = TokenWorker(group="alone", store=MemoryRegister(), lease_ttl=10, iteration_length=0.05, announce=False)
    worker._clock = clock = Clock()
    worker.start(lambda term: done.set() if term.iteration >= 6 else None)
    assert done.wait(DEADLINE)
    waits = clock.waits
    worker.stop()
    assert waits == 0

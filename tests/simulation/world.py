"""A world in which the product's own code runs, and everything around it fails: store, network, clocks, processes.

True time is the world's; each process has a clock that runs at a rate and with an offset of its own. Whatever happens
follows from a seed and a list of faults, so that a run can be repeated, and shrunk by leaving faults out. After every
step the verifier looks at all terms that there are.
"""

import contextlib
import copy
import heapq
import itertools
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from greenlet import getcurrent

import election.candidate
import election.cell
import election.record
import election.renewer
import election.term
import politics.worker.duty
import politics.worker.run
from election import Candidate, LeaseTerm
from election.errors import BadRecord
from election.renewer import LeaseRenewer
from politics import TokenWorker
from tests.simulation import threads
from tests.simulation.store import DRIFT, TIMEOUT, TTL, Hand, Link, Store, Tag
from tests.simulation.threads import Process, SimClock, Thread, Threading

ITERATION = 2.5
KINDS = (
    "pause",
    "pause",
    "cut",
    "slow",
    "loss",
    "restart",
    "flush",
    "evict",
    "kill",
    "fork",
    "ask",
    "stop",
    "down",
    "twice",
)
LEADER = -1
EDITS = (*KINDS, "spoil", "spoil", "spoil", "spoil")
"""The same, and somebody who writes what nobody can read, and later forgets it."""


# What `spoil` writes: a fence above which there is no room, and a field that leaves a record no room.
SPOILT = b'{"v":1,"fence":9223372036854775807,"holder":"x","seq":1,"ttl_ms":1000,"state":"%b"}'
LONG = b',"new":"' + b"x" * 840 + b'"'


def readable(data: bytes) -> election.record.Record | None:
    """The record; None if nobody can read it."""
    try:
        return election.record.decode("job", data)
    except BadRecord:
        return None


class Broken(AssertionError):
    """The promise was broken; the message says how."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, at a moment of true time, to a process (by number, or who leads) or to the store."""

    at: float
    kind: str
    who: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:8.3f} s  {self.kind} {self.who} for {self.seconds:.3f} s"


def random_faults(seed: int, seconds: float, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """Return random faults, in bursts, for so many seconds."""
    rng, faults, at = random.Random(seed), [], 2 * TTL
    while at < seconds:
        # In bursts, since the worst comes together, with calm in between so that there is somebody to strike.
        at += rng.choice([rng.uniform(0, 0.2), rng.expovariate(1.0), rng.expovariate(1.0), rng.uniform(1, 4)]) * TTL
        # Just under, at and just over a lease is where mistakes hide.
        span = rng.choice([rng.uniform(0, 0.4), rng.uniform(0.3, 1.2), rng.uniform(0.95, 1.1), rng.uniform(1, 3)])
        faults.append(Fault(at, rng.choice(kinds), rng.choice([LEADER, LEADER, 0, 1, 2, 3]), span * TTL))
    return faults


class Worker(TokenWorker):
    """The worker under attack: starts, steps and ends of its work go to the verifier."""

    group, iteration_length, lease_ttl, announce = "job", ITERATION, TTL, False

    def perform(self, term: politics.Term) -> None:
        world = threads.world()
        world.slot_started(term)
        if world.must_fail(term, again=self.on_error == "retry"):
            raise ValueError("the work failed")
        for _ in range(world.rng.randrange(6)):
            term.check()
            term.remaining()  # looks at the clock, and may be where we are paused: between the check and the effect
            world.effect(term)
            if term.lost.wait(world.rng.uniform(0, 0.3)):
                term.check()


class World:
    """Runs a list of faults against a number of workers, and verifies."""

    worker = Worker
    link: type[Any] = Link
    poll = TTL / 5
    lost_hint = 0.0
    """Seconds that a hint which is lost may cost."""

    def __init__(self, seed: int, faults: list[Fault], seconds: float, *, workers: int = 4, clock_skew: float = DRIFT):
        self.rng = random.Random(f"world {seed}")
        self.jitter = random.Random(f"jitter {seed}")
        self.now, self.steps, self.hub, self.thread = 0.0, 0, getcurrent(), None
        self.seconds, self.skew = seconds, clock_skew
        self.stores = [Store(), Store()]
        self.store: Any = self.stores[0]
        self.slow_until = self.loss_until = self.twice_until = 0.0
        self.agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.pids = itertools.count(100)
        self.claims: list[tuple[Process, LeaseTerm]] = []
        self.highest_fence: dict[str, int] = {}
        self.started: dict[int, int] = {}
        self.failing: set[Process] = set()
        self.failed: dict[int, int] = {}
        self.terms = self.takeovers = self.refused = self.forgotten = 0
        self.longest_gap = 0.0
        self.strikes = self.looks = self.batches = 0
        self.broken: Broken | None = None
        self.sink = 0
        self.led_at = 0.0
        self.quiet_since = 0.0
        self.workers: list[tuple[Process, Worker]] = []
        self.processes: list[Process] = []
        self._process: Process | None = None
        self._wanted = workers
        for fault in faults:
            self.after(fault.at, self.strike, fault)

    # Time.

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.order), call, args))

    def run(self) -> "World":
        """Run to the end.

        Raises:
            Broken: the promise was.
        """
        with self._reigning():
            try:
                for _ in range(self._wanted):
                    self.bear()
                while self.agenda and self.agenda[0][0] <= self.seconds:
                    self.now, _, call, args = heapq.heappop(self.agenda)
                    call(*args)
                    self.steps += 1
                    self.verify()
                    if self.broken:
                        raise self.broken
                self.finish()
            finally:
                # None may be left for the garbage collector to end in somebody else's world.
                for process in self.processes:
                    process.die()
        return self

    @contextlib.contextmanager
    def _reigning(self) -> Iterator[None]:
        """Let the product's modules meet this world's threads, clocks and process ids."""
        wall_ms = lambda: int(self.now * 1e3) + 10**12  # noqa: E731
        threads._world.append(self)
        logging.disable(logging.CRITICAL)
        with contextlib.ExitStack() as stack:
            product = (election.term, election.candidate, election.renewer)
            for module in (*product, politics.worker.run, politics.worker.duty):
                stack.enter_context(patch.object(module, "threading", Threading))
            for module in (election.candidate, election.cell):
                stack.enter_context(patch.object(module, "wall_ms", wall_ms))
            # So that renewals which are due within a fifth of a lease go together, and not only by chance.
            stack.enter_context(patch.object(LeaseTerm, "ttl", 20 * TTL))
            for module in (*product, politics.worker.duty):
                stack.enter_context(patch.object(module, "fork_detector", self.fork_detector))
            stack.enter_context(patch.object(os, "getpid", lambda: self.current_process().pid))
            try:
                yield
            finally:
                logging.disable(logging.NOTSET)
                threads._world.pop()

    def forget(self) -> None:
        """Let go of all but the figures."""
        self.agenda, self.claims, self.workers, self.processes = [], [], [], []

    def here(self) -> Thread:
        """The thread that runs."""
        assert self.thread
        return self.thread

    def fork_detector(self) -> Callable[[], bool]:
        """What the product's `fork_detector` returns, where a process is one of this world's."""
        pid = self.current_process().pid
        return lambda: self.current_process().pid != pid

    def current_process(self) -> Process:
        """The process that runs, or that the world acts for."""
        process = self.thread.process if self.thread else self._process
        assert process
        return process

    @contextlib.contextmanager
    def acting_for(self, process: Process) -> Iterator[None]:
        before, self._process = self._process, process
        try:
            yield
        finally:
            self._process = before

    # Network.

    def latency(self) -> float:
        if self.now < self.slow_until:
            return self.rng.choice([0.01, 0.3, 1.0, 2.0]) * self.rng.random() * TTL
        return self.rng.uniform(0.0005, 0.005)

    def lost(self) -> bool:
        return self.now < self.loss_until and self.rng.random() < 0.3

    def comparable(self, then: Tag, now: Tag) -> bool:
        """Whether versions of connection or generation `then` mean anything in that of `now` (rules 8, 12)."""
        return then == now

    # Processes.

    def bear(self) -> None:
        """Start one more worker."""
        process = Process(self, next(self.pids), self.rng.uniform(0, 1e6), 1 + self.rng.uniform(-1, 1) * self.skew)
        self.processes.append(process)
        clock, link = SimClock(process), self.link(process)
        with self.acting_for(process):
            worker = self.worker(store=link, sticky=self.rng.random() < 0.3)
            worker.on_error = "retry" if process.pid % 2 else "done"
            worker.policy = election.LeasePolicy(ttl=TTL, drift=DRIFT, poll_every=self.poll)
            renewer, chance = LeaseRenewer(clock), self.jitter.random

            def renew_with(_register: object, term: LeaseTerm) -> None:
                self.claim(process, term)
                renewer.add(term)
                renewer.start()

            worker._clock, worker._chance = clock, chance
            worker._candidate = Candidate(link, "job", worker.policy, clock=clock, renew_with=renew_with, chance=chance)
            self.prepare(process, worker)
            worker._begin(None, lambda: None)
            # A second lease, which is renewed together with the first.
            side = Candidate(link, "side", worker.policy, clock=clock, renew_with=renew_with, chance=chance)
            Thread(self.hold, (side,)).start()
            # Somebody else in the process uses the same connection, and may be the one who replaces it.
            Thread(self.watch, (Candidate(link, "other", worker.policy, clock=clock, chance=chance),)).start()
        self.workers.append((process, worker))

    def prepare(self, process: Process, worker: Worker) -> None:
        """Change what a world of another kind changes in a worker before it starts."""

    def finish(self) -> None:
        """Verify what can only be known at the end."""

    def watch(self, candidate: Candidate) -> None:
        """Observe a lease that nobody takes."""
        for _ in candidate.observe():
            pass

    def hold(self, candidate: Candidate) -> None:
        """Campaign for a lease and hold it until it is lost, for ever."""
        while True:
            term = candidate.campaign()  # not `with`: a process that is killed resigns nothing
            term.lost.wait()
            term.resign()

    def pause(self, process: Process, seconds: float) -> None:
        process.pauses.append((max(self.now, process.paused_until), self.now + seconds))
        process.paused_until = max(process.paused_until, self.now + seconds)

    def victim(self, fault: Fault) -> tuple[Process, Worker]:
        """Whom it hits: by number, or who leads."""
        leaders = [p for p, term in self.claims if p.alive and term.name == "job" and self.valid(p, term)]
        someone = self.workers[fault.who % len(self.workers)]
        return next((w for w in self.workers if w[0] in leaders), someone) if fault.who == LEADER else someone

    def strike(self, fault: Fault) -> None:
        """Let one fault happen."""
        if not self.workers:
            return
        process, worker = self.victim(fault)
        end = self.now + fault.seconds
        self.strikes += 1
        match fault.kind:
            case "pause":
                process.pause_in = (self.rng.randrange(12), fault.seconds)
            case "cut":
                process.cut_until = end
            case "late":  # the next answer comes late, and then none
                process.late = fault.seconds
            case "slow":
                self.slow_until = end
            case "loss":
                self.loss_until = end
            case "twice":
                self.twice_until = end
            case "restart" | "flush" | "evict":
                self.lose(fault)
            case "fail":
                self.failing.add(process)
            case "down":
                self.store.down_until = end
            case "kill":
                self.workers.remove((process, worker))
                process.die()
                self.after(fault.seconds, self.bear)
            case "fork":
                self.fork(process)
            case "ask":
                self.ask()
            case "spoil":
                self.spoil()
                self.after(fault.seconds, self.forget_lease)
            case "stop":
                with self.acting_for(process):
                    assert worker._run
                    worker._run.ask_to_stop("asked to stop")
                self.workers.remove((process, worker))
                self.after(fault.seconds, process.die)
                self.after(fault.seconds, self.bear)
        self.quiet_since = max(self.quiet_since, end)

    def lose(self, fault: Fault) -> None:
        """The store loses all cells."""
        self.expect_no_loss()
        self.lose_cells(fault)

    def expect_no_loss(self) -> None:
        """What happens to the store now must cost no leader its term, if no other fault was near (rules 6, 12)."""
        calm = self.now > self.quiet_since + TTL
        strikes = self.strikes
        for process, term in self.claims:
            if calm and self.valid(process, term):
                self.after(TTL, self.verify_kept, process, term, strikes)

    def lose_cells(self, fault: Fault) -> None:
        """The store loses them."""
        self.store.lose(fault.kind, self.now, self.rng)

    def verify_kept(self, process: Process, term: LeaseTerm, strikes: int) -> None:
        """A lease after its record was lost, the term goes on or was ended by its holder."""
        kept = self.valid(process, term) or term._ended in ("resigned", "asked to hand over") or not process.alive
        if strikes == self.strikes and not kept:
            self.broken = Broken(f"a healthy leader (fence {term.fence}) lost its term by {self.now:.3f}")

    def fork(self, process: Process, pid: int = 0) -> None:
        """A child with copies of all terms of its parent, which nobody renews."""
        child = Process(self, pid or next(self.pids), process.offset, process.rate)
        for owner, term in list(self.claims):
            if owner is process:
                inherited = copy.copy(term)
                inherited._clock = SimClock(child)
                self.claims.append((child, inherited))

    def ask(self) -> None:
        """Somebody asks the leader to hand over, in one moment."""
        found = self.store.cells.get("job")
        if found:
            record = readable(found[0])
            if record and record.state is election.record.State.HELD:
                asked = replace(record, asked=True)
                self.store.swap("job", asked.encode(), found[1])

    def spoil(self) -> None:
        """Somebody overwrites the record, in one moment, and is gone."""
        data, version = self.store.cells.get("job", (b"", None))
        spoilt = [b"", b"not a lease", data[:-1], SPOILT % b"open", SPOILT % b"held", data[:-1] + LONG + data[-1:]]
        # A record that nobody can read is lost, with what it told of slots: as after a flush.
        self.store.losses += self.store.swap("job", self.rng.choice(spoilt), version) is not None

    def forget_lease(self) -> None:
        """Somebody runs `politics forget`, in one moment."""
        with self.acting_for(self.processes[0]):
            election.cell.forget(Hand(self.store), "job")
        self.forgotten += 1

    # The verifier.

    def claim(self, process: Process, term: LeaseTerm) -> None:
        """A term begins."""
        self.claims.append((process, term))
        if not self.valid(process, term):
            return  # paused since it was elected
        self.terms += 1
        if term.fence <= (highest := self.highest_fence.get(term.name, 0)):
            self.broken = Broken(f"fence {term.fence} after {highest}")
        self.highest_fence[term.name] = term.fence

    def valid(self, process: Process, term: LeaseTerm) -> bool:
        """Whether the process would say now that its term is valid; looking at it pauses nobody."""
        thread, self.thread = self.thread, None
        acting, self._process = self._process, process  # not `acting_for`: half of a run is spent here
        try:
            return process.alive and term.valid
        finally:
            self.thread, self._process = thread, acting

    def verify(self) -> None:
        """At most one valid term of each lease, in true time."""
        valid = [(process, term) for process, term in self.claims if self.valid(process, term)]
        names = [term.name for _, term in valid]
        if len(names) > len(set(names)):
            who = ", ".join(
                f"{p.pid} ({t.name}, fence {t.fence}, until {self._true_deadline(p, t):.3f})" for p, t in valid
            )
            raise Broken(f"two leaders at {self.now:.3f}: {who}")
        if "job" in names:
            self.led_at = self.now
        else:
            self._verify_liveness()
        if len(self.claims) > 30:
            # What ended long ago cannot come back unless by a mistake that shows soon.
            self.claims = self.claims[-20:] + [c for c in self.claims[:-20] if c in valid]

    def _true_deadline(self, process: Process, term: LeaseTerm) -> float:
        return (term._lease.deadline - process.offset) / process.rate

    def _verify_liveness(self) -> None:
        gap = self.now - self.led_at
        self.longest_gap = max(self.longest_gap, gap)
        # A lease for a leader that died, one for a record that was lost, and what was on its way when quiet came.
        bound = 2 * TTL * (1 + DRIFT) / (1 - DRIFT) + 4 * self.poll + 2 * TIMEOUT + 3 * TTL
        bound += self.lost_hint
        if self.workers and self.now - max(self.led_at, self.quiet_since) > bound:
            raise Broken(f"no leader from {self.led_at:.3f} to {self.now:.3f}, quiet since {self.quiet_since:.3f}")

    def slot_started(self, term: politics.Term) -> None:
        """A slot's work begins: for the first time, or as a takeover, or after the record that told of it was lost."""
        if not self.valid(self.current_process(), term._lead):
            return  # paused since it looked: what it does now is for the fence to stop
        before = self.started.get(term.iteration)
        if before is not None and not term.takeover and before == self.store.losses:
            self.broken = Broken(f"slot {term.iteration} was started twice without takeover, at {self.now:.3f}")
        self.takeovers += term.takeover
        self.failed.pop(term.iteration, None)
        if any(slot < term.iteration and losses == self.store.losses for slot, losses in self.failed.items()):
            self.broken = Broken(
                f"slot {term.iteration} was started before an earlier one that failed, at {self.now:.3f}"
            )
        cell = self.store.cells.get("job")
        record = readable(cell[0]) if cell else None
        told = record is not None and record.fence == term.fence
        self.started[term.iteration] = self.store.losses if told else -1

    def must_fail(self, term: politics.Term, again: bool) -> bool:
        """Whether the work fails now. If it is to be run `again`, no later slot may be started before this one."""
        process = self.current_process()
        if process not in self.failing:
            return False
        self.failing.discard(process)
        if again and self.valid(process, term._lead) and self.started.get(term.iteration) != -1:
            self.failed[term.iteration] = self.store.losses
        return True

    def effect(self, term: politics.Term) -> None:
        """A fenced effect: one with an old fence is refused."""
        self.refused += term.fence < self.sink
        self.sink = max(self.sink, term.fence)

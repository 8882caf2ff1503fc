"""A world in which the workers have a schedule: wall clocks that are wrong, orders, and an account of each tick.

Time of day is the world's time. The clock of each process is wrong by an amount of its own, which faults change.
"""

import contextlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from unittest.mock import patch

import politics.worker.agenda
import politics.worker.ticks
from election import Event
from election.cell import order
from election.events import EventKind
from election.record import Record, State
from politics.worker.agenda import PAUSED, TRIGGER
from politics.worker.schedule import Every
from politics.worker.ticks import FAILED, NONE, RAN, REASONS, RUNNING, Rules, Tick, read_note
from tests.simulation import threads
from tests.simulation.store import TTL, Hand
from tests.simulation.threads import Process
from tests.simulation.world import ITERATION, KINDS, Broken, Fault, Worker, World, readable

EPOCH = 10**12
STEP = round(ITERATION * 1000)
SKEW = 2000
"""Milliseconds by which a wall clock is wrong at most. So two are at most twice as far apart."""
LATEST = 14.0
"""Seconds after which what was due or ordered in quiet must have been dealt with: the longest work, and a lease."""
TICKS = (*KINDS, "clock", "clock", "clock", "trigger", "trigger", "halt", "resume", "resume")
"""The faults of other worlds, and clocks that are set, and operators who trigger, pause and resume."""
LEAPS = tuple(kind for kind in TICKS if kind not in ("restart", "flush", "evict"))
"""Those that lose no record."""
ENDS = (EventKind.SLOT_DONE, EventKind.SLOT_FAILED, EventKind.SLOT_INTERRUPTED)


class Scheduled(Worker):
    """The worker under attack, with a schedule."""

    iteration_length = ITERATION

    def perform(self, term: politics.Term) -> None:
        world = here()
        world.slot_started(term)
        if world.must_fail(term, again=self.on_error == "retry"):
            raise ValueError("the work failed")
        for _ in range(world.rng.choice([0, 1, 3, 20])):
            term.check()
            term.remaining()
            world.effect(term)
            if term.lost.wait(world.rng.uniform(0, 0.3)):
                term.check()

    def on_event(self, event: Event) -> None:
        here().happened(event)


def here() -> "TickWorld":
    """The world that runs now."""
    world = threads.world()
    assert isinstance(world, TickWorld)
    return world


@dataclass
class Account:
    """What became of one tick: its runs, its events, and who wrote into the record that it is dealt with, and when."""

    started: int = 0
    endings: list[tuple[float, EventKind]] = field(default_factory=list)
    """All but those that say that they may have been said before."""
    said: bool = False
    """Whether there was any at all."""
    skipped: bool = False
    recorded: tuple[float, Process] | None = None
    overrun: bool = False


class TickWorld(World):
    """A world whose workers have a schedule. The seed decides what the group does with its ticks."""

    worker = Scheduled
    wrong_by = SKEW

    def __init__(self, seed: int, faults: list[Fault], seconds: float, **more: Any) -> None:
        self.dice = random.Random(f"ticks {seed}")
        self.rules = Rules(
            "job",
            Every(ITERATION),
            catch_up=self.dice.choice(["latest", "latest", "all", "skip"]),
            deadline=self.dice.choice([None, None, 4000]),
            jitter=self.dice.choice([0, 0, 900]),
            lateness=round(TTL * 1000) + 1000,
            rerun=self.dice.random() < 0.8,
        )
        self.accounts: dict[int, Account] = {}
        self.wrong: dict[Process, int] = {}
        self.holders: dict[str, Process] = {}
        self.begun: dict[Process, tuple[int, int]] = {}
        self.outrun: dict[Process, tuple[int, int | None, range]] = {}
        self.last: Tick | None = None
        """The tick in the last record that had one."""
        self.base = self.highest = self.held = 0
        self.lost_at = self.paused_at = -1.0
        self.ordered: tuple[str, float] = ("", 0.0)
        self.carried_out: dict[str, int] = {}
        self.operating = False
        self.orders = itertools.count(1)
        self.skips = self.overruns = self.pauses = self.triggers = 0
        super().__init__(seed, faults, seconds, **more)
        for store in self.stores:
            store.landed = self.landed

    # Clocks and operators.

    def wall_ms(self) -> int:
        """The time of day on the clock of the process that runs."""
        return self.true_ms + self.wrong[self.current_process()]

    @property
    def true_ms(self) -> int:
        return round(self.now * 1000) + EPOCH

    @contextlib.contextmanager
    def _reigning(self) -> Iterator[None]:
        with super()._reigning(), patch.object(politics.worker.agenda, "wall_ms", self.wall_ms):
            if not politics.worker.ticks.DOUBT_MS:
                yield
                return
            with patch.object(politics.worker.ticks, "DOUBT_MS", 2 * SKEW):
                yield

    def prepare(self, process: Process, worker: Worker) -> None:
        self.wrong[process] = self.dice.randrange(-self.wrong_by, self.wrong_by)
        self.holders[worker._candidate.id] = process
        worker._rules = self.rules
        if not self.rules.rerun:
            worker.on_error = "done"

    def strike(self, fault: Fault) -> None:
        match fault.kind:
            case "clock" if self.workers:
                self.wrong[self.victim(fault)[0]] = self.dice.randrange(-self.wrong_by, self.wrong_by)
            case "trigger":
                self.operate({TRIGGER: f"order {next(self.orders)}"})
            case "halt":
                self.operate({PAUSED: True})
            case "resume":
                self.operate({PAUSED: False})
        super().strike(fault)

    def operate(self, orders: dict[str, Any]) -> None:
        """Somebody writes orders into the record, in one moment."""
        found = self.store.cells.get("job")
        if found and readable(found[0]):
            self.operating = True
            with self.acting_for(self.processes[0]):
                order(Hand(self.store), "job", lambda record: {**record.orders, **orders})
            self.operating = False

    # The verifier: what is in the record.

    def landed(self, name: str, before: bytes | None, data: bytes) -> None:
        """A record was written over another one."""
        old, new = readable(before) if before else None, readable(data)
        if name == "job" and new:
            if new.state is State.HELD:
                if old and old.state is State.VACANT and new.fence != self.held:
                    self.lost_at = self.now
                self.held = new.fence
            self._look_at_orders(old, new)
            if tick := read_note(new.note):
                self._look_at_tick(old, tick, new.fence, self.holders[new.holder])

    def _look_at_orders(self, old: Record | None, new: Record) -> None:
        """Orders are changed by operators alone, and by a holder that puts its record back."""
        orders = dict(new.orders)
        kept = old is None or old.orders == orders or (old.state is State.VACANT and orders == {**orders, **old.orders})
        if not kept and not self.operating:
            self.broken = Broken(f"orders {old and dict(old.orders)} became {orders} at {self.now:.3f}")
        if not orders.get(PAUSED):
            self.paused_at = -1.0
        elif self.paused_at < 0:
            self.paused_at, self.pauses = self.now, self.pauses + 1
        if (name := str(orders.get(TRIGGER, ""))) != self.ordered[0]:
            self.ordered = name, self.now

    def _look_at_tick(self, old: Record | None, tick: Tick, fence: int, process: Process) -> None:
        """Note which ticks this record says are dealt with, and who wrote it."""
        last, self.last = self.last, tick
        unknown = old is None or (old.state is State.VACANT and read_note(old.note) is None)
        if last is None or tick.work == NONE or (unknown and tick.at % STEP):
            self.base = max(self.base, tick.at)  # whoever knows of no tick begins with the next one
        ended, led, outrun = self.outrun.pop(process, (0, 0, range(0)))
        if (ended, led) == (tick.at, fence) and tick.work in (
            RAN,
            FAILED,
        ):  # otherwise the leader was lost before it wrote this
            self.overruns += len(outrun)
            for at in outrun:
                self.account(at).overrun = True
        if last and (tick.passed, tick.at) > (last.passed, last.at):
            for at in {*self.grid(last.passed, tick.passed), tick.at}:
                self.account(at).recorded = self.now, process

    def account(self, tick: int) -> Account:
        return self.accounts.setdefault(tick, Account())

    def grid(self, after: int, last: int) -> range:
        """The ticks of the schedule after `after`, up to and with `last`."""
        return range((after // STEP + 1) * STEP, last + 1, STEP)

    # The verifier: what is run, and what is said of it.

    def slot_started(self, term: politics.Term) -> None:
        """A tick's work begins: for the first time, and later than all others, or as a takeover."""
        tick, process = term.iteration, self.current_process()
        if not self.valid(process, term._lead):
            return  # paused since it looked: what it does now is for the fence to stop
        account = self.account(tick)
        self.takeovers += term.takeover
        wrong = ""
        if account.started and not self.rules.rerun:
            wrong = "was run again, which is forbidden"
        elif term.takeover:
            pass
        elif account.started:
            wrong = "was started twice without takeover"
        elif tick <= self.highest:
            wrong = f"was started after {self.highest}, without takeover"
        elif account.skipped:
            wrong = "was started although it was skipped"
        elif account.overrun:
            wrong = "was started although it came due while the one before still ran"
        elif 0 <= self.paused_at < (account.recorded or (0.0,))[0] and not tick % STEP:
            wrong = f"was begun after a pause at {self.paused_at:.3f}"
        elif any(losses == self.store.losses for losses in self.failed.values()):
            wrong = "was started before an earlier one that failed"
        if tick % STEP:
            wrong = wrong or self._look_at_trigger(term)
        if wrong:
            self.broken = Broken(f"tick {tick} {wrong}, at {self.now:.3f}")
        account.started += 1
        self.failed.pop(tick, None)
        self.highest = max(self.highest, tick)

    def _look_at_trigger(self, term: politics.Term) -> str:
        """Return what is wrong with a run that was ordered."""
        cell = self.store.cells.get("job")
        record = readable(cell[0]) if cell else None
        tick = read_note(record.note) if record and record.fence == term.fence else None
        if not tick or tick.at != term.iteration:
            return ""
        self.triggers += 1
        known = self.carried_out.setdefault(tick.trigger, tick.at)
        return "" if known == tick.at else f"carries out {tick.trigger!r}, which {known} has done"

    def must_fail(self, term: politics.Term, again: bool) -> bool:
        process = self.current_process()
        if process not in self.failing:
            return False
        self.failing.discard(process)
        if again and self.valid(process, term._lead):
            self.failed[term.iteration] = self.store.losses
        return True

    def happened(self, event: Event) -> None:
        """A worker reports something."""
        process = self.current_process()
        if not event.tick or not process.alive:
            return
        tick, kind = round(datetime.fromisoformat(event.tick).timestamp() * 1000), event.kind
        if kind is EventKind.SLOT_STARTED:
            self.begun[process] = self.wall_ms(), self.wrong[process]
        elif kind in ENDS:
            self._end(tick, event)
            if kind is not EventKind.SLOT_INTERRUPTED and tick not in self.failed and process in self.begun:
                self.outrun[process] = tick, event.fence, self._find_overruns(tick, *self.begun[process])
        elif kind is EventKind.SLOTS_SKIPPED:
            self.skips += 1
            assert event.count
            first = tick - (event.count - 1) * STEP
            for at in {*self.grid(first - 1, tick), tick}:
                self._skipped(at, event)

    def _find_overruns(self, tick: int, begun: int, wrong: int) -> range:
        """Return the ticks that came due while the work of one ran, if the clock was not set meanwhile."""
        following = self.rules.following(tick)
        assert following
        if self.wrong[self.current_process()] == wrong and self.rules.due(following) > begun:
            return self.grid(tick, self.wall_ms() - self.rules.jitter)
        return range(0)

    def _skipped(self, tick: int, event: Event) -> None:
        """A tick is said to be skipped: only once, unless it is said that it may have been said before."""
        account = self.account(tick)
        done = [kind for at, kind in account.endings if at > self.lost_at and kind is not EventKind.SLOT_INTERRUPTED]
        interrupted = event.reason == REASONS["interrupted"]
        if done and not event.takeover and not interrupted:
            self.broken = Broken(f"tick {tick} was skipped ({event.reason}) after {done}, at {self.now:.3f}")
        account.skipped = True
        self._end(tick, event)

    def _end(self, tick: int, event: Event) -> None:
        account = self.account(tick)
        account.said = True
        if not event.takeover:
            account.endings.append((self.now, event.kind))

    def finish(self) -> None:
        """Every tick that is dealt with has an event, and everything that was due is dealt with."""
        if not (last := self.last):
            return
        for tick in self.grid(self.base, last.passed):
            account = self.account(tick)
            if account.said or (tick == last.at and last.work == RUNNING):
                continue
            raise Broken(f"nothing was said of tick {tick}: {account}")
        late = self.true_ms - self.wrong_by - self.rules.jitter - STEP - round(LATEST * 1000) - last.passed
        if late > 0 and self.workers:
            raise Broken(f"ticks up to {last.passed} are dealt with, and it is {late} ms late")
        if self.ordered[0] not in ("", last.trigger) and max(self.ordered[1], self.quiet_since) < self.now - LATEST:
            raise Broken(f"{self.ordered[0]!r} was not carried out")


class LeapWorld(TickWorld):
    """Clocks that are wrong by more than we assume. No record may be lost in it together with its leader."""

    wrong_by = 10 * SKEW

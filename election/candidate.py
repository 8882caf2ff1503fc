"""Campaign for a lease, watch who holds it, ask its holder to hand it over."""

import contextlib
import logging
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tenacity import RetryCallState, retry_if_exception_type

from election.cell import LeaseCell, read_record
from election.clock import Clock, SystemClock, wall_ms
from election.errors import BadRecord, NotElected, StoreUnavailable, StoreUnusable
from election.events import Event, EventKind, OnEvent, tell
from election.forks import fork_detector
from election.lease import Lease, LeasePolicy
from election.record import MAX_NUMBER, Record, State, check_name, no_room
from election.register import Register
from election.renewer import renew_in_background
from election.retries import Reminder, retrying
from election.rules import Adopt, Ask, Post, Take, View, Wait, after_hint, next_look, next_step
from election.term import LeaseTerm, Note, read_note

log = logging.getLogger("election")

T = TypeVar("T")

Plan = Callable[[View], Note | None]
"""Called with each look at the cell. Returns what to write beside the lease if it is taken now; None to stand by."""


@dataclass(frozen=True, slots=True)
class Leader:
    """The leader, as an observer sees it."""

    holder: str
    host: str
    pid: int
    fence: int
    note: Mapping[str, Any] = field(compare=False)


class Candidate:
    """One contender for the lease `name` in a store.

    Constructing it does no I/O. One thread at a time uses it; `nudge` and everything of the terms that it returns may
    be used from any. In a forked child it is another candidate, which holds nothing.

    Args:
        register: the store, from `open_register`.
        name: the lease; printable, at most 80 bytes of UTF-8.
        policy: the timings, the same for every candidate of this name.
        clock: for tests.
        renew_with: called with each new term, to have it renewed; by default one thread renews all leases that are
            held through `register`.
        on_event: called with each `Event`, in the thread in which it happens. It must return at once.
        chance: for tests: returns a random number, at least 0 and less than 1, for the jitter of retries.

    Raises:
        BadPolicy: the name or the timings cannot work.
    """

    def __init__(
        self,
        register: Register,
        name: str,
        policy: LeasePolicy | None = None,
        *,
        clock: Clock | None = None,
        renew_with: Callable[[Register, LeaseTerm], None] = renew_in_background,
        on_event: OnEvent | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = check_name(name)
        self.policy = policy or LeasePolicy()
        self._register = register.shard(name)
        self._clock = clock or SystemClock()
        self._renew_with, self._on_event, self._chance = renew_with, on_event, chance
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._cell = LeaseCell(self._register, self.name)
        self.view = View()
        """What it has seen of the cell."""
        self._left: tuple[Record, Any, float, str] | None = None
        self._wake = threading.Event()
        self._hints_full = 0.0
        self._silence = Reminder(log, self._clock)
        self._seen_to_lead: int | None = None

    def _begin_in_child(self) -> None:
        """Become another candidate, which has seen nothing, if this process is a fork of the one that made it."""
        if self._forked():
            self._begin()

    @property
    def id(self) -> str:
        """Who this is, in the records that it writes."""
        return self._cell.id

    def attempt(self, plan: Plan = lambda _view: {}) -> LeaseTerm | None:
        """Look at the cell once, and lead if it can be taken now.

        Just after a term of our own has resigned, the first look is left out: we know what we left behind, and the
        swap fails if somebody wrote since.

        Args:
            plan: see `Plan`.

        Raises:
            StoreUnavailable: the store did not answer; the next attempt finds out whether a takeover has landed.
            BadRecord: the cell holds something that is not ours.
        """
        return self._attempt(plan, polled=False)

    def _attempt(self, plan: Plan, *, polled: bool) -> LeaseTerm | None:
        """Do what `attempt` says. Where the cell is `polled`, and so has hardly changed, ask for its version first."""
        self._begin_in_child()
        left, self._left = self._left, None
        if left and self._clock.now() - left[2] > self.policy.poll:
            left = None  # others have looked since, so it is hardly still there
        if left:
            self.view = self.view.see(*left)
        else:
            self._look(polled=polled)
        note = plan(self.view)
        remembers: bool | None = None
        while note is not None:
            match next_step(self.view, self.id, self.policy, self._clock.now(), wall_ms(), remembers):
                case Wait():
                    return None
                case Ask(seconds):
                    remembers = self._register.remembers(seconds)
                case Post(fence):
                    if not self._post(fence):
                        return None
                case Take(fence):
                    self._refuse_without_room(fence)
                    term = self._take(fence, note)
                    return self._attempt(plan, polled=False) if left and not term else term
                case Adopt(sent):
                    assert self.view.record is not None
                    return self._lead(Lease(self.view.record, self.view.version, sent, self.policy), note)
        return None

    def _look(self, *, polled: bool) -> None:
        try:
            if not polled or self.view.record is None or self._register.version(self.name) != self.view.version:
                record, version = self._cell.read()
                self._see(record, version)
        except BadRecord:
            self._report(None)
            raise
        record = self.view.record
        self._report(record if record is not None and self._is_led(record) else None)

    def _see(self, record: Record | None, version: Any) -> None:
        """Take note of what is in the cell, as the store has just said."""
        self.view = self.view.see(record, version, self._clock.now(), self._cell.generation(version))

    def _report(self, leader: Record | None) -> None:
        """Tell who is seen to lead, once for each leader."""
        fence = leader.fence if leader else 0
        if fence != self._seen_to_lead:
            self._seen_to_lead = fence
            if not (self._on_event or log.isEnabledFor(logging.DEBUG)):
                return
            event = Event(EventKind.LED, self.name, fence) if leader else Event(EventKind.LEADERLESS, self.name)
            log.debug("%s: %s leads", self.name, leader or "nobody", extra=tell(self._on_event, event))

    def _post(self, fence: int) -> bool:
        posted = self._cell.post_vacancy(fence, ttl=self.policy.ttl, note={}, orders={}, unknown={})
        if posted:
            self._see(*posted)
        return posted is not None

    def _refuse_without_room(self, fence: int) -> None:
        """Refuse to write a fence that nobody could read."""
        if fence > MAX_NUMBER:
            self.view = View()  # that number is nobody's: do not count from it once the record has been replaced
            raise no_room(self.name)

    def _take(self, fence: int, note: Note) -> LeaseTerm | None:
        before, sent = self.view.record, self._clock.now()
        orders, unknown = (before.orders, before.unknown) if before else ({}, {})
        written = read_note(note, sent)
        over = self.view.version
        record = self._cell.record(
            fence, State.HELD, ttl=self.policy.ttl, note=written, orders=orders, unknown=unknown, over=over
        )
        data = record.encode()
        self.view = self.view.after_trying((record.seq, sent))
        version = self._register.swap(self.name, data, over)
        if version is None:
            return None
        self._see(record, version)
        takeover = before is not None and before.state is State.HELD
        return self._lead(Lease(record, version, sent, self.policy), note, takeover)

    def _lead(self, lease: Lease, note: Note, takeover: bool | None = None) -> LeaseTerm | None:
        self.view = self.view.after_trying(None)
        term = LeaseTerm(self._cell, lease, note=note, clock=self._clock, on_open=self._leave, on_event=self._on_event)
        self._seen_to_lead = term.fence
        if self._on_event or log.isEnabledFor(logging.DEBUG):
            event = Event(EventKind.ELECTED, self.name, term.fence, takeover=takeover, until=lease.deadline)
            log.debug("%s: elected (fence %d)", self.name, term.fence, extra=tell(self._on_event, event))
        if lease.record.asked:
            term.ask_to_stop("asked to hand over")
        self._renew_with(self._register, term)
        return term if term.valid else None

    def _leave(self, record: Record, version: Any) -> None:
        self._left = record, version, self._clock.now(), self._cell.generation(version)

    def campaign(
        self,
        timeout: float | None = None,
        *,
        plan: Plan = lambda _view: {},
        stop: threading.Event | None = None,
    ) -> LeaseTerm:
        """Wait until this candidate leads, and return its term: `with candidate.campaign() as term: …`.

        While the store does not answer, it is asked again after pauses that grow and are random (`election.retries`).
        That the store is silent is logged when it begins and then once a minute, and so is its return.

        Args:
            timeout: seconds to wait at most; None: for as long as it takes.
            plan: what to write beside the lease, and whether to take it, decided anew at each look.
            stop: ends the campaign at its next look, once it is set; call `nudge` as well to end it at once.

        Raises:
            NotElected: the time is over, or `stop` is set.
            StoreUnusable: this candidate has not seen the store yet, and waiting would change nothing.
            BadRecord: the cell holds something that is not ours.
        """
        end = float("inf") if timeout is None else self._clock.now() + timeout

        def left() -> float:
            return end - self._clock.now()

        nudged = True

        def work() -> LeaseTerm | None:
            return self._attempt(plan, polled=not nudged)

        with self._watching() as pause:
            while True:
                with contextlib.suppress(StoreUnavailable):  # the campaign is over
                    if term := self._ask_store(work, stop, left):
                        return term
                if left() <= 0:
                    raise NotElected(f"{self.name}: not elected within {timeout:g} s")
                nudged = self._clock.wait(self._wake, min(pause(), left()))

    @contextlib.contextmanager
    def _watching(self) -> Iterator[Callable[[], float]]:
        """Look at each hint inside the block. Yields a function that returns the seconds until the next look."""
        self._begin_in_child()
        forked, hints = self._forked, self._register.watch(self.name, self.nudge)

        def pause() -> float:
            live = hints is not None and hints.live and not forked()
            return next_look(self.view, self.policy, self._clock.now() if live else math.inf, live)

        try:
            yield pause
        finally:
            if hints and not forked():
                hints.close()

    def _ask_store(
        self, work: Callable[[], T], stop: threading.Event | None, left: Callable[[], float] = lambda: float("inf")
    ) -> T:
        """Do `work`, again while the store does not answer.

        Raises:
            NotElected: `stop` is set.
            StoreUnavailable: the store did not answer, and nothing is `left` of the time or `stop` is set.
        """
        # First of all: the pauses below wait on the event that `nudge` sets, and a child has one of its own.
        self._begin_in_child()

        def stopped() -> bool:
            return stop is not None and stop.is_set()

        def look() -> T:
            if self._wake.is_set() and not stopped():  # a storm of hints must not become one of looks
                now = self._clock.now()
                look_at, self._hints_full = after_hint(self._hints_full, self.policy, now)
                if look_at > now:
                    self._clock.wait(stop or threading.Event(), min(look_at - now, left()))
            self._wake.clear()
            if stopped():
                raise NotElected(f"{self.name}: told to stop")
            return work()

        try:
            result = look()
        except StoreUnavailable as exc:
            failed = [exc]

            def look_again() -> T:
                """Fail as the first look did, which was made without the cost of this, and then look."""
                if failed:
                    raise failed.pop()
                return look()

            again = retrying(
                self._clock,
                first=self.policy.poll,
                longest=self.policy.longest_pause,
                retry=retry_if_exception_type(StoreUnavailable),
                wake=self._wake,
                stop=lambda _state: stopped() or left() <= 0,
                before_sleep=self._report_silence,
                left=left,
                chance=self._chance,
            )
            result = again(look_again)
        if self._silence.over():
            event = Event(EventKind.STORE_ANSWERS, self.name)
            log.info("%s: the store answers again", self.name, extra=tell(self._on_event, event))
        return result

    def _report_silence(self, state: RetryCallState) -> None:
        """Log that the store does not answer, once a minute. At the start some errors need no waiting."""
        trouble = state.outcome.exception() if state.outcome else None
        if self._seen_to_lead is None and isinstance(trouble, StoreUnavailable) and trouble.permanent:
            raise StoreUnusable(f"{self.name}: {trouble}") from trouble
        begins = self._silence.trouble is None
        if self._silence.due("silence"):
            event = Event(EventKind.STORE_SILENT, self.name, reason=str(trouble))
            fields = tell(self._on_event, event) if begins else event.fields
            lasts = "" if begins else f" for {self._silence.lasted:.0f} s"
            log.warning("%s: waiting for the store%s: %s", self.name, lasts, trouble, extra=fields)

    def nudge(self) -> None:
        """Make a running campaign or observation look at once. This is only a hint; it decides nothing."""
        self._begin_in_child()
        self._wake.set()

    def observe(self, stop: threading.Event | None = None) -> Iterator[Leader | None]:
        """Yield who leads, now and at each change; None while nobody does. Ends once `stop` is set, as a campaign does.

        Raises:
            StoreUnusable: as for `campaign`.
            BadRecord: the cell holds something that is not ours.
        """
        seen: Leader | str | None = "nothing yet"
        with contextlib.suppress(NotElected, StoreUnavailable):  # told to stop
            nudged = True

            def work() -> None:
                self._look(polled=not nudged)

            with self._watching() as pause:
                while True:
                    self._ask_store(work, stop)
                    leader = self._leader()
                    if leader != seen:
                        seen = leader
                        yield leader
                    nudged = self._clock.wait(self._wake, pause())

    def _is_led(self, record: Record) -> bool:
        return record.state is State.HELD and self._clock.now() < self.view.free_at(self.policy)

    def _leader(self) -> Leader | None:
        record = self.view.record
        if record is None or not self._is_led(record):
            return None
        return Leader(record.holder, record.host, record.pid, record.fence, record.note)


def look(register: Register, name: str) -> Record | None:
    """Return the record of the lease `name`, in any state; None if there is none.

    One that the store has brought back is returned as the forgotten vacancy that it counts for, and is `foreign`.

    Raises:
        StoreUnavailable: the store did not answer.
        BadRecord: the cell holds something that is not ours.
    """
    return read_record(register.shard(check_name(name)), name)[0]

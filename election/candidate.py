"""Campaign for a lease, watch who holds it, ask its holder to hand it over."""

import itertools
import logging
import math
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from election import renewer
from election.clock import Clock, SystemClock
from election.errors import NotElected, StoreUnavailable
from election.events import Event, EventKind, OnEvent, tell
from election.lease import Lease, LeasePolicy
from election.record import Record, State, check_name, decode
from election.register import Register
from election.rules import Adopt, Ask, Post, Take, View, Wait, next_step
from election.term import LeaseTerm, Note, read_note, wall_ms

log = logging.getLogger("election")

Plan = Callable[[View], Note | None]
"""Called with each look at the cell: what to write beside the lease if it can be taken now; None: stand by."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as far as an observer can tell."""

    holder: str
    host: str
    pid: int
    fence: int
    note: Mapping[str, Any] = field(compare=False)


class Candidate:
    """One contender for the lease `name` in a store.

    Constructing it does no I/O. It is used by one thread at a time; `nudge` and everything of the terms that it yields
    may be used from any. In a forked child it is another candidate, which holds nothing.

    Args:
        register: the store, from `open_register`.
        name: the lease; printable, at most 80 bytes of UTF-8.
        policy: the timings, the same for every candidate of this name.
        clock: for tests.
        keep: who renews the terms; by default one thread for all leases held through `register`.
        on_event: called with each `Event`, in the thread in which it happens: it must return at once.

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
        keep: Callable[[Register, LeaseTerm], None] = renewer.keep,
        on_event: OnEvent | None = None,
    ) -> None:
        self.name = check_name(name)
        self.policy = policy or LeasePolicy()
        self._register = register.shard(name)
        self._clock = clock or SystemClock()
        self._keep, self._on_event = keep, on_event
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.id = uuid.uuid4().hex
        """Who this is, in the records that it writes."""
        self.view = View()
        """What it has seen of the cell."""
        self._seq = itertools.count(1)
        self._host = socket.gethostname()[:64]
        self._left: tuple[Record, Any] | None = None
        self._wake = threading.Event()
        self._unreachable = False
        self._seen_to_lead: int | None = None

    def attempt(self, plan: Plan = lambda _view: {}) -> LeaseTerm | None:
        """Look at the cell once, and lead if it can be taken now.

        The first look after a term of our own has resigned is spared: we know what we left behind, and the swap fails
        if somebody has been there since.

        Raises:
            StoreUnavailable: the store did not answer; whether a takeover has landed shows at the next attempt.
            BadRecord: the cell holds something that is not ours.
        """
        if os.getpid() != self._pid:
            self._begin()
        left, self._left = self._left, None
        if left:
            self.view = self.view.see(*left, self._clock.now())
        else:
            self._look()
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
                    term = self._take(fence, note)
                    return self.attempt(plan) if left and not term else term
                case Adopt(sent):
                    assert self.view.record is not None
                    return self._lead(Lease(self.view.record, self.view.version, sent, self.policy), note)
        return None

    def _look(self) -> None:
        cell = self._register.read(self.name)
        record = decode(self.name, cell.data) if cell else None
        self.view = self.view.see(record, cell.version if cell else None, self._clock.now())
        leader = self._leader()
        fence = leader.fence if leader else 0
        if fence != self._seen_to_lead:
            self._seen_to_lead = fence
            event = Event(EventKind.LED, self.name, fence) if leader else Event(EventKind.LEADERLESS, self.name)
            log.debug("%s: %s leads", self.name, record if leader else "nobody", extra=tell(self._on_event, event))

    def _record(self, fence: int, state: State, note: Mapping[str, Any]) -> Record:
        return Record(
            fence=fence,
            holder=self.id,
            seq=next(self._seq),
            # Rounded up: no challenger may think the lease shorter than its holder does.
            ttl_ms=math.ceil(self.policy.ttl * 1000),
            state=state,
            host=self._host,
            pid=self._pid,
            at_ms=wall_ms(),
            note=note,
            unknown=self.view.record.unknown if self.view.record else {},
        )

    def _post(self, fence: int) -> bool:
        record = self._record(fence, State.VACANT, {})
        version = self._register.swap(self.name, record.encode(), None)
        if version is not None:
            self.view = self.view.see(record, version, self._clock.now())
        return version is not None

    def _take(self, fence: int, note: Note) -> LeaseTerm | None:
        sent = self._clock.now()
        record = self._record(fence, State.HELD, read_note(note, sent))
        data = record.encode()
        self.view = replace(self.view, attempt=(record.seq, sent))
        before = self.view.record
        version = self._register.swap(self.name, data, self.view.version)
        if version is None:
            return None
        self.view = self.view.see(record, version, self._clock.now())
        takeover = before is not None and before.state is State.HELD
        return self._lead(Lease(record, version, sent, self.policy), note, takeover)

    def _lead(self, lease: Lease, note: Note, takeover: bool | None = None) -> LeaseTerm | None:
        self.view = replace(self.view, attempt=None)
        term = LeaseTerm(self._register, self._clock, self.name, lease, self._seq, note, self._leave, self._on_event)
        self._seen_to_lead = term.fence
        event = Event(EventKind.ELECTED, self.name, term.fence, takeover=takeover, until=lease.deadline)
        log.debug("%s: elected (fence %d)", self.name, term.fence, extra=tell(self._on_event, event))
        if lease.record.asked:
            term.ask_to_stop("asked to hand over")
        self._keep(self._register, term)
        return term if term.valid else None

    def _leave(self, record: Record, version: Any) -> None:
        self._left = record, version

    def campaign(
        self,
        timeout: float | None = None,
        *,
        plan: Plan = lambda _view: {},
        stop: threading.Event | None = None,
    ) -> LeaseTerm:
        """Wait until this candidate leads, and return its term: `with candidate.campaign() as term: …`.

        A store that does not answer is reported once, and waited for.

        Args:
            timeout: seconds to wait at most; None: for as long as it takes.
            plan: what to write beside the lease, and whether to take it, decided anew at each look.
            stop: ends the campaign once it is set; `nudge` makes that prompt.

        Raises:
            NotElected: the time is over, or `stop` is set.
            BadRecord: the cell holds something that is not ours.
        """
        end = float("inf") if timeout is None else self._clock.now() + timeout
        while not (stop and stop.is_set()):
            self._wake.clear()
            try:
                term = self.attempt(plan)
                self._report(None)
                if term:
                    return term
            except StoreUnavailable as exc:
                self._report(exc)
            left = end - self._clock.now()
            if left <= 0:
                raise NotElected(f"{self.name}: not elected within {timeout:g} s")
            self._clock.wait(self._wake, min(self.policy.poll, left))
        raise NotElected(f"{self.name}: told to stop")

    def _report(self, trouble: StoreUnavailable | None) -> None:
        """Log the moments at which the store stops and starts answering, and nothing in between."""
        if trouble and not self._unreachable:
            event = Event(EventKind.STORE_SILENT, self.name, reason=str(trouble))
            log.warning("%s: waiting for the store: %s", self.name, trouble, extra=tell(self._on_event, event))
        elif self._unreachable and not trouble:
            event = Event(EventKind.STORE_ANSWERS, self.name)
            log.info("%s: the store answers again", self.name, extra=tell(self._on_event, event))
        self._unreachable = trouble is not None

    def nudge(self) -> None:
        """Make a running campaign or observation look at once. Only a hint: it decides nothing."""
        self._wake.set()

    def observe(self, stop: threading.Event | None = None) -> Iterator[Leader | None]:
        """Yield who leads, now and at each change; None while nobody does. Ends once `stop` is set.

        Raises:
            BadRecord: the cell holds something that is not ours.
        """
        seen: Leader | str | None = "nothing yet"
        while not (stop and stop.is_set()):
            self._wake.clear()
            try:
                self._look()
                self._report(None)
                leader = self._leader()
                if leader != seen:
                    seen = leader
                    yield leader
            except StoreUnavailable as exc:
                self._report(exc)
            self._clock.wait(self._wake, self.policy.poll)

    def _leader(self) -> Leader | None:
        record = self.view.record
        if record is None or record.state is not State.HELD or self._clock.now() >= self.view.free_at(self.policy):
            return None
        return Leader(record.holder, record.host, record.pid, record.fence, record.note)


def look(register: Register, name: str) -> Record | None:
    """The record of the lease `name`, whoever wrote it; None if there is none.

    Raises:
        StoreUnavailable: the store did not answer.
        BadRecord: the cell holds something that is not ours.
    """
    cell = register.shard(check_name(name)).read(name)
    return decode(name, cell.data) if cell else None


def ask_to_resign(register: Register, name: str) -> Record | None:
    """Ask the leader of `name` to hand over, and return its record; None if nobody holds the lease.

    The request lies in the record, where the leader finds it at its next renewal. It takes nothing away: a leader that
    ignores it goes on leading, and one that is dead is replaced no later for it.

    Raises:
        StoreUnavailable, BadRecord: as for `look`.
    """
    shard = register.shard(check_name(name))
    while True:
        cell = shard.read(name)
        record = decode(name, cell.data) if cell else None
        if cell is None or record is None or record.state is not State.HELD:
            return None
        if shard.swap(name, replace(record, asked=True).encode(), cell.version) is not None:
            return record

"""A term: leadership that can be proven, for as long as it can."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from election.cell import LeaseCell
from election.clock import Clock
from election.errors import BadPolicy, BadRecord, ElectionError, LeadershipLost, StoreUnavailable
from election.events import Event, EventKind, OnEvent, tell
from election.forks import fork_detector
from election.lease import Lease, LeasePolicy
from election.record import Record, State, carry_on
from election.register import Register, Swap
from election.rules import Lost, expired, reconcile, renewed

log = logging.getLogger("election")

Note = Mapping[str, Any] | Callable[[float], Mapping[str, Any]]
"""What a holder says of itself in its record: a mapping, or a function of the time that makes one at each renewal."""


def read_note(note: Note, now: float) -> Mapping[str, Any]:
    """Return the mapping to write at `now`."""
    return note(now) if callable(note) else note


class LeaseTerm:
    """One leader's time, from its election until it resigns or can no longer prove that it leads.

    All members may be used from any thread. Leaving the `with` block resigns. A forked child's copy is never valid.

    The process may be paused right after it has read `valid`, before its effect lands. So hand `fence` to the place
    where the effect lands, and let that refuse numbers smaller than the largest it has seen (`FenceGuard`).
    """

    def __init__(
        self,
        cell: LeaseCell,
        lease: Lease,
        *,
        note: Note,
        clock: Clock,
        on_open: Callable[[Record, Any], None],
        on_event: OnEvent | None = None,
    ) -> None:
        self.name = cell.name
        self.fence = lease.record.fence
        """A number that is larger than that of every earlier term of this name."""
        self.lost = LostEvent(self)
        """Set when the work must stop: the lease is over, or somebody asked the holder to hand over."""
        self.orders: Mapping[str, Any] = lease.record.orders
        """What operators have ordered (`election.cell.order`), as it was last found in the record."""
        self._cell, self._lease, self._note, self._clock = cell, lease, note, clock
        self._on_open, self._on_event = on_open, on_event
        self._rewrite: Callable[[Mapping[str, Any]], bytes] | None = None
        self._store = ""  # the generation that it names
        self._forked = fork_detector()
        self._asked = ""
        self._ended = ""
        self._left = False
        self._writing = threading.Lock()  # held by the one thread that writes, and waits for the answer
        self._settling = threading.Lock()  # held while what was confirmed is counted

    @property
    def register(self) -> Register:
        """The store that keeps the lease. For the lease renewer."""
        return self._cell.register

    @property
    def valid(self) -> bool:
        """Whether leadership is proven now. Once it is false it stays so."""
        if self._ended or self._forked():
            return False
        if self._clock.now() < self._lease.deadline:
            return True
        # False once is false for ever, even if a renewal is just being answered in another thread.
        self._ended = self._asked or expired(self._lease)
        return False

    def remaining(self) -> float:
        """Return the seconds of proven leadership that are left if no renewal succeeds any more; 0.0 if it is over."""
        return max(0.0, self._lease.deadline - self._clock.now()) if self.valid else 0.0

    @property
    def reason(self) -> str:
        """Why `lost` is set, in words; empty while it is not set."""
        if self._forked():
            return "this process is a fork of the leader"
        if self._ended:
            return self._ended
        return self._asked if self.valid else expired(self._lease)

    def check(self) -> None:
        """Return while this term leads, raise when it does not.

        Raises:
            LeadershipLost: leadership can no longer be proven, or the holder was asked to stop.
        """
        if self.lost.is_set():
            raise LeadershipLost(f"{self.name}: leadership lost (fence {self.fence}): {self.reason}")

    def ask_to_stop(self, reason: str) -> None:
        """Set `lost`, so that the work stops. The lease is still renewed until `resign`."""
        self._asked = self._asked or reason or "asked to stop"
        self.lost.wake()

    def proclaim(self, note: Note) -> None:
        """Write `note` into the record now, and at each renewal.

        Raises:
            LeadershipLost: the term is over; whether the note was written is unknown.
            StoreUnavailable: the store did not answer; the next renewal writes the note.
            BadPolicy: the note is not JSON or too long; the earlier note stays.
        """
        if self.valid:  # a forked child could otherwise wait for ever for a lock that its parent held
            with self._writing:
                before, self._note = self._note, note
                try:
                    self._write(note)
                except BadPolicy:
                    self._note = before
                    raise
        if not self.valid:
            raise LeadershipLost(f"{self.name}: leadership lost (fence {self.fence}): {self.reason}")

    def resign(self) -> None:
        """End the term and hand over, so that others may lead at once. A store that fails raises nothing here."""
        if self._forked():
            return
        with self._writing:
            left, self._left = self._left, True
            led, lease = self.valid, self._lease
            # First we stop leading, then we tell.
            self._end("resigned")
            try:
                if led:
                    self._open(lease)
            except (StoreUnavailable, BadRecord) as exc:
                log.warning("%s: could not hand over, so the others wait until the lease is over: %s", self.name, exc)
        if not left:
            tell(self._on_event, Event(EventKind.ENDED, self.name, self.fence, reason=self._ended))

    def _open(self, lease: Lease) -> None:
        """Swap our record for an open one, if it is still ours, or was lost and a vacant one is there."""
        note = read_note(self._note, self._clock.now())
        unknown, expected = lease.record.unknown, lease.version
        record = self._cell.record(
            self.fence, State.OPEN, ttl=lease.policy.ttl, note=note, orders=self.orders, unknown=unknown, over=expected
        )
        while (version := self._cell.swap(record, expected)) is None:
            found, expected = self._cell.read()
            # Into an empty cell we write nothing: it could land late, when somebody else has led and lost the record.
            # A vacant record that we see after our deadline may stand for the record of a later leader, who leads on.
            if found is None or self._clock.now() >= lease.deadline:
                return
            # Ours from whichever write: a renewal that was not answered may have landed.
            if (found.holder, found.fence) != (record.holder, record.fence) and found.state is not State.VACANT:
                return
            orders, store = carry_on(record.orders, found, record.holder), self._cell.generation(expected)
            record = replace(record, orders=orders, store=store)
        self._on_open(record, version)

    def renew(self, *, changed: bool = False) -> float:
        """Renew the lease and return when to do so again, in seconds on the term's clock. For the lease renewer.

        Args:
            changed: the cell is known not to hold what this term wrote last, so read it first.

        Raises:
            StoreUnavailable: the store did not answer.
            BadRecord: somebody has overwritten the cell with something that is not ours.
        """
        begun = self._clock.now()
        try:
            with self._writing:
                self._write(self._note, changed=changed)
        except ElectionError as exc:
            self._report_failure(exc)
            raise
        self._report(begun)
        return self._lease.renew_at

    def begin_renewal(self) -> "Renewal | None":
        """Return the swap that renews the lease, to be sent now with others; None if another thread writes just now.

        The renewal counts from this moment.

        Raises:
            BadPolicy: the note cannot be written any more.
        """
        if not self._writing.acquire(blocking=False):
            return None
        try:
            lease, sent = self._lease, self._clock.now()
            data = self._encode(read_note(self._note, sent), lease.version)
            return Renewal(self, lease, sent, Swap(self.name, data, lease.version))
        finally:
            self._writing.release()

    def end_renewal(self, renewal: "Renewal", version: Any | StoreUnavailable | None) -> bool:
        """Count a renewal that the store has answered with `version`; return False if it refused it.

        A swap that was refused is not repeated: call `renew(changed=True)`, which reads the cell first.

        Raises:
            StoreUnavailable: it is `version`.
        """
        if isinstance(version, StoreUnavailable):
            self._report_failure(version)
            raise version
        if self._lease is not renewal.lease:
            return True  # another write of ours has been confirmed meanwhile
        if version is None:
            return self._writing.locked()  # somebody else in this process writes now, and finds out why
        self._accept(version, renewal.sent)
        self._report(renewal.sent)
        return True

    def is_unchanged(self) -> bool:
        """Return whether the cell still holds what this term wrote last, as far as a look can tell. For the renewer.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        lease = self._lease
        version = self.register.version(self.name)
        return bool(version == lease.version) or self._lease is not lease

    @property
    def writing(self) -> bool:
        """Whether a write of another thread is under way, which finds out what is in the cell."""
        return self._writing.locked()

    @property
    def renew_at(self) -> float:
        """When the lease is to be renewed next, in seconds on the term's clock."""
        return self._lease.renew_at

    @property
    def ttl(self) -> float:
        """The length of the lease in seconds."""
        return self._lease.policy.ttl

    @property
    def written_at(self) -> float:
        """When the last write was sent that the store has confirmed."""
        return self._lease.sent

    @property
    def policy(self) -> LeasePolicy:
        """The timings of the lease."""
        return self._lease.policy

    def retry_at(self, now: float) -> float:
        """Return when to try again a renewal that failed at `now`."""
        return now + self._lease.policy.retry_every

    def _write(self, note: Note, *, changed: bool = False) -> None:
        expected = None if changed else self._lease.version
        while self.valid:
            lease, sent = self._lease, self._clock.now()
            written = read_note(note, sent)
            # None: the cell has changed, or somebody else filled the empty cell before us.
            if expected is not None:
                version = self.register.swap(self.name, self._encode(written, expected), expected)
                if version is not None:
                    return self._accept(version, sent)
                if self._lease is not lease:  # a renewal of ours has landed meanwhile
                    expected = self._lease.version
                    continue
            found, expected = self._cell.read()
            verdict = reconcile(lease, found, self._clock.now())
            if isinstance(verdict, Lost):
                return self._end(verdict.reason)
            if verdict.asked:
                self.ask_to_stop("asked to hand over")
            if found is None:
                expected = self._post(written)
            elif (orders := carry_on(self.orders, found, self._cell.id)) != self.orders:
                self.orders, self._rewrite = orders, None
        return None

    def _encode(self, note: Mapping[str, Any], over: Any) -> bytes:
        """Return our next record, which replaces the version `over`, with a number of its own."""
        store = self._cell.generation(over)
        if self._rewrite is None or store != self._store:
            self._rewrite = self._cell.rewriter(replace(self._lease.record, orders=self.orders, store=store))
            self._store = store
        return self._rewrite(note)

    def _accept(self, version: Any, sent: float) -> None:
        """Count a write of ours that has landed. Of two, the one that was sent later has landed later, and counts."""
        with self._settling:
            if sent < self._lease.sent:
                return
            outcome = renewed(self._lease, version, sent, self._clock.now())
            if isinstance(outcome, Lease):
                self._lease = outcome
        if isinstance(outcome, Lost):
            self._end(outcome.reason)

    def _post(self, note: Mapping[str, Any]) -> Any | None:
        """Fill the empty cell with a vacant record, to be swapped for ours; return its version, or None."""
        lease = self._lease
        unknown = lease.record.unknown
        posted = self._cell.post_vacancy(
            self.fence, ttl=lease.policy.ttl, note=note, orders=self.orders, unknown=unknown
        )
        return posted[1] if posted else None

    def _report(self, begun: float) -> None:
        if self._on_event and self.valid:
            took, until = self._clock.now() - begun, self._lease.deadline
            tell(self._on_event, Event(EventKind.RENEWED, self.name, self.fence, seconds=took, until=until))

    def _report_failure(self, exc: ElectionError) -> None:
        tell(self._on_event, Event(EventKind.RENEWAL_FAILED, self.name, self.fence, reason=str(exc)))

    def _end(self, reason: str) -> None:
        self._ended = self._ended or self._asked or reason
        self.lost.wake()

    def __enter__(self) -> "LeaseTerm":
        return self

    def __exit__(self, *_: object) -> None:
        self.resign()

    def __repr__(self) -> str:
        state = f"{self.remaining():.3f} s left" if self.valid else self.reason
        return f"<Term {self.name!r} fence={self.fence} {state}>"


class Renewal(NamedTuple):
    """A renewal that is under way: the lease that it prolongs, when it began, and the swap that it is."""

    term: LeaseTerm
    lease: Lease
    sent: float
    swap: Swap


class LostEvent:
    """An event that is set the moment its term's deadline passes. No thread has to set it."""

    def __init__(self, term: LeaseTerm) -> None:
        self._term = term

    def is_set(self) -> bool:
        """Whether the work must stop."""
        return bool(self._term._asked) or not self._term.valid

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds (None: for as long as it takes); return whether it is set."""
        # Made by the first who waits, before it looks, so that whoever sets the reason after that finds it.
        event: threading.Event = vars(self).setdefault("_event", threading.Event())
        clock = self._term._clock
        end = float("inf") if timeout is None else clock.now() + timeout
        while not self.is_set():
            now = clock.now()
            if now >= end:
                return False
            clock.wait(event, min(end - now, self._term.remaining()))
        return True

    def subscribe(self, news: Callable[[], object]) -> Callable[[], object]:
        """Have `news` called when there is a reason to look again; return a function that ends this.

        It is called in the thread in which that happens, and must return at once. That the deadline passes is no news,
        since no thread sets that: look again after `remaining()` seconds.
        """
        subscribers: dict[object, Callable[[], object]] = vars(self).setdefault("_subscribers", {})
        key = object()
        subscribers[key] = news
        return lambda: subscribers.pop(key, None)

    def wake(self) -> None:
        """Wake all waiting threads and tell all subscribers, which then look again."""
        if event := vars(self).get("_event"):
            event.set()
        for news in tuple(vars(self).get("_subscribers", {}).values()):
            news()

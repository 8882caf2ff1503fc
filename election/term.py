"""A term: leadership that can be proven, for as long as it can."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from election.clock import Clock
from election.errors import BadPolicy, BadRecord, ElectionError, LeadershipLost, StoreUnavailable
from election.events import Event, EventKind, OnEvent, tell
from election.lease import Lease
from election.record import Record, State, decode
from election.register import Register
from election.rules import Lost, expired, reconcile, renewed

log = logging.getLogger("election")

Note = Mapping[str, Any] | Callable[[float], Mapping[str, Any]]
"""What a holder says of itself in its record: a mapping, or a function of the time that makes one at each renewal."""


def read_note(note: Note, now: float) -> Mapping[str, Any]:
    """The mapping to write at `now`."""
    return note(now) if callable(note) else note


class LeaseTerm:
    """One leader's time in office, from its election until it resigns or can no longer prove that it leads.

    All members may be used from any thread. Leaving the `with` block resigns. A forked child's copy is never valid.

    `valid` may be true and the process be paused right after it was read, before its effect lands: hand `fence` to
    wherever the effect lands, and let that refuse a smaller number than it has seen.
    """

    def __init__(
        self,
        register: Register,
        clock: Clock,
        name: str,
        lease: Lease,
        seq: Iterator[int],
        note: Note,
        leave: Callable[[Record, Any], None],
        on_event: OnEvent | None = None,
    ) -> None:
        self.name = name
        self.fence = lease.record.fence
        """A number that is larger than that of every earlier term of this name."""
        self.lost = LostEvent(self)
        """Set when the work must stop: the lease is over, or somebody asked the holder to hand over."""
        self._register, self._clock, self._lease, self._seq, self._note = register, clock, lease, seq, note
        self._leave, self._on_event = leave, on_event
        self._pid = os.getpid()
        self._asked = ""
        self._ended = ""
        self._left = False
        self._writing = threading.Lock()

    @property
    def valid(self) -> bool:
        """Whether leadership is proven now. It never becomes true again."""
        if self._ended or os.getpid() != self._pid:
            return False
        if self._clock.now() < self._lease.deadline:
            return True
        # Whoever has once been told so stays right, even if a renewal is just being answered in another thread.
        self._ended = self._asked or expired(self._lease)
        return False

    def remaining(self) -> float:
        """Seconds of proven leadership that are left, if no renewal succeeds any more; 0.0 when it is over."""
        return max(0.0, self._lease.deadline - self._clock.now()) if self.valid else 0.0

    @property
    def reason(self) -> str:
        """Why `lost` is set, in words; empty while it is not."""
        if os.getpid() != self._pid:
            return "this process is a fork of the leader"
        if self._ended:
            return self._ended
        return self._asked if self.valid else expired(self._lease)

    def check(self) -> None:
        """Do nothing while this term leads.

        Raises:
            LeadershipLost: leadership can no longer be proven, or the holder was asked to stop.
        """
        if self.lost.is_set():
            raise LeadershipLost(f"{self.name}: leadership lost (fence {self.fence}): {self.reason}")

    def ask_to_stop(self, reason: str) -> None:
        """Set `lost`, so that the work stops, and go on renewing until `resign`."""
        self._asked = self._asked or reason or "asked to stop"
        self.lost.wake()

    def proclaim(self, note: Note) -> None:
        """Write `note` into the record now, and at each renewal.

        Raises:
            LeadershipLost: the term is over; whether the note was written is unknown.
            StoreUnavailable: the store did not answer; the next renewal writes the note.
            BadPolicy: the note is not JSON or too long; the earlier note stays.
        """
        if self.valid:  # or else a forked child might wait for ever for a lock that its parent held
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
        """End the term and hand over: others may lead at once. Never raises for the store's sake."""
        if os.getpid() != self._pid:
            return
        with self._writing:
            left, self._left = self._left, True
            led, lease = self.valid, self._lease
            # First we stop believing, then we tell.
            self._end("resigned")
            try:
                if led:
                    self._open(lease)
            except (StoreUnavailable, BadRecord) as exc:
                log.warning("%s: could not hand over, others wait out the lease: %s", self.name, exc)
        if not left:
            tell(self._on_event, Event(EventKind.ENDED, self.name, self.fence, reason=self._ended))

    def _open(self, lease: Lease) -> None:
        """Swap our record for an open one, if it is still ours or was lost and stands vacant."""
        note = read_note(self._note, self._clock.now())
        record = replace(lease.record, seq=next(self._seq), state=State.OPEN, at_ms=wall_ms(), note=note)
        expected = lease.version
        while (version := self._register.swap(self.name, record.encode(), expected)) is None:
            cell = self._register.read(self.name)
            found = decode(self.name, cell.data) if cell else None
            # Into an empty cell we write nothing: it could land late, when somebody else has led and lost the record.
            # A vacant one that we see after our deadline may be what is left of a later leader's, who leads on.
            if cell is None or found is None or self._clock.now() >= lease.deadline:
                return
            # Ours from whichever write: a renewal that was not answered may have landed.
            if found.state is not State.VACANT and (found.holder, found.fence) != (record.holder, record.fence):
                return
            expected = cell.version
        self._leave(record, version)

    def renew(self) -> float:
        """Renew the lease and return when to do so again, on the term's clock. The keeper's to call.

        Raises:
            StoreUnavailable: the store did not answer.
            BadRecord: somebody has overwritten the cell with something that is not ours.
        """
        begun = self._clock.now()
        try:
            with self._writing:
                self._write(self._note)
        except ElectionError as exc:
            tell(self._on_event, Event(EventKind.RENEWAL_FAILED, self.name, self.fence, reason=str(exc)))
            raise
        if self.valid:
            took, until = self._clock.now() - begun, self._lease.deadline
            tell(self._on_event, Event(EventKind.RENEWED, self.name, self.fence, seconds=took, until=until))
        return self._lease.renew_at

    @property
    def renew_at(self) -> float:
        """When the keeper renews next, on the term's clock."""
        return self._lease.renew_at

    def retry_at(self, now: float) -> float:
        """When the keeper tries again a renewal that failed at `now`."""
        return now + self._lease.policy.retry_every

    def _write(self, note: Note) -> None:
        expected = self._lease.version
        while self.valid:
            lease, sent = self._lease, self._clock.now()
            record = replace(
                lease.record, seq=next(self._seq), at_ms=wall_ms(), note=read_note(note, sent), asked=False
            )
            # None: somebody was faster to fill the empty cell.
            version = self._register.swap(self.name, record.encode(), expected) if expected is not None else None
            if version is not None:
                outcome = renewed(lease, record, version, sent, self._clock.now())
                if isinstance(outcome, Lost):
                    return self._end(outcome.reason)
                self._lease = outcome
                return None
            cell = self._register.read(self.name)
            verdict = reconcile(lease, decode(self.name, cell.data) if cell else None, self._clock.now())
            if isinstance(verdict, Lost):
                return self._end(verdict.reason)
            if verdict.asked:
                self.ask_to_stop("asked to hand over")
            expected = cell.version if cell else self._post(record)
        return None

    def _post(self, record: Record) -> Any | None:
        """Fill the empty cell with a vacancy, to be swapped for our record.

        Only vacancies are ever created: a create that the network delivers long after its sender gave up must look
        neither like a leader nor like a free lease.
        """
        vacant = replace(record, seq=next(self._seq), state=State.VACANT)
        return self._register.swap(self.name, vacant.encode(), None)

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


class LostEvent:
    """An event that is set the moment its term's deadline passes: no thread has to set it."""

    def __init__(self, term: LeaseTerm) -> None:
        self._term = term
        self._event = threading.Event()

    def is_set(self) -> bool:
        """Whether the work must stop."""
        return bool(self._term._asked) or not self._term.valid

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds (None: for as long as it takes); say whether it is set."""
        clock = self._term._clock
        end = float("inf") if timeout is None else clock.now() + timeout
        while not self.is_set():
            now = clock.now()
            if now >= end:
                return False
            clock.wait(self._event, min(end - now, self._term.remaining()))
        return True

    def wake(self) -> None:
        """Wake those who wait, to look again."""
        self._event.set()


def wall_ms() -> int:
    """The wall clock in milliseconds: for people, and as the least that a new fence can be."""
    return time.time_ns() // 1_000_000

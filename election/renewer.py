"""The one thread per store that renews every lease held through it."""

import functools
import heapq
import itertools
import logging
import math
import threading
import weakref
from typing import Any

from election.clock import Clock, SystemClock
from election.errors import BadRecord, ElectionError, StoreUnavailable
from election.events import Event, EventKind
from election.forks import fork_detector
from election.register import Hints, Register
from election.rules import FEWER, after_hint
from election.term import LeaseTerm, Renewal

log = logging.getLogger("election")


BATCH = 256
"""Leases that are renewed together at most: their renewals count from the moment at which the first was prepared."""
LOOKS = 500
"""Looks in a second at most, however many leases there are."""


class LeaseRenewer:
    """Renews terms when they are due: those of one store together, in one write. In between it looks at their cells.

    A look asks for a version alone. It finds out within a poll that somebody asked the holder to hand over, or that the
    cell was lost; without it, the next renewal does. If the store sends hints, it looks at each hint, and otherwise a
    tenth as often.

    `start` makes a daemon thread, which ends by itself when nothing is left to renew. Tests call `renew_due` instead.
    """

    def __init__(self, clock: Clock) -> None:
        self.forked = fork_detector()
        self._clock = clock
        self._due: list[tuple[float, int, LeaseTerm]] = []
        self._looks: list[tuple[float, int, LeaseTerm]] = []
        self._watches: dict[LeaseTerm, TermWatch] = {}
        self._over: list[LeaseTerm] = []
        """Terms that are over, and still watched."""
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self._silent = False
        """Whether the store did not answer the last look or renewal."""
        self._trip = 0.0
        """Seconds that the last look or renewal took."""

    def add(self, term: LeaseTerm) -> None:
        """Renew `term` from now on, until it is over."""
        watch = TermWatch(term)
        with self._lock:
            self._watches[term] = watch
            heapq.heappush(self._due, (term.renew_at, next(self._order), term))
            self._look_at(watch, self._clock.now() + max(term.policy.poll, len(self._due) / LOOKS))
            first = self._due[0][2] is term or self._looks[0][2] is term
        watch.hints = term.register.watch(term.name, functools.partial(self._hear, term))
        if watch.hints and self._watches.get(term) is not watch:  # over already, and forgotten without them
            watch.hints.close()
        if first:
            self._wake.set()

    def _hear(self, term: LeaseTerm) -> None:
        """Have the cell of `term` looked at soon, because of a hint. Called in a thread of the register."""
        with self._lock:
            watch = self._watches.get(term)
            if watch is None:
                return
            watch.heard += 1
            if watch.heard > 1:  # a look that has not begun yet is enough
                return
            look_at, watch.full = after_hint(watch.full, term.policy, self._clock.now())
            if look_at < watch.look_at:
                self._look_at(watch, look_at)
        self._wake.set()

    def _look_at(self, watch: "TermWatch", when: float) -> None:
        """Look at a cell then, and not when it was planned before. Called under the lock."""
        watch.look_at = when
        heapq.heappush(self._looks, (when, next(self._order), watch.term))

    def _forget(self, term: LeaseTerm) -> None:
        """Hear no more of a term that is over.

        That is noticed when its renewal would be due, so that the stream need not begin again for a next campaign.
        """
        watch = self._watches.pop(term, None)
        try:
            if watch and watch.hints:
                watch.hints.close()
        except Exception:  # of a store that a user wrote: the other leases are renewed all the same
            log.exception("%s: cannot end the hints", term.name)

    def start(self) -> None:
        """Start the thread that renews, if it does not run yet."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="election-renewer", daemon=True)
                thread.start()  # may fail, and is tried again then
                self._thread = thread

    def renew_due(self) -> float | None:
        """Renew and look where it is due; return when something is due next, or None if nothing is left to renew."""
        begun = self._clock.now()
        self._renew_all()
        # One at a time: no renewal waits for more than one look.
        while self._look(begun):
            self._renew_all()
        while self._over:
            self._forget(self._over.pop())
        with self._lock:
            if not self._due:
                self._looks.clear()
                return None
            return min(heap[0][0] for heap in (self._due, self._looks) if heap)

    def _renew_all(self) -> None:
        """Renew what is due."""
        now, silent = self._clock.now(), False
        while batch := self._pop_due(now):
            # A silent store must not cost each of a thousand leases a timeout.
            answered = {} if silent else self._renew(batch)
            silent = len(answered) < len(batch)
            with self._lock:
                for term in batch:
                    due = answered.get(term) or term.retry_at(now)
                    heapq.heappush(self._due, (due, next(self._order), term))

    def _pop_due(self, now: float) -> list[LeaseTerm]:
        """Return terms to renew now; some more may be left.

        Once one is due, those that are due a hundredth of their ttl later go with it.
        """
        batch: list[LeaseTerm] = []
        with self._lock:
            soon = now
            while self._due and self._due[0][0] <= soon and len(batch) < BATCH:
                term = heapq.heappop(self._due)[2]
                if not term.valid:
                    self._over.append(term)
                    continue
                soon = now + term.ttl / 100
                if term.renew_at > soon:  # somebody has written meanwhile
                    heapq.heappush(self._due, (term.renew_at, next(self._order), term))
                else:
                    batch.append(term)
        return batch

    def _renew(self, batch: list[LeaseTerm]) -> dict[LeaseTerm, float]:
        """Renew these terms; return when each is due again, without those for which the store failed."""
        due: dict[LeaseTerm, float] = {}
        stores: dict[Register, list[Renewal]] = {}
        for term in batch:
            try:
                renewal = term.begin_renewal()
            except Exception:  # a note that cannot be made: this term will end, the others go on
                log.exception("%s: cannot renew, %.1f s of leadership left", term.name, term.remaining())
                renewal = None
            if renewal:
                stores.setdefault(term.register, []).append(renewal)
            else:
                due[term] = term.retry_at(self._clock.now())
        for register, renewals in stores.items():
            refused: list[LeaseTerm] = []
            sent = self._clock.now()
            answers = _swap(register, renewals)
            self._trip = self._clock.now() - sent
            for renewal, version in zip(renewals, answers, strict=True):
                term = renewal.term
                try:
                    if not term.end_renewal(renewal, version):
                        refused.append(term)
                    else:
                        due[term] = term.renew_at
                        self._report(term)
                except StoreUnavailable as exc:
                    self._report(term, exc)
            # These need answers of their own, so they come last.
            for term in refused:
                if again := self._renew_alone(term):
                    due[term] = again
                else:
                    break
        return due

    def _renew_alone(self, term: LeaseTerm) -> float | None:
        """Renew a term whose cell has changed; return when it is due again, or None if the store failed."""
        try:
            due = term.renew(changed=True)
        except StoreUnavailable as exc:
            self._report(term, exc)
            return None
        except BadRecord as exc:  # the store did answer, so the other leases need not wait
            self._report(term, exc)
            return term.retry_at(self._clock.now())
        except Exception:
            log.exception("%s: cannot renew, %.1f s of leadership left", term.name, term.remaining())
            return term.retry_at(self._clock.now())
        self._report(term)
        return due

    def _report(self, term: LeaseTerm, trouble: ElectionError | None = None) -> None:
        """Log that renewals fail, and that they succeed again, once each."""
        if trouble and not self._failing:
            failed = Event(EventKind.RENEWAL_FAILED, term.name, term.fence, reason=str(trouble))
            text = "%s: cannot renew, %.1f s of leadership left: %s"
            log.warning(text, term.name, term.remaining(), trouble, extra=failed.fields)
        elif self._failing and not trouble:
            log.info("%s: renewed again", term.name, extra=Event(EventKind.RENEWED, term.name, term.fence).fields)
        self._failing = trouble is not None
        self._silent = isinstance(trouble, StoreUnavailable)

    def _look(self, until: float) -> bool:
        """Look at one cell if that is due by `until`, and renew its lease if it has changed; return whether it was."""
        with self._lock:
            if not self._looks or self._looks[0][0] > until:
                return False
            planned, _, term = heapq.heappop(self._looks)
            watch = self._watches.get(term)
            if watch is None or watch.look_at != planned:
                return True  # it is over, or was put forward
            renewal_due = self._due[0][0] if self._due else term.renew_at
            heard, watch.heard, watch.look_at = watch.heard, 0, math.inf
            rarest = len(self._due) / LOOKS
        if not term.valid:
            return True
        now, every = self._clock.now(), max(watch.every(), rarest)
        due = term.written_at + every  # what was just written need not be looked at
        if heard and term.writing:
            due = now + term.policy.poll / FEWER  # the answer says whether it was that write
        elif due <= now or (heard and not watch.is_echo(heard, now)):
            due, heard = self._look_now(term, now, every, heard, renewal_due)
        else:
            heard = 0
        with self._lock:
            watch.heard += heard
            if due < watch.look_at:  # unless a hint came meanwhile
                self._look_at(watch, due)
        return True

    def _look_now(self, term: LeaseTerm, now: float, every: float, heard: int, renewal_due: float) -> tuple[float, int]:
        """Look, unless that could hold up a renewal; return when to look again, and how many hints are unanswered."""
        # A silent store must not cost each of many leases a timeout here either, and a slow one no renewal.
        if now + 2 * self._trip >= renewal_due or self._silent:
            return now + (min(every, term.policy.poll) if heard else every), heard
        try:
            unchanged = term.is_unchanged()
            self._trip = self._clock.now() - now
            if not unchanged:
                self._renew_alone(term)
        except StoreUnavailable:  # the next renewal finds out, and reports it
            self._silent = True
        except Exception:
            log.exception("%s: cannot look at the lease", term.name)
        return now + every, 0

    def _run(self) -> None:
        while True:
            self._wake.clear()
            next_due = self.renew_due()
            if next_due is None:
                with self._lock:
                    if not self._due:
                        self._thread = None
                        return
                continue
            self._clock.wait(self._wake, next_due - self._clock.now())


class TermWatch:
    """What the renewer knows of the looks at one term's cell."""

    def __init__(self, term: LeaseTerm) -> None:
        self.term = term
        self.hints: Hints | None = None
        self.heard = 0
        """Hints since the last look began."""
        self.full = 0.0
        """See `after_hint`."""
        self.look_at = math.inf
        """When the next look is planned; never while one is under way."""
        self._echoed = term.written_at  # the takeover: whoever hears now did not hear then

    def every(self) -> float:
        """Return the seconds between two looks: as often as a standby."""
        try:
            live = self.hints is not None and self.hints.live
        except Exception:  # of a store that a user wrote
            log.exception("%s: cannot tell whether hints are live", self.term.name)
            live = False
        return self.term.policy.poll * (FEWER if live else 1)

    def is_echo(self, heard: int, now: float) -> bool:
        """Return whether these hints tell of nothing but the holder's own last write. It is asked once for each hint.

        A write of its own causes one hint, soon. One hint is taken for that, once for each write; somebody else's that
        is merged with it is then found by a look without a hint.
        """
        written = self.term.written_at
        if heard > 1 or written == self._echoed or now >= written + self.term.policy.poll:
            return False
        self._echoed = written
        return True


def _swap(register: Register, renewals: list[Renewal]) -> list[Any | StoreUnavailable | None]:
    """Return the store's answers. A store that a user wrote may fail in its own way."""
    try:
        answers = register.swap_many([renewal.swap for renewal in renewals])
        if len(answers) != len(renewals):
            raise TypeError(f"{len(answers)} answers to {len(renewals)} swaps")
    except Exception as exc:
        log.exception("the store failed")
        return [StoreUnavailable(f"the store failed: {exc!r}")] * len(renewals)
    return answers


# A renewer refers to its register only through its terms, so that both can be collected when nobody leads any more.
_renewers: weakref.WeakKeyDictionary[Register, LeaseRenewer] = weakref.WeakKeyDictionary()


def renew_in_background(register: Register, term: LeaseTerm) -> None:
    """Have `term` renewed by the thread of this process that serves `register`."""
    renewer = _renewers.setdefault(register, LeaseRenewer(SystemClock()))
    if renewer.forked():
        # A forked child has none of its parent's threads, and renews none of its parent's terms.
        renewer = _renewers[register] = LeaseRenewer(SystemClock())
    renewer.add(term)
    renewer.start()

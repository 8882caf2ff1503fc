"""The one thread per store that renews every lease held through it."""

import heapq
import itertools
import logging
import threading
import weakref

from election.clock import Clock, SystemClock
from election.errors import BadRecord, StoreUnavailable
from election.events import Event, EventKind
from election.forks import fork_detector
from election.register import Register
from election.term import LeaseTerm

log = logging.getLogger("election")


class LeaseRenewer:
    """Renews terms when they are due.

    `start` makes a daemon thread, which ends by itself when nothing is left to renew. Tests call `renew_due` instead.
    """

    def __init__(self, clock: Clock) -> None:
        self.forked = fork_detector()
        self._clock = clock
        self._due: list[tuple[float, int, LeaseTerm]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    def add(self, term: LeaseTerm) -> None:
        """Renew `term` from now on, until it is over."""
        with self._lock:
            heapq.heappush(self._due, (term.renew_at, next(self._order), term))
            first = self._due[0][2] is term
        if first:
            self._wake.set()

    def start(self) -> None:
        """Start the thread that renews, if it does not run yet."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="election-renewer", daemon=True)
                thread.start()  # may fail, and is tried again then
                self._thread = thread

    def renew_due(self) -> float | None:
        """Renew what is due; return when the next renewal is due, or None if nothing is left."""
        now, silent = self._clock.now(), False
        while term := self._pop(now):
            if not term.valid:
                continue
            # A silent store must not cost each of a thousand leases a timeout.
            due = None if silent else self._renew(term)
            silent = due is None
            with self._lock:
                heapq.heappush(self._due, (term.retry_at(now) if due is None else due, next(self._order), term))
        return self._due[0][0] if self._due else None

    def _pop(self, now: float) -> LeaseTerm | None:
        with self._lock:
            return heapq.heappop(self._due)[2] if self._due and self._due[0][0] <= now else None

    def _renew(self, term: LeaseTerm) -> float | None:
        """Renew one term; return when it is due again, or None if the store failed."""
        try:
            due = term.renew()
        except (StoreUnavailable, BadRecord) as exc:
            if not self._failing:
                failed = Event(EventKind.RENEWAL_FAILED, term.name, term.fence, reason=str(exc))
                text = "%s: cannot renew, %.1f s of leadership left: %s"
                log.warning(text, term.name, term.remaining(), exc, extra=failed.fields)
            self._failing = True
            # With BadRecord the store did answer, so the other leases need not wait.
            return None if isinstance(exc, StoreUnavailable) else term.retry_at(self._clock.now())
        except Exception:  # a note that cannot be made: this term will end, the others go on
            log.exception("%s: cannot renew, %.1f s of leadership left", term.name, term.remaining())
            return term.retry_at(self._clock.now())
        if self._failing:
            log.info("%s: renewed again", term.name, extra=Event(EventKind.RENEWED, term.name, term.fence).fields)
        self._failing = False
        return due

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

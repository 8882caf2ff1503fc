"""`TokenWorker`: of many identical daemons, one does the work. The idea is the Ruby gem Politics'."""

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from election import BadPolicy, Candidate, Event, LeadershipLost, LeasePolicy, NotElected, Register, StoreUnavailable
from election import LeaseTerm as Lead
from election.clock import SystemClock
from election.errors import BadRecord
from election.events import EventKind, OnEvent, tell
from election.record import State
from election.rules import View
from election.term import Note
from politics.group.membership import Membership
from politics.group.peers import Peer
from politics.settings import choose_store, open_store
from politics.worker.slots import Slot, Turn, merge, next_turn, read_note
from politics.worker.term import Term

log = logging.getLogger("politics")

Work = Callable[[Term], object]

_YEAR = 366 * 24 * 3600.0


class TokenWorker:
    """A daemon of which many copies run and one works.

    Subclass it and override `perform`, or pass the work to `process`. Keyword arguments override class attributes; any
    that is left out keeps the class's value. Constructing does no I/O.

    Args:
        group: who races with whom; required, here or on the class. Printable, at most 80 bytes.
        iteration_length: seconds from one slot of work to the next (60). May be hours: a dead leader is replaced
            within `lease_ttl` all the same.
        servers: memcached servers, each `host:port`; several share the groups among them, they are no replicas.
        store: the store's URL, or a `Register`; instead of `servers`. Default: `$POLITICS_STORE`, else a file of this
            user, which elects a leader of this machine.
        lease_ttl: seconds after which a silent leader is replaced (10); the same for the whole group.
        sticky: keep a healthy leader from slot to slot, instead of a new race for each (False).
        on_failover: what becomes of the slot that a leader left unfinished: "rerun" (default) or "skip".
        grace: seconds that the work may take to return once it is asked to stop, still renewed (10).
        on_event: called instead of the method of this name.
        announce: let the group's other members on this network hear of this one, and hear them (True).

    Raises:
        BadPolicy, BadStoreURL: a value that cannot work; the message names it.
    """

    group: str = ""
    iteration_length: float = 60.0
    servers: Sequence[str] | None = None
    store: str | Register | None = None
    lease_ttl: float = 10.0
    sticky: bool = False
    on_failover: str = "rerun"
    grace: float = 10.0
    announce: bool = True

    def __init__(
        self,
        *,
        group: str | None = None,
        iteration_length: float | None = None,
        servers: Sequence[str] | None = None,
        store: str | Register | None = None,
        lease_ttl: float | None = None,
        sticky: bool | None = None,
        on_failover: str | None = None,
        grace: float | None = None,
        on_event: OnEvent | None = None,
        announce: bool | None = None,
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        for key, value in given.items():
            if value is not None:
                setattr(self, key, value)
        if servers is not None or store is not None:
            self.servers, self.store = servers, store
        for what in ("iteration_length", "grace"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _YEAR:
                raise BadPolicy(f"{what} must be a positive number of seconds, a year at most, not {value!r}")
        if self.on_failover not in ("rerun", "skip"):
            raise BadPolicy(f"on_failover must be 'rerun' or 'skip', not {self.on_failover!r}")
        if not self.group:
            raise BadPolicy(f"{type(self).__name__} needs a group: set it on the class or pass group=")
        self.policy = LeasePolicy(ttl=self.lease_ttl)
        self._chosen = choose_store(self.store, self.servers)
        self._register = open_store(self._chosen)
        self._candidate = Candidate(
            self._register, self.group, self.policy, on_event=lambda event: self.on_event(event)
        )
        self._membership = Membership(self._candidate, self._chosen)
        self._clock = SystemClock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    # What subclasses override; all of it is called on the worker's own thread.

    def perform(self, term: Term) -> None:
        """Do the work of one slot; called on the leader, once per slot.

        Return: the slot is done. Raise `LeadershipLost` (`term.check()` does): it was interrupted. Raise anything
        else: it is logged, the slot counts as done, and the worker lives on.
        """

    def eligible(self) -> bool:
        """Whether this worker may lead; asked at each look at the lease, and between two slots of a sticky leader."""
        return True

    def on_elected(self, term: Term) -> None:
        """Leadership began."""

    def on_lost(self, term: Term) -> None:
        """Leadership ended, by itself or not; the work has returned."""

    def on_event(self, event: Event) -> object:
        """Something happened, to be counted or shown. Called in several threads; return at once, or renewals wait."""

    def peers(self) -> tuple[Peer, ...]:
        """The group's other members, as they were last heard: hints. None while we do not run or announce."""
        return self._membership.peers()

    # Running.

    @property
    def running(self) -> bool:
        """Whether the worker's thread lives: it leads or stands by."""
        return self._thread is not None and self._thread.is_alive()

    def process(self, work: Work | None = None) -> None:
        """Race and work until `stop`, SIGTERM or SIGINT; call it on the main thread to have signals handled.

        The first signal sets `term.lost` and leaves the work `grace` seconds, the second ends the wait at once.

        Raises:
            RuntimeError: the worker runs already.
            BadPolicy: there is no work: `perform` is not overridden.
            SystemExit: the work raised it.
        """
        from discovery.signals import SignalQueue  # here, because importing politics must not import discovery

        with SignalQueue(signal.SIGTERM, signal.SIGINT) as signals:
            self._begin(work, lambda: signals.put(0))
            if number := signals.get():
                log.info("%s: %s: stopping", self.group, signal.Signals(number).name)
                self._ask_to_stop(f"asked to stop by {signal.Signals(number).name}")
                with contextlib.suppress(queue.Empty):
                    signals.get(self.grace)
            self.stop(grace=0.1)
        if self._failure:
            raise self._failure

    def start(self, work: Work | None = None) -> None:
        """Race and work in a thread, and return at once.

        Raises:
            RuntimeError, BadPolicy: as for `process`.
        """
        self._begin(work, lambda: None)

    def stop(self, grace: float | None = None) -> None:
        """Ask the work to stop, wait for it (`grace` seconds at most), hand the lease over and return.

        Called by the work itself, it only asks. Stopping a worker that does not run does nothing.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        self._ask_to_stop("asked to stop")
        if thread is not threading.current_thread():
            thread.join(self.grace if grace is None else grace)
            if thread.is_alive() and (lead := self._lead):
                log.warning("%s: the work did not stop in time: its lease is given up", self.group)
                lead.resign()
                self._membership.tell(None)

    def _ask_to_stop(self, reason: str) -> None:
        self._stop_reason = reason
        self._stop.set()
        self._candidate.nudge()
        if lead := self._lead:
            lead.ask_to_stop(reason)

    def _begin(self, work: Work | None, finished: Callable[[], None]) -> None:
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError(f"the worker of {self.group!r} runs already")
        if work is None and type(self).perform is TokenWorker.perform:
            raise BadPolicy(f"{type(self).__name__} has no work: override perform(term) or pass process(work)")
        self._work = work or self.perform
        self._stop = threading.Event()
        self._stop_reason = ""
        self._lead: Lead | None = None
        self._slot: Slot | None = None
        self._turn: Turn | None = None
        self._trouble = self._doubt = ""
        self._pid = os.getpid()
        self._membership = Membership(self._candidate, self._chosen)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(finished,), name=f"politics-{self.group}", daemon=True)
        self._thread.start()

    def _run(self, finished: Callable[[], None]) -> None:
        log.info("%s: waiting to be elected", self.group)
        try:
            if self.announce:
                self._membership.join()
            while not self._stop.is_set():
                try:
                    lead = self._candidate.campaign(plan=self._plan, stop=self._stop)
                except NotElected:
                    return
                except BadRecord as exc:
                    self._complain(str(exc))
                    self._clock.wait(self._stop, self.policy.poll)
                    continue
                self._trouble = ""
                with lead:
                    self._govern(lead)
                # Each slot is a new race: let those who have not led look first.
                self._clock.wait(self._stop, min(1.2 * self.policy.poll, self.iteration_length / 4))
        except BaseException as exc:  # the work called sys.exit, say: the lease is given up, and process() passes it on
            self._failure = exc
            log.critical("%s: the worker ends: %r", self.group, exc, exc_info=not isinstance(exc, SystemExit))
        finally:
            self._lead = None
            self._membership.leave()
            if self._register is not self.store:  # or else it is the caller's, and may have other users
                self._register.close()
            log.info("%s: stopped", self.group)
            finished()

    def _plan(self, view: View) -> Note | None:
        """Learn the present slot from the record; say what we would write if we took the lease now."""
        record = view.record
        # Our own takeover, if the store did not confirm it: its turn has not begun, and interrupts nobody.
        ours = record and view.attempt and (record.holder, record.seq) == (self._candidate.id, view.attempt[0])
        if not ours:
            self._slot = merge(self._slot, read_note(record.note, view.since) if record else None)
        if self._stop.is_set() or not self._may_lead():
            return None
        if not ours or self._turn is None:
            self._turn = self._next_turn(lost=self._lost(view))
        return self._turn.slot.note

    def _lost(self, view: View) -> bool:
        """Whether the record may have been lost together with a leader, who may have begun what nobody knows of."""
        if view.record is not None and view.record.state is not State.VACANT:
            return False
        # Who remembers no slot either has been here before the first leader, unless the vacancy must be waited out.
        waited = view.record is not None and self._clock.now() > view.free_at(self.policy) - self.policy.poll
        return waited or self._slot is not None

    def _next_turn(self, lost: bool = False) -> Turn:
        rerun = self.on_failover == "rerun"
        return next_turn(self._slot, self.iteration_length, self._clock.now(), rerun=rerun, lost=lost)

    def _govern(self, lead: Lead) -> None:
        """Lead: one slot, or as many as there are if we are sticky, until leadership ends."""
        turn, since = self._turn, self._clock.now()
        assert turn is not None
        self._lead = lead
        if self._stop.is_set():
            lead.ask_to_stop(self._stop_reason)
        self._membership.tell(lead)
        about = Event(EventKind.ELECTED, self.group, lead.fence, turn.slot.number)
        log.info("%s: elected leader (fence %d, slot %d)", self.group, lead.fence, about.slot, extra=about.fields)
        first = Term(lead, turn)
        self._call(self.on_elected, first)
        while self._serve(lead, turn) and self.sticky and self._may_lead():
            turn = self._next_turn()
            if not self._tell(lead, turn.slot):
                break
        reason = lead.reason or "the slot is over"
        lead.resign()
        self._lead = None
        self._membership.tell(None)
        length = self._clock.now() - since
        about = Event(EventKind.ENDED, self.group, lead.fence, first.iteration, seconds=length, reason=reason)
        text = "%s: leadership ended after %.1f s (fence %d): %s"
        log.info(text, self.group, length, lead.fence, reason, extra=about.fields)
        self._call(self.on_lost, first)

    def _serve(self, lead: Lead, turn: Turn) -> bool:
        """Run the slot's work if it is due and wait for the slot's end; False if leadership ended first."""
        self._slot = turn.slot
        for number in turn.given_up:
            log.warning("%s: slot %d may be unfinished, and is not run again", self.group, number)
        if turn.skipped:
            last = turn.slot.number - 1
            passed = self._happened(EventKind.SLOTS_SKIPPED, Term(lead, turn), count=turn.skipped)
            first = last - turn.skipped + 1
            log.warning("%s: slots %d to %d have passed unused", self.group, first, last, extra=passed)
        if turn.run:
            if not self._finish(Term(lead, turn)):
                return False
            self._slot = Slot(turn.slot.number, turn.slot.ends, done=True)
        # Others must know that the slot is done before anything can end our term.
        if not turn.slot.done and not self._tell(lead, self._slot):
            return False
        return not lead.lost.wait(self._slot.ends - self._clock.now())

    def _finish(self, term: Term) -> bool:
        """Run the work; whether the slot is done."""
        again = ", which an earlier leader may have begun" if term.takeover else ""
        begun, about = self._clock.now(), (self.group, term.iteration)
        try:
            term.check()
            started = self._happened(EventKind.SLOT_STARTED, term, takeover=term.takeover)
            log.info("%s: slot %d runs%s (fence %d)", *about, again, term.fence, extra=started)
            self._work(term)
            done = self._happened(EventKind.SLOT_DONE, term, seconds=self._clock.now() - begun)
            log.debug("%s: slot %d is done", *about, extra=done)
        except LeadershipLost as exc:
            lost = self._happened(EventKind.SLOT_INTERRUPTED, term, seconds=self._clock.now() - begun, reason=str(exc))
            log.warning("%s: slot %d was interrupted: %s", *about, exc, extra=lost)
            return False
        except Exception:
            failed = self._happened(EventKind.SLOT_FAILED, term, seconds=self._clock.now() - begun)
            log.exception("%s: the work of slot %d failed", *about, extra=failed)
        finally:
            if os.getpid() != self._pid:
                os._exit(0)  # a fork that the work did not end: from here on, all is its parent's
        return True

    def _happened(self, kind: EventKind, term: Term, **more: Any) -> dict[str, Any]:
        """Report an event of a slot; its fields, for the log."""
        return tell(self.on_event, Event(kind, self.group, term.fence, term.iteration, **more))

    def _tell(self, lead: Lead, slot: Slot) -> bool:
        """Write `slot` into the record, however long the store takes; False if leadership ended first."""
        self._slot = slot
        while lead.valid:
            with contextlib.suppress(StoreUnavailable, BadRecord, LeadershipLost):
                lead.proclaim(slot.note)
                return True
            self._clock.wait(threading.Event(), self.policy.retry_every)
        return False

    def _call(self, hook: Callable[[Term], None], term: Term) -> None:
        """A subclass's hook; one that raises is logged."""
        try:
            hook(term)
        except Exception:
            log.exception("%s: %s failed", self.group, hook.__name__)

    def _may_lead(self) -> bool:
        """What `eligible` says; if it raises, no, which is logged once until it works again."""
        try:
            may, doubt = bool(self.eligible()), ""
        except Exception as exc:
            may, doubt = False, repr(exc)
            if doubt != self._doubt:
                log.exception("%s: eligible failed, so this worker does not lead", self.group)
        self._doubt = doubt
        return may

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.error("%s: not racing: %s", self.group, trouble)
        self._trouble = trouble

    def __repr__(self) -> str:
        return f"<{type(self).__name__} group={self.group!r} iteration_length={self.iteration_length:g}>"

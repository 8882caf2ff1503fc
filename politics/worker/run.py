"""One run of a worker, from its start to its stop: the thread that campaigns, works and hands over, and its state."""

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from tenacity import RetryCallState, retry_if_exception_type

from election import Candidate, Event, LeadershipLost, LeasePolicy, LeaseTerm, NotElected, StoreUnavailable
from election.clock import Clock
from election.errors import BadPolicy, BadRecord, ElectionError
from election.events import EventKind, tell
from election.forks import fork_detector
from election.retries import Reminder, backoff, retrying
from election.rules import View, is_own_takeover
from election.term import Note
from politics.group.peers import Peer
from politics.worker.mistakes import never_ran
from politics.worker.slots import Rivals, Slot, Turn, is_done, learn, may_be_lost, next_turn
from politics.worker.term import Term

log = logging.getLogger("politics")

LONGEST_PAUSE = 60.0
"""Seconds after a failed slot that is to be run again, at most; less where slots are shorter."""

Work = Callable[[Term], object]


class Worker(Protocol):
    """What a run asks of its `TokenWorker`: settings, and the methods that subclasses override."""

    group: str
    iteration_length: float
    sticky: bool
    grace: float
    on_failover: str
    on_error: str
    policy: LeasePolicy

    def eligible(self) -> bool: ...

    def on_elected(self, term: Term) -> None: ...

    def on_lost(self, term: Term) -> None: ...

    def on_event(self, event: Event) -> object: ...


class Announcer(Protocol):
    """Tells the group's other members of this one, and hears them. No method waits or raises."""

    def join(self) -> None: ...

    def leave(self) -> None: ...

    def tell(self, term: LeaseTerm | None) -> None: ...

    def peers(self) -> tuple[Peer, ...]: ...


class WorkNeverRan(BadPolicy):
    """The work returned something that had to be awaited or iterated. This ends the worker."""


class Run:
    """A worker that runs. `thread` is its thread; everything else may be used from any.

    Args:
        worker: whose run this is.
        work: called once per slot while we lead.
        candidate: campaigns for the worker's group.
        clock: the candidate's clock.
        announcer: tells the others of us; None: nobody does.
        finished: called at the end, on the run's thread.
        chance: returns a random number, at least 0 and less than 1, for the jitter of retries.
        aloud: say on standard error that it was elected, once, if nobody has configured a log.
    """

    def __init__(
        self,
        worker: Worker,
        work: Work,
        candidate: Candidate,
        *,
        clock: Clock,
        announcer: Announcer | None,
        finished: Callable[[], None],
        chance: Callable[[], float],
        aloud: bool = False,
    ) -> None:
        self.group, self.grace = worker.group, worker.grace
        self.announcer = announcer
        self.failure: BaseException | None = None
        """What the work raised that ended the run, as `sys.exit` does; None if nothing did."""
        self.lead: LeaseTerm | None = None
        """The lease's term, while we lead."""
        self._worker, self._work, self._candidate = worker, work, candidate
        self._clock, self._finished, self._chance, self._aloud = clock, finished, chance, aloud
        self._stop, self._stop_reason = threading.Event(), ""
        self._slot: Slot | None = None
        self._turn: Turn | None = None
        self._rivals, self._cut_short = Rivals(candidate.id), False
        self._bad_record, self._not_eligible = Reminder(log, clock), Reminder(log, clock)
        self._failures = 0
        """How many slots in a row this worker has failed and left to be run again."""
        self._forked = fork_detector()
        self.thread = threading.Thread(target=self._run, name=f"politics-{worker.group}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self.thread.is_alive()

    def ask_to_stop(self, reason: str) -> None:
        """Set `lost` for the work, and end the run when it has returned."""
        self._stop_reason = reason
        self._stop.set()
        self._candidate.nudge()
        if lead := self.lead:
            lead.ask_to_stop(reason)

    def give_up(self) -> bool:
        """Hand the lease over although the work still runs; return False if it does not, because we do not lead."""
        lead = self.lead
        if lead:
            log.warning("%s: the work did not stop in time: its lease is given up", self.group)
            lead.resign()
            self._announce(None)
        return lead is not None

    # What follows is called on the run's own thread.

    def _run(self) -> None:
        worker = self._worker
        log.info("%s: waiting to be elected", worker.group)
        try:
            if self.announcer:
                self.announcer.join()
            while not self._stop.is_set():
                try:
                    lead = self._campaign()
                except NotElected:
                    return
                with lead:
                    self._govern(lead)
                # Each slot is a new race: let those who have not led look first, where there are any.
                heard = self._cut_short or bool(self.announcer and self.announcer.peers())
                if self._rivals.may_be_there(heard=heard):
                    self._clock.wait(self._stop, min(1.2 * worker.policy.poll, worker.iteration_length / 4))
                if self._failures:
                    self._clock.wait(self._stop, self._pause())
        except BaseException as exc:  # the work called sys.exit, say: the lease is given up, and process() passes it on
            self.failure = exc
            # An error of ours says all in one sentence.
            unexpected = not isinstance(exc, SystemExit | ElectionError)
            trouble = exc if isinstance(exc, ElectionError) else repr(exc)
            log.critical("%s: the worker ends: %s", worker.group, trouble, exc_info=unexpected)
        finally:
            self.lead = None
            if self.announcer:
                self.announcer.leave()
            log.info("%s: stopped", worker.group)
            self._finished()

    def _pause(self) -> float:
        """Return the seconds to leave a slot that we failed to the others, who may be able to run it."""
        longest = max(self._worker.policy.poll, min(LONGEST_PAUSE, self._worker.iteration_length))
        return backoff(self._failures, self._chance(), first=2 * self._worker.policy.poll, longest=longest)

    def _campaign(self) -> LeaseTerm:
        """Wait until we lead, also while the cell holds something that is not ours."""
        again = retrying(
            self._clock,
            first=self._worker.policy.poll,
            longest=self._worker.policy.longest_pause,
            retry=retry_if_exception_type(BadRecord),
            wake=self._stop,
            before_sleep=self._complain,
            chance=self._chance,
        )
        lead = again(self._candidate.campaign, plan=self._plan, stop=self._stop)
        self._bad_record.over()
        return lead

    def _complain(self, state: RetryCallState) -> None:
        """Log a record that is not ours, once a minute."""
        trouble = str(state.outcome.exception()) if state.outcome else ""
        if self._bad_record.due(trouble):
            log.error("%s: this worker cannot take part in the election: %s", self._worker.group, trouble)

    def _plan(self, view: View) -> Note | None:
        """Learn the present slot from the record; return what we would write if we took the lease now."""
        self._slot = learn(self._slot, view, self._candidate.id, self._worker.iteration_length)
        self._rivals.look(view.record)
        if self._stop.is_set() or not self._may_lead():
            return None
        if self._turn is None or not is_own_takeover(view, self._candidate.id):
            lost = may_be_lost(self._slot, view, self._worker.policy, self._clock.now())
            self._turn = self._next_turn(lost=lost)
        return self._turn.slot.note

    def _next_turn(self, lost: bool = False) -> Turn:
        rerun = self._worker.on_failover == "rerun"
        return next_turn(self._slot, self._worker.iteration_length, self._clock.now(), rerun=rerun, lost=lost)

    def _govern(self, lead: LeaseTerm) -> None:
        """Lead: one slot, or as many as there are if we are sticky, until leadership ends."""
        worker, turn, since, failures = self._worker, self._turn, self._clock.now(), self._failures
        assert turn is not None
        self.lead = lead
        if self._stop.is_set():
            lead.ask_to_stop(self._stop_reason)
        self._announce(lead)
        about = Event(EventKind.ELECTED, worker.group, lead.fence, turn.slot.number)
        log.info("%s: elected leader (fence %d, slot %d)", worker.group, lead.fence, about.slot, extra=about.fields)
        if self._aloud and not log.hasHandlers() and sys.stderr:
            hint = "For more, call logging.basicConfig(level=logging.INFO)"
            print(f"{worker.group}: elected leader (fence {lead.fence}, slot {about.slot}). {hint}", file=sys.stderr)
        self._aloud = False
        first = Term(lead, turn)
        self._call(worker.on_elected, first)
        while self._serve(lead, turn) and worker.sticky and self._may_lead():
            turn = self._next_turn()
            if not self._tell(lead, turn.slot):
                break
        self._cut_short = bool(lead.reason)  # by somebody who wants another to lead, for instance
        reason = lead.reason or ("the work failed" if self._failures > failures else "the slot is over")
        lead.resign()
        self.lead = None
        self._announce(None)
        length = self._clock.now() - since
        about = Event(EventKind.ENDED, worker.group, lead.fence, first.iteration, seconds=length, reason=reason)
        text = "%s: leadership ended after %.1f s (fence %d): %s"
        log.info(text, worker.group, length, lead.fence, reason, extra=about.fields)
        self._call(worker.on_lost, first)

    def _serve(self, lead: LeaseTerm, turn: Turn) -> bool:
        """Run the slot's work if it is due and wait for the slot's end; return False if leadership ended first."""
        self._slot = turn.slot
        group = self._worker.group
        for number in turn.given_up:
            log.warning("%s: slot %d may be unfinished, and is not run again", group, number)
        if turn.skipped:
            last = turn.slot.number - 1
            passed = self._happened(EventKind.SLOTS_SKIPPED, Term(lead, turn), count=turn.skipped)
            first = last - turn.skipped + 1
            log.warning("%s: slots %d to %d have passed unused", group, first, last, extra=passed)
        if turn.run:
            if not self._finish(Term(lead, turn)):
                return False
            self._slot = Slot(turn.slot.number, turn.slot.ends, done=True)
        # Others must know that the slot is done before anything can end our term.
        if not turn.slot.done and not self._tell(lead, self._slot):
            return False
        return not lead.lost.wait(self._slot.ends - self._clock.now())

    def _finish(self, term: Term) -> bool:
        """Run the work; return whether the slot is done."""
        again = ", which an earlier leader may have begun" if term.takeover else ""
        begun, about = self._clock.now(), (self._worker.group, term.iteration)
        try:
            term.check()
            started = self._happened(EventKind.SLOT_STARTED, term, takeover=term.takeover)
            log.info("%s: slot %d runs%s (fence %d)", *about, again, term.fence, extra=started)
            if trouble := never_ran(self._work(term)):
                raise WorkNeverRan(trouble)
            ended = self._happened(EventKind.SLOT_DONE, term, seconds=self._clock.now() - begun)
            log.debug("%s: slot %d is done", *about, extra=ended)
        except LeadershipLost as exc:
            lost = self._happened(EventKind.SLOT_INTERRUPTED, term, seconds=self._clock.now() - begun, reason=str(exc))
            log.warning("%s: slot %d was interrupted: %s", *about, exc, extra=lost)
            return False
        except WorkNeverRan:
            raise  # in no slot would it be otherwise
        except Exception as exc:
            reason = "".join(traceback.format_exception_only(exc)).strip()  # also if its own str or repr raises
            failed = self._happened(EventKind.SLOT_FAILED, term, seconds=self._clock.now() - begun, reason=reason)
            done = is_done(failed=True, retry=self._worker.on_error == "retry")
            self._failures = 0 if done else self._failures + 1
            what = "failed" if done else "failed, and the next leader runs it again"
            log.exception("%s: the work of slot %d %s", *about, what, extra=failed)
            return done
        finally:
            if self._forked():
                os._exit(0)  # a child that the work forked and did not end: everything from here on is its parent's
        self._failures = 0
        return True

    def _happened(self, kind: EventKind, term: Term, **more: Any) -> dict[str, Any]:
        """Report an event of a slot; return its fields, for the log."""
        return tell(self._worker.on_event, Event(kind, self._worker.group, term.fence, term.iteration, **more))

    def _tell(self, lead: LeaseTerm, slot: Slot) -> bool:
        """Write `slot` into the record, however long the store takes; return False if leadership ended first."""
        self._slot = slot
        about, policy, silence = (self._worker.group, slot.number), self._worker.policy, Reminder(log, self._clock)

        def say(state: RetryCallState) -> None:
            if silence.due("silence") and state.outcome:
                log.warning("%s: slot %d cannot be recorded yet: %s", *about, state.outcome.exception())

        again = retrying(
            self._clock,
            first=policy.retry_every,
            longest=policy.longest_pause,
            retry=retry_if_exception_type((StoreUnavailable, BadRecord)),
            wake=threading.Event(),  # not the event of a stop: the work's result must be recorded even then
            stop=lambda _state: not lead.valid,
            before_sleep=say,
            left=lead.remaining,
            chance=self._chance,
        )
        with contextlib.suppress(StoreUnavailable, BadRecord, LeadershipLost):
            again(lead.proclaim, slot.note)
            if silence.over():
                log.info("%s: slot %d is recorded now", *about)
            return True
        return False

    def _announce(self, lead: LeaseTerm | None) -> None:
        if self.announcer:
            self.announcer.tell(lead)

    def _call(self, hook: Callable[[Term], None], term: Term) -> None:
        """Call a subclass's hook; log what it raises."""
        try:
            hook(term)
        except Exception:
            log.exception("%s: %s failed", self._worker.group, hook.__name__)

    def _may_lead(self) -> bool:
        """Return what `eligible` says; False if it raises, which is logged once a minute until it works again."""
        try:
            may = bool(self._worker.eligible())
        except Exception as exc:
            if self._not_eligible.due(repr(exc)):
                log.exception("%s: eligible failed, so this worker does not lead", self._worker.group)
            return False
        self._not_eligible.over()
        return may

"""One run of a worker, from its start to its stop: the thread that campaigns, works and hands over, and its state."""

import logging
import random
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from tenacity import RetryCallState, retry_if_exception_type

from election import Candidate, Event, LeasePolicy, LeaseTerm, NotElected
from election.candidate import Plan
from election.clock import Clock
from election.errors import BadRecord, ElectionError
from election.events import EventKind
from election.retries import Reminder, backoff, retrying
from election.rules import View, is_own_takeover
from election.term import Note
from politics.group.peers import Peer
from politics.worker.agenda import Agenda, Assignment
from politics.worker.duty import Duty, Work
from politics.worker.slots import Rivals
from politics.worker.term import Term

log = logging.getLogger("politics")

LONGEST_PAUSE = 60.0
"""Seconds after a failed slot that is to be run again, at most; less where slots are shorter."""


class Worker(Protocol):
    """What a run asks of its `TokenWorker`: settings, and the methods that subclasses override."""

    group: str
    iteration_length: float
    grace: float
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


def campaign(
    candidate: Candidate,
    plan: Plan,
    stop: threading.Event,
    bad_record: Reminder,
    clock: Clock,
    chance: Callable[[], float] = random.random,
) -> LeaseTerm:
    """Wait until the candidate leads, also while the cell holds something that is not ours, which is logged.

    Args:
        candidate: who campaigns.
        plan: see `Plan`.
        stop: ends the campaign; nudge the candidate as well.
        bad_record: says when to log it.
        clock: the candidate's.
        chance: returns a random number, at least 0 and less than 1, for the jitter of retries.

    Raises:
        NotElected: `stop` is set.
        StoreUnusable: as for `Candidate.campaign`.
    """

    def complain(state: RetryCallState) -> None:
        trouble = str(state.outcome.exception()) if state.outcome else ""
        if bad_record.due(trouble):
            log.error("%s: cannot take part in the election: %s", candidate.name, trouble)

    again = retrying(
        clock,
        first=candidate.policy.poll,
        longest=candidate.policy.longest_pause,
        retry=retry_if_exception_type(BadRecord),
        wake=stop,
        before_sleep=complain,
        chance=chance,
    )
    lead = again(candidate.campaign, plan=plan, stop=stop)
    bad_record.over()
    return lead


class Run:
    """A worker that runs. `thread` is its thread; everything else may be used from any.

    Args:
        worker: whose run this is.
        work: called once per slot or tick while we lead.
        agenda: what there is to do, and when.
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
        agenda: Agenda,
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
        self._worker, self._candidate = worker, candidate
        self._clock, self._finished, self._chance, self._aloud = clock, finished, chance, aloud
        self._stop, self._stop_reason = threading.Event(), ""
        self._agenda = agenda
        self._assignment: Assignment | None = None
        self._rivals, self._cut_short = Rivals(candidate.id), False
        self._bad_record, self._not_eligible = Reminder(log, clock), Reminder(log, clock)
        self._duty = Duty(
            worker.group,
            work,
            agenda,
            worker.policy,
            clock,
            retry=worker.on_error == "retry",
            on_event=lambda event: worker.on_event(event),
            chance=chance,
        )
        self.thread = threading.Thread(target=self._run, name=f"politics-{worker.group}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self.thread.is_alive()

    def is_inside(self) -> bool:
        """Return whether this is called by the work, or by a hook of ours."""
        return self.thread is threading.current_thread()

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
                    lead = campaign(
                        self._candidate, self._plan, self._stop, self._bad_record, self._clock, self._chance
                    )
                except NotElected:
                    return
                with lead:
                    self._govern(lead)
                # Each slot is a new race: let those who have not led look first, where there are any.
                heard = self._cut_short or bool(self.announcer and self.announcer.peers())
                if self._rivals.may_be_there(heard=heard):
                    self._clock.wait(self._stop, min(1.2 * worker.policy.poll, worker.iteration_length / 4))
                if self._duty.failures:
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
        return backoff(self._duty.failures, self._chance(), first=2 * self._worker.policy.poll, longest=longest)

    def _plan(self, view: View) -> Note | None:
        """Learn the present slot from the record; return what we would write if we took the lease now."""
        self._agenda.learn(view, self._candidate.id)
        self._rivals.look(view.record)
        if self._stop.is_set() or not self._may_lead():
            return None
        if self._assignment is None or not is_own_takeover(view, self._candidate.id):
            self._assignment = self._agenda.take(view)
        return self._assignment.note

    def _govern(self, lead: LeaseTerm) -> None:
        """Lead: one slot, or for as long as the agenda says that we stay, until leadership ends."""
        worker, assignment, since, duty = self._worker, self._assignment, self._clock.now(), self._duty
        failures = duty.failures
        assert assignment is not None
        self.lead = lead
        if self._stop.is_set():
            lead.ask_to_stop(self._stop_reason)
        self._announce(lead)
        about = Event(EventKind.ELECTED, worker.group, lead.fence, **assignment.about)
        told = (worker.group, lead.fence, assignment.label)
        log.info("%s: elected leader (fence %d, %s)", *told, extra=about.fields)
        if self._aloud and not log.hasHandlers() and sys.stderr:
            hint = "For more, call logging.basicConfig(level=logging.INFO)"
            print("{}: elected leader (fence {}, {}). {}".format(*told, hint), file=sys.stderr)
        self._aloud = False
        first = Term(lead, assignment)
        self._call(worker.on_elected, first)
        while duty.serve(lead, assignment) and not lead.lost.wait(self._agenda.rest()):
            if not (self._agenda.stays and self._may_lead()):
                break
            following = duty.next(lead)
            if following is None:
                break
            assignment = following
        self._cut_short = bool(lead.reason)  # by somebody who wants another to lead, for instance
        reason = lead.reason or ("the work failed" if duty.failures > failures else self._why_it_ends())
        lead.resign()
        self.lead = None
        self._announce(None)
        length = self._clock.now() - since
        about = Event(EventKind.ENDED, worker.group, lead.fence, **first.about, seconds=length, reason=reason)
        text = "%s: leadership ended after %.1f s (fence %d): %s"
        log.info(text, worker.group, length, lead.fence, reason, extra=about.fields)
        self._call(worker.on_lost, first)

    def _why_it_ends(self) -> str:
        return "not eligible any more" if self._agenda.stays else "the slot is over"

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

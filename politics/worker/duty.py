"""What a leader does with one assignment: the work, its end in the record, and what the world is told of it."""

import contextlib
import logging
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from tenacity import RetryCallState, retry_if_exception_type

from election import Event, LeadershipLost, LeasePolicy, LeaseTerm, StoreUnavailable
from election.clock import Clock
from election.errors import BadPolicy, BadRecord
from election.events import EventKind, OnEvent, tell
from election.forks import fork_detector
from election.retries import Reminder, retrying
from politics.worker.agenda import Agenda, Assignment, Unrun
from politics.worker.mistakes import never_ran
from politics.worker.slots import is_done
from politics.worker.term import Term

log = logging.getLogger("politics")

Work = Callable[[Term], object]


class WorkNeverRan(BadPolicy):
    """The work returned something that had to be awaited or iterated. This ends the worker."""


class Duty:
    """Does what the agenda of a group says, while its lease is held. One thread uses it.

    Args:
        group: the group.
        work: called with the `Term` of each slot or tick that is run.
        agenda: what there is to do.
        policy: the timings of the lease.
        clock: the candidate's clock.
        retry: whether work that raised an error is to be run again by the next leader.
        on_event: called with each event.
        chance: returns a random number, at least 0 and less than 1, for the jitter of retries.
    """

    def __init__(
        self,
        group: str,
        work: Work,
        agenda: Agenda,
        policy: LeasePolicy,
        clock: Clock,
        *,
        retry: bool,
        on_event: OnEvent,
        chance: Callable[[], float],
    ) -> None:
        self.failures = 0
        """How many times in a row the work has failed and was left to be run again."""
        self._group, self._work, self._agenda, self._policy = group, work, agenda, policy
        self._clock, self._retry, self._on_event, self._chance = clock, retry, on_event, chance
        self._forked = fork_detector()

    def next(self, lead: LeaseTerm) -> Assignment | None:
        """Return what to do now, once the record says it; None if leadership ended first.

        If an operator has written at the same moment, it is decided again: a pause that was confirmed stops the tick
        that was just being written, since its work has not begun.
        """
        again = False
        while True:
            orders = lead.orders
            assignment = self._agenda.next(orders)
            if (assignment.news or again) and not self.tell(lead, assignment):
                return None
            if lead.orders == orders:
                return assignment
            again = True

    def serve(self, lead: LeaseTerm, assignment: Assignment) -> bool:
        """Do what is written in the record; return False if leadership ended first, or the work is left to others."""
        self._report(lead, assignment.skipped)
        self._agenda.begin(assignment)
        if not assignment.run:
            return True
        done, failed = self._finish(Term(lead, assignment), assignment)
        if not done:
            return False
        # Others must know that it is done before anything can end our term.
        ended = self._agenda.end(assignment, failed=failed)
        if not self.tell(lead, ended):
            return False
        self._report(lead, ended.skipped)
        self._agenda.begin(ended)
        return True

    def _report(self, lead: LeaseTerm, skipped: tuple[Unrun, ...]) -> None:
        """Log what is not run, and report it."""
        for each in skipped:
            fields = self._happened(EventKind.SLOTS_SKIPPED, lead.fence, each.about) if each.about else None
            log.warning("%s: %s", self._group, each.text, extra=fields)

    def _finish(self, term: Term, assignment: Assignment) -> tuple[bool, bool]:
        """Run the work; return whether it is done, and whether it failed."""
        again = ", which an earlier leader may have begun" if term.takeover else ""
        begun, about, names = self._clock.now(), (self._group, assignment.label), assignment.about
        try:
            term.check()
            started = self._happened(EventKind.SLOT_STARTED, term.fence, names, takeover=term.takeover)
            log.info("%s: %s runs%s (fence %d)", *about, again, term.fence, extra=started)
            if trouble := never_ran(self._call(term, about)):
                raise WorkNeverRan(trouble)
            ended = self._happened(EventKind.SLOT_DONE, term.fence, names, seconds=self._clock.now() - begun)
            log.debug("%s: %s is done", *about, extra=ended)
        except LeadershipLost as exc:
            seconds, reason = self._clock.now() - begun, str(exc)
            lost = self._happened(EventKind.SLOT_INTERRUPTED, term.fence, names, seconds=seconds, reason=reason)
            log.warning("%s: %s was interrupted: %s", *about, exc, extra=lost)
            return False, False
        except WorkNeverRan as exc:
            self._break_off(term, names, begun, exc)
            raise  # in no slot would it be otherwise
        except Exception as exc:
            reason = "".join(traceback.format_exception_only(exc)).strip()  # also if its own str or repr raises
            seconds = self._clock.now() - begun
            failed = self._happened(EventKind.SLOT_FAILED, term.fence, names, seconds=seconds, reason=reason)
            done = is_done(failed=True, retry=self._retry)
            self.failures = 0 if done else self.failures + 1
            what = "failed" if done else "failed, and the next leader runs it again"
            log.exception("%s: the work of %s %s", *about, what, extra=failed)
            return done, True
        except BaseException as exc:  # sys.exit, say: the worker ends, and whoever leads next runs this again
            self._break_off(term, names, begun, exc)
            raise
        self.failures = 0
        return True, False

    def _call(self, term: Term, about: tuple[str, str]) -> object:
        """Call the work. A child that it forked and did not end ends here: what follows, and says, is its parent's."""
        try:
            return self._work(term)
        except Exception:
            if self._forked():
                log.exception("%s: a child that the work of %s forked failed", *about)
            raise
        finally:
            if self._forked():
                os._exit(0)

    def _break_off(self, term: Term, names: Mapping[str, Any], begun: float, exc: BaseException) -> None:
        """Report that the work ends with the worker."""
        seconds, reason = self._clock.now() - begun, f"the worker ends: {exc!r}"
        self._happened(EventKind.SLOT_INTERRUPTED, term.fence, names, seconds=seconds, reason=reason)

    def _happened(self, kind: EventKind, fence: int, about: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Report an event of a slot or tick; return its fields, for the log."""
        return tell(self._on_event, Event(kind, self._group, fence, **about, **more))

    def tell(self, lead: LeaseTerm, assignment: Assignment) -> bool:
        """Write into the record what is done, however long the store takes; return False if leadership ended first."""
        about, policy, silence = (self._group, assignment.label), self._policy, Reminder(log, self._clock)

        def say(state: RetryCallState) -> None:
            if silence.due("silence") and state.outcome:
                log.warning("%s: %s cannot be recorded yet: %s", *about, state.outcome.exception())

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
            again(lead.proclaim, assignment.note)
            if silence.over():
                log.info("%s: %s is recorded now", *about)
            return True
        return False

"""Several `celery beat`, of which one sends: `celery -A app beat -S politics.integrations.celery:LeaderScheduler`.

Needs the extra `celery`. Settings of the app, all optional:

`politics_store`: the URL of the store; by default `$POLITICS_STORE`, else a file of this user on this machine.
`politics_group`: the name of the lease; by default the name of the app and `.beat`.
`politics_lease_ttl`: seconds after which a beat that fell silent is replaced; 10 by default.
`politics_catch_up`: missed ticks that are at most this many seconds old are all sent, of older ones one for each entry;
by default three leases, at least a minute.
`politics_beat_scheduler`: the scheduler that says which entries there are; by default Celery's, which has them in
memory. Its own record of what was sent does not count: see `beat_record`.
"""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

try:
    from celery.beat import Scheduler, SchedulingError
    from celery.exceptions import OperationalError
    from celery.schedules import crontab, schedule, solar
    from celery.utils.imports import symbol_by_name
    from celery.utils.time import delta_resolution
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError("the scheduler for Celery needs a library: pip install celery", name=exc.name) from exc

from election import (
    BadPolicy,
    Candidate,
    LeadershipLost,
    LeasePolicy,
    LeaseTerm,
    NotElected,
    StoreUnavailable,
)
from election.clock import SystemClock
from election.errors import BadRecord
from election.register import Hints
from election.retries import Reminder
from election.rules import View, is_own_takeover
from election.term import Note
from politics.integrations.beat_agenda import YEAR, BeatAgenda, microseconds, moment
from politics.integrations.beat_record import Position, last_of_interval
from politics.settings import find_store

log = logging.getLogger("politics")

HOUR = timedelta(hours=1)

LOOK = 1.0
"""Seconds after which a tick ends at the latest, so that whoever runs the scheduler can end it."""


def last_run(when: Any, since: int, sent: int, zone: Any) -> datetime:
    """Return from when a schedule counts to its next tick, if all of its ticks up to `sent` were sent.

    Args:
        when: the schedule of an entry.
        since: when intervals began, in microseconds.
        sent: in microseconds.
        zone: the time zone of the app.
    """
    until = moment(sent, UTC)
    if isinstance(when, solar):
        # The event that is found depends, by some microseconds, on where the search begins: so it begins at midnights.
        return _last_before(when, until.replace(hour=0, minute=0, second=0, microsecond=0), until, zone, HOUR * 12)
    if (
        isinstance(when, crontab)
        and until.astimezone(zone).utcoffset() != (until - HOUR * 3).astimezone(zone).utcoffset()
    ):
        # The clocks have changed just now: what a time of day means depends on whether we count from before.
        return _last_before(when, until - HOUR * 3, until, zone, timedelta())
    if not isinstance(when, schedule) or when.run_every <= timedelta():
        return moment(sent, zone)
    if not when.relative:
        return moment(last_of_interval(when.run_every // timedelta(microseconds=1), since, sent), UTC)
    # Rounded to the full minute, hour or day by the local clock, on which the steps are counted too.
    step = delta_resolution(datetime.min + when.run_every, when.run_every) - datetime.min
    start = delta_resolution(moment(since, zone), when.run_every).replace(microsecond=0)
    last: datetime = start + (moment(sent, zone) - start) // step * step
    return last


def _last_before(when: Any, start: datetime, until: datetime, zone: Any, apart: timedelta) -> datetime:
    """Return the last event not after `until`, counted from `start`, and `apart` later; `start` if there is none."""
    before, now = when.nowfun, start
    try:
        when.nowfun = lambda: now.astimezone(zone)
        while now < (event := now + when.remaining_estimate(now.astimezone(zone))) <= until:
            now = event + apart
    finally:
        when.nowfun = before
    return now.astimezone(zone)


class LeaderScheduler(Scheduler):
    """A scheduler of which several processes run one each, and one sends.

    All stand by for a lease. What was sent is in the lease's record, so that the next one goes on exactly there: no
    tick is left out, and none is sent twice but the one that was under way when its sender was killed or lost the
    lease. Making one does no I/O; the process that calls `tick` is the candidate.

    Raises:
        BadPolicy, BadStoreURL: a setting is wrong.
    """

    def __init__(self, app: Any, *, lazy: bool = False, **options: Any) -> None:
        conf = app.conf
        self._policy = LeasePolicy(ttl=conf.get("politics_lease_ttl", 10.0))
        self._catch_up = _checked(conf.get("politics_catch_up", max(60.0, 3 * self._policy.ttl)))
        wrapped = symbol_by_name(conf.get("politics_beat_scheduler") or Scheduler)
        if isinstance(wrapped, type) and issubclass(wrapped, LeaderScheduler):
            raise BadPolicy("politics_beat_scheduler must name another scheduler, which says what entries there are")
        self._inner = wrapped(app=app, lazy=lazy, **options)
        super().__init__(app, max_interval=self._inner.max_interval, lazy=True)
        group = conf.get("politics_group") or f"{app.main or 'celery'}.beat"
        self._register = find_store(conf.get("politics_store")).shard(group)
        self._candidate = Candidate(self._register, group, self._policy)
        self._agenda = BeatAgenda(self._inner, last_run, self._catch_up)
        self._term: LeaseTerm | None = None
        self._hints: Hints | None = None
        self._clock = SystemClock()
        self._trouble = Reminder(log, self._clock)
        self._refused: dict[str, float] = {}  # since when the broker has taken no task of an entry
        self._ticking = self._unwritten = False

    @property
    def schedule(self) -> Any:
        """The entries by name: those of the scheduler that this one wraps."""
        return self._inner.schedule

    @schedule.setter
    def schedule(self, entries: Any) -> None:
        self._inner.schedule = entries

    @property
    def info(self) -> str:
        """What `celery beat` prints at its start."""
        return f"    . lease -> {self._candidate.name}, {self._policy.ttl:g} s\n{self._inner.info}".rstrip()

    def sync(self) -> None:
        """Let the wrapped scheduler save what it keeps."""
        self._inner.sync()

    def close(self) -> None:
        """Hand over, so that another beat sends at once.

        Celery calls it in the handler of a signal too, possibly in the middle of `tick`, and again when `tick` is over.
        """
        if self._ticking:
            return
        try:
            self._hand_over()
        finally:
            if self._hints:
                self._hints.close()
            self._inner.close()

    def tick(self, *_: Any, **__: Any) -> float:
        """Stand by, or send what is due, or wait until something is; return the seconds to wait, which are none."""
        self._ticking = True
        try:
            if self._term is None:
                self._term = self._campaign()
            if self._term is not None:
                self._lead(self._term)
            return 0.0
        finally:
            self._ticking = False

    def _campaign(self) -> LeaseTerm | None:
        """Stand by for a while, and return the term if it is ours."""
        # The campaigns come one after another, and this keeps up the stream of hints that they listen to.
        self._hints = self._hints or self._register.watch(self._candidate.name, lambda: None)
        try:
            term = self._candidate.campaign(LOOK, plan=self._plan)
        except NotElected:
            return None
        except BadRecord as exc:
            if self._trouble.due(str(exc)):
                log.error("%s: %s", self._candidate.name, exc)
            threading.Event().wait(self._policy.poll)
            return None
        log.info("%s: this beat sends (fence %d)", term.name, term.fence)
        self._unwritten = False
        self._agenda.start_over()
        self._say_who_is_ahead()
        return term

    def _plan(self, view: View) -> Note | None:
        """Learn from the record what was sent. What is written with the takeover is what was learned."""
        self._agenda.learn(Position.read(view.record.note) if view.record else None)
        if self._agenda.position is None and view.record is not None:
            # If the store has lost a record, others may remember what was sent: they come first, for a whole lease.
            free_at = view.free_at(self._policy)
            if self._clock.now() < free_at + self._policy.ttl and not self._register.remembers(2 * self._policy.ttl):
                return None
        return self._note

    def _note(self, _now: float) -> Mapping[str, Any]:
        """Return the note of each write of ours. Any thread calls it."""
        position = self._agenda.position = self._agenda.position or Position.first(_wall())
        return position.note()

    def _say_who_is_ahead(self) -> None:
        position = self._agenda.position
        if position and (ahead := (position.at - _wall()) / 1e6) > self._catch_up:
            log.warning(
                "%s: ticks were sent up to %s, and the clock of this machine is %.0f s behind that: none is sent "
                "before then. If the other clock was wrong, stop all beats and start them with another politics_group",
                self._candidate.name,
                moment(position.at, self.app.timezone).isoformat(),
                ahead,
            )

    def _hand_over(self) -> None:
        term, self._term = self._term, None
        if term is None and self._candidate.view.attempt is not None:
            # A signal may have ended the campaign after its takeover was written and before we had its term.
            with contextlib.suppress(StoreUnavailable, BadRecord):
                term = self._candidate.attempt(self._plan_to_adopt)
        if term is not None:
            term.resign()

    def _plan_to_adopt(self, view: View) -> Note | None:
        return self._note if is_own_takeover(view, self._candidate.id) else None

    def _lead(self, term: LeaseTerm) -> None:
        """Write down what was sent, and send the next tick that is due, or wait until one is."""
        if term.lost.is_set():
            log.warning("%s: this beat stands by: %s", term.name, term.reason)
            self._step_back()
            return
        try:
            if self._unwritten:
                term.proclaim(self._note)
                self._unwritten = False
            found = self._agenda.next(_wall())
            if not isinstance(found, float):
                self._send(term, found)
                self._trouble.over()
                return
        except LeadershipLost:
            return
        except StoreUnavailable as exc:
            self._put_off(exc)  # nothing more is sent before it is written what was
            found = self._policy.retry_every
        except OperationalError as exc:
            self._put_off(exc)
            self._step_back()  # the tick is still to be sent, and another beat may reach the broker
            return
        if self._inner.should_sync():
            self._inner._do_sync()
        term.lost.wait(min(found, self.max_interval, LOOK))

    def _step_back(self) -> None:
        """Hand over, and wait until another beat has taken the lease, if there is one."""
        self._hand_over()
        threading.Event().wait(2 * self._policy.poll)

    def _put_off(self, exc: Exception) -> None:
        if self._trouble.due(type(exc).__name__):
            log.warning("%s: sending is put off: %s", self._candidate.name, exc)

    def _send(self, term: LeaseTerm, entry: Any) -> None:
        """Send a tick that is under way, if this beat still leads.

        Raises:
            LeadershipLost: it does not; nothing was sent.
            OperationalError: the broker did not answer, or refused the task; the tick is still to be sent.
        """
        self._inner.connection.ensure_connection(max_retries=1, interval_start=0)
        producer = self._inner.producer
        with _undisturbed():
            term.check()
            position = self._agenda.position
            assert position is not None
            if late := self._is_too_late(entry, position.at):
                log.info("%s: %s is too late, and left out", term.name, entry.name)
            else:
                self._apply(entry, producer, moment(position.at, UTC))
                log.info("%s: sent %s (%s)", term.name, entry.name, entry.task)
            self._agenda.sent()
            self._unwritten = True
        if not late:
            self._agenda.reserved(self._inner.reserve(entry))

    def _apply(self, entry: Any, producer: Any, tick: datetime) -> None:
        """Send a task, with the instant for which it is sent as a header: the same if it should be sent again.

        Raises:
            OperationalError: another try may help.
        """
        options = entry.options
        try:
            headers = {**(options.get("headers") or {}), "politics_tick": tick.isoformat()}
            entry.options = {**options, "headers": headers}
            self._inner.apply_async(entry, producer=producer, advance=False)
            self._refused.pop(entry.name, None)
        except Exception as exc:
            cause = exc.__context__ if isinstance(exc, SchedulingError) else exc
            self._raise_if_it_may_help_to_wait(entry.name, cause)
            log.exception(
                "%s: %s is left out: %s", self._candidate.name, entry.name, exc
            )  # and we go on, as Celery does
        finally:
            entry.options = options

    def _raise_if_it_may_help_to_wait(self, name: str, exc: BaseException | None) -> None:
        """Raise while the broker does not answer, and for one lease if it does but refuses the tasks of this entry."""
        connection = self._inner.connection
        if not isinstance(exc, (OperationalError, *connection.connection_errors, *connection.channel_errors)):
            return
        with connection.clone() as another:
            another.ensure_connection(max_retries=1, interval_start=0)
        now = self._clock.now()
        if now < self._refused.setdefault(name, now) + self._policy.ttl:
            raise OperationalError(f"{name}: {exc}") from exc

    def _is_too_late(self, entry: Any, at: int) -> bool:
        deadline = self.app.conf.beat_cron_starting_deadline
        return deadline is not None and isinstance(entry.schedule, crontab) and _wall() - at > microseconds(deadline)


def _checked(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= YEAR:
        raise BadPolicy(f"politics_catch_up must be between 0 and {YEAR:g} seconds, not {seconds!r}")
    return seconds


def _wall() -> int:
    return time.time_ns() // 1000


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off SIGTERM and Ctrl-C while one tick is sent, since whether it was would be unknown. A second one ends it.

    Only the main thread hears signals, and may say so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    handlers: dict[int, Any] = {}

    def put_off(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        restore()

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for stop in (signal.SIGTERM, signal.SIGINT):
        handlers[stop] = signal.signal(stop, put_off)
    try:
        yield
    finally:
        restore()
        for number in heard[:1]:
            signal.raise_signal(number)

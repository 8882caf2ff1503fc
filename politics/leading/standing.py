"""`Standing`: one thread that stands for a lease, holds it while something is done, and hands it over."""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

from election import BadPolicy, Candidate, LeadershipLost, LeasePolicy, LeaseTerm, NotElected, Register
from election.candidate import Plan
from election.clock import SystemClock
from election.errors import ElectionError
from election.events import OnEvent
from election.record import check_name
from election.retries import Reminder, backoff
from politics.settings import find_store
from politics.worker.daemon import begin
from politics.worker.run import campaign

log = logging.getLogger("politics")

LONGEST_PAUSE = 60.0
"""Seconds between a failure and the next campaign, at most."""

Govern = Callable[[LeaseTerm], object]
"""Called with each term, on the thread of the `Standing`. The lease is handed over when it has returned."""


class Options(TypedDict, total=False):
    """What all of this room take as keyword arguments.

    `store`: the store's URL, or a `Register`. `servers`: memcached servers, each `host:port`, instead of `store`.
    Default: `$POLITICS_STORE`, else a file of this user, which elects a leader of this machine. `lease_ttl`: seconds
    after which a silent leader is replaced (10); the same for all who use this name. `on_event`: called with each
    `Event`, in the thread in which it happens; it must return at once.
    """

    store: str | Register | None
    servers: Sequence[str] | None
    lease_ttl: float
    on_event: OnEvent | None


OPTIONS = tuple(Options.__annotations__)


class Standing:
    """Stands for a lease, again and again until it is told to stop, and calls `govern` with each term that it wins.

    If `govern` raises, that is logged, the lease is handed over, and the next campaign begins after a pause that grows
    with each failure. Constructing it does no I/O. All members may be used from any thread.

    Args:
        name: the lease; printable, at most 80 bytes.
        govern: see `Govern`. `term.lost` is set when it must return.
        grace: seconds that `govern` may take to return when the process ends.
        plan: see `Plan`: what to write beside the lease, decided at each look.
        ended: called at the end, on the thread; look at `failure` then. Without it, a failure is logged.
        options: see `Options`.

    Raises:
        BadPolicy: the name or the timings cannot work.
        TypeError: there is no such option.
    """

    def __init__(
        self,
        name: str,
        govern: Govern,
        *,
        grace: float = 10.0,
        plan: Plan = lambda _view: {},
        ended: Callable[[], object] | None = None,
        **options: Unpack[Options],
    ) -> None:
        if unknown := options.keys() - set(OPTIONS):
            raise TypeError(f"there is no option {', '.join(sorted(unknown))}: there are {', '.join(OPTIONS)}")
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= threading.TIMEOUT_MAX:
            raise BadPolicy(f"grace must be a number of seconds, not {grace!r}")
        self.group, self.grace = check_name(name), grace
        self.policy = LeasePolicy(ttl=options.pop("lease_ttl", 10.0))
        self.failure: BaseException | None = None
        """What ended it; None if it was told to stop."""
        self.lead: LeaseTerm | None = None
        """The term, while it leads."""
        self._govern, self._plan, self._ended, self._options = govern, plan, ended, options
        self._candidate: Candidate | None = None
        self._stop, self._reason = threading.Event(), ""
        self.thread = threading.Thread(target=self._run, name=f"politics-{name}", daemon=True)

    def begin(self) -> None:
        """Start the thread. If it still runs when the interpreter exits, it is told to stop, and hands over."""
        begin(self)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self.thread.is_alive()

    def is_inside(self) -> bool:
        """Return whether this is called by `govern`, on the thread."""
        return self.thread is threading.current_thread()

    def ask_to_stop(self, reason: str) -> None:
        """End the campaign, or set `term.lost`. It ends when `govern` has returned and the lease is handed over."""
        self._reason = reason
        self._stop.set()
        if candidate := self._candidate:
            candidate.nudge()
        if lead := self.lead:
            lead.ask_to_stop(reason)

    def give_up(self) -> bool:
        """Hand the lease over although `govern` has not returned; return whether there was one."""
        lead = self.lead
        if lead:
            log.warning("%s: what runs did not stop in time: its lease is given up", self.group)
            lead.resign()
        return lead is not None

    # What follows is called on the thread.

    def _run(self) -> None:
        try:
            self._stand()
        except BaseException as exc:
            self.failure = exc
            if not self._ended:
                unexpected = not isinstance(exc, SystemExit | ElectionError)  # an error of ours says all in a sentence
                log.critical("%s: does not campaign any more: %s", self.group, exc, exc_info=unexpected)
        finally:
            if self._ended:
                self._ended()

    def _stand(self) -> None:
        store = self._options.get("store")
        register = find_store(store, self._options.get("servers"))
        clock, failures = SystemClock(), 0
        bad_record = Reminder(log, clock)
        try:
            self._candidate = Candidate(register, self.group, self.policy, on_event=self._options.get("on_event"))
            while not self._stop.is_set():
                try:
                    term = campaign(self._candidate, self._plan, self._stop, bad_record, clock)
                except NotElected:
                    return
                failures = 0 if self._hold(term) else failures + 1
                if failures:
                    first, longest = 2 * self.policy.poll, LONGEST_PAUSE
                    clock.wait(self._stop, backoff(failures, random.random(), first=first, longest=longest))
                else:  # somebody may have asked for this lease: let the others look first
                    clock.wait(self._stop, 1.2 * self.policy.poll)
        finally:
            if register is not store:  # otherwise it is the caller's, and may have other users
                register.close()

    def _hold(self, term: LeaseTerm) -> bool:
        """Do what is to be done in this term; return False if that failed."""
        with term:
            self.lead = term
            if self._stop.is_set():
                term.ask_to_stop(self._reason)
            log.info("%s: elected leader (fence %d)", self.group, term.fence)
            try:
                self._govern(term)
            except LeadershipLost as exc:
                log.info("%s", exc)
            except Exception:
                log.exception("%s: failed, and hands over", self.group)
                return False
            finally:
                reason = term.reason
                self.lead = None
                term.resign()
                log.info("%s: leadership ended (fence %d): %s", self.group, term.fence, reason or "it was given up")
        return True


def wait_until_ending(term: LeaseTerm, margin: float) -> None:
    """Wait until `term.lost` is set, or fewer than `margin` seconds of the lease are left."""
    while (left := term.remaining() - margin) > 0 and not term.lost.wait(left):
        pass

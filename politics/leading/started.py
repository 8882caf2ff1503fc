"""`run_while_leading`: anything that has a start and a stop runs on the leader, and nowhere else."""

import logging
import threading
from collections.abc import Callable
from typing import Self, Unpack

from election import LeadershipLost, LeaseTerm
from election.clock import SystemClock
from politics.leading.standing import Options, Standing, wait_until_ending
from politics.worker.daemon import end, process
from politics.worker.mistakes import refuse_event_loop, refuse_what_a_call_does_not_run

log = logging.getLogger("politics")

SETTLE = 1.0
"""Seconds that `start` has to return before `stop` is called. One that takes longer is taken for one that goes on."""


class WhileLeading:
    """Calls `start` when this process is elected, and `stop` before it hands over. Constructing it does no I/O.

    Both are called on threads of its own. `start` may return at once, or not before `stop` is called, as
    `serve_forever` of a server does. So `stop` may be called while `start` runs, a second after its call at the
    earliest. If `start` raises, that is logged, `stop` is not called, the lease is handed over, and this process pauses
    before it campaigns again, longer with each failure. If `stop` raises, nobody knows whether something still runs:
    that is logged, and this process does not campaign any more; `process` exits with status 1.

    `stop` is called as soon as somebody asks for the lease, and at the latest while a third of the lease is left: then
    the store has not answered for two thirds of it. So a `stop` that takes less than a third of the lease ends before
    another process may start. One that takes longer is logged as an error, since two may have run meanwhile.

    `with WhileLeading(...):` does this in the background; or call the object's own `start` and `stop`, or `process`.

    Args:
        name: the lease; printable, at most 80 bytes.
        start: begins what is to run.
        stop: ends it, and returns when it has ended.
        grace: seconds that `stop` may take when the process ends, while the lease is renewed (10).
        options: `store`, `servers`, `lease_ttl`, `on_event`; see `Options`.

    Raises:
        BadPolicy: the name or the times cannot work, or calling one of the two would run nothing.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], object],
        stop: Callable[[], object],
        *,
        grace: float = 10.0,
        **options: Unpack[Options],
    ) -> None:
        refuse_what_a_call_does_not_run(repr(name), [("start", start), ("stop", stop)])
        self._name, self._starts, self._stops, self._grace, self._options = name, start, stop, grace, options
        self._standing = self._new()

    def _new(self, ended: Callable[[], None] | None = None) -> Standing:
        return Standing(self._name, self._govern, grace=self._grace, ended=ended, **self._options)

    @property
    def leads(self) -> bool:
        """Whether this process can prove now that it leads."""
        lead = self._standing.lead
        return lead is not None and lead.valid

    def process(self) -> None:
        """Campaign and run until SIGTERM or SIGINT; call it on the main thread to have signals handled.

        The first signal stops what runs and leaves it `grace` seconds, the second ends the wait at once.

        Raises:
            RuntimeError: it runs already, or this thread runs an event loop, which would stand still.
            BadStoreURL, StoreUnusable: the store cannot be used, and waiting would not help.
            SystemExit: `stop` failed (status 1), or has not returned within `grace` (status 124).
        """

        refuse_event_loop("process()")
        process([self._begin])

    def start(self) -> None:
        """Campaign and run in the background, and return at once.

        When the interpreter exits, it is ended as by `stop()`.

        Raises:
            RuntimeError: it runs already.
        """
        self._begin(None)

    def _begin(self, ended: Callable[[], None] | None) -> Standing:
        if self._standing.alive:
            raise RuntimeError(f"{self._name!r} runs already")
        self._standing = self._new(ended)
        self._standing.begin()
        return self._standing

    def stop(self) -> None:
        """Stop what runs, hand over and return; wait `grace` seconds at most. It does nothing if nothing runs."""
        end([self._standing], "asked to stop")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _govern(self, term: LeaseTerm) -> None:
        """Start, and stop in time, in another thread because `start` may not have returned."""
        margin, trouble, clock = self._standing.policy.ttl / 3, list[Exception](), SystemClock()
        returned, begun = threading.Event(), clock.now()
        first, failed, stopping = threading.Lock(), False, False

        def stop_in_time() -> None:
            nonlocal stopping
            wait_until_ending(term, margin)
            clock.wait(returned, min(begun + SETTLE - clock.now(), term.remaining()))
            with first:
                stopping = not failed
            if not stopping:
                return
            try:
                self._stop_within(term)
            except Exception as exc:
                log.exception("%s: stop failed, so it may still run", self._name)
                trouble.append(exc)

        term.check()
        stopper = threading.Thread(target=stop_in_time, name=f"politics-{self._name}-stop", daemon=True)
        stopper.start()
        try:
            self._starts()
        except BaseException:
            with first:
                failed = True
            if stopping:  # which may be why it failed; the lease is held until that has ended too
                stopper.join()
            if not trouble:
                raise
        finally:
            returned.set()
        stopper.join()
        if trouble:
            raise SystemExit(f"{self._name}: stop failed, so it may still run: {trouble[0]!r}") from trouble[0]
        if not term.lost.is_set():
            raise LeadershipLost(f"{self._name}: not renewed in time: stopped before the lease ends")

    def _stop_within(self, term: LeaseTerm) -> None:
        """Call `stop`, and log it if the lease was over before that had returned."""
        why = term.reason or f"not renewed, {term.remaining():.1f} s are left"
        log.info("%s: is stopped: %s", self._name, why)
        begun, clock = SystemClock().now(), SystemClock()
        self._stops()
        if not term.valid:
            took = clock.now() - begun
            log.error("%s: the lease was over before stop returned, after %.1f s: two may have run", self._name, took)


def run_while_leading(
    name: str,
    start: Callable[[], object],
    stop: Callable[[], object],
    *,
    grace: float = 10.0,
    **options: Unpack[Options],
) -> None:
    """Run anything that has a start and a stop on the leader and nowhere else, until SIGTERM or SIGINT.

    `WhileLeading(...).process()` in one call; see `WhileLeading` for the arguments and for what is raised.
    """
    WhileLeading(name, start, stop, grace=grace, **options).process()

"""Runs workers as a daemon does: until a signal, until one of them fails, or until the interpreter exits."""

import atexit
import functools
import logging
import math
import os
import queue
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, Self

from election.clock import SystemClock
from politics.settings import service_manager

log = logging.getLogger("politics")


class Running(Protocol):
    """What runs until it is asked to stop: a `Run`, a `Dispatcher` or a `Standing`. See there for the members."""

    group: str
    grace: float
    failure: BaseException | None
    thread: threading.Thread

    @property
    def alive(self) -> bool: ...

    def is_inside(self) -> bool: ...

    def ask_to_stop(self, reason: str) -> None: ...

    def give_up(self) -> bool: ...


OUTLASTED = 124
"""The exit status of a process whose work did not return within `grace`, so that it ended with the process."""

Begin = Callable[[Callable[[], None]], Running]
"""Begins a run, which calls the argument when it ends."""

_begun: weakref.WeakSet[Running] = weakref.WeakSet()


def begin(run: Running) -> None:
    """Start a run. If it still runs when the interpreter exits, its work is asked to stop, and hands over."""
    _hand_over_at_exit()
    _begun.add(run)
    run.thread.start()


@functools.cache
def _hand_over_at_exit() -> None:
    atexit.register(lambda: end(tuple(_begun), "the interpreter exits"))


def end(runs: Iterable[Running], reason: str, grace: float | None = None) -> bool:
    """Ask the work of all `runs` to stop, wait for it, hand over; return whether some of it has not returned.

    A run that is ended by its own work is only asked.

    Args:
        runs: some of them may have ended.
        reason: said in the log.
        grace: seconds to wait at most; None: for each run its worker's `grace`.
    """
    alive = [run for run in runs if run.alive]
    for run in alive:
        run.ask_to_stop(reason)
    now = SystemClock().now
    asked, outlasted = now(), False
    for run in alive:
        if not run.is_inside():
            run.thread.join(max(0.0, asked + (run.grace if grace is None else grace) - now()))
            outlasted |= run.alive and run.give_up()
            _begun.discard(run)  # the exit of the interpreter does not wait for it a second time
    return outlasted


class Daemon:
    """What runs in the background once it is started: a `TokenWorker`, or a `Scheduler`."""

    _run: Running | None = None

    def _begin(self, work: None, finished: Callable[[], None], aloud: bool = False) -> Running:
        raise NotImplementedError

    def start(self) -> None:
        """Run in the background, and return at once."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether its thread lives."""
        return self._run is not None and self._run.alive

    def stop(self, grace: float | None = None) -> None:
        """Ask the work to stop, wait for it, hand over and return.

        Called by the work itself, it only asks. Stopping what does not run does nothing. In a coroutine it would hold
        up the event loop: `await asyncio.to_thread(worker.stop)`.

        Args:
            grace: seconds to wait for the work at most; None: its own `grace`.
        """
        if self._run is not None:
            end([self._run], "asked to stop", grace)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def process(begins: Sequence[Begin]) -> None:
    """Begin runs, and wait until all have ended. A signal, or one that fails, ends the others.

    The first signal leaves the work its `grace`, the second ends the wait at once. A service manager that asked for it
    (systemd, in `$NOTIFY_SOCKET`) is told when we are ready, that we live, and that we stop.

    Raises:
        SystemExit: the work raised it, or has not returned in time (status 124).
        BaseException: what ended a run.
    """
    from discovery.signals import SignalQueue  # here, so that importing politics imports no discovery

    manager, runs = ServiceManager(*service_manager()), list[Running]()
    with SignalQueue(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            for start in begins:
                runs.append(start(lambda: signals.put(0)))
            manager.tell("READY=1")
            left, number = len(runs), 0
            while left and not number and not any(run.failure for run in runs):
                number = _next(signals.get, manager)
                left -= not number
            reason = "asked to stop"
            if number:
                reason += f" by {signal.Signals(number).name}"
                log.info("%s: %s: stopping", ", ".join(run.group for run in runs), signal.Signals(number).name)
            manager.tell("STOPPING=1")
            for run in runs:
                run.ask_to_stop(reason)
            until = SystemClock().now() + max(run.grace for run in runs)
            while left and not _next(signals.get, manager, until):
                left -= 1
        finally:
            outlasted = end(runs, "asked to stop", grace=0.1)
    for run in runs:
        if run.failure:
            raise run.failure
    if outlasted:
        log.error("the process ends with status %d, and with it the work that has not returned", OUTLASTED)
        raise SystemExit(OUTLASTED)


def _next(get: Callable[[float], int], manager: "ServiceManager", until: float = math.inf) -> int:
    """Return the next number that arrives, -1 if none does `until` then; tell the service manager that we live."""
    now = SystemClock().now
    while True:
        try:
            return get(max(0.0, min(manager.period, until - now())))
        except queue.Empty:
            manager.tell("WATCHDOG=1")
            if now() >= until:
                return -1


class ServiceManager:
    """Tells systemd, or whoever listens at its socket, how we are. Nobody who fails to listen ends a worker.

    Args:
        address: a path, or a name that begins with @; empty: nobody asked.
        watchdog: seconds within which it wants to hear of us; 0 if it does not.
        pid: the process that is meant; 0 if any is.
    """

    def __init__(self, address: str, watchdog: float, pid: int) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.period = watchdog / 2 if address and watchdog > 0 and pid in (0, os.getpid()) else math.inf
        """Seconds between two signs of life."""

    def tell(self, state: str) -> None:
        """Send one state, such as `READY=1`."""
        if self._address:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.settimeout(1.0)
                    sender.sendto(state.encode(), self._address)
            except OSError as exc:
                log.debug("the service manager at %r cannot be told %s: %s", self._address, state, exc)

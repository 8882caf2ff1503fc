"""Threads, locks, events and clocks of the simulated world: greenlets that a world switches between.

The product's modules find these in place of `threading` while a world runs, so that all of its code runs as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, greenlet

if TYPE_CHECKING:
    from tests.simulation.world import World


class Process:
    """One simulated process: a clock of its own, and threads that stop and die together."""

    def __init__(self, world: World, pid: int, offset: float, rate: float) -> None:
        self.world, self.pid, self.offset, self.rate = world, pid, offset, rate
        self.alive, self.died_at = True, 0.0
        self.cut_until = 0.0
        self.late = 0.0
        self.paused_until = 0.0
        self.pauses: list[tuple[float, float]] = []
        self.pause_in: tuple[int, float] | None = None
        self.threads: list[Thread] = []

    def local(self) -> float:
        """This host's clock, in its own seconds."""
        return self.offset + self.rate * self.world.now

    def die(self) -> None:
        """SIGKILL: no line of its code runs any more."""
        self.alive, self.died_at = False, self.world.now
        for thread in list(self.threads):
            if thread.green:
                with self.world.acting_for(self):
                    thread.green.throw()


class Thread:
    """A greenlet with the shape of `threading.Thread`."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...] = (), **_: Any) -> None:
        self.process = world().current_process()
        self.target, self.args = target, args
        self.green: greenlet | None = None
        self.value: Any = None
        self.waiting = 0

    def start(self) -> None:
        self.process.threads.append(self)
        self.green = greenlet(self._run, parent=world().hub)
        world().after(0.0, self.resume, self.waiting, None)

    def _run(self, _value: Any) -> None:
        try:
            self.target(*self.args)
        except GreenletExit:
            pass
        finally:
            self.process.threads.remove(self)

    def is_alive(self) -> bool:
        return self.green is not None and not self.green.dead

    def resume(self, ticket: int, value: Any) -> None:
        """Go on with `value`, if the thread still waits for this."""
        if ticket != self.waiting or not self.process.alive or self.green is None:
            return
        w = world()
        if w.now < self.process.paused_until:
            w.after(self.process.paused_until - w.now, self.resume, ticket, value)
            return
        self.waiting += 1
        w.thread = self
        try:
            self.green.switch(value)
        finally:
            w.thread = None

    def suspend(self) -> Any:
        """Give the world control until somebody resumes us."""
        if not self.process.alive:
            raise GreenletExit
        value = world().hub.switch()
        if not self.process.alive:
            raise GreenletExit
        return value


class Event:
    """The shape of `threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[tuple[Thread, int]] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for thread, ticket in self._waiters:
            world().after(0.0, thread.resume, ticket, None)
        self._waiters.clear()

    def clear(self) -> None:
        self._set = False

    def wait_until(self, seconds: float) -> bool:
        thread = world().here()
        if not self._set:
            self._waiters.append((thread, thread.waiting))
            world().after(seconds, thread.resume, thread.waiting, None)
            thread.suspend()
        return self._set


class Lock:
    """The shape of `threading.Lock`, first come first served."""

    def __init__(self) -> None:
        self._held = False
        self._queue: deque[tuple[Thread, int]] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        while self._held:
            if not blocking:
                return False
            thread = world().here()
            self._queue.append((thread, thread.waiting))
            thread.suspend()
        self._held = True
        return True

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self._held = False
        while self._queue:
            thread, ticket = self._queue.popleft()
            world().after(0.0, thread.resume, ticket, None)


class SimClock:
    """One host's clock. Any look at it may be the moment at which the process is paused."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def now(self) -> float:
        value = self.process.local()
        w = world()
        if w.thread and self.process.pause_in:
            left, seconds = self.process.pause_in
            self.process.pause_in = (left - 1, seconds) if left else None
            if not left:
                w.pause(self.process, seconds)
                w.after(seconds, w.thread.resume, w.thread.waiting, None)
                w.thread.suspend()
        return value

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait_until(max(0.0, seconds) / self.process.rate)


_world: list[World] = []


def world() -> World:
    """The world that runs now."""
    return _world[-1]


class Threading:
    """What the product's modules find in place of `threading`."""

    Thread, Event, Lock = Thread, Event, Lock

    @staticmethod
    def current_thread() -> Thread | None:
        return world().thread

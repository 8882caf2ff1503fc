"""Hints of changes: one thread for each register, which listens to a stream for all that watch a cell."""

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.retries import backoff

FIRST, LONGEST = 0.1, 30.0
"""Seconds between two attempts to listen: at most after the first failure, and after many."""

log = logging.getLogger(__name__)


class HintStream(Protocol):
    """A connection that brings the names whose cells have changed; None for any. It is up with the first of them."""

    def __iter__(self) -> Iterator[Collection[str] | None]: ...

    def want(self, name: str) -> None:
        """Bring this name too, from now on; from any thread, at once."""
        ...

    def forget(self, name: str) -> None:
        """Bring it no more, if that spares something; from any thread, at once."""
        ...

    def close(self) -> None:
        """End the iteration, from any thread."""
        ...


class HintListener:
    """Calls `news` of whoever watches a name that a stream brings. Its thread runs while somebody watches.

    Args:
        connect: makes a stream, within seconds; raises `StoreUnavailable`. Called in the thread.
    """

    def __init__(self, connect: Callable[[], HintStream]) -> None:
        self._connect = connect
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def watch(self, name: str, news: Callable[[], object]) -> "Watching":
        """Have `news` called for the cell `name`; the thread is started if there is none."""
        if self._forked():
            self._begin()
        with self._lock:
            if self._run is None or self._run.stop.is_set():
                self._run = _Run(self._connect)
                threading.Thread(target=self._run.listen, name="store hints", daemon=True).start()
            return Watching(self._run, name, news)

    def close(self) -> None:
        """End the thread, if this process started it. Those who watch hear nothing more, and know it."""
        if not self._forked():
            with self._lock:
                run, self._run = self._run, None
            if run:
                run.end()


class Watching:
    """The hints for one who watches a name."""

    def __init__(self, run: "_Run", name: str, news: Callable[[], object]) -> None:
        self.name, self.news, self._run, self._closed = name, news, run, False
        run.add(self)

    @property
    def live(self) -> bool:
        """Whether the stream is up, as far as is known."""
        return self._run.live and not self._closed and not self._run.forked()

    def close(self) -> None:
        """Send no more hints; the last one ends the thread."""
        self._closed = True
        if not self._run.forked():
            self._run.remove(self)


class _Run:
    """One thread, from its start to its end."""

    def __init__(self, connect: Callable[[], HintStream]) -> None:
        self.forked = fork_detector()
        self.stop, self.live = threading.Event(), False
        self._connect, self._lock, self._watching = connect, threading.Lock(), dict[str, set[Watching]]()
        self._stream: HintStream | None = None

    def add(self, watching: Watching) -> None:
        with self._lock:
            same = self._watching.setdefault(watching.name, set())
            same.add(watching)
            if self._stream and len(same) == 1:
                self._stream.want(watching.name)

    def remove(self, watching: Watching) -> None:
        with self._lock:
            same = self._watching.get(watching.name, set())
            same.discard(watching)
            if not same and self._watching.pop(watching.name, None) is not None and self._stream:
                self._stream.forget(watching.name)
            last = not self._watching
        if last:
            self.end()

    def end(self) -> None:
        with self._lock:
            self.stop.set()
            self.live, stream = False, self._stream
        if stream:
            stream.close()

    def listen(self) -> None:
        try:
            self._listen()
        finally:
            self.end()  # whoever watches next starts another thread

    def _listen(self) -> None:
        clock, failures = SystemClock(), 0
        while not self.stop.is_set():
            failures, up = failures + 1, False
            try:
                stream = self._connect()
                with contextlib.closing(stream):
                    with self._lock:
                        self._stream = None if self.stop.is_set() else stream
                        for name in self._watching:
                            stream.want(name)
                    for names in stream if self._stream else ():
                        self.live, failures, up = not self.stop.is_set(), 0, True
                        self._tell(names)
            except StoreUnavailable as exc:
                log.debug("no hints: %s", exc)
            self._stream, self.live = None, False
            if up:
                self._tell(None)
            clock.wait(self.stop, backoff(max(1, failures), random.random(), first=FIRST, longest=LONGEST))

    def _tell(self, names: Collection[str] | None) -> None:
        with self._lock:
            found = self._watching if names is None else names
            told = [each for name in found for each in self._watching.get(name, ())]
        for each in told:
            each.news()

"""The peers on the network: one beacon and one thread per process, for which no election ever waits."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from discovery.beacon import Announcement, Beacon, Change, Sighting
from discovery.errors import MulticastUnavailable
from election.clock import SystemClock
from election.forks import fork_detector
from politics.group.peers import KIND, Heard, Peer, heard_all_at, looks, may_be_free, parse
from politics.settings import heartbeat, interfaces

log = logging.getLogger("politics")

RETRY = 30.0
"""Seconds after which multicast is tried again."""
LAST_WORD = 1.0
"""Seconds that the end of the process may wait for the goodbyes."""

now = SystemClock().now


class Member(Protocol):
    """A member of this process, as its directory needs it."""

    @property
    def group(self) -> str: ...
    @property
    def due(self) -> float: ...
    @property
    def leads(self) -> bool: ...
    def nudge(self) -> None: ...
    def update(self, beacon: Beacon) -> Announcement: ...


class PeerDirectory:
    """The members of this process, and the peers that it hears. Its thread runs while there are members."""

    def __init__(self) -> None:
        self.forked = fork_detector()
        self.members: tuple[Member, ...] = ()
        self.heard = Heard()
        self.wake = threading.Event()
        self._lock = threading.Lock()  # never held while anything waits
        self._thread: threading.Thread | None = None
        self._serving = self._warned = False
        atexit.register(self.close)

    def add(self, member: Member) -> None:
        """Begin to announce a member."""
        with self._lock:
            self.members = (*self.members, member)
            if not self._serving:
                self.heard = Heard()
                thread = threading.Thread(target=self._run, args=(self.heard,), name="politics-peers", daemon=True)
                try:
                    thread.start()
                    self._thread, self._serving = thread, True
                except RuntimeError as exc:
                    log.warning("%s: peers are not heard: %s", member.group, exc)
        self.wake.set()

    def remove(self, member: Member) -> None:
        """Stop announcing a member."""
        with self._lock:
            self.members = tuple(each for each in self.members if each is not member)
        self.wake.set()

    def close(self) -> None:
        """Let the thread say goodbye for all members, and wait for it `LAST_WORD` seconds at most.

        Called when the interpreter ends. In a forked child there is no such thread, and nothing happens.
        """
        if self.forked():
            return
        thread, self.members = self._thread, ()
        self.wake.set()
        if thread:
            thread.join(LAST_WORD)

    def _run(self, heard: Heard) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._serve(stack, heard)
        except Exception:
            log.exception("peers are not heard any more")
        finally:
            heard.clear()

    def _serve(self, stack: contextlib.ExitStack, heard: Heard) -> None:
        beacon: Beacon | None = None
        tried = -RETRY
        announced: dict[Member, Announcement] = {}
        while True:
            self.wake.clear()  # before the members are asked what is new
            if not (members := self._current()):
                return
            if beacon is None and now() - tried >= RETRY:
                beacon, tried = self._open(stack, heard), now()
            for member in members if beacon else ():
                assert beacon is not None
                announced[member] = member.update(beacon)
            for gone in announced.keys() - set(self.members):
                announced.pop(gone).withdraw()
            # A term that has ended is noticed within a quarter of a heartbeat, even if nobody tells.
            pause = heartbeat() / (4 if any(member.leads for member in members) else 1)
            self.wake.wait(max(0.0, min(pause, min(member.due for member in members) - now())))

    def _current(self) -> tuple[Member, ...]:
        """Return the members. If there are none the thread ends, and the next member starts another."""
        with self._lock:
            self._serving = bool(self.members)
            return self.members

    def _open(self, stack: contextlib.ExitStack, heard: Heard) -> Beacon | None:
        """Return a beacon that listens; None where there is no multicast, which is logged once."""
        try:
            beacon = stack.enter_context(Beacon(interfaces(), period=heartbeat()))
            beacon.browse(KIND, partial(self._hear, heard))
        except MulticastUnavailable as exc:
            if not self._warned:
                log.warning("peers are not heard; elections work without them: %s", exc)
            self._warned = True
            return None
        return beacon

    def _hear(self, heard: Heard, change: Change, sighting: Sighting) -> None:
        """On the beacon's thread: nudge some of those who stand by after what may be the end of a term."""
        before, after = record(heard, change, sighting)
        if before and may_be_free(before, after):
            for member in self.members:
                if member.group == before.group and looks(heard.count(before.group), random.random()):
                    due = member.due
                    member.nudge()
                    if member.due < due:
                        self.wake.set()


# By process: a forked child has none of its parent's threads, and announces nothing.
_directories: dict[int, PeerDirectory] = {}


def of_this_process() -> PeerDirectory:
    """Return the directory of this process, which all its workers share."""
    pid = os.getpid()
    return _directories.get(pid) or _directories.setdefault(pid, PeerDirectory())


def record(heard: Heard, change: Change, sighting: Sighting) -> tuple[Peer | None, Peer | None]:
    """Record in `heard` what was heard. Return what this announcement said before, and what it says now."""
    return heard.take(sighting.name, None if change == "removed" else parse(sighting.properties))


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], list[Peer]]]:
    """Hear the members of all groups inside the block.

    Yields a function that returns them. Its first call waits until all have had the time to answer, at most `LISTEN`
    seconds after the block began; less if some have answered and the others are silent.

    Raises:
        MulticastUnavailable: this machine has no multicast.
    """
    heard = Heard()
    news, clock = threading.Event(), SystemClock()
    last: float | None = None

    def hear(change: Change, sighting: Sighting) -> None:
        nonlocal last
        record(heard, change, sighting)
        last = now() if heard else None
        news.set()

    with Beacon(interfaces(), period=heartbeat()) as beacon:
        begun = now()  # the members cannot answer while the sockets are being opened
        beacon.browse(KIND, hear)
        waited = False

        def peers() -> list[Peer]:
            nonlocal waited
            while not waited:
                left = heard_all_at(begun, last, beacon.period) - now()
                waited = left <= 0
                clock.wait(news, max(0.0, left))
                news.clear()
            return heard.all()

        yield peers

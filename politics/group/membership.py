"""How workers hear of each other: one beacon and one thread per process, which no election ever waits for."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

from discovery import Beacon
from discovery.beacon import Announcement, Change, Sighting
from discovery.errors import MulticastUnavailable
from election import Candidate, LeaseTerm, Register, StoreUnavailable
from election.clock import SystemClock
from politics.group.peers import Doubts, Peer, understand
from politics.settings import interfaces, open_store

log = logging.getLogger("politics")

KIND = "peer"
LISTEN = 1.0
"""Seconds after which whoever is there has answered a listener who has just begun."""
LOOK = 1.0
"""Seconds between two looks of the thread at what has become of its members' leadership."""
RECHECK, RETRY = 30.0, 2.0
"""Seconds after which a store is asked again who it is: while it tells, and while it does not."""
NUDGE_EVERY = 0.02
"""Seconds between two nudges, however many announcements come in; what is left out costs one polling interval."""
LAST_WORD = 1.0
"""Seconds that the end of the process may take to say goodbye."""

now = SystemClock().now
Heard = dict[str, Peer]


class Membership:
    """What one worker tells its group of itself, and hears of it. No method waits for the network or raises.

    `store` is a URL, which is opened once more, so that no renewal waits behind a question about identity; or a
    `Register`, which is shared.
    """

    def __init__(self, candidate: Candidate, store: str | Register) -> None:
        self.candidate, self.group, self.store = candidate, candidate.name, store
        self.term: LeaseTerm | None = None
        self.identity, self.asked = "", 0.0
        self.nudged, self.nudge_at, self.settled_at = 0.0, math.inf, math.inf
        self.announcement: Announcement | None = None
        self.tells = 0  # so that each `tell` is announced, even if the thread has already seen what it tells
        self.told: tuple[int, Peer] | None = None
        self.doubts = Doubts()

    def join(self) -> None:
        """Be announced from now on, until `leave`; once."""
        pid = os.getpid()
        (_assemblies.get(pid) or _assemblies.setdefault(pid, Assembly())).add(self)

    def leave(self) -> None:
        """Be announced no longer."""
        if assembly := _assemblies.get(os.getpid()):
            assembly.remove(self)

    def tell(self, term: LeaseTerm | None) -> None:
        """Announce that we lead, by this term and while it is valid; or that we do not, which nudges the others."""
        self.term = term
        self.tells += 1
        if assembly := _assemblies.get(os.getpid()):
            assembly.wake.set()

    def peers(self) -> tuple[Peer, ...]:
        """The other members, by host and pid, as they were last heard."""
        assembly = _assemblies.get(os.getpid())
        heard = list(assembly.heard.values()) if assembly and self in assembly.members else []
        others = {peer.id: peer for peer in heard if peer.group == self.group and peer.id != self.candidate.id}
        return tuple(sorted(others.values(), key=lambda peer: (peer.host, peer.pid)))

    # What follows is called on the assembly's thread, nudge on the beacon's as well.

    def nudge(self) -> None:
        """Make the candidate look at the store, now or as soon as it may be nudged again, which is at `nudge_at`."""
        moment = now()
        if moment - self.nudged >= NUDGE_EVERY:
            self.nudged, self.nudge_at = moment, math.inf
            self.candidate.nudge()
        else:
            self.nudge_at = self.nudged + NUDGE_EVERY

    def tend(self, beacon: Beacon) -> Announcement:
        """Announce what is new, ask the store who it is if it is time to, and compare."""
        announcement = self.say(beacon)
        if now() >= self.settled_at:
            self.settled_at = math.inf
            self.nudge()
        if now() >= self.nudge_at:
            self.nudge()
        if self.is_time_to_ask():
            self.identity, self.asked = self.ask(), now()
            self.say(beacon)
        for peer in self.doubts.weigh(self.identity, self.peers(), self.asked, now()):
            log.error(
                "%s: SPLIT: %s:%d uses another store (%s) than this worker (%s), and each store has a leader of its "
                "own; name one store for all members, or give them different groups",
                self.group, peer.host, peer.pid, peer.store, self.identity,
            )  # fmt: skip
        return announcement

    def is_time_to_ask(self) -> bool:
        """Not yet, no longer sure, or somebody differs since we asked."""
        doubted = any(since > self.asked for since in self.doubts.since.values())
        return doubted or not self.asked or now() - self.asked >= (RECHECK if self.identity else RETRY)

    def ask(self) -> str:
        """The store's identity; empty where it does not say."""
        register = open_store(self.store)
        try:
            identity = register.shard(self.group).identity()
        except StoreUnavailable:
            return ""  # which the campaign reports
        except Exception:
            log.exception("%s: the store cannot say who it is, so no split can be seen", self.group)
            return ""
        finally:
            if register is not self.store:
                register.close()
        # A store of the user's own making may say anything; what we announce has limits.
        fits = identity.isprintable() and len(identity.encode()) <= 200
        return identity if fits else hashlib.sha256(identity.encode()).hexdigest()

    def say(self, beacon: Beacon) -> Announcement:
        """Announce ourselves, if there is something new."""
        tells, term = self.tells, self.term  # in this order: `tell` sets the term first
        fence = term.fence if term and term.valid else None
        us = Peer(self.group, self.candidate.id, socket.gethostname()[:64], os.getpid(), self.identity, fence)
        if self.announcement is None:
            self.announcement = beacon.announce(KIND, us.properties())
            self.settled_at = now() + LISTEN  # look once more: the leader may resign before we hear that it leads
        elif (tells, us) != self.told:
            self.announcement.update(us.properties())
        self.told = tells, us
        return self.announcement


class Assembly:
    """The members of this process. Its thread runs while there are any, and owns the beacon that they share."""

    def __init__(self) -> None:
        self.members: tuple[Membership, ...] = ()
        self.heard: Heard = {}
        self.wake = threading.Event()
        self._lock = threading.Lock()  # never held while anything waits
        self._thread: threading.Thread | None = None
        self._serving = self._warned = False
        atexit.register(self.disband, os.getpid())

    def add(self, member: Membership) -> None:
        """Announce this one too."""
        with self._lock:
            self.members = (*self.members, member)
            if not self._serving:
                self.heard = {}
                thread = threading.Thread(target=self._run, args=(self.heard,), name="politics-peers", daemon=True)
                try:
                    thread.start()
                    self._thread, self._serving = thread, True
                except RuntimeError as exc:
                    log.warning("%s: peers are not heard: %s", member.group, exc)
        self.wake.set()

    def remove(self, member: Membership) -> None:
        """Announce it no longer."""
        with self._lock:
            self.members = tuple(each for each in self.members if each is not member)
        self.wake.set()

    def disband(self, pid: int) -> None:
        """The process ends: let the thread say goodbye, if that is quick. In a fork of it there is no such thread."""
        if pid != os.getpid():
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
        tried = -RECHECK
        announced: dict[Membership, Announcement] = {}
        while True:
            self.wake.clear()  # before we look at what it announces
            if not (members := self._current()):
                return
            if beacon is None and now() - tried >= RECHECK:
                beacon, tried = self._open(stack, heard), now()
            for member in members if beacon else ():
                assert beacon is not None
                announced[member] = member.tend(beacon)
            for gone in announced.keys() - set(self.members):
                announced.pop(gone).withdraw()
            due = min(min(member.nudge_at, member.settled_at) for member in members)
            self.wake.wait(max(0.0, min(LOOK, due - now())))

    def _current(self) -> tuple[Membership, ...]:
        """The members; if there are none the thread is over, and the next member starts another."""
        with self._lock:
            self._serving = bool(self.members)
            return self.members

    def _open(self, stack: contextlib.ExitStack, heard: Heard) -> Beacon | None:
        """A beacon that listens; None where there is no multicast, which is said once."""
        try:
            beacon = stack.enter_context(Beacon(interfaces()))
            beacon.browse(KIND, partial(self._hear, heard))
        except MulticastUnavailable as exc:
            if not self._warned:
                log.warning("peers are not heard, which an election does not need: %s", exc)
            self._warned = True
            return None
        return beacon

    def _hear(self, heard: Heard, change: Change, sighting: Sighting) -> None:
        """On the beacon's thread: what may be a change of leader nudges, and a change of store is looked into.

        A leader that resigns may seem to have ended before the store knows. So it is a nudge as well if nothing
        differs, which is how a `tell` looks then, and if somebody leaves, leader or not.
        """
        before, after = note(heard, change, sighting)
        if after is None or before == after or (before and before.fence) != after.fence:
            for member in self.members:
                if member.group in {peer.group for peer in (before, after) if peer}:
                    member.nudge()
                    if member.nudge_at < math.inf:
                        self.wake.set()
        if (before and before.store) != (after and after.store):
            self.wake.set()


# By process: a forked child has none of its parent's threads, and announces nothing.
_assemblies: dict[int, Assembly] = {}


def note(heard: Heard, change: Change, sighting: Sighting) -> tuple[Peer | None, Peer | None]:
    """Keep what was heard; return what this announcement was before, and what it is now."""
    before = heard.get(sighting.name)
    after = None if change == "removed" else understand(sighting.properties)
    if after:
        heard[sighting.name] = after
    else:
        heard.pop(sighting.name, None)
    return before, after


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], list[Peer]]]:
    """Hear the members of all groups: yields a function that returns them, once all have had the time to answer.

    Raises:
        MulticastUnavailable: nobody can be heard.
    """
    heard: Heard = {}
    with Beacon(interfaces()) as beacon:
        beacon.browse(KIND, partial(note, heard))
        begun = now()  # opening the sockets is no time to answer

        def peers() -> list[Peer]:
            SystemClock().wait(threading.Event(), max(0.0, begun + LISTEN - now()))
            return sorted(heard.values(), key=lambda peer: (peer.group, peer.host, peer.pid))

        yield peers

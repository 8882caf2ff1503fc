"""One worker's membership of its group: what it announces, and what it makes of the others."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import socket

from discovery.beacon import Announcement, Beacon
from election import Candidate, LeaseTerm, Register, StoreUnavailable
from election.clock import SystemClock
from politics.group.directory import PeerDirectory, of_this_process
from politics.group.peers import KIND, LISTEN, Peer, SplitDetector, known_as, polls_suffice
from politics.settings import heartbeat

log = logging.getLogger("politics")

CONFIRM = 4
"""Heartbeats for which two members must name different stores before that is reported, and `RETRY` more, in which both
have asked their stores again. A beacon believes for three."""
RECHECK, RETRY = 30.0, 2.0
"""Seconds after which a store is asked for its identity again: if it told us, and if it did not or a peer differs."""
NUDGE_EVERY = 0.02
"""Seconds between two nudges at least, however many announcements arrive."""

now = SystemClock().now


class Membership:
    """What one worker tells its group of itself, and hears of it. No method waits for the network or raises.

    Args:
        candidate: the worker's; its name is the group.
        register: the store, over the connections of the worker. It is asked for its identity, and rarely.
        closes: whether the worker closes the register when it has left.

    Raises:
        BadPolicy: `$POLITICS_HEARTBEAT` is not a valid number.
    """

    def __init__(self, candidate: Candidate, register: Register, *, closes: bool = False) -> None:
        self.candidate, self.group = candidate, candidate.name
        self.register, self.closes, self.left = register, closes, False
        self.term: LeaseTerm | None = None
        self.identity, self.asked = "", 0.0
        self.nudged, self.nudge_at, self.settled_at = 0.0, math.inf, math.inf
        self.end_at = math.inf
        self.announcement: Announcement | None = None
        self.tells = 0
        self.announced: tuple[int, Peer] | None = None
        self.splits = SplitDetector(CONFIRM * heartbeat())
        self._joined: PeerDirectory | None = None

    def join(self) -> None:
        """Begin to announce this worker, until `leave`. Call it once."""
        self._joined = of_this_process()
        self._joined.add(self)

    def leave(self) -> None:
        """Stop announcing this worker."""
        self.left = True
        if directory := self._directory():
            directory.remove(self)

    def tell(self, term: LeaseTerm | None) -> None:
        """Announce that this worker leads, as long as `term` is valid; with None that it does not.

        Call it with None after the term has resigned: that nudges the other members to look at the store.
        """
        self.term = term
        self.tells += 1
        if directory := self._directory():
            directory.wake.set()

    def peers(self) -> tuple[Peer, ...]:
        """Return the other members as they were last heard, ordered by host and pid."""
        directory = self._directory()
        heard = directory.heard.of(self.group) if directory and self in directory.members else []
        others = {peer.id: peer for peer in heard if peer.id != self.candidate.id}
        return tuple(sorted(others.values(), key=lambda peer: (peer.host, peer.pid)))

    def _directory(self) -> PeerDirectory | None:
        """The directory that we joined; None in a forked child, which has none of its parent's threads."""
        return self._joined if self._joined and not self._joined.forked() else None

    # What follows is called on the directory's thread, and `nudge` on the beacon's as well.

    @property
    def due(self) -> float:
        """When `update` must be called next at the latest."""
        return min(self.nudge_at, self.settled_at, self.end_at)

    @property
    def leads(self) -> bool:
        """Whether we are announced as the leader."""
        return self.announced is not None and self.announced[1].leads

    def nudge(self) -> None:
        """Make the candidate look at the store: now, or at `nudge_at` if the last nudge was just before."""
        moment = now()
        if moment - self.nudged >= NUDGE_EVERY:
            self.nudged, self.nudge_at = moment, math.inf
            self.candidate.nudge()
        else:
            self.nudge_at = self.nudged + NUDGE_EVERY

    def update(self, beacon: Beacon) -> Announcement:
        """Announce what is new, ask the store for its identity if that is due, and report peers on another store."""
        if self.closes and not self.asked:  # one announcement instead of two; a store of ours soon answers, or fails
            self.identity, self.asked = self.ask(), now()
        announcement = self.announce(beacon)
        if now() >= self.settled_at:
            self.settled_at = math.inf
            self.nudge()
        if now() >= self.nudge_at:
            self.nudge()
        if self.is_time_to_ask():
            self.identity, self.asked = self.ask(), now()
            self.announce(beacon)
        self.splits.confirm = CONFIRM * beacon.pace + RETRY
        for peer in self.splits.check(self.identity, self.peers(), self.asked, now()):
            log.error(
                "%s: SPLIT: %s:%d uses another store (%s) than this worker (%s), so each store has a leader of its "
                "own. Name one store for all members, or give them different groups",
                self.group, peer.host, peer.pid, peer.store, self.identity,
            )  # fmt: skip
        return announcement

    def is_time_to_ask(self) -> bool:
        """Return whether the store was never asked, or was asked long enough ago.

        That is sooner if a peer has differed since then. But however many differ, there is one question in `RETRY`
        seconds: announcements may be forged.
        """
        suspected = any(since > self.asked for since in self.splits.suspects.values())
        return not self.asked or now() - self.asked >= (RETRY if suspected or not self.identity else RECHECK)

    def ask(self) -> str:
        """Return the store's identity; empty if it does not answer."""
        try:
            identity = self.register.shard(self.group).identity()
        except StoreUnavailable:
            return ""  # the campaign reports it
        except Exception:
            log.exception("%s: the store failed to tell its identity, so a split cannot be detected", self.group)
            return ""
        finally:
            if self.left and self.closes:  # the worker may have closed it before we asked, which opened it again
                self.register.close()
        # A store that a user wrote may return any text. An announcement has limits.
        fits = identity.isprintable() and len(identity.encode()) <= 200
        return identity if fits else hashlib.sha256(identity.encode()).hexdigest()

    def announce(self, beacon: Beacon) -> Announcement:
        """Announce this worker if it never was, if something has changed, or if `tell` was called.

        A term that resigns is invalid before the store has the open record. A standby that is nudged at that moment
        looks too early. So `tell(None)`, which follows, is announced even if it changes nothing.
        """
        tells, term = self.tells, self.term  # in this order: `tell` sets the term first
        fence = term.fence if term and term.valid else None
        us = Peer(self.group, self.candidate.id, known_as(socket.gethostname()), os.getpid(), self.identity, fence)
        if self.announcement is None:
            self.announcement = beacon.announce(KIND, us.properties(), subject=self.group)
            self.settled_at = now() + LISTEN  # look once more: the leader may resign before we hear that it leads
        elif (tells, us) != self.announced:
            if not us.leads and self.is_put_off():
                return self.announcement
            self.announcement.update(us.properties())
        self.announced, self.end_at = (tells, us), math.inf
        return self.announcement

    def is_put_off(self) -> bool:
        """Return whether the end of a term is not announced yet: for a poll, where many poll.

        One of them then looks sooner than the announcement arrives, and it does not have to share the processor with
        hundreds that hear it at the same moment.
        """
        directory, poll = self._directory(), self.candidate.policy.poll
        if not directory or not polls_suffice(directory.heard.count(self.group), poll):
            return False
        if self.end_at == math.inf:
            self.end_at = now() + poll
        return now() < self.end_at

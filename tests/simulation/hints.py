"""A world whose store sends hints of changes: late, twice, in any order, for no reason, or not at all."""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from election import Candidate
from election.rules import FEWER
from tests.simulation.store import DRIFT, TTL, Link
from tests.simulation.threads import Event, Process, Thread
from tests.simulation.world import KINDS, Broken, Fault, World

HINT_FAULTS = ("mute", "mute", "mute", "noise", "unplug")
"""Hints are lost and said to be live; there is a storm of needless ones; or the stream is lost, and said to be."""
HINTS = (*KINDS, *HINT_FAULTS, *HINT_FAULTS)
CALM = ("kill", "kill", "stop", *HINT_FAULTS)
"""Leaders that die or stop while nothing is wrong but the hints: how soon they are replaced is known."""


class HintLink(Link):
    """A connection that hears of changes, in a thread of its own."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.watches: list[SimHints] = []
        self._inbox: deque[SimHints] = deque()
        self._news = Event()
        assert isinstance(self.world, HintWorld)
        self.world.links.append(self)

    def watch(self, name: str, news: Callable[[], object]) -> "SimHints":
        if not self.watches:
            Thread(self._listen).start()
        hints = SimHints(self, name, news)
        self.watches.append(hints)
        return hints

    def arrive(self, hints: "SimHints") -> None:
        self._inbox.append(hints)
        self._news.set()

    def _listen(self) -> None:
        while self.watches:
            self._news.clear()
            while self._inbox:
                self._inbox.popleft().news()
            self._news.wait_until(1e9)


class SimHints:
    """What `HintLink.watch` returns. It says that it is live also while hints are lost."""

    def __init__(self, link: HintLink, name: str, news: Callable[[], object]) -> None:
        self.link, self.name, self.news = link, name, news

    @property
    def live(self) -> bool:
        world = self.link.world
        assert isinstance(world, HintWorld)
        return world.now >= world.unplugged_until

    def close(self) -> None:
        if self in self.link.watches:
            self.link.watches.remove(self)
            self.link.arrive(self)  # the last one ends the thread


class HintWorld(World):
    """A world with hints. Where nothing else is wrong, a leader that is gone is replaced within the time promised."""

    link = HintLink
    poll = TTL / 14
    lost_hint = (FEWER - 1) * TTL / 14

    def __init__(self, seed: int, faults: list[Fault], seconds: float, **more: Any) -> None:
        super().__init__(seed, faults, seconds, **more)
        self.dice = random.Random(f"hints {seed}")
        self.links: list[HintLink] = []
        self.muted_until = self.unplugged_until = self.rough_until = 0.0
        self.hints = self.lost_hints = self.blows = self.replaced = 0
        self.store.landed = lambda name, _before, _data: self.changed(name)

    def watch(self, candidate: Candidate) -> None:
        """Leave out what looks at an empty cell all the time."""

    def changed(self, name: str) -> None:
        """A write has landed."""
        for link in self.links:
            for hints in link.watches:
                if hints.name == name and link.process.alive:
                    self.send(hints)

    def send(self, hints: SimHints) -> None:
        """Send one hint, or lose it, or send it twice."""
        self.hints += 1
        if self.now < max(self.muted_until, self.unplugged_until):
            self.lost_hints += 1
            return
        rough = self.now < self.rough_until
        for _ in range(self.dice.choice([1, 1, 1, 2])):
            late = self.dice.choice([0.01, 0.5, 2.0]) * self.dice.random() * TTL if rough else 0.0
            self.after(late + self.dice.uniform(0.0005, 0.005), hints.link.arrive, hints)

    def storm(self, until: float) -> None:
        """Send hints for no reason, hundreds a second, until then."""
        for link in self.links:
            for hints in link.watches:
                self.after(0.0, link.arrive, hints)
        if self.now < until:
            self.after(0.003, self.storm, until)

    def strike(self, fault: Fault) -> None:
        if not self.workers:
            return
        process, _ = self.victim(fault)
        end = self.now + fault.seconds
        gone = fault.kind in ("kill", "stop") and any(
            owner is process and term.name == "job" and self.valid(owner, term) for owner, term in self.claims
        )
        calm, heard = self.now > self.rough_until + TTL, self.now > max(self.muted_until, self.unplugged_until) + TTL
        if gone and self.dice.random() < 0.5:  # and no hint tells of it
            self.muted_until = max(self.muted_until, self.now + TTL)
            heard = False
        super().strike(fault)
        match fault.kind:
            case "mute":
                self.muted_until = max(self.muted_until, end + TTL)
            case "noise":
                self.storm(self.now + min(fault.seconds, 0.3))
            case "unplug":
                self.unplugged_until = max(self.unplugged_until, end)
                for at in (0.0, end - self.now):
                    for link in self.links:
                        for hints in link.watches:
                            self.after(at, link.arrive, hints)
            case _:
                self.blows += 1
                self.rough_until = max(self.rough_until, end)
        self.quiet_since = max(self.quiet_since, self.muted_until)
        if gone and calm and (fault.kind == "stop" or heard):
            # Its last renewal was heard of, or else a look finds that it has resigned.
            within = (
                TTL * (1 + DRIFT) / (1 - DRIFT) + self.poll if fault.kind == "kill" else FEWER * self.poll / (1 - DRIFT)
            )
            self.after(within + 0.05, self.verify_replaced, self.now, self.blows)

    def verify_replaced(self, since: float, blows: int) -> None:
        """Somebody leads since then, unless something else went wrong."""
        if blows == self.blows:
            self.replaced += 1
            if self.led_at <= since:
                self.broken = Broken(f"nobody leads at {self.now:.3f}, since the leader went at {since:.3f}")

"""The store of the simulated world, and the connection of each process to it: a model of what the adapters promise."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from election import StoreUnavailable
from election.register import Cell, Register, Swap
from tests.simulation.threads import Process

TTL, DRIFT, TIMEOUT = 1.0, 0.01, 0.5


@dataclass
class Store:
    """One memcached: its cells, and what it can say of its past."""

    cells: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    cas: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    incarnation: int = 0
    started: float = -100.0
    lossy: bool = False
    down_until: float = 0.0
    losses: int = 0
    generation: str = ""
    """Of a store that may bring back what it held; "" for one that brings nothing back."""
    landed: Callable[[str, bytes | None, bytes], None] = lambda _name, _before, _data: None
    """Called with each write that lands: the cell's name, and what was in it before and is now."""

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        """The compare-and-swap itself, at the moment when the request lands."""
        cell = self.cells.get(name)
        if expected != (cell[1] if cell else None):
            return None
        self.cells[name] = (data, next(self.cas))
        self.landed(name, cell[0] if cell else None, data)
        return self.cells[name][1]

    def lose(self, kind: str, now: float, rng: random.Random) -> None:
        """Lose all cells, or one that is evicted."""
        for name in [rng.choice(list(self.cells))] if kind == "evict" and self.cells else list(self.cells):
            del self.cells[name]
        self.losses += 1
        if kind == "restart":
            self.incarnation, self.started, self.lossy, self.cas = self.incarnation + 1, now, False, itertools.count(1)
        else:
            self.lossy = True

    def bring_back(self, cells: dict[str, tuple[bytes, int]], generation: str, now: float) -> None:
        """Go on with what it held earlier. It counts its versions as it would have done then."""
        self.cells, self.generation = dict(cells), generation
        self.losses += 1
        self.incarnation, self.started, self.lossy = self.incarnation + 1, now, False
        self.cas = itertools.count(max((version for _, version in cells.values()), default=0) + 1)


class Hand(Register):
    """A Register: somebody's hand on the store, which nothing delays."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def shard(self, name: str) -> "Hand":
        return self

    def read(self, name: str) -> Cell | None:
        found = self.store.cells.get(name)
        return Cell(*found) if found else None

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        return self.store.swap(name, data, expected)

    def generation(self, version: int) -> str:
        return self.store.generation


Tag = int | str
"""What a version is tagged with: the connection, or the generation of a store that has some."""


class Link(Register):
    """A Register: one process's connection to a store, as its adapter makes it."""

    connections = itertools.count(1)

    def __init__(self, process: Process) -> None:
        self.world, self.process = process.world, process
        self.incarnation, self.store = -1, self.world.stores[0]
        self.tag: Tag = 0

    def shard(self, name: str) -> "Link":
        return self

    def close(self) -> None:
        self.incarnation = -1

    def identity(self) -> str:
        return "simulated"

    def read(self, name: str) -> Cell | None:
        found = self._ask(lambda store: store.cells.get(name))
        return Cell(found[0], (self.tag, found[1])) if found else None

    def swap(self, name: str, data: bytes, expected: tuple[Tag, int] | None) -> tuple[Tag, int] | None:
        self._connect()
        if expected and not self.world.comparable(expected[0], self.tag):
            return None
        got = self._ask(lambda store: store.swap(name, data, expected[1] if expected else None))
        return (self.tag, got) if got else None

    def version(self, name: str) -> tuple[Tag, int] | None:
        self.world.looks += 1
        found = self._ask(lambda store: store.cells.get(name))
        return (self.tag, found[1]) if found else None

    def generation(self, version: tuple[Tag, int]) -> str:
        return version[0] if isinstance(version[0], str) else ""

    def swap_many(self, swaps: Sequence[Swap]) -> list[Any]:
        """All in one request. An answer that is lost takes those after it along, and so does a swap that was lost."""
        self._connect()
        known = [s.expected is None or self.world.comparable(s.expected[0], self.tag) for s in swaps]
        sent = [swap for swap, comparable in zip(swaps, known, strict=True) if comparable]
        self.world.batches += len(sent) > 1
        cut = len(sent) if self.world.rng.random() < 0.8 else self.world.rng.randrange(len(sent) + 1)

        def work(store: Store) -> list[int | None]:
            lands = len(sent) if cut % 2 else cut  # either the rest is never received, or it is never answered
            return [store.swap(s.name, s.data, s.expected and s.expected[1]) for s in sent[:lands]][:cut]

        try:
            answers = list(self._ask(work)) if sent else []
        except StoreUnavailable as exc:
            answers, silence = [], exc
        else:
            silence = StoreUnavailable("simulated: cut in the middle")
        if len(answers) < len(sent):
            self.incarnation = -1
        answered = iter(answers)
        outcomes: list[Any] = []
        for comparable in known:
            got = next(answered, silence) if comparable else None
            outcomes.append((self.tag, got) if isinstance(got, int) else got)
        first = next((n for n, got in enumerate(outcomes) if got is silence), len(outcomes))
        return outcomes[:first] + [silence] * (len(outcomes) - first)

    def remembers(self, seconds: float) -> bool:
        return bool(
            self._ask(lambda store: not store.lossy and self.world.now - store.started > seconds * (1 + DRIFT) + 0.1)
        )

    def _connect(self) -> None:
        stale = self.store.generation and self.incarnation != self.store.incarnation
        # A connection that the server has closed is noticed before a request, or by its answer.
        if self.incarnation < 0 or (stale and self.world.rng.random() < 0.5):
            self.store = self.home()
            self.incarnation = self.store.incarnation
            self.tag = self.store.generation or next(Link.connections)

    def home(self) -> Store:
        """The server that keeps the name, and the only one (rule 9)."""
        return self.world.stores[0]

    def _ask(self, work: Callable[[Store], Any]) -> Any:
        """Send a request; wait for the answer, or for the timeout. The request may still land after that."""
        self._connect()
        world, thread, incarnation = self.world, self.world.here(), self.incarnation
        store = self.store
        ticket = thread.waiting

        def land() -> None:
            if world.now < self.process.cut_until or world.now < store.down_until:
                # The sender's kernel goes on sending, even for a socket that was closed.
                if world.rng.random() < 0.5:
                    world.after(max(self.process.cut_until, store.down_until) - world.now + 0.01, land)
            elif incarnation != store.incarnation:
                world.after(world.latency(), thread.resume, ticket, ConnectionResetError)
            else:
                value = work(store)
                if world.now < world.twice_until:
                    again = world.rng.choice([0.01, 0.5, 2.0]) * world.rng.random() * TTL
                    world.after(again, lambda: work(store) if incarnation == store.incarnation else None)
                if self.process.late:
                    world.after(world.rng.uniform(0.2, 0.45), answer_late, value, self.process.late)
                    self.process.late = 0.0
                elif not world.lost():
                    world.after(world.latency(), answer, value)

        def answer(value: Any) -> None:
            if world.now >= self.process.cut_until:
                thread.resume(ticket, (value,))

        def answer_late(value: Any, cut: float) -> None:
            answer(value)
            self.process.cut_until = max(self.process.cut_until, world.now + cut)

        if not world.lost():
            world.after(world.latency(), land)
        world.after(TIMEOUT, thread.resume, ticket, TimeoutError)
        got = thread.suspend()
        if isinstance(got, tuple):
            return got[0]
        self.incarnation = -1
        raise StoreUnavailable(f"simulated: {got}")

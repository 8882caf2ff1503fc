"""A world whose store is a quorum of three servers: the product's rules above it, the quorum's generators below."""

import itertools
import random
from collections.abc import Generator, Sequence
from typing import Any

from election import StoreUnavailable
from election.register import Cell, Register
from election.stores.quorum import rules as quorum_rules
from election.stores.quorum.cells import REFUSED, SILENT, Answer, NoChoice, Read, Sight, decode, is_first
from election.stores.quorum.rules import Choice, Outcome, Round, Setup, Version
from tests.simulation.store import DRIFT, TIMEOUT, Store
from tests.simulation.threads import Process
from tests.simulation.world import KINDS, Fault, World

SERVERS = 3
LOOKS = 4
"""How many contended looks a candidate takes before it settles what it finds."""
QUORUM = (*(kind for kind in KINDS if kind != "twice"), "apart", "apart", "restart", "flush", "evict", "down")
"""Faults of one server each, and of one process's way to one server; and those that are of no server."""


class Whole:
    """What the world takes for its store: all servers, seen and written in one moment."""

    incarnation = 0

    def __init__(self, servers: list[Store]) -> None:
        self.servers = servers
        self.setup = Setup(SERVERS, "c", "hand", _words("hand"))
        self.cells = self
        self.down_until = 0.0

    @property
    def losses(self) -> int:
        return sum(server.losses for server in self.servers)

    def get(self, name: str, default: Any = None) -> Any:
        state, version = self._run(name, quorum_rules.look(self.setup))
        return (state.value, version) if isinstance(state, Choice) else default

    def swap(self, name: str, data: bytes, expected: Version | None) -> Version | None:
        if expected is None:
            return None
        found = self._run(name, quorum_rules.swap(self.setup, data, expected))
        return found if isinstance(found, Version) else None

    def _run(self, name: str, work: Generator[Round, Sequence[Answer], Any]) -> Any:
        step = next(work)
        while True:
            answers = [
                serve(server, name, request, 0) if request is not None else SILENT
                for server, request in zip(self.servers, step.requests, strict=True)
            ]
            try:
                step = work.send(answers)
            except StopIteration as end:
                return end.value


def serve(server: Store, name: str, request: Any, connection: int) -> Answer:
    """What a server answers when the request lands."""
    if isinstance(request, Read):
        found = server.cells.get(name)
        return Sight((connection, found[1]), decode(found[0])) if found else Sight(None, None)
    got = server.swap(name, request.cell.encode(), request.expected and request.expected[1])
    return (connection, got) if got else REFUSED


def _words(who: str) -> Any:
    count = itertools.count(1)
    return lambda: f"{who}x{next(count)}"


class QuorumLink(Register):
    """A Register: one process's connections to all servers, as the adapter makes them."""

    remembering = SERVERS
    """How many servers must remember."""

    def __init__(self, process: Process) -> None:
        self.world, self.process = process.world, process
        self.setup = Setup(SERVERS, "c", f"p{process.pid}", _words(f"p{process.pid}"))
        self.connections = [(0, -1)] * SERVERS
        self.lineages = dict[str, str]()

    def shard(self, name: str) -> "QuorumLink":
        return self

    def close(self) -> None:
        self.connections = [(0, -1)] * SERVERS

    def identity(self) -> str:
        return "simulated quorum"

    def names(self) -> None:
        return None

    def remembers(self, seconds: float) -> bool:
        """All servers do, and every lineage that was read last began on blank ones."""
        kept = [not s.lossy and self.world.now - s.started > seconds * (1 + DRIFT) + 0.1 for s in self.world.stores]
        yes = sum(kept) >= self.remembering and all(map(is_first, self.lineages.values()))
        self.world.remembered += yes
        return yes

    def read(self, name: str) -> Cell | None:
        for attempt in range(LOOKS + 3):
            (state, version), answers = self._run(name, quorum_rules.look(self.setup))
            if isinstance(state, NoChoice):
                return None
            if version:
                self.lineages[name] = version.lineage
                return Cell(state.value, version)
            if not isinstance(state, Choice):
                break
            if attempt >= LOOKS:
                self._run(name, quorum_rules.settle(self.setup, answers))
        raise StoreUnavailable("simulated: no majority")

    def swap(self, name: str, data: bytes, expected: Version | None) -> Version | None:
        work = quorum_rules.swap(self.setup, data, expected) if expected else quorum_rules.create(self.setup, data)
        found, answers = self._run(name, work)
        if isinstance(found, Version):
            self.lineages[name] = found.lineage
            behind = [s for s in found.sights() if not isinstance(s, Sight)]
            return self._run(name, quorum_rules.repair(self.setup, found))[0] if behind else found
        silent = answers and len(answers) - answers.count(SILENT) < self.setup.needed
        if found is Outcome.UNKNOWN or silent:
            raise StoreUnavailable("simulated: not known")
        return None

    def _run(self, name: str, work: Generator[Round, Sequence[Answer], Any]) -> tuple[Any, list[Answer]]:
        answers: list[Answer] = []
        try:
            step = next(work)
            while True:
                answers = self._ask(name, step)
                step = work.send(answers)
        except StopIteration as end:
            return end.value, answers

    def _ask(self, name: str, step: Round) -> list[Answer]:
        """Send a round; wait until it is enough, or for the timeout. Late answers come into the same list."""
        world = self.world
        thread = world.here()
        ticket = thread.waiting
        answers: list[Answer] = [SILENT] * SERVERS

        def answer(number: int, value: Answer) -> None:
            if world.now < self.process.cut_until or world.now < world.apart.get((self.process, number), 0):
                return
            answers[number] = value
            asked = [n for n, request in enumerate(step.requests) if request is not None]
            if step.enough(answers) or all(answers[n] is not SILENT for n in asked):
                thread.resume(ticket, True)

        def land(number: int, connection: tuple[int, int]) -> None:
            server = world.stores[number]
            blocked = max(self.process.cut_until, server.down_until, world.apart.get((self.process, number), 0))
            if world.now < blocked:
                if world.rng.random() < 0.5:
                    world.after(blocked - world.now + 0.01, land, number, connection)
            elif connection[1] != server.incarnation:
                self.connections[number] = (0, -1)
            else:
                value = serve(server, name, step.requests[number], connection[0])
                if not world.lost():
                    world.after(world.latency(), answer, number, value)

        sent = False
        for number, request in enumerate(step.requests):
            if request is None:
                continue
            if self.connections[number][1] < 0:
                self.connections[number] = (next(world.numbers), world.stores[number].incarnation)
            connection = self.connections[number]
            expected = getattr(request, "expected", None)
            if expected is not None and expected[0] != connection[0]:
                answers[number] = REFUSED  # a version of another connection
            else:
                sent = True
                if not world.lost():
                    world.after(world.latency(), land, number, connection)
        if sent and not step.enough(answers):
            world.after(TIMEOUT, thread.resume, ticket, False)
            if not thread.suspend():
                for number, request in enumerate(step.requests):
                    if request is not None and answers[number] is SILENT:
                        self.connections[number] = (0, -1)
        return answers


class QuorumWorld(World):
    """A world with three servers. A fault of a server strikes one of them."""

    link = QuorumLink

    def __init__(self, seed: int, faults: list[Fault], seconds: float, **more: Any) -> None:
        super().__init__(seed, faults, seconds, **more)
        self.stores = [Store() for _ in range(SERVERS)]
        self.store = Whole(self.stores)
        self.apart = dict[tuple[Process, int], float]()
        self.numbers = itertools.count(1)
        self.dice = random.Random(f"quorum {seed}")
        self.spared = self.remembered = 0

    def strike(self, fault: Fault) -> None:
        end = self.now + fault.seconds
        match fault.kind:
            case "down":
                self.stores[self.dice.randrange(SERVERS)].down_until = end
                self.strikes += 1
                self.quiet_since = max(self.quiet_since, end)
            case "apart" if self.workers:
                self.apart[self.victim(fault)[0], self.dice.randrange(SERVERS)] = end
                self.strikes += 1
                self.quiet_since = max(self.quiet_since, end)
            case _:
                super().strike(fault)

    def lose_cells(self, fault: Fault) -> None:
        """One server loses them."""
        self.spared += isinstance(self.store.get("job"), tuple)
        self.stores[self.dice.randrange(SERVERS)].lose(fault.kind, self.now, self.rng)

"""Who chooses the moves: all of them, one after the other, or one at random."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from election.stores.quorum.cells import NoChoice, Write
from election.stores.quorum.rules import Choice, majority
from tests.quorum.world import Broken, Memory, World

ACTS = ("look", "look", "look", "swap", "swap", "swap", "old", "create", "settle", "settle", "repair", "repair")
LENGTH = 2_000
"""How many steps a random world lasts."""
LIMIT = 60
"""How many messages are under way at most in a random world. Of more, one is lost."""


class LeftBehind(Broken):
    """In quiet a server still lacks the newest value. Nobody sees an old one."""


@dataclass(frozen=True)
class Small:
    """A small world: what its processes do, and how much goes wrong."""

    name: str
    scripts: tuple[tuple[int, tuple[str, ...]], ...]
    begin: tuple[str, ...] = ()
    """What process 0 did before, in quiet."""
    blank: tuple[int, ...] = ()
    """Which servers have forgotten it since."""
    opening: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Of which threads the requests have landed then, on which servers. Each goes on as soon as it may."""
    timeouts: int = 1
    hushes: int = 0
    forgets: int = 1
    forgetful: tuple[int, ...] = (0, 1, 2)
    kept: bool = False
    """Whether so little goes wrong that the register must never be lost."""
    unlost: bool = False
    """The same, from the moment on when somebody knows that it was created."""

    @property
    def budget(self) -> dict[str, Any]:
        """What `World.moves` must know."""
        return {
            "timeouts": self.timeouts,
            "hushes": self.hushes,
            "forgets": self.forgets,
            "servers": self.forgetful,
        }

    def may_not_be_lost(self, world: World) -> bool:
        """Return whether the register must be there now."""
        return self.kept or (self.unlost and bool(world.ended))

    def build(self) -> World:
        world = World(3, list(self.scripts))
        if self.begin:
            world.run_alone(0, *self.begin)
        for number in self.blank:
            world.forget(number)
        for number in range(len(self.scripts)):
            world.start(number)
        for number, servers in self.opening:
            for server in servers:
                world.land([m for m in world.messages if m.place[0] == number and m.server == server][-1])
            if world.threads[number].job and world.is_enough(number):
                world.go(number)
        return world


def explore(small: Small, limit: int = 10**9, each: Callable[[World], None] | None = None) -> tuple[int, bool]:
    """Visit every state of a small world, or so many; return how many, and whether that was all.

    Raises:
        Broken: with the moves that led there.
    """
    budget = small.budget
    world = small.build()
    seen = {hash(world.key())}
    stack = [(world, iter(list(world.moves(**budget))))]
    path = list[Any]()
    while stack:
        world, moves = stack[-1]
        move = next(moves, None)
        if move is None:
            stack.pop()
            if path:
                path.pop()
            continue
        following = world.copy()
        try:
            following.do(move)
            if small.may_not_be_lost(following) and not isinstance(following.state(), Choice):
                raise Broken(f"the register is {following.state()}")
        except Broken as exc:
            raise Broken(f"{small.name}: {exc}\n" + "\n".join(map(repr, [*path, move]))) from exc
        key = hash(following.key())
        if key in seen:
            continue
        seen.add(key)
        if each:
            each(following)
        if len(seen) >= limit:
            return len(seen), False
        path.append(move)
        stack.append((following, iter(list(following.moves(**budget)))))
    return len(seen), True


def wander(small: Small, seed: int, steps: int, each: Callable[[World], None] | None = None) -> int:
    """Go through a small world at random, from its beginning to an end, again and again; return how many times.

    Raises:
        Broken: the promise was.
    """
    rng, walks = random.Random(seed), 0
    while steps > 0:
        world = small.build()
        walks += 1
        while moves := list(world.moves(**small.budget)):
            world.do(rng.choice(moves))
            steps -= 1
            if each:
                each(world)
            if small.may_not_be_lost(world) and not isinstance(world.state(), Choice):
                raise Broken(f"{small.name}: the register is {world.state()}")
    return walks


class Large:
    """A large world, in which one move after the other is chosen at random, with its own mood."""

    def __init__(self, seed: int, *, kept: bool | None = None) -> None:
        self.rng = rng = random.Random(f"quorum {seed}")
        self.kept = rng.random() < 0.3 if kept is None else kept
        servers = rng.choice([3, 3, 3, 5])
        processes = rng.choice([2, 3, 4])
        acts = [act for act in ACTS if act != "create" or not self.kept]
        for act in dict.fromkeys(acts):
            acts += [act] * rng.choice([0, 0, 2])
        scripts = [
            (process, tuple(rng.choices(acts, k=400)))
            for process in range(processes)
            for _ in range(rng.choice([1, 1, 2]))
        ]
        self.world = World(servers, scripts, eager=False)
        self.forget = rng.choice([0.003, 0.01, 0.03, 0.06])
        self.slow = rng.choice([0.02, 0.1, 0.3])
        self.fresh = rng.choice([0.7, 0.9, 0.98])
        self.patience = rng.choice([0.02, 0.1, 0.3])
        self.steps = 0
        if self.kept:
            self.world.run_alone(0, "create", "repair")
        self.choose_fragile()

    def choose_fragile(self) -> None:
        """Choose which servers forget from now on: some of them, more often, or all."""
        count = len(self.world.servers)
        many = count - majority(count) if self.kept else self.rng.choice([1, 2, count])
        self.forgetful = self.rng.sample(range(count), many)

    def run(self, steps: int) -> "Large":
        """Do so many moves.

        Raises:
            Broken: the promise was.
        """
        rng, world = self.rng, self.world
        for _ in range(steps):
            self.steps += 1
            chance = rng.random()
            if chance < self.forget:
                self.forget_one()
            elif chance < self.forget + 0.001:
                self.quieten()
            else:
                self.move()
            if self.kept and not isinstance(world.state(), Choice):
                raise Broken(f"the register is {world.state()}")
        self.quieten()
        return self

    def forget_one(self) -> None:
        """A server forgets, and what was sent to create its cell long ago may come just now."""
        rng, world = self.rng, self.world
        number = rng.choice(self.forgetful)
        restart = rng.random() < 0.3
        world.forget(number, restart=restart)
        creating = [m for m in world.messages if m.server == number and getattr(m.request, "expected", 0) is None]
        if creating and not restart and rng.random() < 0.6:
            world.land(rng.choice(creating), silently=rng.random() < 0.5)

    def move(self) -> None:
        rng, world = self.rng, self.world
        idle = [n for n, thread in enumerate(world.threads) if not thread.job and thread.done < len(thread.script)]
        if idle and (rng.random() < 0.3 or not world.messages):
            world.start(rng.choice(idle))
            return
        running = [n for n, thread in enumerate(world.threads) if thread.job]
        if running and (rng.random() < 0.3 or not world.messages):
            number = rng.choice(running)
            if world.is_enough(number) or rng.random() < self.patience:
                world.go(number)
                return
        if world.replies and rng.random() < 0.2:
            world.deliver(rng.choice(list(world.replies)))
        elif world.messages:
            messages = list(world.messages)
            # Mostly the latest ones. The others stay under way, and come when nobody expects them.
            message = rng.choice(messages[-6:] if rng.random() < self.fresh else messages)
            if len(messages) > LIMIT:
                del world.messages[rng.choice(messages[:-6])]
            elif isinstance(message.request, Write) and message in messages[-6:] and rng.random() < self.slow:
                # It falls behind the others.
                del world.messages[message]
                world.messages = {message: None, **world.messages}
            else:
                world.land(message, silently=rng.random() < self.slow * 0.3)

    def quieten(self) -> None:
        """All goes well for a while: then the register is there, on all servers, and can be written."""
        world = self.world
        world.threads = [thread._replace(job=None, done=thread.done + bool(thread.job)) for thread in world.threads]
        helper = len(world.memory)
        world.memory.append(Memory())
        for script in (("look", "settle", "look"), ("create",), ("repair", "swap", "repair", "swap")):
            if script != ("create",) or (isinstance(world.state(), NoChoice) and not self.kept):
                world.run_alone(helper, *script)
        state = world.state()
        if not isinstance(state, Choice) or len(state.cells) < len(world.servers):
            raise Broken(f"in quiet the register is not repaired: {state}")
        if any(sight.cell is None or sight.cell.accepted != state.ballot for sight in state.cells.values()):
            raise LeftBehind(f"in quiet a server was left behind: {state}")
        self.choose_fragile()


def run_large(steps: int, seed: int = 0, length: int = LENGTH) -> dict[str, int]:
    """Run random worlds for so many steps; return how often which outcome was met."""
    totals = dict[str, int]()
    done = 0
    while done < steps:
        large = Large(seed).run(min(length, steps - done))
        done += large.steps
        seed += 1
        for name, count in large.world.outcomes.items():
            totals[name] = totals.get(name, 0) + count
    return totals

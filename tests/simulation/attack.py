"""Runs worlds until the promise breaks or the steps are used up, and shrinks what broke it."""

from collections.abc import Iterator, Sequence

from tests.simulation.breakages import Breakage
from tests.simulation.world import KINDS, Broken, Fault, World, random_faults

SECONDS, QUIET = 60.0, 15.0


def worlds(steps: int, first: int = 0, kinds: Sequence[str] = KINDS, make: type[World] = World) -> Iterator[World]:
    """Worlds that have been run, one per seed, until `steps` are used up.

    Raises:
        AssertionError: the promise was broken; the message names the seed, and the fewest faults that it takes.
    """
    seed = first
    while steps > 0:
        faults = random_faults(seed, SECONDS, kinds)
        world = make(seed, faults, SECONDS + QUIET)
        try:
            world.run()
        except Broken as exc:
            raise AssertionError(describe(seed, faults, exc, make)) from exc
        steps -= world.steps
        seed += 1
        yield world


def describe(seed: int, faults: list[Fault], trouble: Broken, make: type[World] = World) -> str:
    """What broke, and the fewest of the faults that still break it."""
    few = shrink(seed, faults, make)
    return "\n".join([f"seed {seed}: {trouble}", f"{len(few)} of {len(faults)} faults are enough:", *map(str, few)])


def shrink(seed: int, faults: list[Fault], make: type[World] = World) -> list[Fault]:
    """Leave out what is not needed: halves, quarters, …, single faults."""
    size = len(faults)
    while size := size // 2:
        begin = 0
        while begin < len(faults):
            fewer = faults[:begin] + faults[begin + size :]
            if breaks(seed, fewer, make):
                faults = fewer
            else:
                begin += size
    return faults


def breaks(seed: int, faults: list[Fault], make: type[World] = World) -> bool:
    """Whether these faults break the promise."""
    try:
        make(seed, faults, SECONDS + QUIET).run()
    except Broken:
        return True
    return False


def steps_until_caught(breakage: Breakage, limit: int) -> int | None:
    """How many steps it takes to see a breakage; None if it is not seen within the limit."""
    steps, seed = 0, breakage.first
    with breakage():
        while steps < limit:
            world = breakage.world(seed, random_faults(seed, SECONDS, breakage.kinds), SECONDS + QUIET)
            try:
                world.run()
            except Broken:
                return steps + world.steps
            steps += world.steps
            seed += 1
    return None

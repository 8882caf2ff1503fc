"""`make simulate [STEPS=…] [SEED=…]`: attack the protocol, and then its deliberate breakages."""

import sys
import time
from collections.abc import Sequence

from tests.simulation import breakages, broken_ticks
from tests.simulation.attack import steps_until_caught, worlds
from tests.simulation.quorum import QUORUM, QuorumWorld
from tests.simulation.ticks import TICKS, TickWorld
from tests.simulation.world import EDITS, KINDS, World

steps, seed = int(sys.argv[1]), int(sys.argv[2])


def attack(what: str, kinds: Sequence[str], make: type[World] = World) -> None:
    """Run worlds with these kinds of faults, and print what became of them."""
    begun, done = time.monotonic(), list[World]()
    try:
        for world in worlds(steps, seed, kinds, make):
            done.append(world)
            if len(done) % 50 == 0:
                print(f"\r{sum(w.steps for w in done):>12,} steps", end="", file=sys.stderr, flush=True)
            world.forget()
    except AssertionError as exc:
        sys.exit(f"\n{exc}")
    seconds, taken = time.monotonic() - begun, sum(world.steps for world in done)
    print(f"\n{what}: {taken:,} steps from seed {seed} in {seconds:.0f} s, {taken / seconds:,.0f} steps/s: it holds")
    print(
        f"{len(done)} worlds of 4 workers, {sum(w.strikes for w in done):,} faults, {sum(w.terms for w in done):,} "
        f"terms, {sum(w.takeovers for w in done):,} takeovers, {sum(w.refused for w in done):,} effects refused "
        f"by a fence, {sum(w.forgotten for w in done):,} records forgotten"
    )
    if ticks := [w for w in done if isinstance(w, TickWorld)]:
        print(
            f"{sum(len(w.accounts) for w in ticks):,} ticks, {sum(w.triggers for w in ticks):,} runs ordered, "
            f"{sum(w.pauses for w in ticks):,} pauses, {sum(w.overruns for w in ticks):,} ticks due while another ran"
        )


attack("the promise", KINDS)
attack("the promise, with records that nobody can read", EDITS)
attack("the promise, with schedules", TICKS, TickWorld)
attack("the promise, above a quorum", QUORUM, QuorumWorld)
failed = False
for breakage in breakages.CAUGHT + broken_ticks.CAUGHT:
    caught = steps_until_caught(breakage, breakage.within)
    failed |= caught is None
    print(f"rule {breakage}: {f'caught after {caught:,} steps' if caught else f'NOT CAUGHT in {breakage.within:,}'}")
for breakage in breakages.NEVER_CAUGHT:
    caught = steps_until_caught(breakage, steps)
    print(f"rule {breakage}: {f'caught after {caught:,} steps' if caught else f'not caught, as known, in {steps:,}'}")
sys.exit(failed)

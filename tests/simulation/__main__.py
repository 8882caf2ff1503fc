"""`make simulate [STEPS=…] [SEED=…]`: attack the protocol, and then its deliberate breakages, on each processor."""

import itertools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation import backups, breakages, broken_ticks
from tests.simulation.attack import steps_until_caught, worlds
from tests.simulation.backups import RESTORES, BackupWorld
from tests.simulation.hints import HINTS, HintWorld
from tests.simulation.quorum import QUORUM, QuorumWorld
from tests.simulation.ticks import TICKS, TickWorld
from tests.simulation.world import EDITS, KINDS, World

ATTACKS: list[tuple[str, Sequence[str], type[World]]] = [
    ("the promise", KINDS, World),
    ("the promise, with records that nobody can read", EDITS, World),
    ("the promise, with backups that are restored", RESTORES, BackupWorld),
    ("the promise, with hints", HINTS, HintWorld),
    ("the promise, with schedules", TICKS, TickWorld),
    ("the promise, above a quorum", QUORUM, QuorumWorld),
]
CAUGHT = breakages.CAUGHT + backups.CAUGHT + broken_ticks.CAUGHT
NEVER_CAUGHT = breakages.NEVER_CAUGHT + backups.NEVER_CAUGHT


def attack(number: int, steps: int, seed: int) -> str:
    """Run worlds with the faults of this attack; return what became of them.

    Raises:
        AssertionError: the promise was broken.
    """
    what, kinds, make = ATTACKS[number]
    begun, done = time.monotonic(), list[World]()
    for world in worlds(steps, seed, kinds, make):
        done.append(world)
        world.forget()
    seconds, taken = time.monotonic() - begun, sum(world.steps for world in done)
    said = [
        f"{what}: {taken:,} steps from seed {seed} in {seconds:.0f} s, {taken / seconds:,.0f} steps/s: it holds",
        f"{len(done)} worlds of 4 workers, {sum(w.strikes for w in done):,} faults, {sum(w.terms for w in done):,} "
        f"terms, {sum(w.takeovers for w in done):,} takeovers, {sum(w.refused for w in done):,} effects refused "
        f"by a fence, {sum(w.forgotten for w in done):,} records forgotten",
    ]
    if restores := sum(w.restores for w in done if isinstance(w, BackupWorld)):
        said.append(f"{restores:,} backups restored")
    if ticks := [w for w in done if isinstance(w, TickWorld)]:
        said.append(
            f"{sum(len(w.accounts) for w in ticks):,} ticks, {sum(w.triggers for w in ticks):,} runs ordered, "
            f"{sum(w.pauses for w in ticks):,} pauses, {sum(w.overruns for w in ticks):,} ticks due while another ran"
        )
    return "\n".join(said)


def try_breakage(number: int, steps: int) -> tuple[bool, str]:
    """Break a rule; return whether that turned out as is known, and how it did."""
    known = number < len(CAUGHT)
    breakage = (CAUGHT + NEVER_CAUGHT)[number]
    limit = breakage.within if known else steps
    caught = steps_until_caught(breakage, limit)
    missed = f"NOT CAUGHT in {limit:,}" if known else f"not caught, as known, in {limit:,}"
    return bool(caught) or not known, f"rule {breakage}: {f'caught after {caught:,} steps' if caught else missed}"


def main(steps: int, seed: int) -> None:
    """Print what became of each attack and each breakage.

    Raises:
        SystemExit: the promise was broken, or a broken rule was not seen; else with status 0.
    """
    failed = False
    with ProcessPoolExecutor() as pool:
        attacks = [pool.submit(attack, number, steps, seed) for number in range(len(ATTACKS))]
        numbers = range(len(CAUGHT) + len(NEVER_CAUGHT))
        tries = pool.map(try_breakage, numbers, itertools.repeat(steps))
        try:
            for each in attacks:
                print(each.result(), end="\n\n", flush=True)
            for as_known, said in tries:
                failed |= not as_known
                print(said, flush=True)
        except AssertionError as exc:
            pool.shutdown(cancel_futures=True)
            sys.exit(f"\n{exc}")
    sys.exit(failed)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

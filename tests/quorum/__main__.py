"""`python -m tests.quorum [STATES] [STEPS] [SEED]`: explore the rules of a quorum, and then break each one."""

import sys
import time

from tests.quorum import breakages
from tests.quorum.breakages import count_until_caught
from tests.quorum.explore import explore, run_large
from tests.quorum.small import LONG, SHORT
from tests.quorum.world import Broken

states, steps, seed = (int(number) for number in (*sys.argv[1:], "1000000", "1000000", "0")[:3])

try:
    for small in SHORT + LONG:
        begun = time.monotonic()
        count, all_of_them = explore(small, states)
        whole = "all" if all_of_them else "the first"
        print(f"{small.name}: {whole} {count:,} states in {time.monotonic() - begun:.0f} s: it holds", flush=True)
    begun = time.monotonic()
    totals = run_large(steps, seed)
    print(f"at random: {steps:,} steps from seed {seed} in {time.monotonic() - begun:.0f} s: it holds")
    print(", ".join(f"{name} {count:,}" for name, count in sorted(totals.items())))
except Broken as exc:
    sys.exit(str(exc))
failed = False
for breakage in breakages.CAUGHT:
    caught = count_until_caught(breakage, breakage.within)
    failed |= caught is None
    print(f"{breakage}: {f'caught after {caught:,}' if caught else f'NOT CAUGHT in {breakage.within:,}'}", flush=True)
rest = steps // 10  # they take long, and are known
for breakage in breakages.BY_HAND + breakages.NEVER_CAUGHT:
    caught = count_until_caught(breakage, rest)
    print(f"{breakage}: {f'caught after {caught:,}' if caught else f'not caught, as known, in {rest:,}'}", flush=True)
sys.exit(failed)

"""A world whose store brings back what it held earlier, in another generation; and its rules, broken on purpose.

A backup that is restored, a replica that is promoted and a file that is copied differ in one thing only: how old is
what they bring back.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import election.candidate
import election.rules
import election.term
from election.record import Record
from election.rules import Adopt, Lost, View
from tests.simulation.breakages import Breakage
from tests.simulation.store import Store
from tests.simulation.world import Fault, World

STRUCK_TOO = ("pause", "pause", "cut", "slow", "loss", "kill", "fork", "ask", "stop", "down", "twice", "evict")
RESTORES = (*["restore"] * 6, *STRUCK_TOO)
KEPT = 5


class BackupWorld(World):
    """The promise, where the store may come back with any of the last states of which there is a backup."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.backups: list[dict[str, tuple[bytes, int]]] = []
        self.restores = 0
        for store in self.stores:
            store.generation = "g0"

    def strike(self, fault: Fault) -> None:
        """Make a backup, to be restored later; or what any world does."""
        if fault.kind != "restore":
            return super().strike(fault)
        self.strikes += 1
        self.backups = [*self.backups[1 - KEPT :], dict(self.store.cells)]
        self.after(fault.seconds, self.restore)
        return None

    def restore(self) -> None:
        """Somebody restores one of the backups, more often the last one."""
        self.expect_no_loss()
        self.restores += 1
        cells = self.rng.choice([self.backups[-1], *self.backups])
        self.store.bring_back(cells, f"g{self.restores}", self.now)
        self.quiet_since = max(self.quiet_since, self.now)


_see, _next_step, _reconcile, _found_in = View.see, election.rules.next_step, election.rules.reconcile, Record.found_in
_bring_back = Store.bring_back


def any_generation_is_believed(self: Record, generation: str) -> Record:
    return self


def wait_goes_on(self: View, record: Any, version: Any, received: float, generation: str = "") -> View:
    return _see(self, record, version, received)


def foreign_is_lost(self: Record, generation: str) -> Record:
    found = _found_in(self, generation)
    return replace(found, forgotten=False) if found.foreign else found


def same_generation(self: Store, cells: Any, generation: str, now: float) -> None:
    _bring_back(self, cells, self.generation, now)


def remembers_what_it_was_told_before(self: Store, cells: Any, generation: str, now: float) -> None:
    started = self.started
    _bring_back(self, cells, generation, now)
    self.started = started


def foreign_takeover_is_adopted(view: View, me: str, policy: Any, now: float, *rest: Any) -> Any:
    record = view.record
    own = record and record.foreign and view.attempt and (record.holder, record.seq) == (me, view.attempt[0])
    if own and view.attempt and now < view.attempt[1] + policy.trusted:
        return Adopt(view.attempt[1])
    return _next_step(view, me, policy, now, *rest)


def yields_to_what_was_brought_back(lease: Any, found: Any, now: float) -> Any:
    verdict = _reconcile(lease, found, now)
    return Lost("brought back") if found and found.foreign and not isinstance(verdict, Lost) else verdict


_step, _term = election.candidate, election.term


def broken(
    what: str, within: int, *patches: tuple[Any, str, Any], kinds: Sequence[str] = RESTORES, first: int = 0
) -> Breakage:
    return Breakage("12", what, within, patches, tuple(kinds), first, BackupWorld)


CAUGHT = (
    broken("a record of another generation is believed", 20_000, (Record, "found_in", any_generation_is_believed)),
    broken("the wait for a record goes on in another generation", 100_000, (View, "see", wait_goes_on)),
    broken(
        "a version of an earlier generation counts",
        100_000,
        (World, "comparable", lambda self, then, now: True),
        first=100,
    ),
    broken("the store comes back without another generation", 50_000, (Store, "bring_back", same_generation)),
    broken(
        "the store says that it remembers, in a generation that is younger than that",
        20_000,
        (Store, "bring_back", remembers_what_it_was_told_before),
        kinds=("restore", "flush", "pause", "cut"),
        first=800,
    ),
    broken(
        "a holder yields to a record of another generation",
        20_000,
        (_term, "reconcile", yields_to_what_was_brought_back),
    ),
)
NEVER_CAUGHT = (
    # Not needed for safety where `remembers` means what A4 says: the store then says yes only when the leases of its
    # earlier generations are over. Kept so that no mistake in how a store counts its age can elect a second leader.
    broken(
        "over a record of another generation the store is asked whether it remembers",
        0,
        (Record, "found_in", foreign_is_lost),
    ),
    # Not needed for safety: until its own deadline, counted from before it sent the takeover, nobody else has the right
    # to the lease. Kept so that nobody ever leads by what a store has brought back.
    broken("an own takeover that was brought back is adopted", 0, (_step, "next_step", foreign_takeover_is_adopted)),
)

"""Each rule of the quorum, broken on purpose: to show that the explorer would see it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from election.stores.quorum import rules
from election.stores.quorum.cells import NEVER, Acceptor, Ballot, NoChoice, Read, Sight, Write
from election.stores.quorum.rules import Choice, Outcome, Round, Setup, Version
from tests.quorum import world
from tests.quorum.explore import LENGTH, Large, LeftBehind, Small, explore
from tests.quorum.small import ALONE, THREE
from tests.quorum.world import Broken, World

_choice, _seen, _repaired, _propose, _accept = (
    rules._choice, rules._seen, rules._repaired, rules._propose, rules._accept,
)  # fmt: skip
_judge, _find_room = rules.judge, rules._find_room


@dataclass(frozen=True)
class Breakage:
    """What is done, in the words of docs/safety.md; where it shows, and within how many states or steps.

    `where` is a small world, or the seed of the first of a number of large ones.
    """

    what: str
    within: int
    patches: tuple[tuple[Any, str, Any], ...] = field(repr=False)
    where: Small | int = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for place, name, instead in self.patches:
                stack.enter_context(patch.object(place, name, instead))
            world.play.cache_clear()
            try:
                yield
            finally:
                world.play.cache_clear()

    def __str__(self) -> str:
        return self.what


def count_until_caught(breakage: Breakage, limit: int) -> int | None:
    """Return after how many states or steps a breakage is seen; None if it is not within the limit.

    What is not expected to be seen counts only if it breaks a promise, not if it leaves a server behind.
    """
    count, seed = 0, breakage.where

    def see(_: World) -> None:
        nonlocal count
        count += 1

    with breakage():
        try:
            if isinstance(seed, Small):
                explore(seed, limit, see)
                return None
            while count < limit:
                large = Large(seed)
                try:
                    large.run(LENGTH)
                except LeftBehind:
                    if breakage.within:
                        raise
                finally:
                    count += large.steps
                seed += 1
        except (Broken, AssertionError):
            return max(count, 1)
    return None


def without_incarnations(sights: dict[int, Sight], members: Sequence[int]) -> bool:
    return len({cell.lineage for n in members if (cell := sights[n].cell) and cell.accepted > NEVER}) == 1


def without_lineages(sights: dict[int, Sight], members: Sequence[int]) -> bool:
    cells = {n: cell for n in members if (cell := sights[n].cell)}
    return all(cell.seen[n] == other.incarnation for cell in cells.values() for n, other in cells.items())


def one_way(sights: dict[int, Sight], members: Sequence[int]) -> bool:
    """Only the highest one is asked whom it knows."""
    cells = {n: cell for n in members if (cell := sights[n].cell)}
    top = max(cells.values(), key=lambda cell: cell.accepted)
    return all(top.seen[n] == other.incarnation and other.lineage == top.lineage for n, other in cells.items())


def keep_incarnation(setup: Setup, state: Choice, known: Any, number: int, sight: Any) -> Any:
    write = _repaired(setup, state, known, number, sight)
    if write and sight.cell:
        incarnation = sight.cell.incarnation
        seen = (*write.cell.seen[:number], incarnation, *write.cell.seen[number + 1 :])
        return Write(replace(write.cell, incarnation=incarnation, seen=seen), write.expected)
    return write


def keep_all_incarnations(setup: Setup, value: bytes) -> Any:
    """A create that keeps the incarnations of what it overwrites."""
    work = _create(setup, value)
    sights = list((yield next(work)))
    try:
        step = work.send(sights)
        if _holds(step):
            step = work.send((yield step))
    except StopIteration as end:
        return end.value
    takes = tuple(
        Write(replace(w.cell, incarnation=s.cell.incarnation), w.expected) if w and s.cell else w
        for w, s in zip(step.requests, sights, strict=True)
    )
    # As `create` goes on, with these instead.
    answers = yield Round(takes, step.enough)
    taken = rules._written(takes, answers)
    if len(taken) < setup.needed:
        return Outcome.REFUSED
    seen = tuple(taken[n].cell.incarnation if n in taken else "" for n in range(setup.servers))
    return (yield from rules._accept(setup, Ballot(1, setup.proposer), value, taken, seen))


_create = rules.create


def _holds(step: Round) -> bool:
    """Return whether these writes of a create keep what is accepted in the cells."""
    return any(isinstance(w, Write) and w.cell.accepted != NEVER for w in step.requests)


def create_at_once(setup: Setup, value: bytes) -> Any:
    """Taking what was read, although others may have written into it meanwhile: no cell is held."""
    work = _create(setup, value)
    sights = list((yield next(work)))
    try:
        step = work.send(sights)
        if _holds(step):
            pairs = zip(step.requests, sights, strict=True)
            step = work.send([sight.version if request else rules.SILENT for request, sight in pairs])
        while True:
            step = work.send((yield step))
    except StopIteration as end:
        return end.value


def create_with_a_few(setup: Setup, value: bytes) -> Any:
    """A majority of what is to be held is enough."""
    work = _create(setup, value)
    sights = list((yield next(work)))
    try:
        step = work.send(sights)
        if _holds(step):
            answers = list((yield step))
            held = rules._written(step.requests, answers)
            if len(held) < setup.needed:
                return Outcome.REFUSED
            # What could not be held is never found as it was read, so its take is refused.
            step = work.send(
                [
                    a if n in held or r is None else (-1, -1)
                    for n, (r, a) in enumerate(zip(step.requests, answers, strict=True))
                ]
            )
        while True:
            step = work.send((yield step))
    except StopIteration as end:
        return end.value


def create_in_one_round(setup: Setup, value: bytes) -> Any:
    requests: Any = (Read(),) * setup.servers
    sights = list((yield Round(requests, lambda answers: rules.SILENT not in answers)))
    if not isinstance(rules.judge(sights, setup.configuration), NoChoice):
        return Outcome.REFUSED
    lineage, first = "l" + setup.fresh(), Ballot(1, setup.proposer)
    seen = tuple(setup.fresh() if isinstance(sight, Sight) else "" for sight in sights)
    following = Ballot(2, setup.proposer)
    requests = tuple(
        Write(Acceptor(setup.configuration, lineage, seen[n], following, first, seen, value), sight.version)
        if isinstance(sight, Sight)
        else None
        for n, sight in enumerate(sights)
    )
    answers = yield Round(requests, lambda answers: rules._is_decided(requests, answers, setup.needed))
    return rules._outcome(setup, requests, answers, Version(lineage, first, requests, answers, [following]))


def create_anyway(setup: Setup, value: bytes) -> Any:
    with patch.object(rules, "judge", lambda *_: NoChoice()):
        work = _create(setup, value)
        step = next(work)
    while True:
        answers = yield step
        with patch.object(rules, "judge", lambda *_: NoChoice()):
            try:
                step = work.send(answers)
            except StopIteration as end:
                return end.value


def lost_by_few(sights: Sequence[Any], configuration: str) -> Any:
    state = _judge(sights, configuration)
    return NoChoice() if isinstance(state, rules.TooFew) else state


def take_what_was_read(setup: Setup, value: bytes, sights: Any, state: Choice) -> Any:
    """Accepting at once on the versions that were read."""
    top = max(max(cell.promised, cell.accepted) for _, cell in state.cells.values() if cell)
    return _accept(setup, Ballot(top.round + 1, setup.proposer), value, state.cells, _seen(sights, state))


def prepare_updates_seen(setup: Setup, value: bytes, sights: Any, state: Choice) -> Any:
    seen = _seen(sights, state)
    work = _propose(setup, value, sights, state)
    step = next(work)
    requests = tuple(Write(replace(w.cell, seen=seen), w.expected) if w else None for w in step.requests)
    answers = yield Round(requests, lambda answers: rules._is_decided(requests, answers, setup.needed))
    prepared = rules._written(requests, answers)
    if len(prepared) < setup.needed:
        return Outcome.REFUSED
    ballot = next(w.cell.promised for w in requests if w)
    return (yield from _accept(setup, ballot, value, prepared, seen))


def accept_a_few(setup: Setup, value: bytes, sights: Any, state: Choice) -> Any:
    """Accepting although fewer than a majority have promised."""
    work = _propose(setup, value, sights, state)
    step = next(work)
    answers = yield step
    prepared = rules._written(step.requests, answers)
    ballot = next(w.cell.promised for w in step.requests if w)
    if not prepared:
        return Outcome.REFUSED
    return (yield from _accept(setup, ballot, value, prepared, _seen(sights, state)))


def promise_nothing(setup: Setup, ballot: Ballot, value: bytes, prepared: Any, seen: Any) -> Any:
    """Accepts that promise nothing, and whose author takes its next ballot all the same."""
    following = Ballot(ballot.round + 1, setup.proposer)
    requests = tuple(
        Write(replace(s.cell, promised=ballot, accepted=ballot, seen=seen, value=value), s.version) if s else None
        for s in map(prepared.get, range(setup.servers))
    )
    answers = yield Round(requests, lambda answers: rules._is_decided(requests, answers, setup.needed))
    lineage = next(s.cell.lineage for s in prepared.values())
    return rules._outcome(setup, requests, answers, Version(lineage, ballot, requests, answers, [following]))


def swap_unpromised(setup: Setup, value: bytes, expected: Version) -> Any:
    """One round with the next ballot, whatever the cells have promised."""
    sights = expected.sights()
    state = rules.judge(sights, setup.configuration)
    if not isinstance(state, Choice) or (state.lineage, state.ballot) != (expected.lineage, expected.ballot):
        return Outcome.REFUSED
    with contextlib.suppress(IndexError):
        promised = expected.promised.pop()
        return (yield from rules._accept(setup, promised, value, state.cells, _seen(sights, state)))
    return (yield from rules._propose(setup, value, sights, state))


def swap_promised_again(setup: Setup, value: bytes, expected: Version) -> Any:
    left = list(expected.promised)
    work = _swap(setup, value, expected)
    try:
        step = next(work)
    except StopIteration as end:
        return end.value
    finally:
        expected.promised[:] = left
    while True:
        answers = yield step
        try:
            step = work.send(answers)
        except StopIteration as end:
            return end.value


_swap = rules.swap


def swap_above_promised(setup: Setup, value: bytes, expected: Version) -> Any:
    """A ballot above the one that was promised, on cells that have not promised it."""
    sights = expected.sights()
    state = rules.judge(sights, setup.configuration)
    if not isinstance(state, Choice) or (state.lineage, state.ballot) != (expected.lineage, expected.ballot):
        return Outcome.REFUSED
    if expected.promised or state.settled:
        top = max(max(c.promised, c.accepted) for _, c in state.cells.values() if c)
        ballot = Ballot(top.round + 1, setup.proposer)
        return (yield from rules._accept(setup, ballot, value, state.cells, _seen(sights, state)))
    return (yield from rules._propose(setup, value, sights, state))


def look_once(setup: Setup) -> Any:
    """What a look finds counts as settled."""
    requests = (Read(),) * setup.servers
    answers = yield Round(requests, lambda answers: isinstance(rules.judge(answers, setup.configuration), Choice))
    state = rules.judge(answers, setup.configuration)
    if isinstance(state, Choice):
        return state, Version(state.lineage, state.ballot, requests, answers)
    return state, None


def repaired_counts(setup: Setup, state: Choice, known: Any, number: int, sight: Any) -> Any:
    """A server that forgot is given the incarnation that the others know."""
    write = _repaired(setup, state, known, number, sight)
    top = max((cell for _, cell in state.cells.values() if cell), key=lambda cell: cell.accepted)
    if write and top.seen[number] and not (sight.cell and sight.cell.lineage == state.lineage):
        return Write(replace(write.cell, incarnation=top.seen[number], seen=top.seen), write.expected)
    return write


def repair_overwrites(setup: Setup, state: Choice, known: Any, number: int, sight: Any) -> Any:
    """A repair that puts its value over a later one."""
    cell = sight.cell if isinstance(sight, Sight) else None
    if cell and cell.lineage == state.lineage and cell.accepted > state.ballot:
        lower = replace(cell, accepted=Ballot(0, "0"))
        write = _repaired(setup, state, known, number, Sight(sight.version, lower))
        return Write(replace(write.cell, promised=cell.promised), sight.version)
    return _repaired(setup, state, known, number, sight)


def repair_unsettled(setup: Setup, chosen: Version) -> Any:
    """A repair of whatever is found, chosen or not."""
    sights = list((yield Round((Read(),) * setup.servers, lambda answers: rules.SILENT not in answers)))
    state = rules.judge(sights, setup.configuration)
    if not isinstance(state, Choice):
        return chosen
    known = _seen(sights, state)
    writes = tuple(rules._repaired(setup, state, known, *numbered) for numbered in enumerate(sights))
    if any(writes):
        yield Round(
            writes, lambda answers: all(a is not rules.SILENT for w, a in zip(writes, answers, strict=True) if w)
        )
    return chosen


def _has(sight: Any, state: Choice) -> bool:
    cell = sight.cell if isinstance(sight, Sight) else None
    return cell is not None and (cell.lineage, cell.accepted) == (state.lineage, state.ballot)


def repair_promised(setup: Setup, chosen: Version) -> Any:
    """What a repair returns may still be renewed in one round."""
    found = yield from _repair(setup, chosen)
    return replace(found, promised=chosen.promised)


_repair = rules.repair


def repair_without_a_look(setup: Setup, chosen: Version) -> Any:
    """A repair of what was chosen once, without looking whether the register has gone on."""
    sights = chosen.sights()
    state = rules.judge(sights, setup.configuration)
    if not isinstance(state, Choice) or not state.settled or state.ballot != chosen.ballot:
        return chosen
    known = _seen(sights, state)
    missing = [n for n, s in enumerate(sights) if not _has(s, state)]
    reads = tuple(Read() if n in missing else None for n in range(setup.servers))
    answers = list((yield Round(reads, lambda answers: all(answers[n] is not rules.SILENT for n in missing))))
    writes = tuple(
        rules._repaired(setup, state, known, n, answers[n]) if n in missing else None for n in range(setup.servers)
    )
    if any(writes):
        written = yield Round(
            writes, lambda answers: all(a is not rules.SILENT for w, a in zip(writes, answers, strict=True) if w)
        )
        sights = [
            rules._sight(w, a) if w else rules.SILENT if n in missing else s
            for n, (w, a, s) in enumerate(zip(writes, written, sights, strict=True))
        ]
    return Version(chosen.lineage, chosen.ballot, (Read(),) * setup.servers, sights, chosen.promised)


def lowest(cells: dict[int, Sight], needed: int) -> Choice:
    held = [cell for _, cell in cells.values() if cell]
    low = min(held, key=lambda cell: cell.accepted)
    return Choice(low.lineage, low.accepted, low.value, sum(c.accepted == low.accepted for c in held) >= needed, cells)


def ballot_above_accepted(setup: Setup, value: bytes, sights: Any, state: Choice) -> Any:
    """A ballot above what was accepted, but not above what was promised."""
    top = max(cell.accepted for _, cell in state.cells.values() if cell)
    ballot = Ballot(top.round + 1, setup.proposer)
    requests = tuple(
        Write(replace(s.cell, promised=ballot), s.version) if s and s.cell else None
        for s in map(state.cells.get, range(setup.servers))
    )
    answers = yield Round(requests, lambda answers: rules._is_decided(requests, answers, setup.needed))
    prepared = rules._written(requests, answers)
    if len(prepared) < setup.needed:
        return Outcome.REFUSED
    return (yield from _accept(setup, ballot, value, prepared, _seen(sights, state)))


def settle_lately(setup: Setup, sights: Any) -> Any:
    """What comes late into the list that a look has made changes what is accepted."""
    state = rules.judge(sights, setup.configuration)
    if not isinstance(state, Choice):
        return Outcome.REFUSED
    return (yield from _propose(setup, state.value, sights, state))


def seen_in_retrospect(sights: Sequence[Any], state: Choice) -> tuple[str, ...]:
    """What was known before stays, for servers that have answered too."""
    top = max((cell for _, cell in state.cells.values() if cell), key=lambda cell: cell.accepted)
    return top.seen


def take_all(sights: Sequence[Any], needed: int) -> Any:
    answered = {number: sight for number, sight in enumerate(sights) if isinstance(sight, Sight)}
    return answered, all(sight.version is None for sight in answered.values())


def unknown_is_refused(setup: Setup, requests: Any, answers: Any, version: Version) -> Any:
    written = sum(answer not in (rules.REFUSED, rules.SILENT, None) for answer in answers)
    return version if written >= setup.needed else Outcome.REFUSED


def always_first(sights: Sequence[Any], needed: int) -> Any:
    return _find_room(sights, needed)[0], True


REPAIRED_COUNTS = Breakage(
    "a server that forgot counts as soon as it is repaired", 5_000, ((rules, "_repaired", repaired_counts),), 6
)
PROMISE_MORE = Breakage(
    "a promise also says whom its proposer knows", 20_000, ((rules, "_propose", prepare_updates_seen),), 4044
)
"""Met once in some thousand worlds, so that `test_quorum_rules.py` tells it by hand too."""

CAUGHT = (
    PROMISE_MORE,
    REPAIRED_COUNTS,
    Breakage("incarnations are not compared", 20_000, ((rules, "is_consistent", without_incarnations),)),
    Breakage("only the highest cell is asked whom it knows", 20_000, ((rules, "is_consistent", one_way),), 230),
    Breakage("a create writes over a register that is there", 5_000, ((rules, "create", create_anyway),), ALONE),
    Breakage("a minority decides that a register is lost", 30_000, ((rules, "judge", lost_by_few),), ALONE),
    Breakage("a create takes what it has not held", 5_000, ((rules, "create", create_at_once),), THREE),
    Breakage(
        "a create holds a majority, and not all that it has read", 5_000, ((rules, "create", create_with_a_few),), THREE
    ),
    Breakage(
        "values are accepted on what was read, without a promise", 5_000, ((rules, "_propose", take_what_was_read),)
    ),
    Breakage("a few promises are enough", 5_000, ((rules, "_propose", accept_a_few),)),
    Breakage(
        "accepts promise nothing, and the next ballot is used all the same",
        20_000,
        ((rules, "_accept", promise_nothing), (rules, "swap", swap_unpromised)),
    ),
    Breakage("a promised ballot is used twice", 5_000, ((rules, "swap", swap_promised_again),)),
    Breakage(
        "a ballot above the promised one is used without a promise", 5_000, ((rules, "swap", swap_above_promised),)
    ),
    Breakage("a new ballot is not above what was promised", 20_000, ((rules, "_propose", ballot_above_accepted),)),
    Breakage("what a look finds counts as settled", 5_000, ((rules, "look", look_once),)),
    Breakage("the lowest ballot is the state", 5_000, ((rules, "_choice", lowest),)),
    Breakage("a repair copies what is not chosen yet", 5_000, ((rules, "repair", repair_unsettled),)),
    Breakage("a server that forgot is never known again", 20_000, ((rules, "_seen", seen_in_retrospect),)),
    Breakage("versions are compared over a restart", 20_000, ((World, "comparable", True),), 169),
    Breakage("what may have been written counts as refused", 5_000, ((rules, "_outcome", unknown_is_refused),)),
    Breakage(
        "every lineage counts as one that began on blank servers",
        20_000,
        ((rules, "_find_room", always_first),),
        105,
    ),
)

BY_HAND = (
    Breakage(
        "a renewal in one round tells of what was read after its promise", 0, ((rules, "repair", repair_promised),)
    ),
    Breakage(
        "a cell keeps its incarnation when it changes its lineage",
        0,
        ((rules, "_repaired", keep_incarnation), (rules, "create", keep_all_incarnations)),
    ),
    Breakage("a create names incarnations that a server has not had yet", 0, ((rules, "create", create_in_one_round),)),
)
"""What chance has not met in 400,000 steps. `test_quorum_rules.py` tells the run that meets it."""

NEVER_CAUGHT = (
    # Not needed: an incarnation belongs to one lineage, so cells that know each other are of one lineage.
    Breakage("lineages are not compared", 0, ((rules, "is_consistent", without_lineages),)),
    # Not needed any more since what is taken is held before. With it, a create over little waits for a majority only.
    Breakage(
        "a create takes what another has just made, although there is room", 0, ((rules, "_find_room", take_all),)
    ),
    # A look finds the highest ballot of all cells that know each other. What is later is in a cell that does not count.
    Breakage("a repair overwrites what is later", 0, ((rules, "_repaired", repair_overwrites),)),
    # It costs at most a register that was just created, as a server that forgets does. No promise is broken.
    Breakage("a repair does not look whether the register has gone on", 0, ((rules, "repair", repair_without_a_look),)),
    # An incarnation that came too late is of a server that has forgotten more than what is proposed here knows of.
    # The proof needs the rule; the run that would show it has not been met.
    Breakage("what comes late changes what a settle accepts", 0, ((rules, "settle", settle_lately),)),
)
__all__ = ["BY_HAND", "CAUGHT", "NEVER_CAUGHT", "PROMISE_MORE", "REPAIRED_COUNTS", "Breakage", "count_until_caught"]

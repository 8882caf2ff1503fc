"""One compare-and-swap register made of an odd number of them, of which a minority may forget or fall silent. Pure.

Each server keeps one cell for a name. `look`, `swap`, `create`, `settle` and `repair` are generators: they yield a
`Round` of requests to all servers, are sent what each server has answered, and return the outcome. So they know
neither sockets nor clocks. docs/design.md has the argument.
"""

import enum
import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeGuard

from election.stores.quorum.cells import (
    FIRST,
    LATER,
    NEVER,
    REFUSED,
    SILENT,
    Acceptor,
    Answer,
    Ballot,
    Moved,
    NoChoice,
    Read,
    Request,
    Sight,
    TooFew,
    Write,
)


class Round(NamedTuple):
    """Requests, one for each server (None: nothing is asked of it), that are sent together.

    The round may end as soon as `enough(answers)` is true: those who have not answered yet count as silent. Their
    requests may still land, and their answers are then still written into the list that was returned. If `patient`,
    it is worth waiting a moment for the others.
    """

    requests: tuple[Request, ...]
    enough: Callable[[Sequence[Answer]], bool]
    patient: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of the register, as a look found it.

    `cells` are the members of the consistent set: the server's number, and what it has. It is `settled` if a majority
    has accepted this very ballot.
    """

    lineage: str
    ballot: Ballot
    value: bytes
    settled: bool
    cells: dict[int, Sight]


State = Choice | NoChoice | TooFew | Moved


def majority(servers: int) -> int:
    """Return how many of so many servers are more than half of them."""
    return servers // 2 + 1


def judge(sights: Sequence[Answer], configuration: str) -> State:
    """Return the state of the register that these sights show."""
    answered = {number: sight for number, sight in enumerate(sights) if isinstance(sight, Sight)}
    ours = dict[int, Sight]()
    for number, sight in answered.items():
        if sight.cell and sight.cell.configuration != configuration:
            return Moved(number)
        if sight.cell and len(sight.cell.seen) == len(sights):
            ours[number] = sight
    needed = majority(len(sights))
    if len(answered) < needed:
        return TooFew()
    best: Choice | None = None
    for size in range(len(ours), needed - 1, -1):
        for members in itertools.combinations(ours, size):
            if is_consistent(ours, members):
                found = _choice({number: ours[number] for number in members}, needed)
                if best is None or (found.ballot, found.settled) > (best.ballot, best.settled):
                    best = found
        if best:
            return best
    return NoChoice()


def is_consistent(sights: dict[int, Sight], members: Sequence[int]) -> bool:
    """Return whether these cells are of one lineage, and each was written knowing all others as they are now."""
    cells = {number: cell for number in members if (cell := sights[number].cell)}
    return len({cell.lineage for cell in cells.values()}) == 1 and all(
        cell.seen[number] == other.incarnation for cell in cells.values() for number, other in cells.items()
    )


def _choice(cells: dict[int, Sight], needed: int) -> Choice:
    held = [cell for _, cell in cells.values() if cell]
    top = max(held, key=lambda cell: cell.accepted)
    settled = sum(cell.accepted == top.accepted for cell in held) >= needed
    return Choice(top.lineage, top.accepted, top.value, settled, cells)


@dataclass(frozen=True, slots=True)
class Version:
    """Names one accepted proposal; two are equal if they name the same one.

    `requests` and `answers` are the round that showed it. Answers that come late are found in there when the version is
    used, so that the slowest server costs no time and is not left behind. `promised` is the ballot that the accepts of
    this round promised to their own proposer, which may use it once: with one ballot only one value is ever proposed.
    """

    lineage: str
    ballot: Ballot
    requests: tuple[Request, ...] = field(compare=False)
    answers: Sequence[Answer] = field(compare=False)
    promised: list[Ballot] = field(compare=False, default_factory=list)

    def sights(self) -> list[Answer]:
        """Return what is known of each server's cell: what it had, or what it has accepted."""
        return [_sight(*pair) for pair in zip(self.requests, self.answers, strict=True)]


def _sight(request: Request, answer: Answer) -> Answer:
    if isinstance(request, Write):
        return SILENT if answer is REFUSED or answer is SILENT else Sight(answer, request.cell)
    return answer if isinstance(request, Read) else SILENT


@dataclass(frozen=True, slots=True)
class Setup:
    """What all rounds of one register have in common. `fresh` returns a random word, never the same again."""

    servers: int
    configuration: str
    proposer: str
    fresh: Callable[[], str]

    @property
    def needed(self) -> int:
        """How many servers are a majority."""
        return majority(self.servers)


class Outcome(enum.Enum):
    """What became of a write that did not succeed."""

    REFUSED = "refused"
    """Nothing was written, and nothing will be."""
    UNKNOWN = "unknown"
    """It may have been written, or may still be."""


Proposal = Generator[Round, Sequence[Answer], Version | Outcome]


def look(setup: Setup) -> Generator[Round, Sequence[Answer], tuple[State, Version | None]]:
    """Return the state of the register, and the version if it is settled."""

    def enough(answers: Sequence[Answer]) -> bool:
        state = judge(answers, setup.configuration)
        return isinstance(state, Choice) and state.settled

    requests = (Read(),) * setup.servers
    answers = yield Round(requests, enough)
    state = judge(answers, setup.configuration)
    if isinstance(state, Choice) and state.settled:
        return state, Version(state.lineage, state.ballot, requests, answers)
    return state, None


def swap(setup: Setup, value: bytes, expected: Version) -> Proposal:
    """Write `value` over exactly the version `expected`; return the new version.

    What `expected` knows of the cells may be old, since promises change them and leave the version as it is. So if it
    is refused, it looks once again, and tries again if the register still has that very version.

    One round if this proposer wrote `expected` itself, since its accepts have promised it its next ballot; else two.
    """
    sights = expected.sights()
    state = judge(sights, setup.configuration)
    if _shows(state, expected):
        if len(prepared := _take_promise(state, expected)) >= setup.needed:
            ballot = next(sight.cell.promised for sight in prepared.values() if sight.cell)
            outcome = yield from _accept(setup, ballot, value, prepared, _seen(sights, state))
        else:
            outcome = yield from _propose(setup, value, sights, state)
        if outcome is not Outcome.REFUSED:
            return outcome
    # Nothing was written, and nothing will be. The cells may have changed by promises alone.
    _, found = yield from look(setup)
    if found != expected:
        return Outcome.REFUSED
    sights = found.sights()
    state = judge(sights, setup.configuration)
    if not _shows(state, expected):
        return Outcome.REFUSED
    return (yield from _propose(setup, value, sights, state))


def _shows(state: State, version: Version) -> TypeGuard[Choice]:
    if not isinstance(state, Choice) or not state.settled:
        return False
    return (state.lineage, state.ballot) == (version.lineage, version.ballot)


def _take_promise(state: Choice, version: Version) -> dict[int, Sight]:
    """Return the cells that have promised their author the next ballot; none if that was taken before."""
    try:
        ballot = version.promised.pop()  # two threads may use one version at the same time
    except IndexError:
        return {}
    return {number: sight for number, sight in state.cells.items() if sight.cell and sight.cell.promised == ballot}


def settle(setup: Setup, sights: Sequence[Answer]) -> Proposal:
    """Propose the value again that a look found unsettled, so that it is known whether it was chosen."""
    sights = list(sights)  # what comes late into there must not change what is proposed
    state = judge(sights, setup.configuration)
    if not isinstance(state, Choice):
        return Outcome.REFUSED
    return (yield from _propose(setup, state.value, sights, state))


def _propose(setup: Setup, value: bytes, sights: Sequence[Answer], state: Choice) -> Proposal:
    """Prepare by a swap on exactly the versions that were seen, then accept on those that this has made."""
    top = max(max(cell.promised, cell.accepted) for _, cell in state.cells.values() if cell)
    ballot = Ballot(top.round + 1, setup.proposer)
    # A promise changes nothing else: not what was accepted, nor what its proposer knew of the others.
    requests = tuple(
        Write(replace(sight.cell, promised=ballot), sight.version) if sight and sight.cell else None
        for sight in map(state.cells.get, range(setup.servers))
    )
    answers = yield Round(requests, lambda answers: _is_decided(requests, answers, setup.needed))
    # Only what is prepared by now: an answer that comes later must not change what is sent.
    prepared = _written(requests, answers)
    if len(prepared) < setup.needed:
        return Outcome.REFUSED  # promises alone write nothing
    return (yield from _accept(setup, ballot, value, prepared, _seen(sights, state)))


def _accept(setup: Setup, ballot: Ballot, value: bytes, prepared: dict[int, Sight], seen: tuple[str, ...]) -> Proposal:
    following = Ballot(ballot.round + 1, setup.proposer)
    requests = tuple(
        Write(replace(sight.cell, promised=following, accepted=ballot, seen=seen, value=value), sight.version)
        if sight and sight.cell
        else None
        for sight in map(prepared.get, range(setup.servers))
    )
    # If it does not succeed, each answer matters: one that is missing leaves it unknown whether it will be found.
    answers = yield Round(requests, lambda answers: _is_known(requests, answers, setup.needed), patient=False)
    lineage = next(sight.cell.lineage for sight in prepared.values() if sight.cell)
    return _outcome(setup, requests, answers, Version(lineage, ballot, requests, answers, [following]))


def create(setup: Setup, value: bytes) -> Proposal:
    """Write `value` into the register if it is empty: a new lineage, in which no cell of an earlier one counts.

    Before it takes what holds an accepted value, it holds all that it has read: a promise there, by swaps on exactly
    what was seen. Then it takes cells: it writes new ones, in which nothing is accepted, each with its incarnation.
    Then it accepts, knowing the incarnations of those it has taken. It never names one that a server has not had yet:
    a request that is late by long could bring that one after a later one was forgotten.
    """
    requests: tuple[Request, ...] = (Read(),) * setup.servers
    sights = list((yield Round(requests, lambda answers: SILENT not in answers)))
    if not isinstance(judge(sights, setup.configuration), NoChoice):
        return Outcome.REFUSED
    room, is_blank = _find_room(sights, setup.needed)
    lineage, ballot = (FIRST if is_blank else LATER) + setup.fresh(), Ballot(1, setup.proposer)

    def take(version: Any) -> Write:
        blank = ("",) * setup.servers
        return Write(Acceptor(setup.configuration, lineage, setup.fresh(), ballot, NEVER, blank, b""), version)

    def hold(version: Any, cell: Acceptor | None) -> Write:
        held = cell and replace(cell, promised=Ballot(cell.promised.round + 1, setup.proposer))
        return Write(held, version) if held else take(version)

    if any(sight.cell and sight.cell.accepted != NEVER for sight in room.values()):
        # What was read at different moments may hide a choice. If all is still as it was, nothing was chosen.
        holds = tuple(hold(*room[number]) if number in room else None for number in range(setup.servers))
        room = _written(holds, (yield Round(holds, lambda answers: _is_known(holds, answers, setup.servers))))
        if len(room) < sum(map(bool, holds)):
            return Outcome.REFUSED
    takes = tuple(take(room[number].version) if number in room else None for number in range(setup.servers))
    answers = yield Round(takes, lambda answers: _is_decided(takes, answers, setup.needed))
    taken = _written(takes, answers)
    if len(taken) < setup.needed:
        return Outcome.REFUSED
    words = {number: sight.cell.incarnation for number, sight in taken.items() if sight.cell}
    seen = tuple(words.get(number, "") for number in range(setup.servers))
    return (yield from _accept(setup, ballot, value, taken, seen))


def _find_room(sights: Sequence[Answer], needed: int) -> tuple[dict[int, Sight], bool]:
    """Return the cells that a new lineage takes, and whether none of them exists yet.

    Where something was accepted is taken only if there is no majority without: so of two that create at the same time,
    neither destroys what the other one has just made.
    """
    answered = {number: sight for number, sight in enumerate(sights) if isinstance(sight, Sight)}
    blank = {number: sight for number, sight in answered.items() if sight.version is None}
    if len(blank) >= needed:
        return blank, True
    unused = {n: sight for n, sight in answered.items() if sight.cell is None or sight.cell.accepted == NEVER}
    return (unused if len(unused) >= needed else answered), False


def repair(setup: Setup, chosen: Version) -> Generator[Round, Sequence[Answer], Version]:
    """Give the chosen value to the servers that have forgotten it, or were left behind; return what is then known.

    It looks again first: if the register has gone on since, nothing is repaired. A repaired cell does not count for
    what is chosen already. A server that forgot counts again once a later proposal has been accepted by a majority that
    knows its new incarnation.
    """
    sights = list((yield Round((Read(),) * setup.servers, lambda answers: SILENT not in answers)))
    state = judge(sights, setup.configuration)
    if not _shows(state, chosen):
        return chosen
    known = _seen(sights, state)
    writes = tuple(_repaired(setup, state, known, *numbered) for numbered in enumerate(sights))
    if any(writes):
        written = yield Round(
            writes, lambda answers: all(a is not SILENT for w, a in zip(writes, answers, strict=True) if w)
        )
        sights = [_sight(w, a) if w else sight for w, a, sight in zip(writes, written, sights, strict=True)]
    # No promise: one round would tell of incarnations that were read only after the promise was made.
    return Version(chosen.lineage, chosen.ballot, (Read(),) * setup.servers, sights)


def _repaired(setup: Setup, state: Choice, known: tuple[str, ...], number: int, sight: Answer) -> Write | None:
    """Return the write that gives the chosen value to this server; None if it did not answer, or has it or a later."""
    if not isinstance(sight, Sight):
        return None
    cell = sight.cell if sight.cell and sight.cell.lineage == state.lineage else None
    if cell and cell.accepted >= state.ballot:
        return None
    # What has changed its lineage has forgotten, as much as what was lost.
    incarnation = cell.incarnation if cell else setup.fresh()
    promised = max(cell.promised, state.ballot) if cell else state.ballot
    seen = (*known[:number], incarnation, *known[number + 1 :])
    return Write(
        Acceptor(setup.configuration, state.lineage, incarnation, promised, state.ballot, seen, state.value),
        sight.version,
    )


def _seen(sights: Sequence[Answer], state: Choice) -> tuple[str, ...]:
    """Return the incarnations of all servers: of those that did not answer, what was known before."""
    top = max((cell for _, cell in state.cells.values() if cell), key=lambda cell: cell.accepted)
    return tuple(
        (sight.cell.incarnation if sight.cell and sight.cell.lineage == state.lineage else "")
        if isinstance(sight, Sight)
        else known
        for sight, known in zip(sights, top.seen, strict=True)
    )


def _written(requests: Sequence[Write | None], answers: Sequence[Answer]) -> dict[int, Sight]:
    """Return the cells that are known to be written, as they are now."""
    return {
        number: Sight(answer, request.cell)
        for number, (request, answer) in enumerate(zip(requests, list(answers), strict=True))
        if request and answer is not REFUSED and answer is not SILENT
    }


def _tally(requests: Sequence[Request], answers: Sequence[Answer]) -> tuple[int, int]:
    """Return how many servers that were asked have written, and how many have not answered."""
    asked = [answer for request, answer in zip(requests, answers, strict=True) if request is not None]
    silent = asked.count(SILENT)
    return len(asked) - silent - asked.count(REFUSED), silent


def _is_decided(requests: Sequence[Request], answers: Sequence[Answer], needed: int) -> bool:
    """Return whether a majority has written, or can no longer."""
    written, silent = _tally(requests, answers)
    return written >= needed or written + silent < needed


def _is_known(requests: Sequence[Request], answers: Sequence[Answer], needed: int) -> bool:
    """Return whether a majority has written, or all have answered."""
    written, silent = _tally(requests, answers)
    return written >= needed or not silent


def _outcome(
    setup: Setup, requests: Sequence[Request], answers: Sequence[Answer], version: Version
) -> Version | Outcome:
    written, silent = _tally(requests, answers)
    if written >= setup.needed:
        return version
    # A single accept may be found by others, who then finish it.
    return Outcome.UNKNOWN if written or silent else Outcome.REFUSED

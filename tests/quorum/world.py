"""Servers that forget, processes that run the product's generators, and messages between them that land at any time.

A world is changed by moves, one at a time. Who chooses the moves, all of them or one at random, is in `explore.py`.
What is true (who has accepted what) is noted apart from what the processes believe, and each outcome is held to it.
"""

import itertools
from bisect import bisect_left, insort
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from election.stores.quorum import rules as quorum_rules
from election.stores.quorum.cells import (
    NEVER,
    REFUSED,
    SILENT,
    Acceptor,
    Ballot,
    NoChoice,
    Read,
    Sight,
    Write,
    is_first,
)
from election.stores.quorum.rules import Choice, Outcome, Round, Setup, Version

CONFIGURATION = "c"
NEEDS = {"swap": "version", "old": "version", "repair": "version", "settle": "sights"}
"""What an operation needs that its process must have found before. Without it, it is passed over."""

Place = tuple[int, int, int]
"""A round: of which thread, of which of its operations, the how manieth."""


class Broken(AssertionError):
    """The promise was broken; the message says how."""


class Kept(NamedTuple):
    """A `Version` that a process keeps, as plain values; `source` is the round that its answers are of."""

    source: Place | None
    lineage: str
    ballot: Ballot
    requests: tuple[Any, ...]
    answers: tuple[Any, ...]
    promised: tuple[Ballot, ...]


class Memory(NamedTuple):
    """What a process knows: its newest versions, the latest last, and the answers of a look that settled nothing."""

    versions: tuple[Kept, ...] = ()
    sights: tuple[Place | None, tuple[Any, ...]] | None = None
    spent: frozenset[tuple[str, Ballot]] = frozenset()
    """The promised ballots that a thread has taken. All copies of a version share theirs."""


class Job(NamedTuple):
    """An operation that runs, as the log of what its generator was sent, so that it can be run again."""

    kind: str
    arg: Any
    log: tuple[Any, ...] = ()
    answers: tuple[Any, ...] = ()
    begun: Any = None


class Thread(NamedTuple):
    """Runs one operation of its script after the other."""

    process: int
    script: tuple[str, ...]
    done: int = 0
    job: Job | None = None


class Message(NamedTuple):
    """A request under way."""

    place: Place
    server: int
    request: Read | Write


class Reply(NamedTuple):
    """An answer under way."""

    place: Place
    server: int
    answer: Any


class Server(NamedTuple):
    """One server: how often it was started, how often it was written since, and its cell."""

    start: int = 0
    writes: int = 0
    sight: Sight = Sight(None, None)


class Proposal(NamedTuple):
    """What is true of one (lineage, ballot)."""

    value: bytes
    kind: str
    parent: Ballot | None
    place: tuple[int, int]


class Step(NamedTuple):
    """Where a generator is: at a round, or at its end; and which of the promised ballots it has left."""

    round: Round | None
    result: Any
    source: Place | None
    promised: tuple[Ballot, ...]


@lru_cache(maxsize=200_000)
def play(servers: int, process: int, place: tuple[int, int], kind: str, arg: Any, log: tuple[Any, ...]) -> Step:
    """Run an operation's generator from its beginning through its log."""
    words = itertools.count()
    setup = Setup(servers, CONFIGURATION, f"p{process}", lambda: f"{place[0]}x{place[1]}x{next(words)}")
    value = f"{place[0]}.{place[1]}".encode()
    version, known = None, None
    if isinstance(arg, Kept):
        known = list(arg.answers)
        version = Version(arg.lineage, arg.ballot, arg.requests, known, list(arg.promised))
    elif arg is not None:
        known = list(arg[1])
    work: Any = {
        "look": lambda: quorum_rules.look(setup),
        "create": lambda: quorum_rules.create(setup, value),
        "swap": lambda: quorum_rules.swap(setup, value, version),
        "old": lambda: quorum_rules.swap(setup, value, version),
        "settle": lambda: quorum_rules.settle(setup, known),
        "repair": lambda: quorum_rules.repair(setup, version),
    }[kind]()
    lists = list[list[Any]]()
    try:
        step = next(work)
        for what, *rest in log:
            if what == "go":
                lists.append(list(rest[0]))
                step = work.send(lists[-1])
            elif what == "late":
                lists[rest[0]][rest[1]] = rest[2]
            else:
                known[rest[0]] = rest[1]
        return Step(step, None, None, tuple(version.promised) if version else ())
    except StopIteration as end:
        found = next(
            (x for x in (end.value if isinstance(end.value, tuple) else [end.value]) if isinstance(x, Version)), 0
        )
        source = next(((*place, n) for n, each in enumerate(lists) if found and each is found.answers), None)
        if found and known is not None and found.answers is known:
            source = arg.source
        return Step(None, end.value, source, tuple(version.promised) if version else ())


def keep(version: Version, source: Place | None) -> Kept:
    return Kept(
        source, version.lineage, version.ballot, version.requests, tuple(version.answers), tuple(version.promised)
    )


class World:
    """The state of everything, and the moves that change it."""

    comparable = False
    """Whether a version means anything after a restart."""

    def __init__(self, servers: int, scripts: list[tuple[int, tuple[str, ...]]], *, eager: bool = True) -> None:
        self.servers = [Server()] * servers
        self.needed = quorum_rules.majority(servers)
        self.threads = [Thread(process, script) for process, script in scripts]
        self.memory = [Memory()] * (1 + max((process for process, _ in scripts), default=0))
        self.messages = dict[Message, None]()
        self.replies = dict[Reply, None]()
        self.eager = eager
        """Whether operations begin as soon as they can, and what comes too late to be awaited is not answered."""
        self.forgets = self.hushes = self.timeouts = 0
        # What is true.
        self.proposals = dict[tuple[str, Ballot], Proposal]()
        self.votes = dict[tuple[str, Ballot], frozenset[int]]()
        self.chosen = dict[str, tuple[Ballot, ...]]()
        self.tops = frozenset[tuple[str, Ballot]]()
        self.touched = frozenset[tuple[str, Ballot]]()
        """Of whose votes a server has forgotten one since."""
        self.ended = frozenset[str]()
        self.later = frozenset[tuple[str, str]]()
        self.refused = frozenset[tuple[int, int]]()
        self.outcomes = dict[str, int]()

    def copy(self) -> "World":
        twin = object.__new__(World)
        twin.__dict__.update(self.__dict__)
        for name in ("servers", "threads", "memory"):
            setattr(twin, name, list(getattr(self, name)))
        for name in ("messages", "replies", "proposals", "votes", "chosen"):
            setattr(twin, name, dict(getattr(self, name)))
        return twin

    def key(self) -> Any:
        """Two worlds with equal keys have the same future."""
        return (
            tuple(self.servers),
            tuple(self.threads),
            tuple(self.memory),
            frozenset(self.messages),
            frozenset(self.replies),
            (self.forgets, self.hushes, self.timeouts),
            frozenset(self.votes.items()),
            frozenset(self.proposals),
            (self.ended, self.later, self.refused, self.touched),
        )

    # Operations.

    def start(self, number: int) -> None:
        """Begin the next operation of this thread that can begin."""
        thread = self.threads[number]
        while thread.job is None and thread.done < len(thread.script):
            kind = thread.script[thread.done]
            memory = self.memory[thread.process]
            arg: Any = None
            if NEEDS.get(kind) == "version" and memory.versions:
                arg = memory.versions[0 if kind == "old" else -1]
            elif NEEDS.get(kind) == "sights":
                arg = memory.sights
            if kind in NEEDS and arg is None:
                thread = thread._replace(done=thread.done + 1)
                self.threads[number] = thread
                continue
            self.threads[number] = thread._replace(job=Job(kind, arg))
            self._step(number)
            thread = self.threads[number]
            if not self.eager:
                return

    def _step(self, number: int) -> None:
        """Run this thread to its next round, or to the end of its operation."""
        thread = self.threads[number]
        job = thread.job
        assert job
        place = (number, thread.done)
        step = play(len(self.servers), thread.process, place, job.kind, job.arg, job.log)
        if isinstance(job.arg, Kept) and step.promised != job.arg.promised:
            self._spend(thread.process, job.arg, step.promised)
        if step.round is None:
            self._end(number, step)
            return
        requests = step.round.requests
        turn = sum(entry[0] == "go" for entry in job.log)
        for server, request in enumerate(requests):
            if request is not None:
                self.messages[Message((*place, turn), server, request)] = None
            if isinstance(request, Write):
                self._propose(place, job, request.cell)
        self.threads[number] = thread._replace(job=job._replace(answers=(SILENT,) * len(requests)))
        if self.eager:
            # Reads of earlier rounds change nothing any more.
            for message in [m for m in self.messages if m.place[0] == number and m.place != (*place, turn)]:
                if isinstance(message.request, Read):
                    del self.messages[message]
        if not any(requests):
            self.go(number)

    def _spend(self, process: int, used: Kept, left: tuple[Ballot, ...]) -> None:
        """A version's promised ballot was taken: it is gone for all threads of the process."""
        memory = self.memory[process]
        gone = set(used.promised) - set(left)
        versions = tuple(
            kept._replace(promised=tuple(b for b in kept.promised if b not in gone))
            if (kept.lineage, kept.ballot) == (used.lineage, used.ballot)
            else kept
            for kept in memory.versions
        )
        spent = memory.spent | {(used.lineage, ballot) for ballot in gone}
        self.memory[process] = memory._replace(versions=versions, spent=spent)

    def go(self, number: int) -> None:
        """Let a thread go on with the answers that it has."""
        thread = self.threads[number]
        assert thread.job
        job = thread.job._replace(log=(*thread.job.log, ("go", thread.job.answers)))
        self.threads[number] = thread._replace(job=job)
        self._step(number)

    def is_enough(self, number: int) -> bool:
        """Return whether this thread need not wait any longer."""
        thread = self.threads[number]
        assert thread.job
        job = thread.job
        step = play(len(self.servers), thread.process, (number, thread.done), job.kind, job.arg, job.log)
        return bool(step.round and step.round.enough(list(job.answers)))

    def _end(self, number: int, step: Step) -> None:
        thread = self.threads[number]
        job, place = thread.job, (number, thread.done)
        assert job
        memory = self.memory[thread.process]
        result, found = step.result, None
        if job.kind == "look":
            state, found = result
            name = type(state).__name__ + (" settled" if found else "")
            if isinstance(state, Choice) and not found:
                memory = memory._replace(sights=((*place, 0), job.log[-1][1]))
            if found and state.value != self.proposals[found.lineage, found.ballot].value:
                raise Broken(f"{place} read {state.value!r}, which is not what {found} proposed")
        elif isinstance(result, Version):
            found, name = result, job.kind
        else:
            name = f"{job.kind} {result.value}"
            if result is Outcome.REFUSED:
                self.refused |= {place}
                voted = [p for key, p in self.proposals.items() if p.place == place and self.votes.get(key)]
                if voted:
                    raise Broken(f"{place} was refused, but a server has accepted it")
        self.outcomes[name] = self.outcomes.get(name, 0) + 1 if not self.eager else 1
        if found:
            self._held_to_the_truth(place, job, found)
            kept = keep(found, step.source)
            left = tuple(ballot for ballot in kept.promised if (kept.lineage, ballot) not in memory.spent)
            memory = memory._replace(versions=(*memory.versions, kept._replace(promised=left))[-2:])
        self.memory[thread.process] = memory
        self.threads[number] = thread._replace(job=None, done=thread.done + 1)
        if self.eager:
            for message in [m for m in self.messages if m.place[0] == number and isinstance(m.request, Read)]:
                del self.messages[message]
            self.start(number)

    # Moves.

    def land(self, message: Message, *, silently: bool = False) -> None:
        """A request reaches its server; its answer comes at once, or may come later."""
        del self.messages[message]
        number, op, turn = message.place
        thread = self.threads[number]
        if turn == 0 and thread.done == op and thread.job and thread.job.begun is None:
            self.threads[number] = thread._replace(
                job=thread.job._replace(begun=(self.ended, self.tops, self.tops - self.touched))
            )
        answer = self._serve(message)
        if silently:
            if not self.eager:
                self.replies[Reply(message.place, message.server, answer)] = None
        else:
            self.deliver(Reply(message.place, message.server, answer))

    def deliver(self, reply: Reply) -> None:
        """An answer reaches its thread, in time or late."""
        self.replies.pop(reply, None)
        number, op, turn = reply.place
        thread = self.threads[number]
        if thread.done == op and thread.job:
            job = thread.job
            if turn == sum(entry[0] == "go" for entry in job.log):
                answers = _with(job.answers, reply)
                self.threads[number] = thread._replace(job=job._replace(answers=answers))
                asked = self._asked(number)
                if all(answers[server] is not SILENT for server in asked):
                    self.go(number)
            elif not self.eager:
                log = (*job.log, ("late", turn, reply.server, reply.answer))
                self.threads[number] = thread._replace(job=job._replace(log=log))
            return
        if self.eager:
            return
        memory = self.memory[thread.process]
        sights = memory.sights
        if sights and sights[0] == reply.place:
            sights = (sights[0], _with(sights[1], reply))
        versions = tuple(
            kept._replace(answers=_with(kept.answers, reply)) if kept.source == reply.place else kept
            for kept in memory.versions
        )
        self.memory[thread.process] = memory._replace(versions=versions, sights=sights)
        for other, each in enumerate(self.threads):
            if each.job and each.process == thread.process and _source(each.job.arg) == reply.place:
                log = (*each.job.log, ("known", reply.server, reply.answer))
                self.threads[other] = each._replace(job=each.job._replace(log=log))

    def _asked(self, number: int) -> list[int]:
        thread = self.threads[number]
        assert thread.job
        job = thread.job
        step = play(len(self.servers), thread.process, (number, thread.done), job.kind, job.arg, job.log)
        assert step.round
        return [server for server, request in enumerate(step.round.requests) if request is not None]

    def _serve(self, message: Message) -> Any:
        server, request = self.servers[message.server], message.request
        if isinstance(request, Read):
            return server.sight
        found, expected = server.sight.version, request.expected
        if self.comparable and found is not None and expected is not None:
            found, expected = found[1], expected[1]
        if found != expected:
            return REFUSED
        version = (server.start, server.writes + 1)
        self.servers[message.server] = Server(server.start, server.writes + 1, Sight(version, request.cell))
        self._accepted(message, request.cell)
        return version

    def forget(self, number: int, *, restart: bool = False) -> None:
        """A server drops its cell; or restarts, so that it counts its versions from the beginning."""
        server = self.servers[number]
        self.touched |= {key for key, votes in self.votes.items() if number in votes}
        self.servers[number] = Server(server.start + 1) if restart else server._replace(sight=Sight(None, None))

    # The truth.

    def _propose(self, place: tuple[int, int], job: Job, cell: Acceptor) -> None:
        """Note what a write proposes, if it does; what it carries along must have been proposed with that value."""
        if cell.accepted == NEVER:
            return
        key = (cell.lineage, cell.accepted)
        known = self.proposals.get(key)
        if known is None:
            parent = None
            if isinstance(job.arg, Kept):
                parent = job.arg.ballot
            elif job.kind == "settle":
                state = quorum_rules.judge(job.arg[1], CONFIGURATION)
                assert isinstance(state, Choice)
                parent = state.ballot
            self.proposals[key] = Proposal(cell.value, job.kind, parent, place)
        elif known.value != cell.value:
            raise Broken(f"{key} has two values: {known.value!r}, and {cell.value!r} of {place}")

    def _accepted(self, message: Message, cell: Acceptor) -> None:
        if cell.accepted == NEVER:
            return
        key = (cell.lineage, cell.accepted)
        proposal = self.proposals[key]
        if proposal.place != message.place[:2]:
            return
        if proposal.place in self.refused:
            raise Broken(f"{proposal} was refused, and is accepted later")
        before = self.votes.get(key, frozenset())
        self.votes[key] = before | {message.server}
        if len(before) < self.needed == len(self.votes[key]):
            self._choose(*key)

    def _choose(self, lineage: str, ballot: Ballot) -> None:
        """A majority has accepted this ballot: it must follow from the one that was chosen before."""
        chosen = list(self.chosen.get(lineage, ()))
        insort(chosen, ballot)
        where = bisect_left(chosen, ballot)
        for before, after in itertools.pairwise([None, *chosen][where : where + 3]):
            if after and self._predecessor(lineage, after, chosen) != before:
                raise Broken(f"{after} of {lineage} was chosen over {before}, which it had not seen")
        self.chosen[lineage] = tuple(chosen)
        self.tops = frozenset({**dict(self.tops), lineage: chosen[-1]}.items())

    def _predecessor(self, lineage: str, ballot: Ballot, chosen: list[Ballot]) -> Ballot | None:
        proposal = self.proposals[lineage, ballot]
        while proposal.kind == "settle" and proposal.parent not in chosen:
            assert proposal.parent
            proposal = self.proposals[lineage, proposal.parent]
        return proposal.parent

    def _held_to_the_truth(self, place: tuple[int, int], job: Job, found: Version) -> None:
        """What an operation found or wrote is chosen, and not older than what others were told before it began."""
        lineage, ballot = found.lineage, found.ballot
        if ballot not in self.chosen.get(lineage, ()):
            raise Broken(f"{place} {job.kind}: {ballot} of {lineage} was not accepted by a majority")
        if job.begun is None or job.kind == "repair":
            return  # it says nothing of now
        ended, tops = job.begun[0], dict(job.begun[1])
        if ballot < tops.get(lineage, ballot):
            raise Broken(f"{place} {job.kind}: {ballot} of {lineage} is shown after {tops[lineage]}")
        for other in ended - {lineage}:
            if (lineage, other) in self.later:
                raise Broken(f"{place} {job.kind}: {lineage} was lost to {other}, and is back")
            self.later |= {(other, lineage)}
        self.ended |= {lineage}
        whole = [key for key in job.begun[2] - self.touched if key[0] != lineage]
        if whole and is_first(lineage):
            raise Broken(f"{place} {job.kind}: {lineage} follows {whole}, though no server has forgotten anything")

    # In quiet.

    def state(self) -> quorum_rules.State:
        """Return what a look would find if all servers answered at once."""
        return quorum_rules.judge([server.sight for server in self.servers], CONFIGURATION)

    def run_alone(self, process: int, *script: str) -> None:
        """Let a process do this while all servers answer and nothing else is under way."""
        self.messages.clear()
        self.replies.clear()
        eager, self.eager = self.eager, False
        self.threads.append(Thread(process, script))
        number = len(self.threads) - 1
        while self.threads[number].done < len(script):
            self.start(number)
            while self.messages:
                self.land(next(iter(self.messages)))
        self.eager = eager
        memory = self.memory[process]
        # What it holds of its own is held by nobody else's thread: late answers are no more.
        versions = tuple(kept._replace(source=None) for kept in memory.versions)
        self.memory[process] = memory._replace(versions=versions, sights=None)

    def moves(self, *, timeouts: int, hushes: int, forgets: int, servers: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
        """Return all moves that may come next."""
        for message in self.messages:
            yield "land", message
            if self.hushes < hushes:
                yield "hush", message
        for number, thread in enumerate(self.threads):
            if thread.job and (self.timeouts < timeouts or self.is_enough(number)):
                yield "go", number
        if self.forgets < forgets:
            for number in servers:
                if self.servers[number].sight.version is not None:
                    yield "forget", number

    def do(self, move: tuple[Any, ...]) -> None:
        """Do one of `moves`."""
        match move:
            case "land", message:
                self.land(message)
            case "hush", message:
                self.hushes += 1
                self.land(message, silently=True)
            case "go", number:
                self.timeouts += not self.is_enough(number)
                self.go(number)
            case "forget", number:
                self.forgets += 1
                self.forget(number)


def _with(answers: tuple[Any, ...], reply: Reply) -> tuple[Any, ...]:
    return (*answers[: reply.server], reply.answer, *answers[reply.server + 1 :])


def _source(arg: Any) -> Place | None:
    if isinstance(arg, Kept):
        return arg.source
    return arg[0] if arg else None


__all__ = ["SILENT", "Broken", "NoChoice", "World"]

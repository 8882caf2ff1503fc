"""Stories of an election, one step per line, that read as the specification.

    candidates 3
    ttl 10
    tick 1            # let 1 s pass: everybody who is alive looks, renews and campaigns
    leader? 1
    kill 1
    leader within 10.5
    fence grew?

`Scenario.WORDS` lists the steps. Whatever happens, a `Verifier` watches that there are never two leaders.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from election.candidate import Candidate
from election.cell import ask_to_resign, forget, read_record
from election.clock import Clock
from election.errors import BadRecord, StoreUnavailable
from election.lease import LeasePolicy
from election.register import Cell
from election.renewer import LeaseRenewer
from election.term import LeaseTerm
from election.testing.fakes import FakeClock, Fault, FaultyStore
from election.testing.verifier import Claim, Verifier

NAME = "scenario"


class ScenarioFailed(AssertionError):
    """A step of a scenario did not turn out as it says; the message names its line."""


class _Member:
    """One candidate in a process of its own, with its own clock and its own link to the store."""

    def __init__(self, number: int, store: FaultyStore, clock: Clock, rate: float, policy: LeasePolicy) -> None:
        self.who, self.link, self.rate, self.clock = str(number), store.link(), rate, clock
        self.renewer = LeaseRenewer(clock)
        self.candidate = Candidate(
            self.link, NAME, policy, clock=clock, renew_with=lambda _register, term: self.renewer.add(term)
        )
        self.term: LeaseTerm | None = None
        self.alive = self.willing = True
        self.paused = 0
        self.trouble = ""

    @property
    def valid(self) -> bool:
        return self.alive and self.term is not None and self.term.valid

    def step(self) -> None:
        self.trouble = ""
        try:
            self.renewer.renew_due()
            if not self.valid and self.willing:
                self.term = self.candidate.attempt() or self.term
        except (StoreUnavailable, BadRecord) as exc:
            self.trouble = f"{type(exc).__name__}: {exc}"


class Scenario:
    """A small world of candidates, clocks and one store. You say what happens, one line at a time."""

    WORDS = """
    candidates N · ttl S · drift D · store age S                (before anything else)
    clock N RATE [OFFSET]      candidate N's clock runs RATE times as fast and shows OFFSET seconds more
    join                       one more candidate
    tick S                     let S seconds pass
    leader within S            let time pass until somebody leads, S seconds at most
    cut store from N · heal N · kill N · pause N · resume N · resign N · stand N · ask
    pause N before swap for S · pause N after swap for S       once, around its next swap
    lose swap of N · lose answer of N · delay swap of N · spare swap of N       one each of the next swaps
    deliver                    what was delayed
    restart store · flush store · evict · corrupt
    backup · restore           what the store holds, and that again in another generation
    forget · delete            by an operator: the command, and by hand
    leader? N|none · valid? N yes|no · asked? N yes|no · trouble? N yes|no · state? WORD|foreign|none
    fence grew? · fence kept?                                   since the last of these questions
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.verifier = Verifier()
        self.store = FaultyStore(self.clock)
        self.members: dict[str, _Member] = {}
        self._policy = LeasePolicy()
        self._clocks: dict[str, tuple[float, float]] = {}
        self._fence = 0
        self._backup: dict[str, Cell] = {}

    def run(self, text: str, source: str = "scenario") -> None:
        """Carry out the lines of `text`; what follows a `#` is for the reader.

        Raises:
            ScenarioFailed: a line is not valid or not true; the message begins with `source` and its number.
        """
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.partition("#")[0].split()
            if words:
                try:
                    self.step(*words)
                except (AssertionError, LookupError, TypeError, ValueError) as exc:
                    story = ", ".join(f"{m.who}: {m.term} {m.trouble}" for m in self.members.values())
                    raise ScenarioFailed(f"{source}:{number}: {line.strip()}: {exc} ({story})") from exc

    def step(self, *words: str) -> None:
        """Carry out one line, in words."""
        match words:
            case ("candidates", count):
                for _ in range(int(count)):
                    self.step("join")
            case ("ttl", seconds):
                self._policy = LeasePolicy(float(seconds), self._policy.drift)
            case ("drift", drift):
                self._policy = LeasePolicy(self._policy.ttl, float(drift))
            case ("store", "age", seconds):
                self.store = FaultyStore(self.clock, float(seconds))
            case ("clock", who, rate, *offset):
                self._clocks[who] = float(rate), float(*offset or (0,))
            case ("join",):
                self._join()
            case ("tick", seconds):
                self._run(float(seconds), until=lambda: False)
            case ("leader", "within", seconds):
                self._run(float(seconds), until=lambda: bool(self._leaders()))
                assert self._leaders(), "nobody leads"
            case _:
                self._strike(*words)
        self._watch()

    def _strike(self, *words: str) -> None:
        """Let a fault or a request happen."""
        match words:
            case (("cut" | "heal"), *_, who):
                self.members[who].link.cut = words[0] == "cut"
            case ("kill", who):
                self.members[who].alive = False
            case ("pause", who):
                self.members[who].paused += 1
            case ("resume", who):
                self.members[who].paused -= 1
            case ("pause", who, ("before" | "after") as when, "swap", "for", seconds):
                self._pause_around_swap(self.members[who], when, float(seconds))
            case ("resign" | "stand", who):
                self._stand(self.members[who], words[0] == "stand")
            case ("ask",):
                ask_to_resign(self.store.link(), NAME, clock=self.clock)
            case ("spare", "swap", "of", who):
                self.members[who].link.fail(None)
            case ("lose", "swap", "of", who):
                self.members[who].link.fail(Fault.DROPPED)
            case ("lose", "answer", "of", who):
                self.members[who].link.fail(Fault.UNANSWERED)
            case ("delay", "swap", "of", who):
                self.members[who].link.fail(Fault.DELAYED)
            case ("deliver",):
                self.store.deliver()
            case ("restart", "store"):
                self.store.restart()
            case ("flush", "store"):
                self.store.flush()
            case ("evict",):
                self.store.evict(NAME)
            case ("corrupt",):
                self.store.corrupt(NAME)
            case ("backup",):
                self._backup = dict(self.store.cells)
            case ("restore",):
                self.store.restore(self._backup)
            case ("forget",):
                forget(self.store.link(), NAME, clock=self.clock)
            case ("delete",):
                self.store.cells.pop(NAME, None)
            case _:
                self._ask(*words)

    def _ask(self, *words: str) -> None:
        """Answer a question."""
        match words:
            case ("leader?", *who):
                _same(" ".join(m.who for m in self._leaders()) or "none", " ".join(who))
            case ("valid?", who, answer):
                _same(self.members[who].valid, answer)
            case ("asked?", who, answer):
                term = self.members[who].term
                _same(term is not None and "asked" in term.reason, answer)
            case ("trouble?", who, answer):
                _same(bool(self.members[who].trouble), answer)
            case ("state?", answer):
                record, _ = read_record(self.store.link(), NAME)
                _same("none" if record is None else "foreign" if record.foreign else record.state.value, answer)
            case ("fence", ("grew?" | "kept?") as how):
                before, self._fence = self._fence, max((term.fence for term in self.verifier.terms), default=0)
                assert (self._fence > before) is (how == "grew?"), f"it was {before} and is {self._fence}"
            case _:
                raise ValueError("no such step")

    def _join(self) -> None:
        number = len(self.members) + 1
        rate, offset = self._clocks.get(str(number), (1.0, 0.0))
        self.members[str(number)] = _Member(number, self.store, self.clock.skewed(rate, offset), rate, self._policy)

    def _stand(self, member: _Member, willing: bool) -> None:
        member.willing = willing
        if member.term and not willing:
            member.term.resign()

    def _leaders(self) -> list[_Member]:
        return [member for member in self.members.values() if member.valid]

    def _run(self, seconds: float, until: Callable[[], bool]) -> None:
        end = self.clock.now() + seconds
        while self.clock.now() < end and not until():
            self.clock.advance(min(self._policy.poll, end - self.clock.now()))
            for member in self.members.values():
                if member.alive and not member.paused:
                    member.step()
                self._watch()

    def _watch(self) -> None:
        """Claim what every term promises, in true time; a term that ended before its time claims no longer."""
        now = self.clock.now()
        for member in self.members.values():
            if member.term and member.valid:
                until = now + member.term.remaining() / member.rate
                self.verifier.claim(Claim(now, until, member.term.fence, member.who))
            elif member.term:
                self.verifier.end(member.term.fence, now)

    def _pause_around_swap(self, member: _Member, when: str, seconds: float) -> None:
        def pause(method: str) -> None:
            if method.startswith("swap"):  # alone, or with others
                setattr(member.link, when, lambda _method: None)
                with _paused(member):
                    self._run(seconds, until=lambda: False)

        setattr(member.link, when, pause)


@contextmanager
def _paused(member: _Member) -> Iterator[None]:
    member.paused += 1
    yield
    member.paused -= 1


def _same(found: bool | str, wanted: str) -> None:
    found = found if isinstance(found, str) else "yes" if found else "no"
    assert found == wanted, f"it is {found}"

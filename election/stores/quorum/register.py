"""One register out of an odd number of memcacheds: a minority of them may die, restart or forget, and nobody notices.

`rules` decides what is asked of the servers, `parallel` asks them.
"""

import hashlib
import random
import secrets
import time
from collections.abc import Generator, Sequence
from typing import TypeVar
from urllib.parse import SplitResult

from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.register import BatchRegister, Cell, Register, Swap, identity_of
from election.retries import backoff
from election.stores import meta
from election.stores.memcached import addresses_of, timeout_of
from election.stores.quorum import rules
from election.stores.quorum.cells import REFUSED, SILENT, Answer, Moved, NoChoice, Read, TooFew
from election.stores.quorum.parallel import Asked, Link, Links
from election.stores.quorum.rules import Choice, Outcome, Round, Setup, Version

SIZES = (3, 5, 7, 9)
IDENTITY = "\0identity"
"""The name of the cell that keeps the register's own name; no lease can have it."""
LOOKS = 7
"""How often a cell is looked at that is just being written, before what was written there is settled."""
REPAIR_LIMIT = 0.05
"""Seconds at most that a write takes longer because it repairs a server, for each of two rounds."""
REPAIR_AGAIN = 1.0
"""Seconds between two attempts to repair a cell on a server that did not take part in the first."""

T = TypeVar("T")
Steps = Generator[Round, Sequence[Answer], T]


class _Process:
    """What a forked child must not share with its parent: the sockets, and the name under which it proposes."""

    def __init__(self, addresses: Sequence[tuple[str, int]], timeout: float) -> None:
        self.forked = fork_detector()
        self.links = Links(addresses, timeout)
        listed = ",".join(link.address for link in self.links.each)
        configuration = hashlib.sha256(listed.encode()).hexdigest()[:16]
        self.setup = Setup(len(addresses), configuration, secrets.token_hex(8), lambda: secrets.token_hex(8))
        self.tried: dict[str, float] = {}
        """Names whose repair failed, and when."""
        self.named = 0.0
        """When the register's own name was last looked after."""


class QuorumRegister(BatchRegister):
    """Cells that are each kept in several memcacheds, of which a majority has to answer.

    A version names one proposal that a majority has accepted (`rules.Version`).
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], timeout: float) -> None:
        self.addresses, self.timeout = sorted(addresses), timeout
        self._process = _Process(self.addresses, timeout)

    @property
    def configuration(self) -> str:
        """What names this list of servers in the cells."""
        return self._process.setup.configuration

    def _here(self) -> _Process:
        if self._process.forked():
            self._process = _Process(self.addresses, self.timeout)
        return self._process

    def identity(self) -> str:
        """Return a random name, kept in a cell of its own: it lasts as long as a majority remembers."""
        cell = self.read(IDENTITY)
        while cell is None:
            self.swap(IDENTITY, secrets.token_hex(16).encode(), None)
            cell = self.read(IDENTITY)
        return identity_of("quorum", cell.data)

    def read(self, name: str) -> Cell | None:
        """Return the cell that a majority agrees on, or None if a majority has none, or has forgotten it."""
        found = self._look([name])[0]
        return Cell(*found) if found else None

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Ask each server for all of them in one write; in pieces of at most `meta.MANY`."""
        return [found[1] if found else None for found in self._look(names)]

    def swap_many(self, swaps: Sequence[Swap]) -> list[Version | StoreUnavailable | None]:
        """Write all of them side by side, each as `swap` does; in pieces of at most `meta.MANY`."""
        here, answers = self._here(), list[Version | StoreUnavailable | None]()
        for begin in range(0, len(swaps), meta.MANY):
            piece = swaps[begin : begin + meta.MANY]
            here.links.drain()
            done = _run(here.links, [(each.name, self._swap(here.setup, each)) for each in piece])
            written = [self._outcome(here, *each) for each in done]
            self._create_again(here, piece, written)
            answers += self._repair(here, [each.name for each in piece], written)
        return answers

    def _swap(self, setup: Setup, swap: Swap) -> rules.Proposal:
        if swap.expected is None:
            return rules.create(setup, swap.data)
        return rules.swap(setup, swap.data, swap.expected)

    def _create_again(
        self, here: _Process, piece: Sequence[Swap], written: list[Version | StoreUnavailable | None]
    ) -> None:
        """Create again what several created at once so that none did: each had taken too few of the servers.

        What was refused has changed nothing and never will, so this repeats no write.
        """
        refused = [place for place, each in enumerate(piece) if each.expected is None and written[place] is None]
        for attempt in range(1, LOOKS + 4):
            if not refused:
                return
            looks = _run(here.links, [(piece[place].name, rules.look(here.setup)) for place in refused])
            refused = [
                place for place, ((state, _), _) in zip(refused, looks, strict=True) if isinstance(state, NoChoice)
            ]
            if refused:
                time.sleep(backoff(attempt, random.random(), first=0.004, longest=0.05))
            done = _run(here.links, [(piece[place].name, self._swap(here.setup, piece[place])) for place in refused])
            for place, (outcome, last) in zip(refused, done, strict=True):
                written[place] = self._outcome(here, outcome, last)
            refused = [place for place in refused if written[place] is None]
        for place in refused:
            written[place] = StoreUnavailable(f"{piece[place].name!r} is being created by others all the time")

    def _outcome(
        self, here: _Process, outcome: Version | Outcome, last: Sequence[Answer]
    ) -> Version | StoreUnavailable | None:
        if isinstance(outcome, Version):
            return outcome
        # If too few have answered, it is not known either whether somebody else was first.
        silent = len(last) - len(_silent(here.links, last)) < here.setup.needed if last else False
        return self._unavailable(here, last) if silent or outcome is Outcome.UNKNOWN else None

    def _look(self, names: Sequence[str]) -> list[tuple[bytes, Version] | None]:
        """Return the value and the version of each name, or None."""
        here = self._here()
        found: dict[str, tuple[bytes, Version] | None] = {}
        for attempt in range(1, LOOKS + 4):
            contended = list[tuple[str, Sequence[Answer]]]()
            rest = [name for name in names if name not in found]
            looks = _run(here.links, [(name, rules.look(here.setup)) for name in rest])
            for name, ((state, version), answers) in zip(rest, looks, strict=True):
                if isinstance(state, TooFew):
                    raise self._unavailable(here, answers)
                if isinstance(state, Moved):
                    raise self._moved(here, state.server)
                if not isinstance(state, Choice):
                    found[name] = None
                elif version is not None:
                    found[name] = state.value, version
                else:
                    contended.append((name, answers))
            if not contended:
                return [found[name] for name in names]
            # Somebody is writing, most likely the holder. To settle it now would make that write fail.
            if attempt >= LOOKS:
                _run(here.links, [(name, rules.settle(here.setup, answers)) for name, answers in contended])
            else:
                time.sleep(backoff(attempt, random.random(), first=0.004, longest=0.1))
        raise StoreUnavailable(f"{contended[0][0]!r} is being written by others all the time")

    def _repair(
        self, here: _Process, names: Sequence[str], written: list[Version | StoreUnavailable | None]
    ) -> list[Version | StoreUnavailable | None]:
        """Give what was written to servers that are there but have forgotten, or were left behind.

        Directly after the write, since nobody waits for a lease then. The versions that are returned are equal.
        """
        now = time.monotonic()
        due = {
            place: version
            for place, version in enumerate(written)
            if isinstance(version, Version)
            and _is_behind(here.links, version)
            and now - here.tried.get(names[place], -REPAIR_AGAIN) >= REPAIR_AGAIN
        }
        if not due:
            return written
        jobs = [(names[place], rules.repair(here.setup, version)) for place, version in due.items()]
        for (place, before), (after, _) in zip(due.items(), _run(here.links, jobs, REPAIR_LIMIT), strict=True):
            if after.sights().count(SILENT) < before.sights().count(SILENT):
                here.tried.pop(names[place], None)
                written[place] = after
            else:
                here.tried[names[place]] = now
        if now - here.named >= REPAIR_AGAIN:
            here.named = now
            self._keep_identity(here)
        return written

    def _keep_identity(self, here: _Process) -> None:
        """Write the register's name again where it is missing: nobody else writes into that cell."""
        (((state, version), _),) = _run(here.links, [(IDENTITY, rules.look(here.setup))], REPAIR_LIMIT)
        if version is None or not isinstance(state, Choice):
            return
        if not any(link.idle and link.place not in state.cells for link in here.links.each):
            return
        ((version, _),) = _run(here.links, [(IDENTITY, rules.repair(here.setup, version))], REPAIR_LIMIT)
        ((done, _),) = _run(here.links, [(IDENTITY, rules.swap(here.setup, state.value, version))], REPAIR_LIMIT)
        if isinstance(done, Version):
            _run(here.links, [(IDENTITY, rules.repair(here.setup, done))], REPAIR_LIMIT)

    def sights(self, name: str) -> list[Answer]:
        """Return what each server says of the cell, in the order of `addresses`: `SILENT` if it does not answer."""
        here = self._here()
        asked = Asked(name, Round((Read(),) * here.setup.servers, lambda answers: SILENT not in answers))
        here.links.ask([asked])
        return list(asked.answers)

    def remembers(self, seconds: float) -> bool:
        """Return False: servers that remember do not show that no create has replaced what they had.

        docs/design.md has a sharper rule, which would sometimes say yes. It is not used.
        """
        return False

    def names(self) -> None:
        """Return None: memcached has no reliable way to list its keys."""

    def close(self) -> None:
        """Close the sockets, if this process opened them."""
        if not self._process.forked():
            self._process.links.close()

    def _unavailable(self, here: _Process, answers: Sequence[Answer]) -> StoreUnavailable:
        links = here.links.each
        # One that has troubles may be connected again, and was not sent what names a version of its old connection.
        silent = [
            link
            for link, answer in zip(links, answers, strict=False)
            if answer is SILENT or not link.connected or link.trouble
        ]
        why = "; ".join(f"{link.address} did not: {link.trouble or 'timed out'}" for link in silent)
        return StoreUnavailable(f"{here.setup.needed} of {len(links)} memcacheds must answer; {why or 'too few did'}")

    def _moved(self, here: _Process, server: int) -> StoreUnavailable:
        ours = ", ".join(link.address for link in here.links.each)
        return StoreUnavailable(
            f"{here.links.each[server].address} keeps this lease for another list of memcacheds than {ours}. "
            "To replace a server, keep the list and put another host behind the same address. "
            "To change the list, stop every worker, wait for a lease, restart the memcacheds, "
            "and start the workers with the new list",
            permanent=True,
        )


def _silent(links: Links, answers: Sequence[Answer]) -> list[Link]:
    """Return the servers that did not answer, or whose connection was not there."""
    return [link for link, answer in zip(links.each, answers, strict=True) if answer is SILENT or not link.connected]


def _is_behind(links: Links, version: Version) -> bool:
    """Return whether a server is known not to have this version, and would answer now."""
    for link in links.each:
        answer = version.answers[link.place]
        missing = answer is REFUSED or (answer is SILENT and version.requests[link.place] is None)
        if missing and link.idle:
            return True
    return False


def _run(
    links: Links, jobs: Sequence[tuple[str, Steps[T]]], limit: float | None = None
) -> list[tuple[T, Sequence[Answer]]]:
    """Run all generators side by side; return what each has returned, and the answers to its last round."""
    done: dict[int, tuple[T, Sequence[Answer]]] = {}
    for begin in range(0, len(jobs), meta.MANY):
        asked: dict[int, Asked | None] = dict.fromkeys(range(begin, min(begin + meta.MANY, len(jobs))))
        while asked:
            for place, before in list(asked.items()):
                name, steps = jobs[place]
                try:
                    asked[place] = Asked(name, steps.send(before.answers) if before else next(steps))
                except StopIteration as stop:
                    done[place] = stop.value, before.answers if before else ()
                    del asked[place]
            if asked:
                links.ask([each for each in asked.values() if each], limit)
    return [done[place] for place in range(len(jobs))]


def connect(parts: SplitResult, options: dict[str, str]) -> Register:
    """Return the register for `//host[:port],host[:port],host[:port]…`; each answer may take `timeout` seconds.

    Raises:
        ValueError: an address, their number or the timeout makes no sense; the message says what does.
    """
    timeout = timeout_of(options)
    if "@" in parts.netloc:
        raise ValueError("a quorum cannot log in: start its memcacheds without a password")
    addresses = [
        ("127.0.0.1" if host.lower() == "localhost" else host.lower(), port)
        for host, port in addresses_of(parts.netloc)
    ]
    for place, (host, port) in enumerate(addresses):
        if (host, port) in addresses[:place]:
            raise ValueError(f"{host}:{port} is named twice, and would count twice")
    if len(addresses) not in SIZES:
        raise ValueError(
            f"a quorum has 3, 5, 7 or 9 memcacheds, of which a minority may fail, and not {len(addresses)}"
        )
    return QuorumRegister(addresses, timeout)

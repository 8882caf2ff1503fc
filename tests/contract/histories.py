"""Clients of a register that read and swap a few cells, and write down what they saw."""

import contextlib
import dataclasses
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from election import Register, StoreUnavailable, open_register
from tests.contract.linearizability import NEVER, Operation, Read, Span, Swap, flaw
from tests.waiting import until

PAUSE = 0.02
"""Seconds that a client rests after the store did not answer, so that an outage is not all that is recorded."""

PACE = 0.002
"""Seconds between two calls of a client that goes on until it is told to stop, so that its history stays short."""


@dataclass
class Known:
    """What a client knows of a cell: its version and data, and since when."""

    version: Any
    data: bytes | None
    since: float


class Recorder:
    """Runs clients, one thread each, and judges what they saw. Two clients may share one register.

    With a store that is `weak`, a swap may be refused because another one is under way, whatever becomes of that.
    """

    def __init__(self, names: Sequence[str], weak: bool = False) -> None:
        self.names, self.weak = names, weak
        self.trouble: list[BaseException] = []
        self._seen: list[tuple[str, Register, Operation, float]] = []
        self._failures: list[tuple[Register, Span]] = []
        self._losses: list[Span] = []
        self._faults: list[Span] = []
        self._over = threading.Event()
        self._mark = uuid.uuid4().hex  # so that its data is found among all that is sent

    def run(self, registers: Sequence[Register], seed: int = 0, calls: int = 60) -> None:
        """Let each of the registers be used by a thread for so many calls."""
        with self.running(registers, seed, calls):
            pass

    @contextlib.contextmanager
    def running(self, registers: Sequence[Register], seed: int = 0, calls: int | None = None) -> Iterator[None]:
        """The same, meanwhile; without `calls` until this context is left. What is there then is read once more."""
        threads = [
            threading.Thread(
                target=self._client, args=(f"{number}", register, random.Random(seed * 100 + number), calls)
            )
            for number, register in enumerate(registers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            if calls is None:
                self._over.set()
            for thread in threads:
                thread.join()
        assert not self.trouble, self.trouble
        for name in self.names:
            until(lambda: self._read("end", registers[0], name), "the store to answer at the end")  # noqa: B023

    @contextlib.contextmanager
    def clients(self, url: str, own: int, shared: int, seed: int = 0) -> Iterator[None]:
        """Let so many threads with a register of their own, and so many that share one, go on meanwhile."""
        with contextlib.ExitStack() as stack:
            made = [stack.enter_context(contextlib.closing(open_register(url))) for _ in range(own + 1)]
            with self.running(made[:own] + made[own:] * shared, seed):
                yield

    def more(self, calls: int = 20) -> None:
        """Wait until so many more calls were answered, or cannot be any more."""
        end = self.answered + calls
        until(lambda: self.answered >= end or self.trouble, f"{calls} more calls")

    def troubled(self) -> None:
        """Wait until one more call was not answered."""
        before = len(self._failures)
        until(lambda: len(self._failures) > before or self.trouble, "a call that is not answered")

    def until_unknown(self, swaps: int) -> None:
        """Wait until it is not known of so many swaps whether they landed."""
        until(lambda: self.unknown >= swaps or self.trouble, f"{swaps} swaps that are not answered")

    @property
    def written(self) -> list[bytes]:
        """What was sent to the store, each with data of its own."""
        return [each.data for _, _, each, _ in self._seen if isinstance(each, Swap)]

    @property
    def answered(self) -> int:
        """How many calls the store has answered."""
        return len(self._seen) - self.unknown

    @property
    def unknown(self) -> int:
        """Of how many swaps nobody knows whether they landed."""
        return sum(isinstance(each, Swap) and each.won is None for _, _, each, _ in tuple(self._seen))

    @contextlib.contextmanager
    def fault(self, *, loses: bool = False) -> Iterator[None]:
        """What is done meanwhile may make versions void, and may lose cells."""
        since = time.monotonic()
        yield
        span = (since, time.monotonic())
        self._faults.append(span)
        if loses:
            self._losses.append(span)

    def histories(self) -> dict[str, list[Operation]]:
        """What was done with each cell."""
        found: dict[str, list[Operation]] = {name: [] for name in self.names}
        for name, register, each, since in self._seen:
            if isinstance(each, Swap) and each.won is False and each.expected is not None:
                spans = [span for one, span in self._failures if one is register] + self._faults
                excused = any(a <= each.returned and b >= since for a, b in spans)
                if self.weak and not excused:
                    rivals = [rival for cell, _, rival, _ in self._seen if cell == name and isinstance(rival, Swap)]
                    excused = any(
                        rival.who != each.who and rival.invoked <= each.returned and rival.returned >= each.invoked
                        for rival in rivals
                    )
                each = dataclasses.replace(each, excused=excused)
            found[name].append(each)
        return found

    def flaws(self) -> list[str]:
        """Why what was seen cannot be, for each cell for which it cannot."""
        found = [flaw(history, self._losses) for history in self.histories().values()]
        return [each for each in found if each]

    def _client(self, who: str, register: Register, rng: random.Random, calls: int | None) -> None:
        try:
            known: dict[str, list[Known]] = {name: [] for name in self.names}
            number = 0
            while number != calls and not self._over.is_set():
                number += 1
                if calls is None:
                    self._over.wait(PACE)
                name = rng.choice(self.names)
                mine = known[name]
                if not mine or rng.random() < 0.35:
                    seen = self._read(who, register, name)
                    mine += [seen] if seen else []
                else:
                    # Now and then with a version that is no longer there.
                    expected = mine[-1] if rng.random() < 0.9 else rng.choice(mine)
                    mine += self._swap(who, register, name, f"<{who}.{number}.{self._mark}>".encode(), expected)
                    if mine[-1] is expected:
                        known[name] = []  # refused, or unknown: read before the next
        except BaseException as exc:  # noqa: BLE001 - the test has to end, and to tell
            self.trouble.append(exc)

    def _read(self, who: str, register: Register, name: str) -> Known | None:
        begun = time.monotonic()
        try:
            cell = register.read(name)
        except StoreUnavailable:
            self._failed(register, begun)
            return None
        data = cell.data if cell else None
        self._note(name, register, Read(who, begun, time.monotonic(), data))
        return Known(cell.version if cell else None, data, begun)

    def _swap(self, who: str, register: Register, name: str, data: bytes, known: Known) -> list[Known]:
        begun = time.monotonic()
        try:
            version = register.swap(name, data, known.version)
        except StoreUnavailable:
            self._failed(register, begun)
            self._note(name, register, Swap(who, begun, NEVER, known.data, data, None))
            return []
        won = version is not None
        self._note(name, register, Swap(who, begun, time.monotonic(), known.data, data, won), known.since)
        return [Known(version, data, begun)] if won else []

    def _note(self, name: str, register: Register, operation: Operation, since: float = 0.0) -> None:
        self._seen.append((name, register, operation, since))

    def _failed(self, register: Register, begun: float) -> None:
        self._failures.append((register, (begun, time.monotonic())))
        self._over.wait(PAUSE)

"""A clock that jumps and a store that fails on command."""

import collections
import contextlib
import enum
import itertools
import math
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from election.clock import Clock
from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.register import Cell, Register, Swap


class FakeClock:
    """A clock that stands still until you move it or wait on it.

    Args:
        now: what it shows at first, in seconds.
        on_advance: called after each move, by the thread that moved it, with the new time: a world takes its step.
    """

    def __init__(self, now: float = 1000.0, *, on_advance: Callable[[float], None] | None = None) -> None:
        self._now = now
        self._on_advance = on_advance

    def now(self) -> float:
        """Return what the clock shows."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now += max(0.0, seconds)
        if self._on_advance:
            self._on_advance(self._now)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let `seconds` pass at once, unless `event` is set; return whether it is set."""
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def skewed(self, rate: float = 1.0, offset: float = 0.0) -> Clock:
        """Return the same time on a worse clock, which runs `rate` times as fast and shows `offset` seconds more."""
        return _Skewed(self, rate, offset)


class _Skewed:
    def __init__(self, clock: Clock, rate: float, offset: float) -> None:
        self._clock, self._rate, self._offset = clock, rate, offset

    def now(self) -> float:
        return self._clock.now() * self._rate + self._offset

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return self._clock.wait(event, seconds / self._rate)


class Fault(enum.Enum):
    """What happens to a swap that the store does not answer. The caller sees no difference."""

    UNANSWERED = "the write lands"
    DROPPED = "the write never lands"
    DELAYED = "the write lands when the store is told to `deliver`, if nobody was first"


class FaultyStore:
    """Cells that several clients share, each through a `link` of its own, in a store that fails on command.

    It is as forgetful as memcached: its versions start again with it and cannot be compared across a restart, and it
    cannot vouch for what it lost (`remembers`) until it has been up for long enough, nor ever after it has dropped a
    cell. `age` says for how many seconds it has been up at first. It can also come back with what it held earlier
    (`restore`): each time it begins another generation.

    With `hints` each write sends one to those who watch its cell (`Register.watch`), in the thread that writes. While
    `mute` is true they are lost; `live` is what their watchers are told. `tell` sends one for no reason, or late.
    """

    def __init__(self, clock: Clock, age: float = math.inf, *, hints: bool = False) -> None:
        self.hints, self.mute, self.live = hints, False, True
        self._watches: dict[FaultyHints, str] = {}
        self._changed: collections.deque[str] = collections.deque()
        self.cells: dict[str, Cell] = {}
        self._clock = clock
        self._born = clock.now() - age
        self._lossy = False
        self._epoch = 1
        self._versions = itertools.count(1)
        self._late: list[tuple[int, str, bytes, Any]] = []
        self._name = uuid.uuid4().hex
        self._lock, self._forked = threading.RLock(), fork_detector()

    @property
    def lock(self) -> threading.RLock:
        """Held while a cell is looked at or changed; a forked child, which has a copy of the cells, makes its own."""
        if self._forked():
            self._lock, self._watches, self._forked = threading.RLock(), {}, fork_detector()
        return self._lock

    def link(self) -> "FaultyRegister":
        """Return one more client."""
        return FaultyRegister(self)

    def evict(self, name: str) -> None:
        """Drop one cell."""
        self.cells.pop(name, None)
        self._lossy = True

    def flush(self) -> None:
        """Drop every cell."""
        self.cells.clear()
        self._lossy = True

    def restart(self) -> None:
        """Forget everything: the cells, what is on its way, how versions were counted, and ever having lost a cell."""
        self.cells.clear()
        self._late.clear()
        self._lossy, self._born = False, self._clock.now()
        self._epoch += 1
        self._versions = itertools.count(1)

    def restore(self, cells: Mapping[str, Cell]) -> None:
        """Come back with the `cells` of an earlier moment, a copy of the attribute, in another generation."""
        self._lossy, self._born = False, self._clock.now()
        self._epoch += 1
        self.cells = {name: Cell(cell.data, (self._epoch, next(self._versions))) for name, cell in cells.items()}

    def corrupt(self, name: str, data: bytes = b"not a lease") -> None:
        """Overwrite one cell with something that is not a record."""
        self.cells[name] = Cell(data, (self._epoch, next(self._versions)))

    def deliver(self) -> int:
        """Carry out the writes that were delayed, in their order; return how many of them have landed."""
        late, self._late = self._late, []
        landed = sum(self._swap(name, data, expected) is not None for _, name, data, expected in late)
        self._send_hints()
        return landed

    def tell(self, name: str) -> None:
        """Send a hint to all who watch the cell `name`."""
        with self.lock:
            watches = [hints for hints, watched in self._watches.items() if watched == name]
        for hints in watches:
            hints.news()

    def _send_hints(self) -> None:
        """Send those of the writes that have landed; not under the lock."""
        while self._changed:
            with contextlib.suppress(IndexError):  # another thread was first
                name = self._changed.popleft()
                if not self.mute:
                    self.tell(name)

    def identity(self) -> str:
        """Name this store, until it restarts."""
        return f"faulty:{self._name}:{self._epoch}:{os.getpid()}"

    def remembers(self, seconds: float) -> bool:
        """Return whether it has been up for longer and never dropped a cell."""
        return not self._lossy and self._clock.now() - self._born > seconds

    def _swap(self, name: str, data: bytes, expected: tuple[int, int] | None) -> tuple[int, int] | None:
        cell = self.cells.get(name)
        if expected != (cell.version if cell else None):
            return None
        version = (self._epoch, next(self._versions))
        self.cells[name] = Cell(data, version)
        self._changed.append(name)
        return version


class FaultyHints:
    """Hints of a `FaultyStore` about one name."""

    def __init__(self, store: FaultyStore, name: str, news: Callable[[], object]) -> None:
        self.news, self._store = news, store
        with store.lock:
            store._watches[self] = name

    @property
    def live(self) -> bool:
        """What the store says."""
        return self._store.live

    def close(self) -> None:
        """Send no more hints."""
        with self._store.lock:
            self._store._watches.pop(self, None)


class FaultyRegister(Register):
    """One client of a `FaultyStore`: a `Register` whose calls fail, or are interrupted, on command.

    `cut`: while it is true, every call raises `StoreUnavailable`. `before` and `after` are called with the name of each
    method before it does anything and before it returns: there a test lets time pass, lets others run, or raises.
    """

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.cut = False
        self.calls = 0
        self.before: Callable[[str], None] = lambda _method: None
        self.after: Callable[[str], None] = lambda _method: None
        self._faults: list[Fault | None] = []

    def fail(self, *faults: Fault | None) -> None:
        """Let the next swaps fail like that, one each; None spares one."""
        self._faults += faults

    def _call(self, method: str, work: Callable[[], Any]) -> Any:
        self.calls += 1
        self.before(method)
        if self.cut:
            raise StoreUnavailable("the link to the store is cut")
        try:
            with self.store.lock:
                result = work()
        finally:
            self.store._send_hints()
        self.after(method)
        return result

    def identity(self) -> str:
        """Return the store's identity."""
        return str(self._call("identity", self.store.identity))

    def shard(self, name: str) -> "FaultyRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the cell, or None."""
        cell: Cell | None = self._call("read", lambda: self.store.cells.get(name))
        return cell

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Compare and swap, unless a fault is due."""
        return self._call("swap", lambda: self._swap(name, data, expected))

    def swap_many(self, swaps: Sequence[Swap]) -> list[Any | StoreUnavailable | None]:
        """Swap in turn on one connection, until a fault is due. What follows shares its fate, and is not answered."""
        try:
            answers: list[Any | StoreUnavailable | None] = self._call("swap_many", lambda: self._swap_in_turn(swaps))
        except StoreUnavailable as exc:
            return [exc] * len(swaps)
        return answers

    def _swap_in_turn(self, swaps: Sequence[Swap]) -> list[Any | StoreUnavailable | None]:
        answers: list[Any | StoreUnavailable | None] = []
        for number, swap in enumerate(swaps):
            fault = self._faults[0] if self._faults else None
            try:
                answers.append(self._swap(*swap))
            except StoreUnavailable as exc:
                for later in swaps[number + 1 :]:
                    self._faults.insert(0, fault)
                    with contextlib.suppress(StoreUnavailable):
                        self._swap(*later)
                return answers + [exc] * (len(swaps) - number)
        return answers

    def _swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        fault = self._faults.pop(0) if self._faults else None
        if fault is Fault.DELAYED:
            self.store._late.append((self.store._epoch, name, data, expected))
        elif fault is not Fault.DROPPED:
            version = self.store._swap(name, data, expected)
            if fault is None:
                return version
        raise StoreUnavailable("the store did not answer")

    def watch(self, name: str, news: Callable[[], object]) -> FaultyHints | None:
        """Have `news` called after each write, if the store has hints."""
        return FaultyHints(self.store, name, news) if self.store.hints else None

    def generation(self, version: tuple[int, int]) -> str:
        """Return the number of the store's generation by then."""
        return str(version[0])

    def remembers(self, seconds: float) -> bool:
        """Return what the store says."""
        return bool(self._call("remembers", lambda: self.store.remembers(seconds)))

    def names(self) -> Iterable[str]:
        """Return all names, sorted."""
        names: list[str] = self._call("names", lambda: sorted(self.store.cells))
        return names

    def close(self) -> None:
        """Do nothing."""

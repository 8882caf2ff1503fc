"""Cells in this process: for tests, and for threads that share one process."""

import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult

from election.forks import fork_detector
from election.register import Cell, Register


class MemoryRegister(Register):
    """Cells in a dictionary. A forked child has a copy of its own, under another identity."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}
        self._versions = itertools.count(1)
        self._watches: dict[str, list[MemoryHints]] = {}
        self._lock, self._forked = threading.Lock(), fork_detector()
        self._identity = uuid.uuid4().hex

    def identity(self) -> str:
        """Name this process's copy of this register."""
        return f"memory:{self._identity}:{os.getpid()}"

    def shard(self, name: str) -> "MemoryRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the cell, or None."""
        return self._cells.get(name)

    def swap(self, name: str, data: bytes, expected: int | None) -> int | None:
        """Compare and swap under a lock."""
        self._begin_in_child()
        with self._lock:
            cell = self._cells.get(name)
            if expected != (cell.version if cell else None):
                return None
            version = next(self._versions)
            self._cells[name] = Cell(data, version)
            watches = tuple(self._watches.get(name, ()))
        for watch in watches:
            watch.news()
        return version

    def watch(self, name: str, news: Callable[[], object]) -> "MemoryHints":
        """Have `news` called after each swap, in the thread that swaps."""
        self._begin_in_child()
        return MemoryHints(self, name, news)

    def _begin_in_child(self) -> None:
        """In a forked child: take no lock that another thread of the parent may have held, and tell none of its."""
        if self._forked():
            self._lock, self._watches, self._forked = threading.Lock(), {}, fork_detector()

    def remembers(self, seconds: float) -> bool:
        """Return True: the cells live as long as their users."""
        return True

    def names(self) -> Iterable[str]:
        """Return all names, sorted."""
        return sorted(self._cells)

    def close(self) -> None:
        """Do nothing; the cells stay for the others in this process."""


class MemoryHints:
    """Tells of each swap of one name until it is closed."""

    live = True

    def __init__(self, register: MemoryRegister, name: str, news: Callable[[], object]) -> None:
        self.news, self._register, self._name = news, register, name
        with register._lock:
            register._watches.setdefault(name, []).append(self)

    def close(self) -> None:
        """Send no more hints."""
        register, name = self._register, self._name
        register._begin_in_child()
        with register._lock:
            left = [hints for hints in register._watches.pop(name, []) if hints is not self]
            if left:
                register._watches[name] = left


_shared: dict[str, MemoryRegister] = {}


def connect(parts: SplitResult, options: dict[str, str]) -> MemoryRegister:
    """Return the register for `//space`."""
    return shared(parts.netloc)


def shared(space: str) -> MemoryRegister:
    """Return the register of `memory://space`: the same one for everybody in this process."""
    return _shared.setdefault(space, MemoryRegister())

"""Cells in this process: for tests, and for threads that share one process."""

import itertools
import os
import threading
import uuid
from collections.abc import Iterable
from urllib.parse import SplitResult

from election.forks import fork_detector
from election.register import Cell, Register


class MemoryRegister(Register):
    """Cells in a dictionary. A forked child has a copy of its own, under another identity."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}
        self._versions = itertools.count(1)
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
        if self._forked():  # another thread of the parent may have held the lock
            self._lock, self._forked = threading.Lock(), fork_detector()
        with self._lock:
            cell = self._cells.get(name)
            if expected != (cell.version if cell else None):
                return None
            version = next(self._versions)
            self._cells[name] = Cell(data, version)
            return version

    def remembers(self, seconds: float) -> bool:
        """Return True: the cells live as long as their users."""
        return True

    def names(self) -> Iterable[str]:
        """Return all names, sorted."""
        return sorted(self._cells)

    def close(self) -> None:
        """Do nothing; the cells stay for the others in this process."""


_shared: dict[str, MemoryRegister] = {}


def connect(parts: SplitResult, options: dict[str, str]) -> MemoryRegister:
    """Return the register for `//space`."""
    return shared(parts.netloc)


def shared(space: str) -> MemoryRegister:
    """Return the register of `memory://space`: the same one for everybody in this process."""
    return _shared.setdefault(space, MemoryRegister())

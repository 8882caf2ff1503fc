"""The port to a store: one compare-and-swap cell per name. All safety is built above it."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Cell:
    """What a read returned. `version` is opaque; it names this very write as long as the adapter can tell."""

    data: bytes
    version: Any


def identity_of(kind: str, raw: bytes) -> str:
    """Return the name of a store that keeps `raw` as its random name; of what is no such name, a hash.

    Whoever can write to a store can write anything there, and the name is announced, compared and shown.
    """
    name = raw if re.fullmatch(rb"[0-9a-f]{32}", raw) else hashlib.sha256(raw).hexdigest()[:32].encode()
    return f"{kind}:{name.decode()}"


class Register(Protocol):
    """A store of small cells with a linearizable compare-and-swap.

    Every method may be called from any thread, and raises `StoreUnavailable` for anything that the network or the
    store did. Nothing connects before the first call. A register that crosses a `fork` connects afresh in the child.
    """

    def identity(self) -> str:
        """Return a name for this very store, equal for two registers only if they share their cells."""
        ...

    def shard(self, name: str) -> "Register":
        """Return the register that keeps `name`: itself, unless it stands for several servers."""
        ...

    def read(self, name: str) -> Cell | None:
        """Return the cell `name`, or None if there is none."""
        ...

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Write `data` if the cell still has the version `expected` (None: if there is no cell).

        Returns the new version, or None if somebody else was first or `expected` can no longer be compared. After
        `StoreUnavailable` the write may have landed, and may still land later.
        """
        ...

    def remembers(self, seconds: float) -> bool:
        """Return whether it is certain that no cell written in the last `seconds` has been lost."""
        ...

    def names(self) -> Iterable[str] | None:
        """Return the names that have a cell, or None if the store cannot list them."""
        ...

    def close(self) -> None:
        """Close connections and files. A later call opens them again."""
        ...

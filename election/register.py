"""The port to a store: one compare-and-swap cell per name. All safety is built above it."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from election.errors import BadPolicy, StoreUnavailable
from election.record import check_name


@dataclass(frozen=True, slots=True)
class Cell:
    """What a read returned. `version` is opaque; it names this very write as long as the adapter can tell."""

    data: bytes
    version: Any


class Swap(NamedTuple):
    """The arguments of one `Register.swap`."""

    name: str
    data: bytes
    expected: Any | None


class Hints(Protocol):
    """What `Register.watch` returns: hints that a cell may have changed. They decide nothing, and may be lost."""

    @property
    def live(self) -> bool:
        """Whether hints arrive now, as far as is known. While it is false, changes are found by polling alone."""
        ...

    def close(self) -> None:
        """Send no more hints. Returns at once, and may be called twice."""
        ...


def identity_of(kind: str, raw: bytes) -> str:
    """Return the name of a store that keeps `raw` as its random name; of what is no such name, a hash.

    Whoever can write to a store can write anything there, and the name is announced, compared and shown.
    """
    name = raw if re.fullmatch(rb"[0-9a-f]{32}", raw) else hashlib.sha256(raw).hexdigest()[:32].encode()
    return f"{kind}:{name.decode()}"


def name_of(key: bytes) -> str | None:
    """Return the name that a store keeps as `key`; None if it cannot name a lease, so that it was not written here."""
    with contextlib.suppress(UnicodeDecodeError, BadPolicy):
        return check_name(key.decode())
    return None


class Register(Protocol):
    """A store of small cells with a linearizable compare-and-swap.

    Every method may be called from any thread, and raises `StoreUnavailable` for anything that the network or the
    store did. Nothing connects before the first call. A register that crosses a `fork` connects afresh in the child.
    An adapter that subclasses this inherits `version`, `versions` and `swap_many`, which it may replace by
    something quicker, and `generation` and `watch`, which it replaces where the store has these.
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

    def version(self, name: str) -> Any | None:
        """Return the version of the cell `name` without its data, or None if there is none.

        If it equals one that `read` or `swap` returned, then the cell still holds what was read or written there.
        """
        cell = self.read(name)
        return cell.version if cell else None

    def versions(self, names: Sequence[str]) -> list[Any | None]:
        """Return for each name what `version` returns. It raises if the store does not answer for one of them."""
        return [self.version(name) for name in names]

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Write `data` if the cell still has the version `expected` (None: if there is no cell).

        Returns the new version, or None if it was not written and never will be: somebody else was first, or is just
        writing, or `expected` can no longer be compared. So None does not say that the cell has changed. After
        `StoreUnavailable` the write may have landed, and may still land later.
        """
        ...

    def swap_many(self, swaps: Sequence[Swap]) -> list[Any | StoreUnavailable | None]:
        """Do each swap in turn; return for each what `swap` would have returned, or would have raised.

        Each is a swap by itself: some may succeed where others fail. Once the store does not answer one, those after
        it in the same server are not known either, whether they were sent or not.
        """
        answers: list[Any | StoreUnavailable | None] = []
        for swap in swaps:
            try:
                answers.append(self.swap(*swap))
            except StoreUnavailable as exc:
                # The others would wait as long for the same silence.
                return answers + [exc] * (len(swaps) - len(answers))
        return answers

    def generation(self, version: Any) -> str:
        """Return the name of the store's generation in which `version` was read or written; no I/O.

        A store that may come back with an old state (from a backup, as a promoted replica, as a copied file) begins
        another generation when it does, and refuses a version of an earlier one. "" if the store brings nothing back.
        """
        return ""

    def watch(self, name: str, news: Callable[[], object]) -> Hints | None:
        """Have `news` called when the cell `name` may have changed; None if the store sends no hints.

        It is called in a thread of the register, and must return at once. It may be called for no reason. Returns at
        once, raises nothing, and connects in the background, again after each failure.
        """
        return None

    def remembers(self, seconds: float) -> bool:
        """Return whether it is certain that no cell written in the last `seconds` has been lost."""
        ...

    def names(self) -> Iterable[str] | None:
        """Return the names that have a cell, or None if the store cannot list them."""
        ...

    def close(self) -> None:
        """Close connections and files. A later call opens them again."""
        ...


class BatchRegister(Register):
    """One store that is asked for many cells at once: what an adapter inherits beside `versions` and `swap_many`."""

    def shard(self, name: str) -> "BatchRegister":
        """Return itself."""
        return self

    def version(self, name: str) -> Any | None:
        """Ask for one of many."""
        return self.versions([name])[0]

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Swap one of many."""
        (answer,) = self.swap_many([Swap(name, data, expected)])
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

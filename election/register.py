"""The port to a store: one compare-and-swap cell per name. All of the safety lives above it, once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from election.errors import BadAddress


@dataclass(frozen=True, slots=True)
class Cell:
    """What a read returned. `version` is opaque; it names this very write for as long as the adapter can tell."""

    data: bytes
    version: Any


class Register(Protocol):
    """A store of small cells with a linearizable compare-and-swap.

    Every method may be called from any thread, and raises `StoreUnavailable` for anything that the network or the
    store did. Nothing connects before the first call. A register that crosses a `fork` connects afresh in the child.
    """

    def identity(self) -> str:
        """Name this very store: equal for two registers only if they share their cells."""
        ...

    def shard(self, name: str) -> "Register":
        """The register that keeps `name`: itself, unless it stands for several servers."""
        ...

    def read(self, name: str) -> Cell | None:
        """The cell `name`, or None where there is none."""
        ...

    def swap(self, name: str, data: bytes, expected: Any | None) -> Any | None:
        """Write `data` if the cell still has the version `expected` (None: if there is no cell).

        Returns the new version, or None if somebody else was first or `expected` can no longer be compared. After
        `StoreUnavailable` the write may have landed, and may still land later.
        """
        ...

    def remembers(self, seconds: float) -> bool:
        """Whether it is certain that no cell written in the last `seconds` has been lost."""
        ...

    def names(self) -> Iterable[str] | None:
        """The names that have a cell, or None if the store cannot list them."""
        ...

    def close(self) -> None:
        """Let go of connections and files. A later call opens them again."""
        ...


EXAMPLES = "memcached://10.0.0.5:11211, sqlite:////var/lib/politics.db or memory://"


def open_register(url: str) -> Register:
    """The register behind a URL; nothing is connected yet.

    `memcached://host[:port][,host[:port]…]`, `sqlite:///path` (`sqlite:///relative` and `sqlite:////absolute` are both
    understood, as is `~`), `memory://` (this process only). An option behind `?`: `timeout`, the seconds that one
    answer of memcached may take (0.5).

    Raises:
        BadAddress: the URL is none of these; the message names it.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except (ValueError, TypeError, AttributeError) as exc:
        raise BadAddress(f"{url!r} is no store URL: {exc}; try {EXAMPLES}") from exc
    # The adapters are imported here so that nobody pays for, or needs, what they do not use.
    try:
        if parts.scheme == "memcached":
            from election.stores.memcached import connect

            timeout = float(options.pop("timeout", "0.5"))
            register = connect(parts.netloc, timeout)
        elif parts.scheme == "sqlite":
            from election.stores.sqlite import SQLiteRegister

            register = SQLiteRegister(parts.netloc + parts.path.removeprefix("/"))
        elif parts.scheme == "memory":
            from election.stores.memory import shared

            register = shared(parts.netloc)
        else:
            raise ValueError(f"nothing is known of {parts.scheme + '://' if parts.scheme else 'such an address'}")
        if options:
            raise ValueError(f"unknown option {', '.join(options)}")
    except ValueError as exc:
        raise BadAddress(f"{url!r} is no store URL: {exc}; try {EXAMPLES}") from exc
    return register

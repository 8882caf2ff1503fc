"""What etcd and ZooKeeper have in common: several servers that are one store, each asked when the one before fails."""

import abc
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, unquote

from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.register import BatchRegister
from election.stores.hints import HintListener, HintStream, Watching
from election.stores.urls import address, pop_files, pop_timeout


class Ensemble(NamedTuple):
    """What a URL says: `//[user:password@]host[:port][,host[:port]…][/prefix]`, and the options."""

    endpoints: list[tuple[str, int]]
    prefix: str
    timeout: float
    user: str
    password: str
    files: dict[str, str | None]


def ensemble_of(parts: SplitResult, options: dict[str, str], default_port: int) -> Ensemble:
    """Return what the URL says; take from `options` what is known here.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    timeout = pop_timeout(options, 1)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    endpoints = [address(part, default_port) for part in hosts.split(",")]
    prefix = unquote(parts.path).strip("/") or "politics"
    return Ensemble(endpoints, prefix, timeout, unquote(user), unquote(password), pop_files(options))


class _Connection(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Connection)


class EnsembleRegister(BatchRegister, Generic[C]):
    """A register with one connection, to one of several servers. A version begins with its generation."""

    def __init__(self, endpoints: Sequence[tuple[str, int]]) -> None:
        self.endpoints = endpoints
        self._turn = 0
        self._seen: dict[str, float] = {}
        self._listener = HintListener(self._stream)
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._line: C | None = None

    @abc.abstractmethod
    def _new(self, host: str, port: int) -> C:
        """Return a connection to this server, which is not made yet."""

    @abc.abstractmethod
    def _prepare(self, line: C) -> None:
        """Connect, find the generation, and begin another one where the servers may have gone back."""

    @abc.abstractmethod
    def _stream(self) -> HintStream:
        """Return a connection of its own that tells of changes."""

    def _next(self) -> C:
        """Return a connection to the server whose turn it is, which is not made yet."""
        return self._new(*self.endpoints[self._turn % len(self.endpoints)])

    def _connect(self) -> C:
        """Return a connection to the first server that answers, which has been looked at."""
        for left in reversed(range(len(self.endpoints))):
            line = self._next()
            try:
                self._prepare(line)
            except BaseException as exc:
                line.close()
                self._turn += 1
                if not isinstance(exc, StoreUnavailable) or exc.permanent or not left:
                    raise
            else:  # not before: Ctrl-C must not leave one here that was closed
                self._line = line
                return line
        raise AssertionError("there is no endpoint")

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def generation(self, version: Any) -> str:
        """Return the generation's random name."""
        return str(version[0])

    def watch(self, name: str, news: Callable[[], object]) -> Watching:
        """Have `news` called when the cell changes."""
        return self._listener.watch(name, news)

    def close(self) -> None:
        """Close the connections, if this process opened them."""
        self._listener.close()
        if not self._forked():
            with self._lock:
                self._drop()

"""Cells in ZooKeeper 3.5 or later: persistent nodes, compared by their versions. No session counts for anything."""

import contextlib
import logging
import math
import queue
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, quote, unquote

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE

from election.clock import SystemClock
from election.errors import BadPolicy, StoreUnavailable
from election.forks import fork_detector
from election.record import check_name
from election.register import Cell, Register, Swap, identity_of
from election.stores.hints import Listener, Watching
from election.stores.urls import address, pop_timeout

DEFAULT_PORT = 2181
MANY = 100
"""Requests that are under way at once."""
SESSION = 10.0
"""Seconds of silence after which a server forgets us. Nothing depends on it."""
RANDOM = re.compile(r"[0-9a-f]{32}")
QUIET = logging.Logger("kazoo", logging.CRITICAL + 1)

TLS = {"ca": "ca", "cert": "certfile", "key": "keyfile"}
"""Our options for TLS, and kazoo's names of them."""

T = TypeVar("T")


class Version(NamedTuple):
    """The store's generation, and the random name of the write.

    ZooKeeper's own versions begin at 0 with each creation, and may come again in a restored ensemble. So each write
    gives the node a child with a random name, and deletes the child of the write before, in one transaction: it is
    done only if that write was the last one. Of a node that we did not write it is `#` and ZooKeeper's version.
    """

    generation: str
    write: str


@dataclass(frozen=True)
class Settings:
    """The seconds for each answer, who we are, and what `KazooClient` is told for TLS."""

    timeout: float = 1.0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: dict[str, Any] = field(default_factory=dict)


class _Once(SequentialThreadingHandler):  # type: ignore[misc]
    """Connects once. A client of kazoo's would connect again by itself, and send what it has in its queue."""

    made: socket.socket | None = None

    def create_connection(self, *args: Any, **kwargs: Any) -> socket.socket:
        if self.made is not None:
            raise ConnectionError("the connection was closed")
        made: socket.socket = super().create_connection(*args, **kwargs)
        self.made = made
        return made


class Line:
    """One connection to one server, with a session of its own. Once it is lost, it is never made again."""

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.generation, self.since = "", math.inf
        self._timeout = settings.timeout
        self._handler = _Once()
        login = [("digest", f"{settings.user}:{settings.password}")] if settings.user else None
        never = {"max_tries": 0, "sleep_func": self._handler.sleep_func}
        self.client = KazooClient(
            hosts=self.address,
            timeout=SESSION,
            handler=self._handler,
            default_acl=CREATOR_ALL_ACL if settings.user else OPEN_ACL_UNSAFE,
            auth_data=login,
            connection_retry=KazooRetry(**never),
            command_retry=KazooRetry(**never),
            logger=QUIET,
            **settings.tls,
        )

    def open(self) -> None:
        """Connect."""
        if not self.client.start_async().wait(self._timeout):
            raise StoreUnavailable(f"ZooKeeper at {self.address} cannot be reached")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Make `StoreUnavailable` of what goes wrong with a request, and in reading its answer."""
        try:
            yield
        except (KazooException, KazooTimeoutError, OSError, LookupError, ValueError, TypeError, AttributeError) as exc:
            lasts = isinstance(exc, NoAuthError | AuthFailedError)
            said = f"ZooKeeper at {self.address}: {exc or type(exc).__name__}"
            raise StoreUnavailable(f"{said} ({type(exc).__name__})" if str(exc) else said, permanent=lasts) from exc

    def wait(self, requests: Iterable[Any]) -> Iterator[Any]:
        """Wait for the answers of requests that were sent together, all within one timeout."""
        until = time.monotonic() + self._timeout
        for each in requests:
            yield each.get(timeout=max(0.001, until - time.monotonic()))

    def cut(self) -> None:
        """End the connection, from any thread."""
        if self._handler.made is not None:
            with contextlib.suppress(OSError):
                self._handler.made.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection, and the threads of kazoo's."""
        self.cut()
        # Its threads end by themselves within milliseconds; what they still wait for must not hold us up.
        closer = threading.Thread(target=self._close, name="store closer", daemon=True)
        closer.start()
        closer.join(self._timeout)

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            try:
                self.client.stop()
            finally:
                self.client.close()


class ZooKeeperRegister(Register):
    """Cells under `prefix` in the ensemble that has servers at `endpoints`.

    A generation is the name of the one child of the node `generation`. Every swap checks it. Each connection begins
    with a look whether the servers have gone back behind what this process has seen, and then begins another one.
    """

    def __init__(self, endpoints: Sequence[tuple[str, int]], prefix: str, settings: Settings) -> None:
        self.endpoints, self.prefix, self.settings = endpoints, prefix, settings
        self._cells, self._kept, self._identity = (f"{prefix}/{each}" for each in ("cells", "generation", "identity"))
        self._turn = 0
        self._seen: dict[str, float] = {}
        self._written: dict[str, int] = {}
        self._listener = Listener(self._stream)
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._line: Line | None = None

    def _do(self, work: Callable[[Line], T], *, repeat: bool = True) -> T:
        """Return what `work` returns; if `repeat`, it may be done again with another server."""
        if self._forked():
            # The connection is our parent's, and so are its threads. Its lock may have been held.
            self._begin()
        with self._lock:
            if self._line and not self._line.client.connected:
                self._drop()
            for left in reversed(range(len(self.endpoints) if repeat else 1)):
                line = self._line or self._connect()
                try:
                    with line.errors():
                        done = work(line)
                    self._seen[line.generation] = max(self._seen[line.generation], line.client.last_zxid)
                    return done
                except BaseException as exc:
                    self._drop()
                    self._turn += 1
                    if not isinstance(exc, StoreUnavailable) or exc.permanent or not left:
                        raise
        raise AssertionError("there is no endpoint")

    def _connect(self) -> Line:
        """Return a connection to the first server that answers, which has been looked at."""
        for left in reversed(range(len(self.endpoints))):
            line = Line(*self.endpoints[self._turn % len(self.endpoints)], self.settings)
            try:
                line.open()
                with line.errors():
                    self._look(line)
                self._line = line
                return line
            except BaseException as exc:
                line.close()
                self._turn += 1
                if not isinstance(exc, StoreUnavailable) or exc.permanent or not left:
                    raise
        raise AssertionError("there is no endpoint")

    def _look(self, line: Line) -> None:
        """Find the generation, and begin another one where the servers may have gone back."""
        client = line.client
        while True:
            sent = [client.sync_async(self.prefix), client.get_children_async(self._kept, include_data=True)]
            try:
                _, (children, stat) = line.wait(sent)
            except NoNodeError:
                for path in _ancestors(self._kept), [self._kept, self._cells]:
                    self._make(line, path)
                continue
            name = children[0] if len(children) == 1 else ""
            if RANDOM.fullmatch(name) and not self._gone_back(line, name):
                break
            name = uuid.uuid4().hex
            change = client.transaction()
            # Of several that begin one, one succeeds.
            change.set_data(self._kept, b"", version=stat.version)
            for each in children:
                change.delete(f"{self._kept}/{each}")
            change.create(f"{self._kept}/{name}")
            if _succeeded(*line.wait([change.commit_async()])):
                break
        if name not in self._seen:
            self._written.clear()
            self._seen = dict.fromkeys(self._seen, math.inf)  # one that comes again has been brought back
        self._seen.setdefault(name, client.last_zxid)
        line.generation, line.since = name, SystemClock().now()

    def _gone_back(self, line: Line, generation: str) -> bool:
        """Return whether the servers are behind what this process has seen in this generation.

        Each new session moves their count of transactions on. So it also counts when the cells were written.
        """
        if generation not in self._seen:
            return False
        names = list(self._written)[-MANY:]
        stats = list(line.wait([line.client.exists_async(self._path(name)) for name in names]))
        older = (stat is None or stat.mzxid < self._written[name] for name, stat in zip(names, stats, strict=True))
        return line.client.last_zxid < self._seen[generation] or any(older)

    def _make(self, line: Line, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(NodeExistsError):
                list(line.wait([line.client.create_async(path)]))

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _path(self, name: str) -> str:
        """Return the node of a cell: the name in one segment of a path, in which dots alone would mean something."""
        return f"{self._cells}/{quote(name, safe=' ').replace('.', '%2E')}"

    def identity(self) -> str:
        """Return a random name, kept in the ensemble under the prefix."""

        def work(line: Line) -> bytes:
            with contextlib.suppress(NodeExistsError):
                list(line.wait([line.client.create_async(self._identity, uuid.uuid4().hex.encode())]))
            ((data, _),) = line.wait([line.client.get_async(self._identity)])
            return bytes(data)

        return identity_of("zookeeper", self._do(work))

    def shard(self, name: str) -> "ZooKeeperRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the node's data, after the server has caught up with its leader."""
        return self._read([name])[0]

    def version(self, name: str) -> Version | None:
        """Return the version of the node."""
        return self.versions([name])[0]

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Send `MANY` questions at once."""
        return [cell.version if cell else None for cell in self._read(names)]

    def _read(self, names: Sequence[str]) -> list[Cell | None]:
        def cell(line: Line, name: str, asked: Any) -> Cell | None:
            try:
                ((data, stat),) = line.wait([asked])
            except NoNodeError:
                return None
            self._written[name] = max(self._written.pop(name, 0), stat.mzxid)
            write = data[:32].decode("latin-1")
            if RANDOM.fullmatch(write):
                return Cell(data[32:], Version(line.generation, write))
            return Cell(data, Version(line.generation, f"#{stat.version}"))

        def work(line: Line) -> list[Cell | None]:
            synced = line.client.sync_async(self._cells)
            asked = [line.client.get_async(self._path(each)) for each in some]
            list(line.wait([synced]))
            return [cell(line, *each) for each in zip(some, asked, strict=True)]

        found: list[Cell | None] = []
        for begin in range(0, len(names), MANY):
            some = names[begin : begin + MANY]
            found += self._do(work)
        return found

    def swap(self, name: str, data: bytes, expected: Version | None) -> Version | None:
        """Do one transaction, and never send it twice."""
        answer = self.swap_many([Swap(name, data, expected)])[0]
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    def swap_many(self, swaps: Sequence[Swap]) -> list[Version | StoreUnavailable | None]:
        """Send `MANY` transactions at once, and read all answers."""
        answers: list[Version | StoreUnavailable | None] = []
        for begin in range(0, len(swaps), MANY):
            known: list[Version | None] = []
            try:
                self._do(self._swaps(swaps[begin : begin + MANY], known), repeat=False)
                answers += known
            except StoreUnavailable as exc:
                answers += known
                return answers + [exc] * (len(swaps) - len(answers))
        return answers

    def _swaps(self, swaps: Sequence[Swap], known: list[Version | None]) -> Callable[[Line], None]:
        def work(line: Line) -> None:
            writes = [uuid.uuid4().hex for _ in swaps]
            sent = [self._send(line, swap, write) for swap, write in zip(swaps, writes, strict=True)]
            others = False
            for swap, write, results in zip(swaps, writes, line.wait(sent), strict=True):
                done = _succeeded(results)
                known.append(Version(line.generation, write) if done else None)
                if done and swap.expected:
                    self._written.pop(swap.name, 0)
                    self._written[swap.name] = results[1].mzxid
                # The first of its operations checks the generation.
                others = others or isinstance(results[0], NoNodeError)
            if others:
                self._drop()  # somebody has begun another generation, or the version is of an earlier one

        return work

    def _send(self, line: Line, swap: Swap, write: str) -> Any:
        path, data, change = self._path(swap.name), write.encode() + swap.data, line.client.transaction()
        generation, old = swap.expected or Version(line.generation, "")
        change.check(f"{self._kept}/{generation}", -1)
        if not old:
            change.create(path, data)
        elif old.startswith("#"):
            change.set_data(path, data, version=int(old[1:]))
        else:
            change.set_data(path, data)
            change.delete(f"{path}/{old}")
        change.create(f"{path}/{write}")
        return change.commit_async()

    def generation(self, version: Version) -> str:
        """Return the generation's random name."""
        return version.generation

    def remembers(self, seconds: float) -> bool:
        """Return whether this process has been connected for so long to servers that have not gone back."""
        now = SystemClock().now()

        def work(line: Line) -> float:
            list(line.wait([line.client.sync_async(self._kept)]))
            return line.since

        return now - self._do(work) >= seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""

        def work(line: Line) -> list[str]:
            _, children = line.wait([line.client.sync_async(self._cells), line.client.get_children_async(self._cells)])
            return sorted(map(unquote, children))

        return [name for name in self._do(work) if _is_name(name)]

    def watch(self, name: str, news: Callable[[], object]) -> Watching:
        """Have `news` called when the node changes."""
        return self._listener.watch(name, news)

    def _stream(self) -> "Changes":
        line = Line(*self.endpoints[self._turn % len(self.endpoints)], self.settings)
        try:
            line.open()
            return Changes(line, self._path)
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        """Close the connections, if this process opened them."""
        self._listener.close()
        if not self._forked():
            with self._lock:
                self._drop()


class Changes:
    """The names of the cells that change, as watches of ZooKeeper tell them: each tells once, and is set again."""

    def __init__(self, line: Line, path: Callable[[str], str]) -> None:
        self._line, self._path = line, path
        self._told: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        line.client.add_listener(lambda state: self._told.put(None))

    def want(self, name: str) -> None:
        """Set the watch of a cell; it is told of at once, so that it is set again when it was heard."""
        self._told.put(name)

    def __iter__(self) -> Iterator[set[str] | None]:
        yield None
        while self._line.client.connected and (name := self._told.get()) is not None:
            with self._line.errors():
                asked = self._line.client.exists_async(
                    self._path(name), watch=lambda _, name=name: self._told.put(name)
                )
                list(self._line.wait([asked]))
            yield {name}

    def close(self) -> None:
        """End it."""
        self._told.put(None)
        self._line.close()


def _succeeded(results: Sequence[Any]) -> bool:
    """Return whether a transaction was done; raise what is neither that nor a lost race."""
    refused = [each for each in results if isinstance(each, Exception)]
    for each in refused:
        if not isinstance(
            each, NoNodeError | NodeExistsError | BadVersionError | RolledBackError | RuntimeInconsistency
        ):
            raise each
    return not refused


def _ancestors(path: str) -> list[str]:
    """Return the nodes above a path, the topmost first."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _is_name(name: str) -> bool:
    with contextlib.suppress(BadPolicy):
        return bool(check_name(name))
    return False


def connect(parts: SplitResult, options: dict[str, str]) -> ZooKeeperRegister:
    """Return the register for `//[user:password@]host[:port][,host[:port]…][/prefix]`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    timeout = pop_timeout(options, 1)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    files = {kazoos: options.pop(ours) for ours, kazoos in TLS.items() if ours in options}
    tls = files | {"use_ssl": True, "check_hostname": True} if files else {}
    prefix = "/" + (unquote(parts.path).strip("/") or "politics")
    settings = Settings(timeout, unquote(user), unquote(password), tls)
    return ZooKeeperRegister([address(part, DEFAULT_PORT) for part in hosts.split(",")], prefix, settings)

"""Cells in etcd 3.4 or later, through its HTTP gateway: transactions that compare the revision of a key."""

import contextlib
import json
import math
import re
import socket
import threading
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote

from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception
from requests import Session
from requests.adapters import HTTPAdapter

from election.clock import SystemClock
from election.errors import BadPolicy, StoreUnavailable
from election.forks import fork_detector
from election.record import check_name
from election.register import Cell, Register, Swap, identity_of
from election.stores.hints import Listener, Watching
from election.stores.urls import address, pop_timeout

DEFAULT_PORT = 2379
MANY = 100
"""Operations in one transaction at most; etcd refuses more than 128."""
NEVER = -1
"""A revision that no key has."""
SILENCE = 60.0
"""Seconds without a change after which a watch connects again: its connection may have died unnoticed."""
PERMANENT = re.compile("authentication failed|permission denied|user name is empty")
"""What etcd says where no waiting mends anything."""
UNAUTHENTICATED = 16
"""The code for a token that the server does not know: it has expired, or the server was started again."""

Json = dict[str, Any]
Version = tuple[str, int]
T = TypeVar("T")


class Generation(NamedTuple):
    """What the key `generation` says: a random name, in which cluster it began, and a bound (see `restored`)."""

    name: str
    cluster: str
    bound: int

    def dump(self) -> bytes:
        """Return it as the key's value."""
        return " ".join(map(str, self)).encode()


def parse_generation(value: bytes | None) -> Generation | None:
    """Return what was written with `dump`; None for anything else."""
    found = re.fullmatch(rb"([0-9a-f]{32}) (\d{1,20}) (-?\d{1,19})", value or b"")
    return Generation(found[1].decode(), found[2].decode(), int(found[3])) if found else None


class Look(NamedTuple):
    """A member's own state at one moment: the cluster's id, its revision, how many entries of its log are applied."""

    cluster: str
    revision: int
    applied: int | None


def restored(kept: Generation | None, first: Look, second: Look, seen: float) -> bool:
    """Return whether the cluster may have gone back to an earlier state since `kept` was written. Pure.

    Each revision is one applied entry of the cluster's log, so `applied - revision` never falls. A cluster that is
    restored from a snapshot keeps the revision and begins a new log: the difference falls below all that it was. The
    bound is less than or equal to the difference when it was written, and is in each later snapshot.

    Args:
        kept: what the key says; read before the two looks, through the same member, linearizably.
        first, second: two looks at that member, one after the other.
        seen: the largest revision that this process has seen in `kept`; infinite if another generation came later.
    """
    if kept is None or kept.cluster != second.cluster or second.revision < seen:
        return True
    # The two numbers of a look are not of one moment: an entry may be counted in one and not yet in the other.
    return second.applied is not None and second.applied + 1 - first.revision < kept.bound


def bound(first: Look, second: Look) -> int:
    """Return a number that `applied - revision` has reached at the second look."""
    return -(1 << 62) if first.applied is None else first.applied - second.revision


class NotDone(StoreUnavailable):
    """The request was not sent, since the connection was found closed, or the server did not know its token."""


@dataclass(frozen=True)
class Settings:
    """How to connect: the scheme, the seconds for each answer, who we are, and the files for TLS."""

    scheme: str = "http"
    timeout: float = 1.0
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Line:
    """One connection to one member. It is made by the first request and never again.

    Sessions of `requests` connect again when they find their connection closed. Then it would not be known that the
    server is still the one that was looked at.
    """

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.socket: socket.socket | None = None
        self.dropped = False
        self.generation = Generation("", "", 0)
        self.since = math.inf
        self._headers = {"Content-Type": "application/json"}
        self._settings = settings
        session = Session()
        # Nothing of the environment: no proxies, no passwords from ~/.netrc.
        session.trust_env = False
        session.verify = settings.ca or True
        session.cert = (settings.cert, settings.key) if settings.cert and settings.key else settings.cert
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
        classes = adapter.poolmanager.pool_classes_by_scheme
        adapter.poolmanager.pool_classes_by_scheme = {scheme: self._once(pool) for scheme, pool in classes.items()}
        session.mount(f"{settings.scheme}://", adapter)
        self._session = session
        self._client = Etcd3Client(
            host, port, settings.scheme, timeout=settings.timeout, api_path="/v3/", session=session
        )

    def _once(self, pool: Any) -> Any:
        line = self

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                if line.socket is not None:
                    line.dropped = True
                    raise ConnectionError("the connection was closed")
                super().connect()
                line.socket = self.sock

        return type("Pool", (pool,), {"ConnectionCls": Connection})

    def ask(self, path: str, body: Json) -> Json:
        """Send one request; return its answer.

        Raises:
            StoreUnavailable: there was none in time, or it was a refusal; `NotDone` if nothing was done for certain.
        """
        with self.errors():
            url = self._client.get_url(path)
            answer = self._client.post(url, data=json.dumps(body), headers=self._headers, allow_redirects=False)
            if not isinstance(answer, dict):
                raise ValueError("the answer is no object")
            return answer

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Make `StoreUnavailable` of what goes wrong with a request, and in reading its answer."""
        try:
            yield
        except (Etcd3Exception, OSError, LookupError, ValueError, TypeError, AttributeError) as exc:
            said, code = _refusal(exc)
            kind = NotDone if self.dropped or code == UNAUTHENTICATED else StoreUnavailable
            raise kind(f"etcd at {self.address}: {said}", permanent=bool(code and PERMANENT.search(said))) from exc

    def transact(self, compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()) -> Json:
        """Do one transaction."""
        return self.ask("/kv/txn", {"compare": list(compare), "success": list(success), "failure": list(failure)})

    def sign_in(self) -> None:
        """Get a token, if there is a user."""
        if self._settings.user:
            user = {"name": self._settings.user, "password": self._settings.password}
            try:
                self._headers["Authorization"] = self.ask("/auth/authenticate", user)["token"]
            except StoreUnavailable as exc:
                if "authentication is not enabled" not in str(exc):
                    raise

    def look(self) -> Look:
        """Ask the member for its own state."""
        try:
            said = self.ask("/maintenance/status", {})
        except StoreUnavailable as exc:
            if "permission denied" not in str(exc):
                raise
            # Versions of etcd differ in whether this needs the role root.
            said = self.transact([], [])
        with self.errors():
            applied = int(said["raftAppliedIndex"]) if "raftAppliedIndex" in said else None
            return Look(said["header"]["cluster_id"], int(said["header"]["revision"]), applied)

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """Send one request; return an iterator over the lines of its answer, which may never end."""
        with self.errors():
            timeouts = (self._settings.timeout, SILENCE)
            url, session = self._client.get_url(path), self._session
            with session.post(
                url, data=json.dumps(body), headers=self._headers, timeout=timeouts, stream=True, allow_redirects=False
            ) as response:
                response.raise_for_status()
                for line in filter(None, response.iter_lines()):
                    yield json.loads(line)

    def cut(self) -> None:
        """End whatever waits on this connection, from any thread."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


class EtcdRegister(Register):
    """Cells under `prefix` in the etcd cluster that has members at `endpoints`.

    A version is the generation's name and the key's `mod_revision`, which no two writes of one key share within a
    generation. Every transaction, a read too, compares the key `generation`, so that whoever begins another one
    begins it for all. Each connection begins with a look whether one has to begin. Since a cluster is stopped to be
    restored, and all connections with it, nobody reads or writes a restored one before that look.
    """

    def __init__(self, endpoints: Sequence[tuple[str, int]], prefix: str, settings: Settings) -> None:
        self.endpoints, self.prefix, self.settings = endpoints, prefix, settings
        self._cells, self._kept = f"{prefix}cells/", f"{prefix}generation"
        self._turn = 0
        self._seen: dict[str, float] = {}
        self._listener = Listener(self._stream)
        self._begin()

    def _begin(self) -> None:
        self._forked = fork_detector()
        self._lock = threading.Lock()
        self._line: Line | None = None

    def _do(
        self, operations: Callable[[str], Sequence[Json]], parse: Callable[[Line, Json], T], *, repeat: bool = True
    ) -> T:
        """Do a transaction in the generation that the store is in; return what `parse` makes of the answer.

        Args:
            operations: gets the generation's name, and returns what to do: operations of etcd's.
            parse: gets the connection, and the answer that came from it.
            repeat: whether it may be sent again, to another member, when it is not known whether it was done.
        """
        if self._forked():
            # The connection is our parent's, and its lock may have been held.
            self._begin()
        with self._lock:
            for left in reversed(range(len(self.endpoints) + 1)):
                line = self._line or self._connect()
                name, value = line.generation.name, line.generation.dump()
                try:
                    answer = line.transact([_compare(self._kept, value=value)], operations(name))
                    with line.errors():
                        if answer.get("succeeded"):
                            self._seen[name] = max(self._seen[name], _revision(answer))
                            return parse(line, answer)
                    self._drop()  # somebody has begun another generation, and nothing was done
                except StoreUnavailable as exc:
                    self._drop()
                    if not isinstance(exc, NotDone):
                        self._turn += 1
                    if not left or exc.permanent or not (repeat or isinstance(exc, NotDone)):
                        raise
                except BaseException:
                    # Ctrl-C included: an answer that is still on its way must never be taken for the next one's.
                    self._drop()
                    raise
        raise StoreUnavailable("etcd cannot be used: one generation follows the other")

    def _connect(self) -> Line:
        """Return a connection to the first member that answers, which has been looked at."""
        for left in reversed(range(len(self.endpoints))):
            line = Line(*self.endpoints[self._turn % len(self.endpoints)], self.settings)
            try:
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
        """Find the generation, and begin another one where the cluster may have gone back."""
        line.sign_in()
        while True:
            answer = line.transact([], [_range(self._kept)])
            with line.errors():
                value, mod = _found(answer["responses"][0]["response_range"]) or (None, 0)
            kept, first, second = parse_generation(value), line.look(), line.look()
            if kept and not restored(kept, first, second, self._seen.get(kept.name, 0)):
                break
            kept = Generation(uuid.uuid4().hex, second.cluster, bound(first, second))
            if line.transact([_compare(self._kept, mod=mod)], [_put(self._kept, kept.dump())]).get("succeeded"):
                break
        if kept.name not in self._seen:
            self._seen = dict.fromkeys(self._seen, math.inf)  # one that comes again has been brought back
        self._seen.setdefault(kept.name, second.revision)
        line.generation, line.since = kept, SystemClock().now()

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def identity(self) -> str:
        """Return a random name, kept in the cluster under the prefix."""
        key, name = f"{self.prefix}identity", uuid.uuid4().hex.encode()
        make = _transaction([_compare(key, mod=0)], [_put(key, name)], [_range(key)])

        def parse(_: Line, answer: Json) -> bytes:
            done = answer["responses"][0]["response_txn"]
            found = None if done.get("succeeded") else _found(done["responses"][0]["response_range"])
            return found[0] if found else name

        return identity_of("etcd", self._do(lambda _: [make], parse))

    def shard(self, name: str) -> "EtcdRegister":
        """Return itself."""
        return self

    def read(self, name: str) -> Cell | None:
        """Return the key's value, linearizably."""
        found, generation = self._ranges([name], keys_only=False)
        return Cell(found[0][0], (generation, found[0][1])) if found[0] else None

    def version(self, name: str) -> Version | None:
        """Return the generation and the key's `mod_revision`."""
        return self.versions([name])[0]

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Ask for `MANY` keys in one transaction."""
        versions: list[Version | None] = []
        for begin in range(0, len(names), MANY):
            found, generation = self._ranges(names[begin : begin + MANY], keys_only=True)
            versions += [(generation, each[1]) if each else None for each in found]
        return versions

    def _ranges(self, names: Sequence[str], *, keys_only: bool) -> tuple[list[tuple[bytes, int] | None], str]:
        def parse(line: Line, answer: Json) -> tuple[list[tuple[bytes, int] | None], str]:
            return [_found(each["response_range"]) for each in answer["responses"]], line.generation.name

        return self._do(lambda _: [_range(self._cells + name, keys_only=keys_only) for name in names], parse)

    def swap(self, name: str, data: bytes, expected: Version | None) -> Version | None:
        """Do one transaction, and never send it twice."""
        answer = self.swap_many([Swap(name, data, expected)])[0]
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    def swap_many(self, swaps: Sequence[Swap]) -> list[Version | StoreUnavailable | None]:
        """Do up to `MANY` swaps in one transaction, each as one within it: they are all sent, and answered, at once."""
        answers: list[Version | StoreUnavailable | None] = []
        while len(answers) < len(swaps):
            some: dict[str, Swap] = {}
            for swap in swaps[len(answers) : len(answers) + MANY]:
                if swap.name in some:
                    break  # a transaction may write a key only once
                some[swap.name] = swap
            try:
                answers += self._swap(list(some.values()))
            except StoreUnavailable as exc:
                return answers + [exc] * (len(swaps) - len(answers))
        return answers

    def _swap(self, swaps: Sequence[Swap]) -> list[Version | None]:
        def operation(generation: str, swap: Swap) -> Json:
            of, revision = swap.expected or (generation, 0)
            key = self._cells + swap.name
            return _transaction([_compare(key, mod=revision if of == generation else NEVER)], [_put(key, swap.data)])

        def parse(line: Line, answer: Json) -> list[Version | None]:
            version = line.generation.name, _revision(answer)
            done = [each["response_txn"].get("succeeded") for each in answer["responses"]]
            return [version if each else None for each in done]

        return self._do(lambda generation: [operation(generation, swap) for swap in swaps], parse, repeat=False)

    def generation(self, version: Version) -> str:
        """Return the generation's random name."""
        return version[0]

    def remembers(self, seconds: float) -> bool:
        """Return whether this process has been connected for so long to a cluster that has not gone back."""
        now = SystemClock().now()
        return now - self._do(lambda _: [_range(self._kept)], lambda line, _: line.since) >= seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""

        def parse(_: Line, answer: Json) -> list[bytes]:
            return [b64decode(each["key"]) for each in answer["responses"][0]["response_range"].get("kvs", ())]

        keys = self._do(lambda _: [_range(self._cells, keys_only=True, all_below=True)], parse)
        return [name for key in keys if (name := self._name(key))]

    def _name(self, key: bytes) -> str | None:
        with contextlib.suppress(UnicodeDecodeError, BadPolicy):
            return check_name(key.decode().removeprefix(self._cells))
        return None

    def watch(self, name: str, news: Callable[[], object]) -> Watching:
        """Have `news` called when the cell changes: one stream for all cells under the prefix."""
        return self._listener.watch(name, news)

    def _stream(self) -> "Changes":
        line = Line(*self.endpoints[self._turn % len(self.endpoints)], self.settings)
        try:
            line.sign_in()
        except BaseException:
            line.close()
            raise
        return Changes(line, self._cells)

    def close(self) -> None:
        """Close the connections, if this process opened them."""
        self._listener.close()
        if not self._forked():
            with self._lock:
                self._drop()


class Changes:
    """The names of the cells under `prefix` that change, as a watch of etcd tells them."""

    def __init__(self, line: Line, prefix: str) -> None:
        self._line, self._prefix = line, prefix

    def __iter__(self) -> Iterator[set[str] | None]:
        request = {"create_request": _all_below(self._prefix)}
        for said in self._line.stream("/watch", request):
            with self._line.errors():
                result = said["result"]
                if result.get("canceled"):
                    return
                keys = [b64decode(event["kv"]["key"]) for event in result.get("events", ())]
            yield {key.decode(errors="replace").removeprefix(self._prefix) for key in keys} if keys else None

    def want(self, name: str) -> None:
        """Do nothing: all names are brought."""

    def close(self) -> None:
        """End it."""
        self._line.cut()
        self._line.close()


def _revision(answer: Json) -> int:
    return int(answer["header"]["revision"])


def _base64(value: str | bytes) -> str:
    return b64encode(value.encode() if isinstance(value, str) else value).decode()


def _compare(key: str, *, value: bytes | None = None, mod: int = 0) -> Json:
    """Compare a key's value, or the revision at which it was written; 0: it is not there."""
    if value is not None:
        return {"key": _base64(key), "target": "VALUE", "result": "EQUAL", "value": _base64(value)}
    return {"key": _base64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod)}


def _put(key: str, value: bytes) -> Json:
    return {"request_put": {"key": _base64(key), "value": _base64(value)}}


def _range(key: str, *, keys_only: bool = False, all_below: bool = False) -> Json:
    return {"request_range": (_all_below(key) if all_below else {"key": _base64(key)}) | {"keys_only": keys_only}}


def _all_below(prefix: str) -> Json:
    end = prefix.encode()
    return {"key": _base64(prefix), "range_end": _base64(end[:-1] + bytes([end[-1] + 1]))}


def _transaction(compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()) -> Json:
    return {"request_txn": {"compare": list(compare), "success": list(success), "failure": list(failure)}}


def _found(said: Json) -> tuple[bytes, int] | None:
    """Return the value and the `mod_revision` of the first key of a range; None if there is none."""
    for each in said.get("kvs", ()):
        return b64decode(each.get("value", "")), int(each["mod_revision"])
    return None


def _refusal(exc: Exception) -> tuple[str, int | None]:
    """Return what an error says, and gRPC's code if it is etcd's own."""
    text = (exc.detail_text if isinstance(exc, Etcd3Exception) else None) or str(exc) or type(exc).__name__
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        said = json.loads(text)
        return str(said.get("error") or said.get("message")), said.get("code")
    return text[:300], None


def connect(parts: SplitResult, options: dict[str, str]) -> EtcdRegister:
    """Return the register for `//[user:password@]host[:port][,host[:port]…][/prefix]`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    timeout = pop_timeout(options, 1)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    files = {name: options.pop(name, None) for name in ("ca", "cert", "key")}
    secure = parts.scheme == "etcds"
    if not secure and any(files.values()):
        raise ValueError("ca, cert and key are for TLS: write etcds://")
    settings = Settings("https" if secure else "http", timeout, unquote(user), unquote(password), **files)
    prefix = unquote(parts.path).strip("/") or "politics"
    return EtcdRegister([address(part, DEFAULT_PORT) for part in hosts.split(",")], f"{prefix}/", settings)

"""Cells in one Redis server: a Lua script compares and swaps, and PUBLISH sends hints."""

import hashlib
import math
import re
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlencode

from redis import exceptions
from redis.connection import Connection, parse_url

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.forks import fork_detector
from election.record import MAX_BYTES
from election.register import BatchRegister, Cell, Hints, Swap, identity_of, name_of
from election.stores.hints import HintListener
from election.stores.urls import pop_timeout

PREFIX = b"politics:"
"""Begins each key and each channel. The key that is nothing else holds the name of the store."""
MANY = 256
"""Commands that are under way at once."""
VERSION_BYTES = 16
"""Each value begins with its version, in hexadecimal digits."""
IDLE = 1.0
"""Seconds without hints after which a server has to show that it is there."""

# The connection to a server lives on when that becomes a replica and then a master again, with other data. So each swap
# compares whose data these are, too. PUBLISH comes first: if this user may not, nothing is written either; subscribers
# hear of it when the script is over. A missing value and an empty one are the same here.
SWAP = b"""
if not redis.call('INFO', 'replication'):find('master_replid:' .. ARGV[1], 1, true) then return -1 end
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[2] then return 0 end
redis.call('PUBLISH', KEYS[1], '')
redis.call('SET', KEYS[1], ARGV[3])
return 1
"""
SHA = hashlib.sha1(SWAP, usedforsecurity=False).hexdigest().encode()

# What `INFO` counts when cells may be gone.
LOSSES = re.compile(rb"^(evicted_keys:\d+|cmdstat_(?:flushall|flushdb|swapdb|debug):calls=\d+)", re.M)
# Somebody has set the counters to zero. Before Redis 7 all uses of CONFIG are counted as one.
RESET = re.compile(rb"^cmdstat_config(?:\|resetstat)?:calls=[1-9]", re.M)
FIELD = re.compile(rb"^(\w+):([^\r\n]*)\r?$", re.M)

OPTIONS = {
    "db", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
    "ssl_min_version", "ssl_ciphers",
}  # fmt: skip
"""What goes on to redis-py. Whatever makes it repeat something by itself is not among them."""

_ERRORS = (exceptions.RedisError, OSError, ValueError)
_DENIED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_LASTING = re.compile(r"unknown command|DB index|WRONGTYPE|user executing the script|ACL failure in script", re.I)

Version = tuple[str, bytes]
"""The generation of the store, and the random version in the value."""

T = TypeVar("T")


class _Refused(Exception):
    """The server keeps no cells; the message says why, and what to do."""


class _State(NamedTuple):
    """What a server says of itself; it changes when cells may have been lost, or old ones come back."""

    generation: str
    replid: bytes
    losses: tuple[bytes, ...] | None
    """The counters; None if they are not to be believed."""


def _state(said: bytes, db: int) -> _State:
    """Return what follows from the answer to `INFO all`.

    Raises:
        _Refused: the server is none that keeps cells.
    """
    fields = dict(FIELD.findall(said))
    if b"sentinel_masters" in fields:
        raise _Refused("it is a Sentinel, which keeps no data: name the master itself")
    if fields.get(b"cluster_enabled") == b"1":
        raise _Refused("it belongs to a Redis Cluster, which moves keys and fails over by itself: use a single server")
    if (role := fields.get(b"role")) != b"master":
        raise _Refused(f"its role is {(role or b'unknown').decode(errors='replace')}, not master: name the master")
    run, replid = fields.get(b"run_id"), fields.get(b"master_replid")
    if not run or not replid:
        raise _Refused("it does not say which run of the server this is (run_id, master_replid): use Redis or Valkey")
    counts = b"evicted_keys" in fields and b"# Commandstats" in said and not RESET.search(said)
    generation = hashlib.sha256(b"%b %b %d" % (run, replid, db)).hexdigest()[:32]
    return _State(generation, replid, tuple(LOSSES.findall(said)) if counts else None)


class _Server:
    """One connection, and a lock that keeps its users apart."""

    def __init__(self, settings: dict[str, Any], known: "_Server | None" = None) -> None:
        self._settings = settings
        self._timeout: float = settings["socket_timeout"]
        self._clock = SystemClock()
        self._connection: Connection | None = None
        self.forked = fork_detector()
        self.lock = threading.Lock()
        self.seen: tuple[_State, float] = known.seen if known else (_State("", b"", None), 0.0)
        """What the server said of itself, and since when it says so."""

    def use(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, connected, done by one thread at a time."""
        with self.lock:
            try:
                if self._connection is None:
                    self._connection = connection_of(self._settings)
                    self._connection.connect()
                    self.look()
                    self.ask([(b"SCRIPT", b"LOAD", SWAP)])
                return work(*args)
            except BaseException:
                # Ctrl-C included: an answer that is still on its way must never be taken for the next command's. After
                # a refusal also: the server may be a replica now.
                self.close()
                raise

    def close(self) -> None:
        """Close the connection, if there is one; the next `use` makes another."""
        made, self._connection = self._connection, None
        if made is not None:
            made.disconnect()

    def ask(self, commands: Sequence[tuple[bytes, ...]], answers: list[Any] | None = None) -> list[Any]:
        """Send `commands` together and return their answers. What has arrived is in `answers`."""
        connection = self._connection
        assert connection is not None
        found: list[Any] = [] if answers is None else answers
        # Redis answers one after the other, so that the time limit of each is not enough for all.
        until = time.monotonic() + 2 * self._timeout
        connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            found.append(connection.read_response())
            if time.monotonic() > until:
                raise TimeoutError("timed out")
        return found

    def look(self) -> float:
        """Return for how many seconds it has said the same of itself, at least; less than any if it says too little."""
        before = self._clock.now()
        (said,) = self.ask([(b"INFO", b"all")])
        state = _state(said if isinstance(said, bytes) else b"", self._settings["db"])
        if self.seen[0] != state:
            self.seen = state, self._clock.now()
        return before - self.seen[1] if state.losses is not None else -math.inf

    def remembers(self) -> float:
        """Return what `look` does, or less than any if old data may have come back to this connection."""
        generation = self.seen[0].generation
        known = self.look()
        if generation == self.seen[0].generation:
            return known
        self.close()
        return -math.inf

    def ranges(self, names: Sequence[str], end: int) -> tuple[str, list[bytes]]:
        """Return the generation, and the beginnings of the values of `names`; each is empty if there is none."""
        last = b"%d" % (end - 1)
        return self.seen[0].generation, self.ask([(b"GETRANGE", _key(name), b"0", last) for name in names])

    def swap(self, swaps: Sequence[Swap], known: list[Version | None]) -> None:
        """Put into `known` what each swap returns, as far as that is known."""
        state, versions = self.seen[0], [secrets.token_hex(VERSION_BYTES // 2).encode() for _ in swaps]
        scripts = [
            (b"EVALSHA", SHA, b"1", _key(name), state.replid, expected[1] if expected else b"", version + data)
            for (name, data, expected), version in zip(swaps, versions, strict=True)
            if expected is None or expected[0] == state.generation
        ]
        answers: list[int] = []
        try:
            self.ask(scripts, answers)
        finally:
            following = iter(answers)
            for (_, _, expected), version in zip(swaps, versions, strict=True):
                if expected is not None and expected[0] != state.generation:
                    known.append(None)
                elif (answer := next(following, None)) is not None:
                    known.append((state.generation, version) if answer == 1 else None)
                else:
                    break
        if -1 in answers:
            self.close()


def connection_of(settings: dict[str, Any]) -> Connection:
    """Return a connection that is not open yet. It repeats nothing by itself: no command, and not its own opening."""
    kind: type[Connection] = settings.get("connection_class", Connection)
    return kind(**{name: value for name, value in settings.items() if name != "connection_class"})


def _key(name: str) -> bytes:
    return PREFIX + name.encode()


class RedisRegister(BatchRegister):
    """Cells in one database of one Redis server that is nobody's replica.

    A version is `(generation, version)`. A generation is one run of the server with one history of its data: another
    begins when it starts, and when it becomes a replica or stops being one.
    """

    def __init__(self, settings: dict[str, Any], timeout: float) -> None:
        # RESP 2 knows no messages that nobody has asked for, of which redis-py would move to another server.
        limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2, "db": 0}
        self._settings: dict[str, Any] = limits | settings
        self.address: str = settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
        self._server = _Server(self._settings)
        self._listener = HintListener(lambda: _Messages(self._settings))

    def _use(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(server, *args)`, done by one thread at a time."""
        if self._server.forked():
            # The socket is our parent's, and its lock may have been held.
            self._server = _Server(self._settings, self._server)
        server = self._server
        try:
            return server.use(work, server, *args)
        except _Refused as exc:
            raise StoreUnavailable(f"Redis at {self.address} cannot be used: {exc}", permanent=True) from exc
        except _ERRORS as exc:
            untrusted = isinstance(exc.__context__, ssl.SSLCertVerificationError)
            lasts = untrusted or isinstance(exc, _DENIED) or _LASTING.search(str(exc)) is not None
            trouble = "cannot be used" if lasts else "did not answer"
            why = f"Redis at {self.address} {trouble}: {str(exc) or type(exc).__name__}"
            raise StoreUnavailable(why, permanent=lasts) from exc

    def identity(self) -> str:
        """Return a random name, kept in the database itself."""
        ours = secrets.token_hex(16).encode()
        _, name = self._use(_Server.ask, [(b"SET", PREFIX, ours, b"NX"), (b"GET", PREFIX)])
        return identity_of("redis", name or b"")

    def read(self, name: str) -> Cell | None:
        """Return the value without its version, or None."""
        # What is longer than a record is none, so that its beginning is enough.
        generation, (value,) = self._use(_Server.ranges, [name], VERSION_BYTES + MAX_BYTES + 1)
        return Cell(value[VERSION_BYTES:], (generation, value[:VERSION_BYTES])) if value else None

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Send all questions at once, `MANY` at most, and read all answers."""
        found: list[Version | None] = []
        for begin in range(0, len(names), MANY):
            generation, values = self._use(_Server.ranges, names[begin : begin + MANY], VERSION_BYTES)
            found += [(generation, value) if value else None for value in values]
        return found

    def swap_many(self, swaps: Sequence[Swap]) -> list[Version | StoreUnavailable | None]:
        """Send all scripts at once, `MANY` at most, and read all answers.

        Versions are random: none is used twice, even where old cells have come back.
        """
        answers: list[Version | StoreUnavailable | None] = []
        for begin in range(0, len(swaps), MANY):
            known: list[Version | None] = []
            try:
                self._use(_Server.swap, swaps[begin : begin + MANY], known)
            except StoreUnavailable as exc:
                answers += known
                return answers + [exc] * (len(swaps) - len(answers))
            answers += known
        return answers

    def generation(self, version: Version) -> str:
        """Return the name of the run of the server, and of its history of data, to which `version` belongs."""
        return version[0]

    def watch(self, name: str, news: Callable[[], object]) -> Hints:
        """Listen to what the script publishes, on one more connection for all watches of this register."""
        return self._listener.watch(name, news)

    def remembers(self, seconds: float) -> bool:
        """Return whether this process has known this run of the server for so long, and it has lost nothing since."""
        return self._use(_Server.remembers) > seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            ((cursor, keys),) = self._use(_Server.ask, [(b"SCAN", cursor, b"MATCH", PREFIX + b"*", b"COUNT", b"1000")])
            found.update(keys)
            if cursor == b"0":
                return sorted(filter(None, (name_of(key.removeprefix(PREFIX)) for key in found)))

    def close(self) -> None:
        """Close the connections, if this process opened them, and end all watches."""
        self._listener.close()
        if not self._server.forked():
            with self._server.lock:
                self._server.close()


class _Messages:
    """What arrives on our channels, as `HintStream` wants it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._closed = False

    def __iter__(self) -> Iterator[list[str] | None]:
        """Yield None as soon as changes are heard of, and then the name of each cell that has changed."""
        connection = connection_of(self._settings)
        try:
            connection.connect()
            connection.send_command(b"PSUBSCRIBE", PREFIX + b"*")
            asked = True
            while not self._closed:
                if connection.can_read(IDLE):
                    said = connection.read_response()
                    asked = False
                    if said[0] == b"psubscribe":
                        yield None
                    elif said[0] == b"pmessage":
                        yield [said[2].removeprefix(PREFIX).decode(errors="replace")]
                elif asked:
                    raise TimeoutError("timed out")
                else:
                    connection.send_command(b"PING")
                    asked = True
        except _ERRORS as exc:
            raise StoreUnavailable(f"no hints: {str(exc) or type(exc).__name__}") from exc
        finally:
            connection.disconnect()

    def want(self, name: str) -> None:
        """Do nothing: all names are heard."""

    def forget(self, name: str) -> None:
        """Do nothing either."""

    def close(self) -> None:
        """End the iteration within `IDLE` seconds."""
        self._closed = True


def connect(parts: SplitResult, options: dict[str, str]) -> RedisRegister:
    """Return the register for `redis://`, `rediss://` (TLS) or `redis+unix://`; redis-py reads the rest of the URL.

    Raises:
        ValueError: the address, the database or an option makes no sense; the message names it.
    """
    timeout = pop_timeout(options, 0.5)
    local = parts.scheme == "redis+unix"
    if local and (parts.hostname or not parts.path.strip("/")):
        raise ValueError("the path of a socket is missing, as in redis+unix:///run/redis.sock?db=1")
    if not local:
        if not parts.hostname or "," in parts.netloc:
            raise ValueError("one host is wanted, as in redis://10.0.0.5:6379/0")
        try:
            _ = parts.port
        except ValueError:
            # The message of urllib would show a part of a password that is not escaped.
            raise ValueError("the port is not a number up to 65535") from None
        if not re.fullmatch(r"/?[0-9]{0,6}", parts.path):
            raise ValueError(f"{parts.path.removeprefix('/')!r} is not the number of a database")
    known = {name: options.pop(name) for name in OPTIONS & options.keys() if parts.scheme == "rediss" or name == "db"}
    url = f"{'unix' if local else parts.scheme}://{parts.netloc}{parts.path}?{urlencode(known)}"
    return RedisRegister(parse_url(url), timeout)

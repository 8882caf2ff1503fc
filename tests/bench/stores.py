"""What a lease costs in each store: against a raw compare-and-swap of the same store in the same run.

A store is an entry of `RAW`: its kind (tests/hosts/kinds.py starts its servers), and a function that makes the raw call
with the store's own client, without our code. A store whose server or library is not there is a row that says so.
"""

import contextlib
import itertools
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from election import BadStoreURL, Candidate, LeasePolicy, LeaseTerm, NotElected, Register, StoreUnavailable
from election.register import Hints
from election.stores import open_register
from tests.bench._cores import layouts, pinned
from tests.bench.election import Row, free, interleaved, takeover, unkept
from tests.hosts.kinds import KINDS, Kind

BATCH = 20
WATCHED = 5.0
"""Seconds for which the requests of a standby are counted, under a lease of 10 s."""
Trip = Callable[[], object]


def port_of(url: str) -> int:
    """The port of the last server in the URL."""
    return int(url.rpartition(":")[2].partition("/")[0])


@contextlib.contextmanager
def raw_memcached(url: str, data: bytes) -> Iterator[Trip]:
    """`ms` with the CAS id that the one before has returned, over a bare socket."""
    with socket.create_connection(("127.0.0.1", port_of(url))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(flags: bytes) -> bytes:
            connection.sendall(b"ms raw %d c %b\r\n%b\r\n" % (len(data), flags, data))
            answer = connection.recv(100)
            assert answer.startswith(b"HD c"), answer
            return answer[4:-2]

        cas = ask(b"MS")

        def trip() -> None:
            nonlocal cas
            cas = ask(b"C" + cas)

        yield trip


@contextlib.contextmanager
def raw_sqlite(url: str, data: bytes) -> Iterator[Trip]:
    """One UPDATE that is written through to the disk, as ours is, in a file beside the store."""
    file = sqlite3.connect(f"{urlsplit(url).path[1:]}.raw", isolation_level=None)
    with contextlib.closing(file):
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=FULL")
        file.execute("CREATE TABLE raw (name TEXT PRIMARY KEY, data BLOB, version INTEGER) WITHOUT ROWID")
        file.execute("INSERT INTO raw VALUES ('raw', ?, 0)", [data])
        versions = itertools.count()
        update = "UPDATE raw SET data = ?, version = version + 1 WHERE name = 'raw' AND version = ? RETURNING version"
        yield lambda: file.execute(update, [data, next(versions)]).fetchone()[0]


@contextlib.contextmanager
def raw_redis(url: str, data: bytes) -> Iterator[Trip]:
    """A script, called by its hash, that compares a field and sets two."""
    import redis

    client = redis.Redis(port=port_of(url), retry=None)
    with contextlib.closing(client):
        script = client.register_script(
            "if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end "
            "redis.call('HSET', KEYS[1], 'version', ARGV[2], 'data', ARGV[3]) return 1"
        )
        client.hset("raw", "version", 0)
        versions = itertools.count()

        def trip() -> None:
            version = next(versions)
            assert script(keys=["raw"], args=[version, version + 1, data]) == 1

        yield trip


@contextlib.contextmanager
def raw_postgresql(url: str, data: bytes) -> Iterator[Trip]:
    """One UPDATE in a transaction of its own."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as client:
        client.execute("CREATE TABLE raw (name text PRIMARY KEY, data bytea, version bigint)")
        client.execute("INSERT INTO raw VALUES ('raw', %s, 0)", [data])
        versions = itertools.count()
        update = "UPDATE raw SET data = %s, version = version + 1 WHERE name = 'raw' AND version = %s RETURNING version"

        def trip() -> None:
            assert client.execute(update, [data, next(versions)]).fetchone()

        yield trip


@contextlib.contextmanager
def raw_etcd(url: str, data: bytes) -> Iterator[Trip]:
    """A transaction that compares the version of a key and puts it."""
    import base64

    import etcd3gw

    client = etcd3gw.client(host="127.0.0.1", port=port_of(url), api_path="/v3/")
    key, value = (base64.b64encode(each).decode() for each in (b"raw", data))
    versions = itertools.count()

    def trip() -> None:
        compare = {"key": key, "result": "EQUAL", "target": "VERSION", "version": next(versions)}
        put = {"requestPut": {"key": key, "value": value}}
        assert client.transaction({"compare": [compare], "success": [put], "failure": []}).get("succeeded")

    yield trip
    client.session.close()


@contextlib.contextmanager
def raw_zookeeper(url: str, data: bytes) -> Iterator[Trip]:
    """A `set` with the version of the node."""
    from kazoo.client import KazooClient

    client = KazooClient(f"127.0.0.1:{port_of(url)}")
    client.start()
    try:
        client.create("/raw", data)
        versions = itertools.count()
        yield lambda: client.set("/raw", data, next(versions))
    finally:
        client.stop()
        client.close()


RAW: dict[str, Callable[[str, bytes], contextlib.AbstractContextManager[Trip]]] = {
    "memcached": raw_memcached,
    "sqlite": raw_sqlite,
    "redis": raw_redis,
    "postgresql": raw_postgresql,
    "etcd": raw_etcd,
    "zookeeper": raw_zookeeper,
    "quorum": raw_memcached,
}


@contextlib.contextmanager
def serving(kind: Kind) -> Iterator[tuple[str, list[Any]]]:
    """The URL of such a store, and its servers, on this machine."""
    with tempfile.TemporaryDirectory(prefix="politics-bench-") as name, contextlib.ExitStack() as stack:
        servers = []
        for number in range(kind.servers):
            (folder := Path(name, str(number))).mkdir()
            server = kind.make((), "127.0.0.1", "127.0.0.1", folder)
            server.start()
            stack.callback(server.stop)
            servers.append(server)
        yield kind.url.format(",".join(f"127.0.0.1:{each.port}" for each in servers), folder=name), servers


class Counted(Register):
    """A register that counts what it is asked. Without `hints` it says that the store sends none."""

    def __init__(self, register: Register, hints: bool) -> None:
        self.register, self.hints, self.calls, self.hinted = register, hints, 0, False

    def __getattribute__(self, name: str) -> Any:
        if name in ("identity", "read", "version", "versions", "swap", "swap_many", "remembers", "shard", "names"):
            if name != "shard":
                self.calls += 1
            return (lambda _: self) if name == "shard" else getattr(self.register, name)
        return super().__getattribute__(name)

    def generation(self, version: Any) -> str:
        """What the store says."""
        return self.register.generation(version)

    def watch(self, name: str, news: Callable[[], object]) -> Hints | None:
        """The store's own, if it may."""
        found = self.register.watch(name, news) if self.hints else None
        self.hinted = found is not None
        return found

    def close(self) -> None:
        """Close it."""
        self.register.close()


def lease_rows(store: str, url: str) -> Iterator[Row]:
    """Raw round trip; acquire, renew, and a takeover by a candidate that has seen nothing yet."""
    with contextlib.closing(open_register(url)) as register:
        free(register, "bench")
        owner = unkept(register)
        held: list[LeaseTerm] = [owner.campaign()]
        record = register.read("bench")
        assert record is not None
        acquired: dict[str, list[float]] = {"acquire": [], "takeover": []}

        def hand_over(how: str, candidate: Candidate) -> None:
            held.pop().resign()
            begun = time.perf_counter()
            term = candidate.attempt()
            acquired[how].append(time.perf_counter() - begun)
            assert term
            held.append(term)

        with RAW[store](url, record.data) as trip:
            times = interleaved(
                BATCH,
                raw=trip,
                renew=lambda: held[-1].renew(),
                acquire=lambda: hand_over("acquire", owner),
                takeover=lambda: hand_over("takeover", unkept(register)),
            )
        held.pop().resign()
    figures = {"renew": times["renew"]} | {how: statistics.median(each) for how, each in acquired.items()}
    raw = times["raw"]
    yield f"{store}: a raw compare-and-swap", f"{raw * 1e6:.0f} us", "1", ""
    for what, aim in (("renew", "<= 1.5"), ("acquire", "<= 2.5"), ("takeover", "")):
        name = {"takeover": "takeover of an open lease by a newcomer"}.get(what, what)
        aim = "" if store == "quorum" and what == "renew" else aim  # it has an aim of its own
        yield f"{store}: {name} / raw", f"{figures[what] * 1e6:.0f} us", f"{figures[what] / raw:.2f}", aim


def standby_rows(store: str, url: str) -> Iterator[Row]:
    """Requests per second of a standby while a leader of a lease of 10 s lives, with and without hints."""
    with contextlib.closing(open_register(url)) as register:
        free(register, "watched")
        term = Candidate(register, "watched", LeasePolicy(ttl=10)).campaign()
        rates = {}
        for hints in (False, True):
            stop = threading.Event()
            with contextlib.closing(Counted(open_register(url), hints)) as counted:
                standby = Candidate(counted, "watched", LeasePolicy(ttl=10))
                thread = threading.Thread(target=stand_by, args=(standby, stop))
                thread.start()
                time.sleep(1)  # it has looked around
                begun = counted.calls
                time.sleep(WATCHED)
                rates[hints] = (counted.calls - begun) / WATCHED
                stop.set()
                thread.join()
                hinted = counted.hinted
        term.resign()
    yield f"{store}: requests of a standby, without hints", f"{rates[False]:.2f} /s", "1", ""
    if hinted:
        ratio = rates[True] / rates[False]
        yield f"{store}: requests of a standby, with / without hints", f"{rates[True]:.2f} /s", f"{ratio:.2f}", "<= 0.2"


def stand_by(standby: Candidate, stop: threading.Event) -> None:
    """Campaign until it is stopped."""
    with contextlib.suppress(NotElected, StoreUnavailable):
        standby.campaign(stop=stop)


def quorum_rows(url: str, servers: list[Any]) -> Iterator[Row]:
    """Renewal against one of its memcacheds, and the longest time without a leader when one of them is killed."""
    alone = f"memcached://127.0.0.1:{servers[0].port}"
    with contextlib.closing(open_register(url)) as quorum, contextlib.closing(open_register(alone)) as single:
        terms = []
        for register in (quorum, single):
            free(register, "compared")
            terms.append(Candidate(register, "compared", LeasePolicy(ttl=60), renew_with=lambda *_: None).campaign())
        times = interleaved(BATCH, quorum=terms[0].renew, single=terms[1].renew)
        for term in terms:
            term.resign()
        ratio = times["quorum"] / times["single"]
        yield "quorum: renew / renew in one memcached", f"{times['quorum'] * 1e6:.0f} us", f"{ratio:.2f}", "<= 1.8"
        ttl, gaps = 1.0, []
        for server in servers:
            free(quorum, name := f"killed {server.port}")
            term = Candidate(quorum, name, LeasePolicy(ttl=ttl)).campaign()
            time.sleep(ttl)
            server.stop()
            gaps.append(unled(term, 3 * ttl))
            server.start()
            time.sleep(ttl)  # the next renewals fill it again
            term.resign()
        yield (
            "quorum: without a leader, one server killed / ttl",
            f"{max(gaps):.2f} s",
            f"{max(gaps) / ttl:.2f}",
            "<= 0",
        )
    waits = []
    for server in servers:

        def strike(leader: Any, server: Any = server) -> None:
            leader.kill()
            server.stop()

        waits.append(takeover(url, 2.0, strike))
        server.start()  # the renewals of the next leader fill it again
    worst = max(waits)
    yield "quorum: without a leader, it dies with a server / ttl", f"{worst:.2f} s", f"{worst / 2:.2f}", "<= 1.3"


def unled(term: LeaseTerm, seconds: float) -> float:
    """The longest time in which this term did not lead, of the next so many seconds."""
    begun = led = time.monotonic()
    longest = 0.0
    while (now := time.monotonic()) < begun + seconds:
        if term.valid:
            led = now
        else:
            longest = max(longest, now - led)
        time.sleep(0.001)
    return longest


def rows() -> Iterator[Row]:
    """All rows of the table."""
    # Servers on one core and we on the other, or all on one: so a row means the same each time.
    cores = next(each for _, each in reversed(list(layouts())) if each)
    for store in RAW:
        try:
            with pinned(*cores) as move, serving(KINDS[store]) as (url, servers):
                move()
                open_register(url).close()
                yield from lease_rows(store, url)
                yield from standby_rows(store, url)
                if store == "quorum":
                    yield from quorum_rows(url, servers)
        except (BadStoreURL, ImportError, AssertionError) as exc:
            yield f"{store}: acquire, renew, takeover", f"missing: {str(exc).splitlines()[0]}", "", ""


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

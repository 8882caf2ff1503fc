"""Every kind of register, behind one shape: `stores` makes clients that share their cells."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from election import Register, open_register
from election.clock import SystemClock
from election.stores.quorum import QuorumRegister
from election.stores.quorum.cells import Sight
from election.stores.quorum.rules import is_consistent
from election.testing import FaultyStore
from tests.etcd_server import Etcd
from tests.memcached import Memcached
from tests.postgresql_server import PostgreSQLServer
from tests.redis_server import RedisServer
from tests.zookeeper_server import ZooKeeper

SERVERS = [
    pytest.param(each, marks=pytest.mark.xdist_group(each)) for each in ("postgresql", "redis", "etcd", "zookeeper")
]
"""Servers of which one process of tests starts one, for all its tests."""
QUORUM = pytest.param("quorum", marks=pytest.mark.xdist_group("quorum"))
STORES: list[Any] = ["memory", "sqlite", "memcached", "sharded", "faulty", QUORUM, *SERVERS]
"""All kinds of stores."""
SERVED: list[Any] = ["own memcached", *SERVERS]
"""Those with a server that a test may kill, freeze and start again."""
SPARED: list[Any] = [QUORUM]
"""Those that go on when their `server`, one of several, is killed or frozen: their `spares` is true."""
with_a_server = pytest.mark.parametrize("stores", SERVED, indirect=True)


class Server(Protocol):
    """The server of a store: one on 127.0.0.1, or one of several, whose port is in the store's URL."""

    port: int

    def start(self) -> object:
        """Start it on its port, with what it has kept, and wait until it answers."""

    def stop(self) -> object:
        """Kill it."""

    def freeze(self) -> object:
        """Let it be silent."""

    def thaw(self) -> object:
        """Let it go on."""


@dataclass
class Stores:
    """`client` opens one more client of one store; `other` opens a client of another one; `url`: for processes.

    `forgets`: what is in the store is lost when its `server` is killed. `spares`: nobody notices that. `weak`: a swap
    may be refused while another one is under way.
    """

    client: Callable[[], Register]
    other: Callable[[], Register]
    url: str | None = None
    server: Server | None = None
    forgets: bool = False
    spares: bool = False
    weak: bool = False
    whole: Callable[[str], bool] = lambda _name: True
    """Whether all servers of a store that `spares` have that cell, so that one of them may go."""

    def through(self, port: int | None = None, timeout: float = 0.2) -> str:
        """Return the URL of the same store, with a timeout, through this port of a proxy if there is one."""
        assert self.url
        assert self.server
        there = f"127.0.0.1:{self.server.port}"
        assert there in self.url
        url = self.url.replace(there, f"127.0.0.1:{port or self.server.port}")
        return f"{url}{'&' if '?' in url else '?'}timeout={timeout:g}"


@pytest.fixture(params=STORES)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Two separate stores of one kind, and clients of them that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def opener(make: Callable[[], Register]) -> Callable[[], Register]:
            return lambda: stack.enter_context(contextlib.closing(make()))

        def urls(one: str, other: str, server: Server | None = None, *, forgets: bool = False) -> Stores:
            one_client, other_client = opener(lambda: open_register(one)), opener(lambda: open_register(other))
            return Stores(one_client, other_client, one, server, forgets)

        match request.param:
            case "memory":
                made = urls(f"memory://{tmp_path.name}", f"memory://{tmp_path.name}-other")
                made.url = None
            case "sqlite":
                made = urls(f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/other.db")
            case "memcached" | "own memcached":
                first = "memcached" if request.param == "memcached" else "own_memcached"
                servers: list[Memcached] = [request.getfixturevalue(name) for name in (first, "second_memcached")]
                made = urls(servers[0].url, servers[1].url, servers[0], forgets=True)
            case "sharded":
                one, two = (request.getfixturevalue(name).address for name in ("memcached", "second_memcached"))
                made = urls(f"memcached://{one},{two}", f"memcached://{two}")
            case "postgresql" | "redis" | "etcd" | "zookeeper":
                server: PostgreSQLServer | RedisServer | Etcd | ZooKeeper = request.getfixturevalue(request.param)
                made = urls(server.url, server.other_url, server)
            case "quorum":
                one_three, other_three = request.getfixturevalue("quorum")
                made = urls(url_of(one_three), url_of(other_three), one_three[0])
                made.spares = made.weak = True
                made.whole = lambda name: is_whole(made.client(), name)
            case _:
                one_store, other_store = (FaultyStore(SystemClock(), hints=True) for _ in range(2))
                made = Stores(opener(one_store.link), opener(other_store.link))
        yield made


@pytest.fixture(scope="session")
def second_memcached() -> Iterator[Memcached]:
    """Another memcached for the whole session."""
    with Memcached() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL for the whole session: a test that restarts or freezes it leaves it running."""
    with PostgreSQLServer() as server:
        yield server


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """An etcd for the whole session."""
    with Etcd() as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for the whole session: do not restart, flush or freeze this one."""
    with RedisServer(folder=tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeper]:
    """A ZooKeeper for the whole session."""
    with ZooKeeper() as server:
        yield server


@pytest.fixture(scope="session")
def quorum() -> Iterator[tuple[list[Memcached], list[Memcached]]]:
    """Two quorums of three memcacheds each, for the whole session."""
    with contextlib.ExitStack() as stack:
        six = [stack.enter_context(Memcached("-m", "32")) for _ in range(6)]
        yield six[:3], six[3:]


def url_of(servers: list[Memcached]) -> str:
    """Return the URL of a quorum of these."""
    return f"quorum+memcached://{','.join(each.address for each in servers)}"


def is_whole(register: Register, name: str) -> bool:
    """Return whether each server of a quorum has the cell, and is known to the others as it is now."""
    with contextlib.closing(register):
        assert isinstance(register, QuorumRegister)
        sights = register.sights(name)
        cells = {place: sight for place, sight in enumerate(sights) if isinstance(sight, Sight) and sight.cell}
        return len(cells) == len(sights) and is_consistent(cells, list(cells))

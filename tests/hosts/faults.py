"""Every fault that is injected, by name. Each is there while its context lasts, and mended when that is left."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.hosts.cluster import GROUP, Cluster
from tests.hosts.kinds import KINDS, Kind

Inject = Callable[[Cluster], AbstractContextManager[None]]
When = Callable[[Kind], bool]


@dataclass(frozen=True)
class Fault:
    """What happens, and what it does to leadership if it lasts for longer than a lease.

    `moves`: whether somebody else leads afterwards, None if either may be. `hides`: perhaps nobody reaches the store
    while it lasts, so that nobody can lead. `store`: it strikes servers, or what they hold. `amnesia`: the record and
    its leader may be lost together. `spares`: it strikes one of several servers, so that the leader must go on.
    """

    inject: Inject
    moves: bool | None
    hides: bool = False
    store: bool = False
    amnesia: bool = False
    spares: bool = False


_ALL: dict[str, tuple[Fault, When]] = {}


def fault(
    *, moves: bool | None, when: When = lambda _: True, **more: bool
) -> Callable[[Callable[[Cluster], Iterator[None]]], None]:
    """Make a fault of the decorated function, under its name with spaces, for those kinds of stores."""

    def put(function: Callable[[Cluster], Iterator[None]]) -> None:
        made = Fault(contextlib.contextmanager(function), moves, **more)
        _ALL[function.__name__.replace("_", " ")] = made, when

    return put


def faults(kind: Kind) -> dict[str, Fault]:
    """Return the faults of this kind of store by name; a server has the name that it has there.

    A server that takes longer to come back than a lease lasts leaves nobody to lead meanwhile.
    """
    found = {}
    for name, (each, when) in _ALL.items():
        if when(kind):
            if name == "server restarted" and not kind.quick:
                each = dataclasses.replace(each, moves=None, hides=True)
            found[name.replace("server", kind.server)] = each
    return found


def served(kind: Kind) -> bool:
    """Whether there is a server that can be struck."""
    return kind.servers > 0


def single(kind: Kind) -> bool:
    """Whether all depends on one server."""
    return kind.servers == 1


def forgetful(kind: Kind) -> bool:
    """Whether all depends on one server, which forgets."""
    return kind.servers == 1 and kind.forgets


def several(kind: Kind) -> bool:
    """Whether it stands the loss of one server."""
    return kind.servers > 1


@fault(moves=True)
def leader_killed(cluster: Cluster) -> Iterator[None]:
    host = cluster.the_leader()
    cluster.signal(host, signal.SIGKILL)
    yield
    cluster.start(host)


@fault(moves=False)
def standby_killed(cluster: Cluster) -> Iterator[None]:
    host = cluster.a_standby()
    cluster.signal(host, signal.SIGKILL)
    yield
    cluster.start(host)


@fault(moves=True)
def leader_told_to_stop(cluster: Cluster) -> Iterator[None]:
    host = cluster.the_leader()
    process = cluster.signal(host, signal.SIGTERM)
    yield
    cluster.end(process)
    cluster.start(host)


@fault(moves=True)
def leader_paused(cluster: Cluster) -> Iterator[None]:
    host = cluster.the_leader()
    cluster.signal(host, signal.SIGSTOP)
    yield
    cluster.signal(host, signal.SIGCONT)


@fault(moves=False)
def standby_paused(cluster: Cluster) -> Iterator[None]:
    host = cluster.a_standby()
    cluster.signal(host, signal.SIGSTOP)
    yield
    cluster.signal(host, signal.SIGCONT)


@fault(moves=True, when=served)
def leader_cut_from_store(cluster: Cluster) -> Iterator[None]:
    with cluster.worse([cluster.the_leader()], cluster.stores, cut=True):
        yield


@fault(moves=True, when=served)
def answers_to_the_leader_cut(cluster: Cluster) -> Iterator[None]:
    """What it writes lands, and it never hears so."""
    with cluster.worse(cluster.stores, [cluster.the_leader()], back=False, cut=True):
        yield


@fault(moves=False, when=served)
def standby_cut_from_store(cluster: Cluster) -> Iterator[None]:
    with cluster.worse([cluster.a_standby()], cluster.stores, cut=True):
        yield


@fault(moves=False)
def leader_cut_from_standbys(cluster: Cluster) -> Iterator[None]:
    leader = cluster.the_leader()
    with cluster.worse([leader], [host for host in cluster.workers if host != leader], cut=True):
        yield


@fault(moves=None, hides=True, when=served)
def everybody_cut_from_store(cluster: Cluster) -> Iterator[None]:
    with cluster.worse(cluster.stores, cluster.workers, cut=True):
        yield


@fault(moves=False, when=served)
def packets_delayed(cluster: Cluster) -> Iterator[None]:
    """By 50 to 150 ms each way."""
    with cluster.worse(cluster.stores, cluster.workers, delay=0.1):
        yield


@fault(moves=None, when=served)
def packets_lost(cluster: Cluster) -> Iterator[None]:
    """One in ten, each way."""
    with cluster.worse(cluster.stores, cluster.workers, loss=0.1):
        yield


@fault(moves=None, hides=True, when=served)
def packets_held_up(cluster: Cluster) -> Iterator[None]:
    """By 200 to 600 ms each way: every answer comes when nobody waits for it any more."""
    with cluster.worse(cluster.stores, cluster.workers, delay=0.4):
        yield


@fault(moves=None, hides=True, when=served)
def most_packets_lost(cluster: Cluster) -> Iterator[None]:
    """Half of them, each way: now and then a call succeeds."""
    with cluster.worse(cluster.stores, cluster.workers, loss=0.5):
        yield


@fault(moves=False, when=single, store=True)
def server_restarted(cluster: Cluster) -> Iterator[None]:
    cluster.servers[0].restart()
    yield


@fault(moves=None, when=single, hides=True, store=True)
def server_down(cluster: Cluster) -> Iterator[None]:
    cluster.servers[0].stop()
    yield
    cluster.servers[0].start()


@fault(moves=None, when=single, hides=True, store=True)
def server_frozen(cluster: Cluster) -> Iterator[None]:
    cluster.servers[0].freeze()
    yield
    cluster.servers[0].thaw()


@fault(moves=False, when=forgetful, store=True)
def server_flushed(cluster: Cluster) -> Iterator[None]:
    cluster.servers[0].ask("flush_all")
    yield


@fault(moves=False, when=forgetful, store=True)
def server_filled(cluster: Cluster) -> Iterator[None]:
    """Until it has evicted the record."""
    cluster.servers[0].evict(f"politics:{GROUP}")
    yield


@fault(moves=True, when=forgetful, store=True, amnesia=True)
def leader_and_record_lost(cluster: Cluster) -> Iterator[None]:
    """Together, as where the server runs beside the leader."""
    host = cluster.the_leader()
    cluster.signal(host, signal.SIGKILL)
    cluster.servers[0].restart()
    yield
    cluster.start(host)


# Of three servers one may be lost, in any way, and the leader does not even notice.


@fault(moves=False, when=several, store=True, spares=True)
def one_server_restarted(cluster: Cluster) -> Iterator[None]:
    cluster.some_servers(1)[0].restart()
    yield


@fault(moves=False, when=several, store=True, spares=True)
def one_server_replaced(cluster: Cluster) -> Iterator[None]:
    """Killed for good, and an empty one takes its place later."""
    (server,) = cluster.some_servers(1)
    server.stop()
    yield
    server.start()


@fault(moves=False, when=several, store=True, spares=True)
def one_server_frozen(cluster: Cluster) -> Iterator[None]:
    (server,) = cluster.some_servers(1)
    server.freeze()
    yield
    server.thaw()


@fault(moves=False, when=several, store=True, spares=True)
def one_server_flushed(cluster: Cluster) -> Iterator[None]:
    cluster.some_servers(1)[0].ask("flush_all")
    yield


@fault(moves=False, when=several, store=True, spares=True)
def one_server_cut_off(cluster: Cluster) -> Iterator[None]:
    with cluster.worse([cluster.rng.choice(cluster.stores)], cluster.workers, cut=True):
        yield


@fault(moves=True, when=several, store=True)
def leader_and_one_server_lost(cluster: Cluster) -> Iterator[None]:
    """Together, as where the server runs beside the leader."""
    host, (server,) = cluster.the_leader(), cluster.some_servers(1)
    cluster.signal(host, signal.SIGKILL)
    server.stop()
    yield
    server.start()
    cluster.start(host)


@fault(moves=None, when=several, hides=True, store=True)
def two_servers_cut_off(cluster: Cluster) -> Iterator[None]:
    with cluster.worse(cluster.rng.sample(cluster.stores, 2), cluster.workers, cut=True):
        yield


@fault(moves=None, when=several, hides=True, store=True)
def two_servers_frozen(cluster: Cluster) -> Iterator[None]:
    servers = cluster.some_servers(2)
    for server in servers:
        server.freeze()
    yield
    for server in servers:
        server.thaw()


@fault(moves=None, when=several, hides=True, store=True, amnesia=True)
def two_servers_restarted(cluster: Cluster) -> Iterator[None]:
    """What most of them knew is lost."""
    for server in cluster.some_servers(2):
        server.restart()
    yield


@fault(moves=None, when=several, hides=True, store=True, amnesia=True)
def two_servers_replaced(cluster: Cluster) -> Iterator[None]:
    servers = cluster.some_servers(2)
    for server in servers:
        server.stop()
    yield
    for server in servers:
        server.start()


FAULTS = faults(KINDS["memcached"])

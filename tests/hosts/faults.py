"""Every fault that is injected, by name. Each is there while its context lasts, and mended when that is left."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.hosts.cluster import GROUP, Cluster

Inject = Callable[[Cluster], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """What happens, and what it does to leadership if it lasts for longer than a lease.

    `moves`: whether somebody else leads afterwards, None if either may be. `hides`: perhaps nobody reaches the store
    while it lasts, so that nobody can lead.
    """

    inject: Inject
    moves: bool | None
    hides: bool


FAULTS: dict[str, Fault] = {}


def fault(*, moves: bool | None, hides: bool = False) -> Callable[[Callable[[Cluster], Iterator[None]]], None]:
    """Put the decorated function into `FAULTS`, under its name with spaces."""

    def put(function: Callable[[Cluster], Iterator[None]]) -> None:
        FAULTS[function.__name__.replace("_", " ")] = Fault(contextlib.contextmanager(function), moves, hides)

    return put


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


@fault(moves=True)
def leader_cut_from_store(cluster: Cluster) -> Iterator[None]:
    with cluster.worse(cluster.the_leader(), "store", cut=True):
        yield


@fault(moves=True)
def answers_to_the_leader_cut(cluster: Cluster) -> Iterator[None]:
    """What it writes lands, and it never hears so."""
    with cluster.worse("store", cluster.the_leader(), back=False, cut=True):
        yield


@fault(moves=False)
def standby_cut_from_store(cluster: Cluster) -> Iterator[None]:
    with cluster.worse(cluster.a_standby(), "store", cut=True):
        yield


@fault(moves=False)
def leader_cut_from_standbys(cluster: Cluster) -> Iterator[None]:
    leader = cluster.the_leader()
    with cluster.worse(leader, *(host for host in cluster.workers if host != leader), cut=True):
        yield


@fault(moves=None, hides=True)
def everybody_cut_from_store(cluster: Cluster) -> Iterator[None]:
    with cluster.worse("store", *cluster.workers, cut=True):
        yield


@fault(moves=False)
def packets_delayed(cluster: Cluster) -> Iterator[None]:
    """By 50 to 150 ms each way."""
    with cluster.worse("store", *cluster.workers, delay=0.1):
        yield


@fault(moves=None)
def packets_lost(cluster: Cluster) -> Iterator[None]:
    """One in ten, each way."""
    with cluster.worse("store", *cluster.workers, loss=0.1):
        yield


@fault(moves=None, hides=True)
def packets_held_up(cluster: Cluster) -> Iterator[None]:
    """By 200 to 600 ms each way: every answer comes when nobody waits for it any more."""
    with cluster.worse("store", *cluster.workers, delay=0.4):
        yield


@fault(moves=None, hides=True)
def most_packets_lost(cluster: Cluster) -> Iterator[None]:
    """Half of them, each way: now and then a call succeeds."""
    with cluster.worse("store", *cluster.workers, loss=0.5):
        yield


@fault(moves=False)
def memcached_restarted(cluster: Cluster) -> Iterator[None]:
    cluster.memcached.restart()
    yield


@fault(moves=None, hides=True)
def memcached_down(cluster: Cluster) -> Iterator[None]:
    cluster.memcached.stop()
    yield
    cluster.memcached.start()


@fault(moves=None, hides=True)
def memcached_frozen(cluster: Cluster) -> Iterator[None]:
    cluster.memcached.freeze()
    yield
    cluster.memcached.thaw()


@fault(moves=False)
def memcached_flushed(cluster: Cluster) -> Iterator[None]:
    cluster.memcached.ask("flush_all")
    yield


@fault(moves=False)
def memcached_filled(cluster: Cluster) -> Iterator[None]:
    """Until it has evicted the record."""
    cluster.memcached.evict(f"politics:{GROUP}")
    yield


@fault(moves=True)
def leader_and_record_lost(cluster: Cluster) -> Iterator[None]:
    """Together, as where memcached runs beside the leader."""
    host = cluster.the_leader()
    cluster.signal(host, signal.SIGKILL)
    cluster.memcached.restart()
    yield
    cluster.start(host)

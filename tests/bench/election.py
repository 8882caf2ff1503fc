"""What a lease costs: against a raw round trip to the same memcached, and against the locks of peers."""

import contextlib
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from election import (
    Candidate,
    LeasePolicy,
    LeaseTerm,
    NotElected,
    Register,
    StoreUnavailable,
    ask_to_resign,
    open_register,
)
from election.clock import SystemClock
from election.record import Record, State
from election.register import Swap
from tests.bench._cores import layouts, pinned

Row = tuple[str, str, str, str]
ROUNDS, BATCH = 15, 100


def interleaved(batch: int = BATCH, /, **works: Callable[[], object]) -> dict[str, float]:
    """The median seconds of one call of each, measured in turns, so that other load slows all of them alike."""
    samples: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.perf_counter()
            for _ in range(batch):
                work()
            samples[name].append((time.perf_counter() - begun) / batch)
    return {name: statistics.median(times) for name, times in samples.items()}


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(*command: str) -> Iterator[int]:
    """A server on a free port of 127.0.0.1; `{port}` in its command is filled in."""
    port = free_port()
    process = subprocess.Popen([part.format(port=port) for part in command], stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def memcached() -> Iterator[int]:
    """A memcached of our own; one thread, so that every connection meets the same scheduling."""
    with server("memcached", "-t", "1", "-u", "nobody", "-l", "127.0.0.1", "-p", "{port}") as port:
        yield port


def raw_round_trip(port: int, payload: bytes) -> Callable[[], bytes]:
    """One write of the payload over a bare socket: the least that any lease in memcached can cost."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    command = b"set raw 0 0 %d\r\n%b\r\n" % (len(payload), payload)

    def trip() -> bytes:
        connection.sendall(command)
        return connection.recv(100)

    return trip


def peers(memcached_port: int) -> Iterator[tuple[str, Callable[[], object] | None]]:
    """Acquire and release once, with each of the peers; None for one that is not installed."""
    try:
        from tooz import coordination
    except ImportError:
        yield "tooz on memcached", None
    else:
        coordinator = coordination.get_coordinator(f"memcached://127.0.0.1:{memcached_port}", b"bench")
        coordinator.start()
        lock = coordinator.get_lock(b"bench")
        yield "tooz on memcached", lambda: (lock.acquire(), lock.release())
        coordinator.stop()
    try:
        import redis
    except ImportError:
        yield "redis-py Lock", None
        return
    if not shutil.which("redis-server"):
        yield "redis-py Lock", None
        return
    with server("redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "") as port:
        client = redis.Redis(port=port)
        their = client.lock("bench", timeout=10)
        yield "redis-py Lock", lambda: (their.acquire(), their.release())
        client.close()


def free(register: Register, *names: str) -> None:
    """Make these leases free at once. A young memcached would have everybody wait for a lease first."""
    opened = Record(fence=1, holder="bench", seq=1, ttl_ms=1, state=State.OPEN).encode()
    assert None not in register.swap_many([Swap(name, opened, None) for name in names])


def unkept(register: Register) -> Candidate:
    """A candidate whose terms nobody renews: what is measured is the lease alone."""
    return Candidate(register, "bench", LeasePolicy(ttl=60), renew_with=lambda _register, _term: None)


def lease_rows(where: str, port: int, aims: dict[str, str]) -> Iterator[Row]:
    """Acquire, renew, look, release."""
    register = open_register(f"memcached://127.0.0.1:{port}")
    free(register, "bench")
    held: list[LeaseTerm] = [unkept(register).campaign()]
    payload = register.read("bench")
    assert payload is not None
    acquired: list[float] = []

    def take_over() -> None:
        held.pop().resign()
        standby = unkept(register)
        begun = time.perf_counter()
        term = standby.attempt()
        acquired.append(time.perf_counter() - begun)
        assert term
        held.append(term)

    owner = unkept(register)

    def cycle() -> None:
        if held:
            held.pop().resign()
        term = owner.attempt()
        assert term
        term.resign()

    trip = raw_round_trip(port, payload.data)
    times = interleaved(raw=trip, renew=lambda: held[-1].renew(), take_over=take_over)
    raw, renew, acquire = (seconds * 1e6 for seconds in (times["raw"], times["renew"], statistics.median(acquired)))
    yield f"{where}: raw memcached round trip", f"{raw:.0f} us", "1", ""
    yield f"{where}: renew / raw round trip", f"{renew:.0f} us", f"{renew / raw:.2f}", aims["renew"]
    yield (
        f"{where}: acquire by a fresh standby / raw round trip",
        f"{acquire:.0f} us",
        f"{acquire / raw:.2f}",
        aims["acquire"],
    )
    standby, term = unkept(register), held[-1]
    standby.attempt()
    looks = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(BATCH):
            standby._look(polled=True)
        looks.append((time.process_time() - begun) / BATCH * 1e6)
    look = statistics.median(looks)
    yield f"{where}: CPU of a look that finds nothing new / 18 us", f"{look:.1f} us", f"{look / 18:.2f}", "<= 1"
    valid = interleaved(valid=lambda: term.valid, nothing=lambda: None)
    cost = (valid["valid"] - valid["nothing"]) * 1e9
    yield f"{where}: term.valid / 350 ns", f"{cost:.0f} ns", f"{cost / 350:.2f}", "<= 1"
    for name, theirs in peers(port):
        what = f"{where}: acquire + release / {name}"
        if theirs is None:
            yield what, "missing: not installed", "", "< 1"
            continue
        both = interleaved(ours=cycle, theirs=theirs)
        ratio = both["ours"] / both["theirs"]
        yield what, f"{both['ours'] * 1e6:.0f} us", f"{ratio:.2f}", "< 1"


def holding_rows(where: str, port: int) -> Iterator[Row]:
    """CPU of ten thousand leases of 3 s, and by how much the latest renewal was late, in each of five times 2 s."""
    register, ttl, count = open_register(f"memcached://127.0.0.1:{port}"), 3.0, 10_000
    names = [f"bench-{number}" for number in range(count)]
    free(register, *names)
    terms = [Candidate(register, name, LeasePolicy(ttl=ttl)).campaign() for name in names]
    time.sleep(ttl)
    shares, late = [], []
    for _ in range(5):
        begun, cpu = time.monotonic(), time.process_time()
        time.sleep(2)
        shares.append((time.process_time() - cpu) / (time.monotonic() - begun))
        now = SystemClock().now()
        late.append(max(now - term.renew_at for term in terms))
    lost = sum(not term.valid for term in terms)
    share, latest = statistics.median(shares), max(late)
    yield f"{where}: CPU of 10,000 leases of 3 s / one core", f"{share * 100:.1f} %", f"{share:.3f}", "< 0.3"
    yield f"{where}: their latest renewal of 5 looks, late by / ttl", f"{latest:.2f} s", f"{latest / ttl:.3f}", "<= 0.1"
    yield f"{where}: leases of 10,000 that were lost", f"{lost}", f"{lost}", "<= 0"
    for term in terms:
        term.resign()


def refused_row() -> Row:
    """CPU of 200 standbys, in threads of one process, while the store refuses connections."""
    register, stop = f"memcached://127.0.0.1:{free_port()}", threading.Event()

    def stand_by() -> None:
        with contextlib.suppress(NotElected, StoreUnavailable):
            Candidate(open_register(register), "bench").campaign(stop=stop)

    threads = [threading.Thread(target=stand_by) for _ in range(200)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    shares = []
    for _ in range(5):
        begun, cpu = time.monotonic(), time.process_time()
        time.sleep(1)
        shares.append((time.process_time() - cpu) / (time.monotonic() - begun))
    stop.set()
    for thread in threads:
        thread.join()
    share = statistics.median(shares)
    return "CPU of 200 standbys of a store that refuses / one core", f"{share * 100:.1f} %", f"{share:.3f}", "< 0.2"


WORKER = """
import sys
from politics import TokenWorker
from election.clock import SystemClock
class Worker(TokenWorker):
    group, iteration_length = "bench", 3600
    def perform(self, term):
        print(SystemClock().now(), flush=True)
        term.lost.wait()
        term.check()
Worker(store=sys.argv[1], lease_ttl=float(sys.argv[2])).process()
"""


def takeover(store: str, ttl: float, strike: Callable[[subprocess.Popen[str]], object]) -> float:
    """Seconds from `strike`, which is given the leader's process, until its successor works."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, store, str(ttl)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        read = _first_line(workers)
        leader, standby = (workers[0], workers[1]) if read is workers[0] else (workers[1], workers[0])
        time.sleep(min(ttl, 2))  # the standby has long seen the lease
        struck = SystemClock().now()
        strike(leader)
        assert standby.stdout is not None
        return float(standby.stdout.readline()) - struck
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()


def _first_line(workers: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    import select

    ready, _, _ = select.select([worker.stdout for worker in workers], [], [])
    first = next(worker for worker in workers if worker.stdout in ready)
    assert first.stdout is not None
    first.stdout.readline()
    return first


AIMS = {"SC": {"renew": "<= 1.5", "acquire": "<= 4"}, "XC": {"renew": "<= 1.25", "acquire": "<= 2.6"}}


def rows() -> Iterator[Row]:
    """All rows of the table. SC: memcached and client are pinned to one core; XC: to two; medians of all."""
    for where, cores in layouts():
        if cores is None:
            yield f"{where}: memcached and client pinned", "missing: the cores cannot be chosen", "", ""
            continue
        with pinned(*cores) as move, memcached() as port:
            move()
            yield from lease_rows(where, port, AIMS[where])
            yield from holding_rows(where, port)
    yield refused_row()
    with TemporaryDirectory() as folder:

        def store() -> str:
            return f"sqlite:///{Path(folder, secrets.token_hex(4))}.db"

        ttl = 2.0
        kills = [takeover(store(), ttl, lambda leader: leader.send_signal(signal.SIGKILL)) for _ in range(5)]
        worst = max(kills)
        yield "worst takeover of 5 after SIGKILL / lease_ttl", f"{worst:.2f} s", f"{worst / ttl:.2f}", "<= 1.3"
        polite = statistics.median(
            takeover(store(), 10.0, lambda leader: leader.send_signal(signal.SIGTERM)) for _ in range(5)
        )
        yield "takeover after a polite stop / 0.5 s, default lease", f"{polite:.2f} s", f"{polite / 0.5:.2f}", "< 1"
        times = []
        for _ in range(5):
            url = store()
            times.append(takeover(url, 10.0, lambda _leader: ask_to_resign(open_register(url), "bench")))  # noqa: B023
        asked = statistics.median(times)
        yield "takeover after `resign` / 0.5 s, default lease", f"{asked:.2f} s", f"{asked / 0.5:.2f}", "< 1"


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

"""What a lease costs: against a raw round trip to the same memcached, and against the locks of peers."""

import contextlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from election import Candidate, LeasePolicy, LeaseTerm, open_register
from election.clock import SystemClock

Row = tuple[str, str, str, str]
ROUNDS, BATCH = 15, 100


def interleaved(**works: Callable[[], object]) -> dict[str, float]:
    """The median seconds of one call of each, measured in turns, so that other load slows all of them alike."""
    samples: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.perf_counter()
            for _ in range(BATCH):
                work()
            samples[name].append((time.perf_counter() - begun) / BATCH)
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


def peers(memcached_port: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Acquire and release once, with each of the peers that are installed."""
    with contextlib.suppress(ImportError):
        from tooz import coordination

        coordinator = coordination.get_coordinator(f"memcached://127.0.0.1:{memcached_port}", b"bench")
        coordinator.start()
        lock = coordinator.get_lock(b"bench")
        yield "tooz on memcached", lambda: (lock.acquire(), lock.release())
        coordinator.stop()
    with contextlib.suppress(ImportError):
        import redis

        if shutil.which("redis-server"):
            with server("redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "") as port:
                client = redis.Redis(port=port)
                their = client.lock("bench", timeout=10)
                yield "redis-py Lock", lambda: (their.acquire(), their.release())
                client.close()


def lease_rows(port: int) -> Iterator[Row]:
    """Acquire, renew, release."""
    register = open_register(f"memcached://127.0.0.1:{port}")
    # Nobody keeps these terms: what is measured is the lease alone.
    candidate = Candidate(register, "bench", LeasePolicy(ttl=60), renew_with=lambda register, term: None)
    held: list[LeaseTerm] = [candidate.campaign()]
    payload = register.read("bench")
    assert payload is not None

    def acquire() -> None:
        term = candidate.attempt()
        assert term
        held.append(term)

    def cycle() -> None:
        held[-1].resign()
        acquire()

    other = Candidate(register, "bench", LeasePolicy(ttl=60), renew_with=lambda register, term: None)

    def hand_over() -> None:
        held[-1].resign()
        term = other.attempt()
        assert term
        term.resign()
        acquire()

    trip = raw_round_trip(port, payload.data)
    works: dict[str, Callable[[], object]] = {"raw": trip, "renew": lambda: held[-1].renew(), "cycle": cycle}
    us = {name: seconds * 1e6 for name, seconds in interleaved(**works, hand_over=hand_over).items()}
    releases: list[float] = []
    for _ in range(ROUNDS * BATCH):
        begun = time.perf_counter()
        held[-1].resign()
        releases.append(time.perf_counter() - begun)
        acquire()
    release = statistics.median(releases) * 1e6
    acquired = us["cycle"] - release
    taken_over = us["hand_over"] / 2 - release
    yield "raw memcached round trip", f"{us['raw']:.0f} us", "1", ""
    yield "acquire / raw round trip", f"{acquired:.0f} us", f"{acquired / us['raw']:.2f}", "<= 2.5"
    yield "acquire what another left / raw round trip", f"{taken_over:.0f} us", f"{taken_over / us['raw']:.2f}", ""
    yield "renew / raw round trip", f"{us['renew']:.0f} us", f"{us['renew'] / us['raw']:.2f}", "<= 2.2"
    for name, theirs in peers(port):
        both = interleaved(ours=cycle, theirs=theirs)
        ratio = both["ours"] / both["theirs"]
        yield f"acquire + release / {name}", f"{both['ours'] * 1e6:.0f} us", f"{ratio:.2f}", "< 1"
    term = held[-1]
    valid = interleaved(valid=lambda: term.valid, nothing=lambda: None)
    cost = (valid["valid"] - valid["nothing"]) * 1e9
    yield "term.valid / 1 us", f"{cost:.0f} ns", f"{cost / 1000:.2f}", "< 1"


def holding_row(port: int) -> Row:
    """CPU of a thousand leases of 3 s, over 6 s."""
    register = open_register(f"memcached://127.0.0.1:{port}")
    terms = [Candidate(register, f"bench-{n}", LeasePolicy(ttl=3)).campaign() for n in range(1000)]
    begun, cpu = time.monotonic(), time.process_time()
    time.sleep(6)
    share = (time.process_time() - cpu) / (time.monotonic() - begun)
    assert all(term.valid for term in terms)
    for term in terms:
        term.resign()
    return "CPU of 1,000 leases of 3 s / one core", f"{share * 100:.1f} %", f"{share:.3f}", "< 0.2"


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


def takeover(store: str, ttl: float, number: signal.Signals) -> float:
    """Seconds from the signal to the leader until its successor works."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, store, str(ttl)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        read = _first_line(workers)
        leader, standby = (workers[0], workers[1]) if read is workers[0] else (workers[1], workers[0])
        time.sleep(ttl)  # the standby has long seen the lease, wherever in its third the signal falls
        struck = SystemClock().now()
        leader.send_signal(number)
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


def rows() -> Iterator[Row]:
    """All rows of the table."""
    with memcached() as port:
        yield from lease_rows(port)
        yield holding_row(port)
    with TemporaryDirectory() as folder:
        ttl = 2.0
        kills = [takeover(f"sqlite:///{Path(folder, str(n))}.db", ttl, signal.SIGKILL) for n in range(5)]
        worst = max(kills)
        yield "worst takeover of 5 after SIGKILL / lease_ttl", f"{worst:.2f} s", f"{worst / ttl:.2f}", "<= 1.3"
        ttl = 10.0
        polite = takeover(f"sqlite:///{Path(folder, 'polite')}.db", ttl, signal.SIGTERM)
        yield "takeover after a polite stop / 0.5 s, default lease", f"{polite:.2f} s", f"{polite / 0.5:.2f}", "< 1"


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

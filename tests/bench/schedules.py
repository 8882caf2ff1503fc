"""What a schedule costs: how late a tick begins, against the standard library's `sched`, and what waiting jobs cost."""

import contextlib
import sched
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from election import Register, open_register
from politics import Scheduler, Term, TokenWorker
from tests.bench.election import Row, free, memcached

TICKS = 100


class Late:
    """Collects how late calls come, in seconds."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.enough = threading.Event()

    def note(self, due: float) -> None:
        """Note that what was due then is called now."""
        self.found.append(time.time() - due)
        if len(self.found) >= TICKS:
            self.enough.set()

    @property
    def row(self) -> tuple[float, float]:
        """The median and the worst of a hundred, in milliseconds."""
        return statistics.median(self.found[:TICKS]) * 1e3, max(self.found[:TICKS]) * 1e3


def latency_rows(store: str) -> Iterator[Row]:
    """A leader that stands by for each second, and `sched` for each half second between: both in one process."""
    ours, theirs = Late(), Late()

    class Worker(TokenWorker):
        group, schedule, announce = "bench", "* * * * * *", False

        def perform(self, term: Term) -> None:
            assert term.tick
            ours.note(term.tick.timestamp())

    def follow(due: float) -> None:
        theirs.note(due)
        if not theirs.enough.is_set():
            line.enterabs(due + 1, 1, follow, (due + 1,))

    line = sched.scheduler(time.time, time.sleep)
    with Worker(store=store):
        while not ours.found:
            time.sleep(0.01)
        ours.found.clear()
        begin = int(time.time()) + 1.5
        line.enterabs(begin, 1, follow, (begin,))
        line.run()
        ours.enough.wait()
    mine, other = ours.row, theirs.row
    for what, ms, their_ms in zip((f"median of {TICKS}", f"worst of {TICKS}"), mine, other, strict=True):
        yield f"tick to perform, {what} / sched", f"{ms:.2f} ms ({their_ms:.2f} ms)", f"{ms / their_ms:.2f}", ""


def waiting_rows(port: int) -> Iterator[Row]:
    """A hundred jobs of which none is due: CPU, round trips and questions in 20 s, and threads."""
    url = f"memcached://127.0.0.1:{port}"
    with contextlib.closing(open_register(url)) as register:
        trips = count_trips(register)
        jobs = Scheduler("bench", store=register)
        for number in range(100):
            jobs.cron(f"{number % 60} 3 1 1 *", name=f"job {number}")(lambda _term: None)
        free(register, *jobs.jobs)
        before = threading.active_count()
        with jobs:
            time.sleep(5)  # each has made its record
            begun, cpu, trips_then = time.monotonic(), time.process_time(), trips()
            time.sleep(20)
            seconds = time.monotonic() - begun
            share, rate = (time.process_time() - cpu) / seconds, (trips() - trips_then) / seconds
            threads = threading.active_count() - before
    yield "CPU of a hundred waiting jobs / one core", f"{share * 100:.2f} %", f"{share:.4f}", "<= 0.02"
    yield (
        "round trips of a hundred waiting jobs in a second / 1",
        f"{rate:.2f}, each for 100 cells",
        f"{rate:.2f}",
        "<= 1.1",
    )
    yield "threads of a hundred waiting jobs / 1", f"{threads}", f"{threads}", "<= 1"


def count_trips(register: Register) -> Callable[[], int]:
    """Return a function that says how many times the register has been asked for anything."""
    count = 0
    use = register._use  # type: ignore[attr-defined]

    def counted(*arguments: object) -> object:
        nonlocal count
        count += 1
        return use(*arguments)

    register._use = counted  # type: ignore[attr-defined]
    return lambda: count


def rows() -> Iterator[Row]:
    """All rows."""
    with memcached() as port:
        yield from waiting_rows(port)
        store = f"memcached://127.0.0.1:{port}"
        with contextlib.closing(open_register(store)) as register:
            free(register, "bench")
        yield from latency_rows(store)


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

"""What tuples cost in this process: against a queue, against Ruby's Rinda, and many of them against few."""

import queue
import shutil
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

from discovery import TupleSpace
from tests.bench.election import Row, interleaved

FEW, MANY, MOST, LISTENERS = 100, 100_000, 1_000_000, 100
RINDA = """
require "rinda/tuplespace"
def timed(times)
  begun = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  times.times { |number| yield number }
  (Process.clock_gettime(Process::CLOCK_MONOTONIC) - begun) / times
end
space = Rinda::TupleSpace.new
space.write(["first", 0])
puts timed(1000) { |number| space.write(["a", number]) }
puts timed(1000) { space.read(["first", nil], 0) }
puts timed(1000) { space.take(["a", nil], 0) }
18_000.times { |number| space.write(["name", "service #{number}", number, "description"]) }
puts timed(20) { |number| space.read(["name", nil, number * 7919 % 18_000, nil], 0) }
"""


def rinda() -> dict[str, float]:
    """Seconds of each call in Ruby's Rinda, in one process as here; nothing where there is no Ruby with Rinda."""
    if shutil.which("ruby") is None:
        return {}
    answer = subprocess.run(["ruby", "-e", RINDA], capture_output=True, text=True, check=False)
    return dict(zip(("write", "read", "take", "later"), map(float, answer.stdout.split()), strict=False))


def against(ruby: dict[str, float], what: str, name: str, ours: float, aim: str) -> Row:
    """A row that compares ours with Rinda's."""
    if not ruby:
        return what, "missing: no Ruby with Rinda", "", aim
    return what, f"{ours * 1e6:.1f} µs", f"{ruby[name] / ours:.1f}", aim


def filled(size: int) -> TupleSpace:
    """A space as a registry has it: names, addresses and numbers, each different."""
    space = TupleSpace(background=False)
    for number in range(size):
        space.write(("name", f"service {number}", number, "description"))
    return space


def hurried(space: TupleSpace, size: int) -> Callable[[], object]:
    """Reads on the third field, each time another tuple."""
    numbers = iter(range(0, 1 << 62, 7919))
    return lambda: space.read(("name", None, next(numbers) % size, None), 0)


def basics(ruby: dict[str, float]) -> Iterator[Row]:
    """Write, read and take, beside the standard library's queue, which is the least that they could cost."""
    space, peer = TupleSpace(), queue.Queue[tuple[str, int]]()
    space.write(("first", 0))
    written = iter(range(1 << 62))
    times = interleaved(
        queue=lambda: peer.put(("a", 1)),
        write=lambda: space.write(("a", next(written))),
        read=lambda: space.read(("first", None), 0),
    )
    times |= interleaved(get=peer.get, take=lambda: space.take(("a", None), 0))
    for name, least in (("write", "queue"), ("read", ""), ("take", "get")):
        if least:
            yield (
                f"tuples: {name} / queue.Queue",
                f"{times[name] * 1e6:.1f} µs",
                f"{times[name] / times[least]:.1f}",
                "",
            )
        yield against(ruby, f"tuples: Rinda's {name} / ours", name, times[name], "")


def growth(ruby: dict[str, float]) -> Iterator[Row]:
    """Reads on a later field, few tuples and many."""
    few, many = filled(FEW), filled(MANY)
    times = interleaved(few=hurried(few, FEW), many=hurried(many, MANY))
    what = "read on the third of four fields"
    yield against(ruby, f"tuples: {what}, Rinda's of 18,000 / ours of {MANY:,}", "later", times["many"], ">= 1000")
    rate = 1 / times["many"]
    yield f"tuples: {what} of {MANY:,}, a second / 35,000", f"{rate:,.0f}/s", f"{rate / 35_000:.2f}", ">= 1"
    grown = f"{times['many'] / times['few']:.2f}"
    yield f"tuples: the same of {MANY:,} / of {FEW}", f"{times['many'] * 1e6:.1f} µs", grown, "<= 1.5"
    begun = time.process_time()
    most = filled(MOST)
    written = time.process_time() - begun
    for field, template in (("name", (None, "service 1", None, None)), ("number", (None, None, 1, None))):
        begun = time.process_time()
        most.read(template, 0)
        built = time.process_time() - begun
        what = f"tuples: CPU of the first read by {field}, which indexes {MOST:,} / writing these"
        yield what, f"{built:.2f} s", f"{built / written:.2f}", "<= 0.3"


def memory() -> Iterator[Row]:
    """Bytes for each tuple, its own four fields and their values not counted."""
    plain = [("name", f"service {number}", number, f"description {number}") for number in range(MANY)]
    tracemalloc.start()
    space = TupleSpace(background=False)
    space.write_all(plain)
    alone = tracemalloc.get_traced_memory()[0] / MANY
    yield "tuples: memory for each, not yet searched", f"{alone:.0f} bytes", "1", ""
    for indexed in 1, 2, 3:
        space.read(tuple(value if field == indexed else None for field, value in enumerate(plain[1])), 0)
    used = tracemalloc.get_traced_memory()[0] / MANY
    tracemalloc.stop()
    what = "tuples: memory for each, indexed on three fields of unique values / not yet searched"
    yield what, f"{used:.0f} bytes", f"{used / alone:.2f}", "<= 2"


def fan_out() -> Iterator[Row]:
    """How long a write takes to reach the last of a hundred threads that listen, and what listeners cost a writer."""
    space, heard, samples = TupleSpace(), threading.Semaphore(0), []

    def listen(stream: object) -> None:
        for _ in stream:  # type: ignore[attr-defined]
            heard.release()

    threads = []
    for _ in range(LISTENERS):
        threads.append(threading.Thread(target=listen, args=(space.notify("write", ("news", None)),)))
        threads[-1].start()
    for number in range(50):
        begun = time.perf_counter()
        space.write(("news", number))
        for _ in range(LISTENERS):
            heard.acquire()
        samples.append(time.perf_counter() - begun)
    quiet = TupleSpace()
    times = interleaved(alone=lambda: quiet.write(("other", 1)), heard=lambda: space.write(("other", 1)))
    space.close()
    for thread in threads:
        thread.join()
    yield f"tuples: a write reaches {LISTENERS} listeners", f"{sorted(samples)[25] * 1e3:.1f} ms", "", ""
    what = f"tuples: a write beside {LISTENERS} who listen for something else"
    yield f"{what} / alone", f"{times['heard'] * 1e6:.1f} µs", f"{times['heard'] / times['alone']:.2f}", "<= 2"


def rows() -> Iterator[Row]:
    ruby = rinda()
    yield from basics(ruby)
    yield from growth(ruby)
    yield from memory()
    yield from fan_out()


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")

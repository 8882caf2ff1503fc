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

FEW, MANY, LISTENERS = 100, 100_000, 100
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
        ratios = [f"{times[name] / times[least]:.1f} x queue.Queue"] if least else []
        ratios += [f"{ruby[name] / times[name]:.1f} x as fast as Rinda"] if ruby else []
        yield f"tuples: {name}", f"{times[name] * 1e6:.1f} µs", ", ".join(ratios), ""


def growth(ruby: dict[str, float]) -> Iterator[Row]:
    """Reads on a later field, few tuples and many."""
    few, many = filled(FEW), filled(MANY)
    times = interleaved(few=hurried(few, FEW), many=hurried(many, MANY))
    what = f"tuples: read on the third of four fields, {MANY:,} stored"
    ratio = f"{ruby['later'] / times['many']:,.0f} x as fast as Rinda with 18,000" if ruby else ""
    yield what, f"{1 / times['many']:,.0f}/s", ratio, ">= 1,000, >= 35,000/s"
    grown = f"{times['many'] / times['few']:.2f}"
    yield f"tuples: the same, {MANY:,} against {FEW} stored", f"{times['many'] * 1e6:.1f} µs", grown, "flat"


def memory() -> Iterator[Row]:
    """Bytes for each tuple, its own four fields and their values not counted."""
    plain = [("name", f"service {number}", number, "description") for number in range(MANY)]
    for what, literal in (("not yet searched", None), ("indexed on a field of unique values", "service 1")):
        tracemalloc.start()
        space = TupleSpace(background=False)
        for fields in plain:
            space.write(fields)
        space.read((None, literal, None, None))
        used = tracemalloc.get_traced_memory()[0] / MANY
        tracemalloc.stop()
        yield f"tuples: memory for each, {what}", f"{used:.0f} bytes", "", ""


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
    yield what, f"{times['heard'] * 1e6:.1f} µs", f"{times['heard'] / times['alone']:.2f} x alone", "1"


def rows() -> Iterator[Row]:
    ruby = rinda()
    yield from basics(ruby)
    yield from growth(ruby)
    yield from memory()
    yield from fan_out()


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")

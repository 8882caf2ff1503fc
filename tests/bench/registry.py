"""The registry: a lookup, from announcement to visibility, a call by reference, a loan."""

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

from discovery import Registry
from tests.bench.rings import ECHO, HOST, _alternately, _child, _pyro, _raw_trip, _shown

ROUNDS = 15
LIMIT = 3e-6
"""Seconds that a warm lookup may take."""
PROVIDER = f"""
import threading
from discovery import Registry
class Echo:
    def echo(self, value): return value
print(Registry("bench", interfaces=["{HOST}"]).register("Echo", Echo(), shared=True), flush=True)
threading.Event().wait()
"""


def rows() -> Iterator[tuple[str, str, str, str]]:
    """What was measured, the figure, its ratio, and what it should be."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(_child(sys.executable, "-c", PROVIDER))
        cold = statistics.median(_cold(url) for _ in range(ROUNDS))
        registry = stack.enter_context(Registry(interfaces=[HOST]))
        echo = registry.lookup(url)
        pyro = _pyro(stack)
        raw, call, alone, warm, found, loan = _alternately(
            stack.enter_context(_raw_trip(stack.enter_context(_child(sys.executable, "-c", ECHO)))),
            lambda n: echo.echo(("job", n, "text")),
            lambda n: pyro and pyro.echo(("job", n, "text")),
            lambda n: registry.lookup(url),
            lambda n: registry.find("Echo"),
            _borrowing(registry, url),
        )
        seen = sorted(_visible(registry) for _ in range(ROUNDS))
    yield "warm lookup", _shown(warm), f"{warm / LIMIT:.2f} of the limit", "< 3 µs"
    yield "warm find by name", _shown(found), f"{found / warm:.2f} of a lookup", ""
    yield "cold lookup, registry included", f"{cold * 1e3:.0f} ms", "", "< 1 s"
    yield (
        "registered here, found there",
        f"{seen[ROUNDS // 2] * 1e3:.1f} ms",
        f"worst {seen[-1] * 1e3:.1f} ms",
        "< 50 ms",
    )
    yield "registry: call by reference / raw TCP round trip", _shown(call), f"{call / raw:.2f}", ""
    if pyro:
        yield "registry: call by reference / Pyro5 alone", _shown(alone), f"{call / alone:.2f}", "<= 1.15"
    else:
        yield "registry: call by reference / Pyro5 alone", "missing: Pyro5 is not installed", "", "<= 1.15"
    yield "borrow and return", _shown(loan), f"{loan / raw:.0f} raw", ""


def _cold(url: str) -> float:
    begun = time.perf_counter()
    with Registry(interfaces=[HOST]) as registry:
        registry.lookup(url, timeout=5)
        return time.perf_counter() - begun


def _visible(registry: Registry) -> float:
    """Seconds from the beginning of `register` until another registry, with a socket of its own, has it."""
    with Registry(f"seen{time.monotonic_ns()}", interfaces=[HOST]) as other:
        threading.Event().wait(0.5)  # the first registration listens; what is measured comes after
        watch = registry.watch((other.app, None, None, None))
        begun = time.perf_counter()
        other.register("Seen", url="http://x", shared=True)
        watch.get(5)
        return time.perf_counter() - begun


def _borrowing(registry: Registry, url: str) -> Callable[[int], None]:
    def borrow(n: int) -> None:
        with registry.borrow(url, timeout=5):
            pass

    return borrow


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

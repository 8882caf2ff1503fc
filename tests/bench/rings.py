"""Rings: a call, a write and a take over the network against a raw TCP round trip, Pyro5, and Ruby's Rinda over DRb.

SC: server and client are pinned to one core; XC: to two. All take turns, and each figure is a median.
"""

import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from discovery.remote import Client, connect
from discovery.rings import RingFinger
from tests.bench._cores import layouts, pinned

ROUNDS, ROUND = 15, 100
HOST = "127.0.0.1"

ECHO = f"""
import socket
listener = socket.create_server(("{HOST}", 0))
print(listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := peer.recv(4096):
    peer.sendall(data)
"""
RING = f"""
import threading
from discovery.rings import RingServer
print(RingServer(port=0, host="{HOST}", announce=False).start().port, flush=True)
threading.Event().wait()
"""
CALLS = f"""
import threading
from discovery.remote import Server
class Echo:
    def echo(self, value): return value
print(Server("{HOST}").serve(Echo()), flush=True)
threading.Event().wait()
"""
PYRO = f"""
from Pyro5.api import Daemon, expose
@expose
class Echo:
    def echo(self, value): return value
daemon = Daemon(host="{HOST}")
print(daemon.register(Echo()), flush=True)
daemon.requestLoop()
"""
RINDA = f"""
require "drb"
require "rinda/tuplespace"
DRb.start_service("druby://{HOST}:0", Rinda::TupleSpace.new)
puts DRb.uri
$stdout.flush
DRb.thread.join
"""
RINDA_CLIENT = f"""
require "drb"
require "rinda/rinda"
DRb.start_service("druby://{HOST}:0")
space = Rinda::TupleSpaceProxy.new(DRbObject.new_with_uri(ARGV[0]))
now = -> {{ Process.clock_gettime(Process::CLOCK_MONOTONIC) }}
writes, takes = [], []
{ROUNDS}.times do
  start = now.call
  {ROUND}.times {{ |n| space.write(["job", n, "text"]) }}
  half = now.call
  {ROUND}.times {{ |n| space.take(["job", n, nil]) }}
  takes << now.call - half
  writes << half - start
end
puts [writes, takes].map {{ |times| times.sort[{ROUNDS} / 2] / {ROUND} }}.join(" ")
"""
AIMS = {
    "SC": {"call": "<= 4", "write": "<= 4", "take": "<= 8"},
    "XC": {"call": "<= 4", "write": "<= 4", "take": "<= 3.2"},
}

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, the figure, its ratio, and what it should be."""
    for where, cores in layouts():
        if cores is None:
            yield f"{where}: server and client pinned", "missing: the cores cannot be chosen", "", ""
            continue
        with pinned(*cores) as move:
            yield from _rows(where, move)


def _rows(where: str, move: Callable[[], None]) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:

        def child(code: str) -> str:
            return stack.enter_context(_child(sys.executable, "-c", code))

        echo, calls, port, pyro = child(ECHO), child(CALLS), child(RING), _pyro(stack)
        rinda = stack.enter_context(_child("ruby", "-e", RINDA)) if _has_rinda() else ""
        move()
        ours, client = connect(calls), stack.enter_context(Client())
        ring = RingFinger([HOST], int(port), client=client).lookup_ring_any()
        raw, call, write, take, write_all, take_all, alone = _alternately(
            stack.enter_context(_raw_trip(echo)),
            lambda n: ours.echo(("job", n, "text")),
            lambda n: ring.write(("job", n, "text")),
            lambda n: ring.take(("job", n, None)),
            lambda n: None if n else ring.write_all([("batch", each, "text") for each in range(ROUND)]),
            lambda n: None if n else ring.take_all(("batch", None, None), ROUND),
            lambda n: pyro and pyro.echo(("job", n, "text")),
        )
        theirs = _rinda(rinda) if rinda else None
    yield f"{where}: raw TCP round trip", _shown(raw), "1", ""
    for name, what, seconds in (
        ("call", "call by reference", call),
        ("write", "remote write", write),
        ("take", "remote take, confirmed", take),
    ):
        yield f"{where}: {what} / raw round trip", _shown(seconds), f"{seconds / raw:.2f}", AIMS[where][name]
    what, aim = f"{where}: call by reference / the same with Pyro5", "<= 0.7"
    if pyro:
        yield what, f"{_shown(call)}, {_shown(alone)}", f"{call / alone:.2f}", aim
    else:
        yield what, "missing: Pyro5 is not installed", "", aim
    for index, what, mine, aim in (
        (0, "Rinda's write / ours", write, ">= 1.5"),
        (1, "Rinda's take / ours", take, ">= 1.5"),
        (0, f"Rinda's write / ours of {ROUND} in one message", write_all, ">= 25"),
        (1, f"Rinda's take / ours of {ROUND} in one message", take_all, ">= 25"),
    ):
        if theirs:
            figure = f"{_shown(theirs[index])}, {_shown(mine)}"
            yield f"{where}: {what}", figure, f"{theirs[index] / mine:.1f}", aim
        else:
            yield f"{where}: {what}", "missing: no Ruby with Rinda", "", aim


def _alternately(*actions: Callable[[int], object]) -> list[float]:
    """Seconds for one of each: the median of its rounds. They take turns, so that other load slows all of them."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(ROUNDS):
        for action, samples in zip(actions, times, strict=True):
            start = time.perf_counter()
            for n in range(ROUND):
                action(n)
            samples.append((time.perf_counter() - start) / ROUND)
    return [statistics.median(samples) for samples in times]


@contextlib.contextmanager
def _raw_trip(port: str) -> Iterator[Callable[[int], object]]:
    with socket.create_connection((HOST, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def there_and_back(n: int) -> None:
            sock.sendall(b"x" * 100)
            sock.recv(4096)

        yield there_and_back


def _pyro(stack: contextlib.ExitStack) -> Any:
    """A proxy of Pyro5's; None where it is not installed."""
    try:
        from Pyro5.api import Proxy
    except ImportError:
        return None
    return stack.enter_context(Proxy(stack.enter_context(_child(sys.executable, "-c", PYRO))))


def _has_rinda() -> bool:
    return bool(shutil.which("ruby")) and not subprocess.run(["ruby", "-rrinda/tuplespace", "-e", ""]).returncode


def _rinda(uri: str) -> tuple[float, float]:
    """Seconds for a write and a take of Ruby's Rinda over DRb."""
    done = subprocess.run(["ruby", "-e", RINDA_CLIENT, uri], capture_output=True, text=True, timeout=60, check=True)
    write, take = (float(word) for word in done.stdout.split())
    return write, take


@contextlib.contextmanager
def _child(*command: str) -> Iterator[str]:
    """A server in a process of its own, and the line that says where it is."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

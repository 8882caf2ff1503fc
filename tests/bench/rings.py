"""Rings: a remote write and take against one raw TCP round trip, Pyro5 by itself, and Ruby's Rinda over DRb."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from Pyro5.api import Proxy as PyroProxy

from discovery.remote import Client, connect
from discovery.rings import RingFinger

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
best = [1e9, 1e9]
{ROUNDS}.times do
  start = now.call
  {ROUND}.times {{ |n| space.write(["job", n, "text"]) }}
  half = now.call
  {ROUND}.times {{ |n| space.take(["job", n, nil]) }}
  best = best.zip([half - start, now.call - half]).map(&:min)
end
puts best.map {{ |seconds| seconds / {ROUND} }}.join(" ")
"""


def rows() -> Iterator[tuple[str, str, str, str]]:
    """What was measured, the figure, its ratio, and what it should be."""
    with contextlib.ExitStack() as stack:

        def child(code: str) -> str:
            return stack.enter_context(_child(sys.executable, "-c", code))

        ours, pyro = connect(child(CALLS)), stack.enter_context(PyroProxy(child(PYRO)))
        client = stack.enter_context(Client())
        ring = RingFinger([HOST], int(child(RING)), client=client).lookup_ring_any()
        raw, call, alone, write, take, batch = _alternately(
            stack.enter_context(_raw_trip(child(ECHO))),
            lambda n: ours.echo(("job", n, "text")),
            lambda n: pyro.echo(("job", n, "text")),
            lambda n: ring.write(("job", n, "text")),
            lambda n: ring.take(("job", n, None)),
            lambda n: None if n else ring.write_all([("batch", n, "text")] * ROUND),
        )
    ruby = _rinda()
    yield "raw TCP round trip", _shown(raw), "1", ""
    yield "call by reference", _shown(call), f"{call / raw:.1f} raw, {call / alone:.2f} Pyro5 alone", "≤ 0.7 Pyro5"
    for name, mine, theirs in (("remote write", write, ruby and ruby[0]), ("remote take", take, ruby and ruby[1])):
        against = f", Ruby takes {theirs / mine:.1f} as long ({_shown(theirs)})" if theirs else ", no Ruby here"
        yield name, _shown(mine), f"{mine / raw:.1f} raw{against}", "≥ 1.5 Ruby"
    yield f"remote write, {ROUND} in one", _shown(batch), f"{write / batch:.1f} times as many as singly", "more"


def _alternately(*actions: Callable[[int], object]) -> list[float]:
    """Seconds for one of each: the best of its rounds. They take turns, so that what else the machine does hits all."""
    best = [float("inf")] * len(actions)
    for _ in range(ROUNDS):
        for index, action in enumerate(actions):
            start = time.perf_counter()
            for n in range(ROUND):
                action(n)
            best[index] = min(best[index], (time.perf_counter() - start) / ROUND)
    return best


@contextlib.contextmanager
def _raw_trip(port: str) -> Iterator[Callable[[int], object]]:
    with socket.create_connection((HOST, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def there_and_back(n: int) -> None:
            sock.sendall(b"x" * 100)
            sock.recv(4096)

        yield there_and_back


def _rinda() -> tuple[float, float] | None:
    """Seconds for a write and a take of Ruby's Rinda over DRb; None where there is no Ruby, or no Rinda in it."""
    if shutil.which("ruby") is None or subprocess.run(["ruby", "-rrinda/tuplespace", "-e", ""], check=False).returncode:
        return None
    with _child("ruby", "-e", RINDA) as uri:
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
    return f"{seconds * 1e6:.0f} µs"


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

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
from discovery.ring import RingFinger

ROUNDS, BATCH = 500, 1000
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
from discovery.ring import RingServer
print(RingServer(port=0, host="{HOST}").start().port, flush=True)
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
5.times do
  start = now.call
  {ROUNDS // 5}.times {{ |n| space.write(["job", n, "text"]) }}
  half = now.call
  {ROUNDS // 5}.times {{ |n| space.take(["job", n, nil]) }}
  best = best.zip([half - start, now.call - half]).map(&:min)
end
puts best.map {{ |seconds| seconds / {ROUNDS // 5} }}.join(" ")
"""


def rows() -> Iterator[tuple[str, str, str, str]]:
    """What was measured, the figure, its ratio, and what it should be."""
    raw = _raw()
    yield "raw TCP round trip", _shown(raw), "1", ""
    with _child(sys.executable, "-c", CALLS) as address:
        ours = connect(address)
        call = _each(lambda n: ours.echo(("job", n, "text")))
    with _child(sys.executable, "-c", PYRO) as address, PyroProxy(address) as pyro:
        alone = _each(lambda n: pyro.echo(("job", n, "text")))
    yield "call by reference", _shown(call), f"{call / raw:.1f} raw, {call / alone:.2f} Pyro5 alone", "≤ 1.15 Pyro5"
    ruby = _rinda()
    raw = min(raw, _raw())  # the machine has other things to do
    with _child(sys.executable, "-c", RING) as port, Client() as client:
        ring = RingFinger([HOST], int(port), client=client).lookup_ring_any()
        write = _each(lambda n: ring.write(("job", n, "text")))
        take = _each(lambda n: ring.take(("job", n, None)))
        batches = []
        for _ in range(5):
            start = time.perf_counter()
            ring.write_all([("batch", n, "text") for n in range(BATCH)])
            batches.append((time.perf_counter() - start) / BATCH)
    for name, mine, theirs in (("remote write", write, ruby and ruby[0]), ("remote take", take, ruby and ruby[1])):
        against = f", Ruby takes {theirs / mine:.1f} as long ({_shown(theirs)})" if theirs else ", no Ruby here"
        yield name, _shown(mine), f"{mine / raw:.1f} raw{against}", "≥ 1.5 Ruby"
    batch = min(batches)
    yield f"remote write, {BATCH} in one", _shown(batch), f"{write / batch:.1f} times as many as singly", "more"


def _each(action: Callable[[int], object]) -> float:
    """Seconds for one, the best of five rounds."""
    for n in range(-50, 0):
        action(n)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for n in range(ROUNDS // 5):
            action(n)
        times.append((time.perf_counter() - start) / (ROUNDS // 5))
    return min(times)


def _raw() -> float:
    with _child(sys.executable, "-c", ECHO) as port, socket.create_connection((HOST, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def there_and_back(n: int) -> None:
            sock.sendall(b"x" * 100)
            sock.recv(4096)

        return _each(there_and_back)


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

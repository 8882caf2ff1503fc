"""Workers that hear each other: many on one machine, and one listener on a network of a thousand machines."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from election.clock import SystemClock
from tests.bench.election import Row, memcached

ROOT = Path(__file__).parents[2]
SIZES = (10, 50, 200)
MACHINES, SERVICES = 1000, 10
TTL = 10.0
SETTLE, MEASURE = 20.0, 20.0
"""Seconds until the workers know each other, and for which their CPU is then measured."""
HANDOVERS, PAUSE = 60, 1.5
"""How often one hands over, and the seconds between, so that the announcements of one do not slow the next."""
LISTENER = """
import sys, time
import discovery.beacon.engine
from discovery import Beacon
discovery.beacon.engine._BUFFER = 212_992  # the most that an ordinary Linux gives, so this machine is no better
heard = set()
with Beacon(["127.0.0.1"]) as beacon:
    beacon.browse("service", lambda change, sighting: heard.add(sighting.name))
    time.sleep(2)
    soon = len(heard)
    time.sleep(5)
    begun, cpu = time.monotonic(), time.process_time()
    time.sleep(float(sys.argv[1]))
    print(soon, (time.process_time() - cpu) / (time.monotonic() - begun))
"""


class Figures(NamedTuple):
    """What a fleet of workers does: seconds, shares of a core, and connections to memcached."""

    first: float
    cpu: float
    median: float
    p99: float
    connections: int


def fleet(size: int, announce: bool = True, settle: float = SETTLE, handovers: int = HANDOVERS) -> Figures:
    """Start so many workers, and measure."""
    with memcached() as port:
        options = [str(size), f"memcached://127.0.0.1:{port}", str(TTL), "announce" if announce else "silent"]
        command = [sys.executable, "-m", "tests.bench._fleet", *options]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            pids: list[int] = []
            begun: list[float] = []
            elected = _elected(process.stdout, pids, begun)
            leader, at = next(elected)
            first = at - begun[0]
            time.sleep(settle)
            started, before = time.monotonic(), sum(map(_cpu, pids))
            time.sleep(MEASURE)
            cpu = (sum(map(_cpu, pids)) - before) / (time.monotonic() - started) / size
            gaps = []
            for _ in range(handovers):
                asked = SystemClock().now()
                os.kill(leader, signal.SIGUSR1)
                leader, at = next(elected)
                gaps.append(at - asked)
                time.sleep(PAUSE)
            connections = int(_stats(port)["total_connections"])
            process.stdin.close()
            for _ in elected:
                pass
    assert len(pids) == size
    return Figures(first, cpu, _percentile(gaps, 0.5), _percentile(gaps, 0.99), connections)


def _elected(lines: Iterator[str], pids: list[int], begun: list[float]) -> Iterator[tuple[int, float]]:
    """Each that leads, and since when; those that are started are added to `pids`, and the time to `begun`."""
    for line in lines:
        what, pid, moment = line.split()
        if what == "started":
            pids.append(int(pid))
            begun.append(float(moment))
        else:
            yield int(pid), float(moment)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _percentile(samples: list[float], part: float) -> float:
    """The smallest sample that is no less than this part of all."""
    return sorted(samples)[math.ceil(part * len(samples)) - 1] if samples else math.nan


def _stats(port: int) -> dict[str, str]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"stats\r\n")
        lines = iter(connection.makefile("rb").readline, b"END\r\n")
        return {key: value for _, key, value in (line.decode().split(maxsplit=2) for line in lines)}


def newcomer(machines: int, services: int) -> tuple[float, float]:
    """The share of a crowd that a newcomer hears within 2 s, and the share of a core that listening to it takes."""
    crowd = [sys.executable, "-m", "tests.bench._crowd", str(machines), str(services)]
    with subprocess.Popen(crowd, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sending:
        assert sending.stdout is not None
        try:
            sending.stdout.readline()
            listener = [sys.executable, "-c", LISTENER, str(3 * MEASURE)]
            soon, share = subprocess.check_output(listener, text=True, cwd=ROOT).split()
        finally:
            sending.kill()
    return int(soon) / (machines * services), float(share)


def rows() -> Iterator[Row]:
    """All rows of the table."""
    for size in SIZES:
        silent, ours = fleet(size, announce=False, settle=2.0, handovers=0), fleet(size)
        what = f"{size} announcing workers"
        yield f"{what}: first election / lease", f"{ours.first:.1f} s", f"{ours.first / TTL:.2f}", "<= 1.1"
        share = f"{ours.cpu * 100:.2f} %, {ours.cpu / silent.cpu:.1f} x silent ones"
        yield f"{what}: CPU of each / 0.4 % of a core", share, f"{ours.cpu / 0.004:.2f}", "<= 1"
        both = f"{ours.median * 1e3:.0f} ms, p99 {ours.p99 * 1e3:.0f} ms"
        yield f"{what}: handover, p99 / 50 ms", both, f"{ours.p99 / 0.05:.2f}", "< 1"
        yield (
            f"{what}: connections to memcached / one each",
            str(ours.connections),
            f"{ours.connections / size:.2f}",
            "",
        )
    soon, cost = newcomer(MACHINES, SERVICES)
    crowd = f"{MACHINES:,} beacons of {SERVICES} services"
    yield f"{crowd}: a newcomer hears within 2 s", f"{soon * 100:.1f} %", f"{soon:.3f}", ">= 0.99"
    yield f"{crowd}: CPU of a listener / 3 % of a core", f"{cost * 100:.2f} %", f"{cost / 0.03:.2f}", "<= 1"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        if sys.argv[1:]:  # one size alone
            print(fleet(int(sys.argv[1]), *(word == "announce" for word in sys.argv[2:])))
        else:
            for row in rows():
                print("  ".join(row))

"""A store on hosts of its own, a worker on each of three others, and what their diary says."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.hosts.kinds import Kind
from tests.hosts.network import Network
from tests.hosts.report import DRIFT, TTL
from tests.integration.harness import ROOT
from tests.integration.worker import now
from tests.waiting import until

GROUP = "pork"
RECENT = 0.15
"""Seconds since a claim during which its maker is taken for the leader; claims are made every 20 ms."""


class Cluster:
    """The hosts with their processes. Leaving it stops the workers politely; `left` then names what still runs."""

    def __init__(self, folder: Path, rng: random.Random, kind: Kind, **options: Any) -> None:
        self.rng, self.kind = rng, kind
        # It has random numbers of its own, one for each frame. So the same seed always gives the same faults.
        self.network = Network(random.Random(rng.random()))
        hosts = [self.network.add(f"store{number or ''}") for number in range(kind.servers)]
        self.stores = [host.name for host in hosts]
        self.workers = [self.network.add(f"host{number}").name for number in (1, 2, 3)]
        ways = [self.network.connect(name) for name in self.stores]
        self.network.start()
        self.servers: list[Any] = []
        for host, outside in zip(hosts, ways, strict=True):
            (place := folder / host.name).mkdir()
            self.servers.append(kind.make(host.within, host.address, outside, place))
        self.diary = folder / "diary"
        self.diary.touch()
        self.events: list[dict[str, Any]] = []
        self.left: list[str] = []
        self._file = self.diary.open("rb")
        self._rest = b""
        self._last: dict[str, Any] = {"t": 0.0, "who": "host1/0"}
        addresses = [f"{host.address}:{server.port}" for host, server in zip(hosts, self.servers, strict=True)]
        url = kind.url.format(",".join(addresses), folder=folder)
        self._options = {"store": url, "group": GROUP, "lease_ttl": TTL, "grace": 2.0} | options
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    def __enter__(self) -> "Cluster":
        for server in self.servers:
            server.start()
        self.start(*self.workers)
        until(lambda: self.leader(), "a first leader")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for server in self.servers:
            server.stop()
        self.read()
        self._file.close()
        others = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        commands = (Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in others if pid != os.getpid())
        self.left = list(filter(None, commands))  # what has ended, and is not collected yet, has no command any more

    def start(self, *hosts: str) -> None:
        """Start a worker on each of the hosts that have none, and wait until all of them race."""
        begun = []
        for host in hosts:
            if self.alive(host):
                continue
            self._started += 1
            begun.append(name := f"{host}/{self._started}")
            place = self.network.hosts[host]
            worker = [sys.executable, "-m", "tests.hosts.worker", str(self.diary), name, json.dumps(self._options)]
            environment = os.environ | {"POLITICS_INTERFACES": place.address}
            self._processes[host] = subprocess.Popen([*place.within, *worker], cwd=ROOT, env=environment)
        until(lambda: all(self.seen("log", who=name) for name in begun), f"{begun} to race")

    def alive(self, host: str) -> bool:
        """Whether a worker runs there."""
        return host in self._processes and self._processes[host].poll() is None

    def signal(self, host: str, number: signal.Signals) -> "subprocess.Popen[bytes]":
        """Send the worker there a signal, if it runs; returns its process."""
        process = self._processes[host]
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()
        return process

    def end(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait until that worker has ended, as it was told to."""
        process.send_signal(signal.SIGCONT)
        process.wait(10)

    def leader(self) -> str | None:
        """The host whose worker claims to lead now."""
        self.read()
        return self._last["who"].split("/")[0] if now() - self._last["t"] < RECENT else None

    def the_leader(self) -> str:
        """The host that leads or led last."""
        return self.leader() or str(self._last["who"].split("/")[0])

    def a_standby(self) -> str:
        """One of the others."""
        leader = self.the_leader()
        return self.rng.choice([host for host in self.workers if host != leader])

    def some_servers(self, number: int) -> list[Any]:
        """So many of the store's servers."""
        return self.rng.sample(self.servers, number)

    @property
    def fence(self) -> int:
        """Of the leader, or the one that led last."""
        return int(self._last["fence"])

    def led_since(self, t: float) -> bool:
        """Whether somebody leads with a lease that was written after that time."""
        return self.leader() is not None and self._last["until"] > t + TTL * (1 - DRIFT)

    def seen(self, event: str, **fields: Any) -> bool:
        """Whether the diary has such an event."""
        self.read()
        wanted = {"event": event} | fields
        return any(wanted.items() <= entry.items() for entry in self.events)

    def read(self) -> None:
        """Read what is new in the diary."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for event in map(json.loads, lines):
            self.events.append(event)
            if "until" in event and event["t"] > self._last["t"]:
                self._last = event

    @contextlib.contextmanager
    def worse(self, some: Sequence[str], others: Sequence[str], back: bool = True, **how: Any) -> Iterator[None]:
        """Make the wires from some hosts to others (and back) worse meanwhile."""
        pairs = list(itertools.product(some, others))
        pairs += [(other, one) for one, other in pairs if back]
        for pair in pairs:
            vars(self.network.wire(*pair)).update(how)
        try:
            yield
        finally:
            for pair in pairs:
                vars(self.network.wire(*pair)).update({"cut": False, "loss": 0.0, "delay": 0.0})

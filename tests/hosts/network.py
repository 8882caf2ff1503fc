"""Several hosts on one machine: network namespaces, and a switch between them that cuts, loses and delays on command.

All of it lives in namespaces of one process, `python -m something` behind `INSIDE`: when that process ends, however it
ends, the kernel ends every process that it started and takes the hosts, their wires and their mounts away. No name of
a namespace is visible outside, so that any number of these worlds can exist at a time. An ordinary user can do it too,
where the system lets users have namespaces.
"""

import contextlib
import heapq
import itertools
import os
import random
import selectors
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from tests.processes import ROOT

INSIDE = ["unshare", *([] if os.getuid() == 0 else ["--user", "--map-root-user"]), "--net", "--mount", "--pid"]
INSIDE += ["--mount-proc", "--fork", "--kill-child"]
_PRIVATE = "mount -t tmpfs none /run && mkdir /run/netns"
_PROBE = f"{_PRIVATE} && ip netns add probe && ip link add name a type veth peer name b netns probe"
ADVICE = (
    "run the tests as root, or let users have namespaces (sysctl -w user.max_user_namespaces=10000, and where AppArmor "
    "forbids it kernel.apparmor_restrict_unprivileged_userns=0), on Linux with iproute2 and util-linux"
)

# From linux/if_packet.h. With the first, a frame travels with what the kernel has not yet done to it (its checksum, its
# division into packets); with the second, a socket does not hear itself.
_SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING = 263, 15, 23
_HEADER_BYTES = 10
_EVERY_PROTOCOL = 3


def require() -> None:
    """Do nothing where hosts can be made.

    Raises:
        AssertionError: they cannot; the message says what to do.
    """
    try:
        probe = subprocess.run([*INSIDE, "sh", "-c", _PROBE], capture_output=True, text=True)
        trouble = probe.stderr.strip().splitlines()[-1:] if probe.returncode else []
    except OSError as exc:
        trouble = [str(exc)]
    assert not trouble, f"this system does not let us make several hosts ({trouble[0]}): {ADVICE}"


def inside(module: str, *arguments: str) -> str:
    """Run a module of ours in a world of its own, and return what it prints.

    Raises:
        AssertionError: it failed, or this system does not let us make hosts.
    """
    require()
    command = [*INSIDE, sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A namespace with one wire to the switch. `within` goes before a command that is to run there."""

    name: str
    address: str
    port: socket.socket

    @property
    def within(self) -> list[str]:
        """The beginning of a command that runs there, under the same process id."""
        return ["ip", "netns", "exec", self.name]


@dataclass
class Wire:
    """What happens to frames on their way from one host to another; `delay` is in seconds, on average."""

    cut: bool = False
    loss: float = 0.0
    delay: float = 0.0


class Network:
    """The switch, and the hosts that are plugged into it. Use it behind `INSIDE` only."""

    def __init__(self, rng: random.Random) -> None:
        self.hosts: dict[str, Host] = {}
        self._rng = rng
        self._wires: dict[tuple[str, str], Wire] = {}
        self._ports = selectors.DefaultSelector()
        assert os.getpid() == 1, "this is the machine's own network: start it behind INSIDE"
        subprocess.run(["sh", "-c", _PRIVATE], check=True)

    def add(self, name: str) -> Host:
        """A new host, 10.77.0.1 the first. All are added before `start`."""
        number = len(self.hosts) + 1
        _ip(f"netns add {name}")
        _ip(f"link add name {name} type veth peer name eth0 address {_mac(number).hex(':')} netns {name}")
        _ip(f"-n {name} address add 10.77.0.{number}/24 dev eth0")
        for link in (f"-n {name} link set lo", f"-n {name} link set eth0", f"link set {name}"):
            _ip(f"{link} up")
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        for option in (_VNET_HEADER, _IGNORE_OUTGOING):
            port.setsockopt(_SOL_PACKET, option, 1)
        port.bind((name, _EVERY_PROTOCOL))
        self._ports.register(port, selectors.EVENT_READ, name)
        for other in self.hosts:
            self._wires |= {(name, other): Wire(), (other, name): Wire()}
        self.hosts[name] = Host(name, f"10.77.0.{number}", port)
        return self.hosts[name]

    def connect(self, name: str) -> str:
        """A wire of our own to that host, past the switch; returns the host's address on it."""
        number = list(self.hosts).index(name) + 1
        _ip(f"link add name own{number} type veth peer name own netns {name}")
        _ip(f"-n {name} address add 10.78.{number}.1/24 dev own")
        _ip(f"address add 10.78.{number}.2/24 dev own{number}")
        for link in ("link set lo", f"link set own{number}", f"-n {name} link set own"):
            _ip(f"{link} up")
        return f"10.78.{number}.1"

    def wire(self, source: str, target: str) -> Wire:
        """The wire in that direction, to be cut or made worse."""
        return self._wires[source, target]

    def start(self) -> None:
        """Let frames pass, until this process ends."""
        threading.Thread(target=self._run, name="switch", daemon=True).start()

    def _run(self) -> None:
        late: list[tuple[float, int, socket.socket, bytes]] = []
        order = itertools.count()
        macs = {_mac(number): name for number, name in enumerate(self.hosts, 1)}
        while True:
            for key, _ in self._ports.select(max(0.0, late[0][0] - time.monotonic()) if late else None):
                frame = self.hosts[key.data].port.recv(1 << 17)
                known = macs.get(frame[_HEADER_BYTES : _HEADER_BYTES + 6])
                for target in [known] if known else macs.values():
                    wire = self._wires.get((key.data, target))
                    if wire is None or wire.cut or self._rng.random() < wire.loss:
                        continue
                    at = time.monotonic() + wire.delay * self._rng.uniform(0.5, 1.5)
                    heapq.heappush(late, (at, next(order), self.hosts[target].port, frame))
            while late and late[0][0] <= time.monotonic():
                _, _, port, frame = heapq.heappop(late)
                with contextlib.suppress(OSError):  # a buffer that is full: a switch would drop the frame too
                    port.send(frame)


def _mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)

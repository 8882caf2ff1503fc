"""The kinds of stores that the hosts can use: how their servers are started on a host, and what they stand."""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.memcached import Memcached
from tests.processes import free_port
from tests.waiting import DEADLINE, SOON, until


class Server(Protocol):
    """A server on one of the hosts."""

    port: int

    def start(self) -> object:
        """Start it, and wait until it takes connections."""

    def stop(self) -> None:
        """Kill it."""

    def restart(self) -> None:
        """Kill it, and start it again on the same port with what it has kept."""

    def freeze(self) -> None:
        """Let it be silent, with open connections."""

    def thaw(self) -> None:
        """Let it go on."""


@dataclass(frozen=True)
class Kind:
    """A kind of store.

    Args:
        server: what one of its servers is called.
        url: what workers are given; `{}` stands for the addresses of all servers, `{folder}` for the run's folder.
        make: makes a server: the beginning of a command that runs on its host, its address there, its address on our
            own wire to it, a folder of its own.
        servers: on how many hosts one runs.
        forgets: a server that was killed has lost its cells. It can also be flushed, and made to evict (memcached).
        quick: it is back before a lease has ended, so that a leader survives its restart.
    """

    server: str
    url: str
    make: Callable[[Sequence[str], str, str, Path], Server]
    servers: int = 1
    forgets: bool = False
    quick: bool = False

    @property
    def several(self) -> bool:
        """Whether it stands the loss of one of its servers."""
        return self.servers > 1


def memcached(within: Sequence[str], address: str, outside: str, folder: Path) -> Memcached:
    """One that evicts the oldest item first, however often it is read."""
    small = ["-m", "2", "-o", "no_lru_maintainer,no_lru_crawler", "-u", "root"]
    both = ["-l", address] if address != outside else []
    return Memcached(*small, *both, host=outside, within=within)


class Program:
    """A server and all the processes that it starts. `prepare` are commands that are run before it, once."""

    def __init__(self, within: Sequence[str], outside: str, port: int, command: list[str], *prepare: list[str]) -> None:
        self.port = port
        self._outside, self._command, self._prepare = outside, [*within, *command], prepare
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        while self._prepare:
            subprocess.run(self._prepare[0], check=True, stdout=subprocess.DEVNULL)
            self._prepare = self._prepare[1:]
        until(self._runs, f"an answer of {' '.join(self._command)}")

    def _runs(self) -> bool:
        # One that finds traces of a process that was killed may have to be started again.
        if self._process is None or self._process.poll() is not None:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(self._command, cwd="/", **quiet)
        with contextlib.suppress(OSError):
            socket.create_connection((self._outside, self.port), timeout=SOON).close()
            return True
        return False

    def stop(self) -> None:
        """Kill all of it, as a power cut does."""
        self._signal(signal.SIGKILL)
        if self._process:
            self._process.wait(DEADLINE)
        self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop all of its processes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in family(self._process.pid) if self._process else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def family(pid: int) -> list[int]:
    """Return this process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(file.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def program(name: str, *folders: str | Path) -> str:
    """Return the path of a program.

    Raises:
        AssertionError: it is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    assert found, f"{name} is not installed: sh tests/install_tools.sh"
    return found


def redis(within: Sequence[str], address: str, outside: str, folder: Path) -> Program:
    """One that writes each command to its disk before it answers."""
    port = free_port()
    kept = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    open_to_all = ["--bind", *{address, outside}, "--protected-mode", "no"]
    return Program(within, outside, port, [program("redis-server"), "--port", str(port), *open_to_all, *kept])


def postgresql(within: Sequence[str], address: str, outside: str, folder: Path) -> Program:
    """One that trusts everybody; it does not run as root."""
    port, data = free_port(), str(folder / "data")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    if user:
        for each in (folder.parent, folder):
            each.chmod(0o711)
        shutil.chown(folder, "postgres")
    init = [*user, program("initdb", *binaries), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    trust = ["sh", "-c", f"echo 'host all all all trust' >> {data}/pg_hba.conf"]
    settings = [
        f"port={port}",
        f"listen_addresses={','.join({address, outside})}",
        f"unix_socket_directories={folder}",
        "shared_buffers=16MB",
    ]
    command = [*user, program("postgres", *binaries), "-D", data]
    command += [part for each in settings for part in ("-c", each)]
    return Program(within, outside, port, command, init, trust)


def etcd(within: Sequence[str], address: str, outside: str, folder: Path) -> Program:
    """One member."""
    port = free_port()
    client = ",".join({f"http://{address}:{port}", f"http://{outside}:{port}"})
    peer = f"http://127.0.0.1:{free_port()}"
    command = [program("etcd"), "--name", "one", "--data-dir", str(folder / "data"), "--log-level", "error"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", f"http://{address}:{port}"]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}"]
    return Program(within, outside, port, [*command, "--heartbeat-interval", "10", "--election-timeout", "100"])


def zookeeper(within: Sequence[str], address: str, outside: str, folder: Path) -> Program:
    """One with a small heap."""
    port, settings = free_port(), folder / "zoo.cfg"
    lines = {"tickTime": 200, "dataDir": folder / "data", "clientPort": port, "admin.enableServer": "false"}
    settings.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    start = program("zkServer.sh", "/usr/share/zookeeper/bin")
    environment = ["env", f"ZOO_LOG_DIR={folder}", "JVMFLAGS=-Xmx64m -XX:TieredStopAtLevel=1"]
    return Program(within, outside, port, [*environment, start, "start-foreground", str(settings)])


def no_server(within: Sequence[str], address: str, outside: str, folder: Path) -> Server:
    """None is started."""
    raise AssertionError("this store has no server")


_memcacheds = functools.partial(Kind, "memcached", make=memcached, forgets=True, quick=True)
KINDS = {
    "memcached": _memcacheds(url="memcached://{}"),
    "quorum": _memcacheds(url="quorum+memcached://{}", servers=3),
    "sqlite": Kind("file", "sqlite:///{folder}/store.db", no_server, servers=0),
    "redis": Kind("redis", "redis://{}/0", redis, quick=True),
    "postgresql": Kind("postgresql", "postgresql://postgres@{}/postgres", postgresql),
    "etcd": Kind("etcd", "etcd://{}", etcd),
    "zookeeper": Kind("zookeeper", "zookeeper://{}", zookeeper),
}
"""What `make chaos STORE=…` may name."""

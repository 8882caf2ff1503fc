"""An etcd of the test's own, on a free port: one member, whose data are on a RAM disk where there is one."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.processes import free_port
from tests.served import Served
from tests.waiting import DEADLINE, until


class Etcd(Served):
    """It keeps its data when it is killed.

    `options` go on the command line. A `cluster` names all members and where they hear each other, `name` is ours.
    """

    def __init__(self, *options: str, name: str = "one", peer: int = 0, cluster: str = "") -> None:
        program = shutil.which("etcd")
        assert program, "the tests need etcd: install it with your package manager (apt-get install etcd-server)"
        port, self.name = free_port(), name
        ram = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="etcd-", dir=ram)
        self.data = Path(self._folder.name, "data")
        self.peer_url = f"http://127.0.0.1:{peer or free_port()}"
        address = f"127.0.0.1:{port}"
        command = [
            program, "--name", name, "--data-dir", str(self.data), "--log-level", "error",
            "--listen-client-urls", f"http://{address}", "--advertise-client-urls", f"http://{address}",
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
            # It waits for one election timeout before it leads, also where it is alone.
            "--heartbeat-interval", "50" if cluster else "10", "--election-timeout", "500" if cluster else "100",
            "--initial-cluster", cluster or f"{name}={self.peer_url}", *options,
        ]  # fmt: skip
        super().__init__(port, command)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `open_register` wants."""
        return f"etcd://{self.address}"

    @property
    def other_url(self) -> str:
        """Another store in the same cluster."""
        return f"{self.url}/other"

    def answers(self) -> bool:
        """Whether it answers, and its cluster has a leader."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=0.5) as answer:
                return b"true" in answer.read()
        except (OSError, urllib.error.URLError):
            return False

    def control(self, *command: str) -> str:
        """Run `etcdctl`, and return what it prints."""
        program = shutil.which("etcdctl")
        assert program, "the tests need etcdctl: install it with your package manager (apt-get install etcd-client)"
        environment = {"ETCDCTL_API": "3", "PATH": os.environ["PATH"], "ETCDCTL_ENDPOINTS": self.address}
        done = subprocess.run([program, *command], env=environment, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leads(self) -> bool:
        """Whether it is its cluster's leader."""
        (said,) = json.loads(self.control("endpoint", "status", "-w", "json"))
        return bool(said["Status"]["leader"] == said["Status"]["header"]["member_id"])

    def save(self, path: Path) -> None:
        """Save a snapshot in a file."""
        self.control("snapshot", "save", str(path))

    def restore(self, path: Path) -> None:
        """Kill it, and start it again from a snapshot, with the same name, address and token of the cluster."""
        self.stop()
        shutil.rmtree(self.data)
        about = ["--name", self.name, "--initial-cluster", f"{self.name}={self.peer_url}"]
        where = ["--initial-advertise-peer-urls", self.peer_url, "--data-dir", str(self.data)]
        self.control("snapshot", "restore", str(path), *about, *where)
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()


@contextlib.contextmanager
def cluster(size: int) -> Iterator[list[Etcd]]:
    """Start that many members of one cluster, and end them afterwards."""
    peers = {f"member{number}": free_port() for number in range(size)}
    names = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in peers.items())
    members = [Etcd(name=name, peer=port, cluster=names) for name, port in peers.items()]
    try:
        for member in members:
            member.launch()
        for member in members:
            until(member.answers)
        yield members
    finally:
        for member in members:
            member.__exit__()

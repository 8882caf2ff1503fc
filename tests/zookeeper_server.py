"""A ZooKeeper of the test's own, on a free port: one server with a small heap, its data on a RAM disk."""

import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

from tests.processes import free_port
from tests.served import Served

HOMES = ("/usr/share/java", "/usr/share/zookeeper", "/opt/homebrew/opt/zookeeper/libexec/lib")


class ZooKeeper(Served):
    """It keeps its data when it is killed."""

    def __init__(self) -> None:
        java = shutil.which("java")
        assert java, "the tests need ZooKeeper: install it with your package manager (apt-get install zookeeper)"
        port = free_port()
        ram = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="zookeeper-", dir=ram)
        self.data = Path(self._folder.name, "data")
        self.data.mkdir()
        config = Path(self._folder.name, "zoo.cfg")
        lines = {
            "dataDir": self.data, "clientPort": port, "clientPortAddress": "127.0.0.1", "tickTime": 500,
            "admin.enableServer": "false", "4lw.commands.whitelist": "ruok,srvr", "maxClientCnxns": 0,
        }  # fmt: skip
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        command = [
            java, "-Xmx96m", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Dzookeeper.preAllocSize=64", "-cp", ":".join(f"{home}/*" for home in HOMES),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config),
        ]  # fmt: skip
        super().__init__(port, command)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `open_register` wants."""
        return f"zookeeper://{self.address}"

    @property
    def other_url(self) -> str:
        """Another store on the same server."""
        return f"{self.url}/other/one"

    def answers(self) -> bool:
        """Whether it serves."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
            connection.sendall(b"srvr")
            return b"Mode:" in connection.makefile("rb").read()
        return False

    def save(self, path: Path) -> None:
        """Copy all that it has on its disk."""
        shutil.copytree(self.data, path)

    def restore(self, path: Path) -> None:
        """Kill it, and start it again with what was saved."""
        self.stop()
        shutil.rmtree(self.data)
        shutil.copytree(path, self.data)
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

"""A memcached of the test's own, on a free port."""

import contextlib
import os
import shutil
import socket
from collections.abc import Sequence

from tests.processes import free_port
from tests.served import Served
from tests.waiting import SOON


class Memcached(Served):
    """It forgets everything when it is killed.

    `options` go on the command line: `-m`, `1`. `host` is the address it listens on, `within` goes before the command.
    """

    def __init__(self, *options: str, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        program = shutil.which("memcached")
        assert program, "the tests need memcached: install it with your package manager (apt-get install memcached)"
        port = free_port()
        as_root = ["-u", "nobody"] if os.getuid() == 0 else []
        self.host = host
        super().__init__(port, [*within, program, "-l", host, "-p", str(port), "-U", "0", *as_root, *options])

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """What `open_register` wants."""
        return f"memcached://{self.address}"

    def answers(self) -> bool:
        """Whether it says its version."""
        with contextlib.suppress(OSError):
            return self.ask("version").startswith("VERSION")
        return False

    def ask(self, command: str) -> str:
        """Send one command on a connection of its own and return the first line of the answer."""
        with socket.create_connection((self.host, self.port), timeout=SOON) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.makefile("rb").readline().decode().strip()

    def stats(self) -> dict[str, str]:
        """What `stats` says."""
        with socket.create_connection((self.host, self.port), timeout=SOON) as connection:
            connection.sendall(b"stats\r\n")
            lines = iter(connection.makefile("rb").readline, b"END\r\n")
            return {key: value for _, key, value in (line.decode().split(maxsplit=2) for line in lines)}

    def fill(self, until: str = "evictions", size: int = 1000) -> None:
        """Write items of `size` bytes until the counter `until` of `stats` has grown."""
        before, item = int(self.stats()[until]), b"0 0 %d noreply\r\n%b\r\n" % (size, b"x" * size)
        with socket.create_connection((self.host, self.port), timeout=SOON) as connection:
            for batch in range(200):
                items = (b"set fill:%d:%d:%d %b" % (size, batch, number, item) for number in range(1000))
                connection.sendall(b"".join(items) + b"version\r\n")
                while b"VERSION" not in connection.recv(1 << 20):
                    pass
                if int(self.stats()[until]) > before:
                    return
        raise AssertionError(f"{until} does not grow")

    def evict(self, key: str) -> None:
        """Write items of the size of this one until it is gone; only with `-o no_lru_maintainer,no_lru_crawler`."""
        with socket.create_connection((self.host, self.port), timeout=SOON) as connection:
            says = connection.makefile("rb")
            connection.sendall(b"mg %b v\r\n" % key.encode())
            if not (answer := says.readline()).startswith(b"VA"):
                return
            value = says.read(int(answer.split()[1]) + 2)[:-2]
            for batch in range(200):
                items = (
                    b"ms %b:%d:%d %d q\r\n%b\r\n" % (key.encode(), batch, n, len(value), value) for n in range(1000)
                )
                connection.sendall(b"".join(items) + b"mg %b\r\n" % key.encode())
                if says.readline() == b"EN\r\n":
                    return
        raise AssertionError(f"{key} stays")

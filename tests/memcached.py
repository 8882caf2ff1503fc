"""A memcached of the test's own, on a free port."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence

from tests.processes import free_port, suspend
from tests.waiting import DEADLINE, SOON, until


class Memcached:
    """Start it, stop it, kill it, start it again on the same port.

    `options` go on the command line: `-m`, `1`. `host` is the address it listens on, `within` goes before the command.
    """

    def __init__(self, *options: str, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        program = shutil.which("memcached")
        assert program, "the tests need memcached: install it with your package manager (apt-get install memcached)"
        self.port = free_port()
        as_root = ["-u", "nobody"] if os.getuid() == 0 else []
        self.host = host
        self._command = [*within, program, "-l", host, "-p", str(self.port), "-U", "0", *as_root, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """What `open_register` wants."""
        return f"memcached://{self.address}"

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def start(self) -> "Memcached":
        """Start it and wait until it answers."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        until(self._answers, f"an answer of {' '.join(self._command)}")
        return self

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, f"it ended at once: {' '.join(self._command)}"
        with contextlib.suppress(OSError):
            return self.ask("version").startswith("VERSION")
        return False

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it by its process id, if it runs, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(DEADLINE)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it be silent, with open connections, until `thaw`."""
        assert self._process is not None
        suspend(self._process)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

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

    def __enter__(self) -> "Memcached":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

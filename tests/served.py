"""A server of the test's own: one process on a port of 127.0.0.1."""

import signal
import subprocess
from typing import Self

from tests.processes import suspend
from tests.waiting import DEADLINE, until


class Served:
    """Start it, stop it, kill it, start it again on the same port. Subclasses say how, and whether it answers."""

    def __init__(self, port: int, command: list[str]) -> None:
        self.port, self._command = port, command
        self._process: subprocess.Popen[bytes] | None = None

    def answers(self) -> bool:
        """Whether it answers now."""
        raise NotImplementedError

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.launch()
        until(self._is_up, f"an answer of {' '.join(self._command)}")
        return self

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _is_up(self) -> bool:
        assert self._process is None or self._process.poll() is None, f"it ended at once: {' '.join(self._command)}"
        return self.answers()

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it by its process id, if it runs, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(DEADLINE)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port, with what it has kept."""
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

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

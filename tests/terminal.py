"""A terminal of a given size for tests: what a command draws there, and what is typed."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import DEADLINE, until


class Terminal:
    """One command on a terminal of its own, of which it is the first process of a session."""

    def __init__(self, *command: str, columns: int = 80, rows: int = 24, env: dict[str, str] | None = None) -> None:
        self.text, self._ours = "", 0
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.popen = subprocess.Popen(
            command,
            env=variables | {"TERM": "xterm"} | (env or {}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the terminal's last user has gone
            while data := os.read(self._ours, 65536):
                self.text += data.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """What was drawn, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text).replace("\r", "").splitlines()

    def see(self, phrase: str) -> None:
        """Wait until it is drawn."""
        until(lambda: phrase in self.text, f"{phrase!r} on the terminal, in the end {self.text!r}")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def wait(self) -> int:
        """Return the exit status, once all that it drew is here."""
        status = self.popen.wait(DEADLINE)
        self._listener.join(DEADLINE)
        return status

    def end(self) -> None:
        """Kill what is left, and hang up."""
        self.popen.kill()
        self.wait()
        os.close(self._ours)


@contextlib.contextmanager
def terminal(
    *command: str | Path, columns: int = 80, rows: int = 24, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """Run a command on a terminal of that size, killed at the end."""
    made = Terminal(*map(str, command), columns=columns, rows=rows, env=env)
    try:
        yield made
    finally:
        made.end()

"""A command in a process group of its own, which does not outlive the moment that it was given."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from politics.command import watchdog

CLEARING = {signal.SIGTERM: 1.0, signal.SIGKILL: 0.1}
"""Seconds that what the command left running may take to end, after each of these signals."""


class Job:
    """A running command and everything that it starts, as long as that stays in its process group.

    On a terminal it is a job as a shell's are: in the foreground if this process was, so that Ctrl-C goes to it; when
    Ctrl-Z stops it, this process stops as well, and continues it when it is continued itself.

    Used by the main thread; constructing it starts the command.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # Or else we would be stopped when we take the terminal back from the command.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        self._terminal = _open_terminal()
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._watchdog.stdin is not None
        self._line = self._watchdog.stdin.fileno()
        os.set_blocking(self._line, False)
        try:
            self.group = os.posix_spawnp(
                command[0],
                list(command),
                environment,
                setpgroup=0,
                setsigmask=mask,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores, and programs do not expect
            )
        except OSError:
            self._farewell()
            raise
        self._hand_terminal(os.getpgrp(), self.group)

    def until(self, moment: float) -> None:
        """Have the group killed at `moment` (seconds of the machine's clock), whatever becomes of this process."""
        try:
            os.write(self._line, watchdog.MESSAGE.pack(self.group, moment))
        except OSError:  # nobody is there any more who would see to it
            self.send(signal.SIGKILL)

    def send(self, number: int) -> bool:
        """Send the whole group a signal; False if nothing is left of it."""
        try:
            os.killpg(self.group, number)
        except OSError:
            return False
        return True

    def poll(self) -> int | None:
        """The command's exit status as a shell tells it (128 + n after signal n); None while it runs."""
        pid, status = os.waitpid(self.group, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            self._stopped(os.WSTOPSIG(status))
        elif pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        return None

    def clear(self) -> None:
        """After the command has ended: end what it left running in its group, and take the terminal back."""
        self._hand_terminal(self.group, os.getpgrp())
        for number, seconds in CLEARING.items():
            self.send(number)
            end = time.monotonic() + seconds
            while self.send(0) and time.monotonic() < end:
                threading.Event().wait(0.005)
        self._farewell()

    def _stopped(self, number: int) -> None:
        """Stop with the command, so that the shell has its turn, until the shell continues us."""
        if self._terminal is None:
            return
        # It may have asked for the terminal just before it was given it.
        early = number in (signal.SIGTTIN, signal.SIGTTOU) and self._owner() in (self.group, os.getpgrp())
        if not early and os.getsid(0) != os.getpid():  # or else there is no shell
            self._hand_terminal(self.group, os.getpgrp())
            os.killpg(os.getpgrp(), signal.SIGSTOP)
        self._hand_terminal(os.getpgrp(), self.group)
        self.send(signal.SIGCONT)

    def _owner(self) -> int:
        """The group in the foreground of the terminal; 0 if that was hung up."""
        try:
            return os.tcgetpgrp(self._terminal) if self._terminal is not None else 0
        except OSError:
            return 0

    def _hand_terminal(self, owner: int, heir: int) -> None:
        if self._terminal is not None and self._owner() == owner:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._terminal, heir)

    def _farewell(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._line, watchdog.MESSAGE.pack(0, 0.0))
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()
        if self._terminal is not None:
            os.close(self._terminal)


def _open_terminal() -> int | None:
    """Our controlling terminal, if there is one."""
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None

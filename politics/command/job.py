"""A command in a process group of its own, which ends at a given moment at the latest."""

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
"""After the command: the signals for what it left running, and how many seconds to wait after each."""


class Job:
    """A running command and everything that it starts, as long as that stays in its process group.

    On a terminal it behaves like a job of a shell. It is in the foreground if this process was, so that Ctrl-C goes to
    it. When Ctrl-Z stops it, this process stops too, and continues it when it is itself continued.

    Constructing it starts the command. Use it on the main thread, and call `clear` at the end.

    The watchdog cannot be told of the group before it exists. Only if SIGKILL or SIGSTOP hits this process between the
    spawn and the line after it, some microseconds, the command is not watched.

    Args:
        command: the command and its arguments.
        environment: the variables of the command.
        until: when it is killed, as for `until`. The watchdog is told before anything else can happen.

    Raises:
        TimeoutError: `until` has passed, and the command was not started.
        OSError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], until: float) -> None:
        # SIGTTOU: otherwise we would be stopped when we take the terminal back from the command. SIGTSTP: otherwise a
        # Ctrl-Z could stop the watchdog before it has left our group and begun, and we would wait for it for ever.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU, signal.SIGTSTP})
        self._terminal = _open_terminal()
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._watchdog.stdin is not None
        self._line = self._watchdog.stdin.fileno()
        os.set_blocking(self._line, False)
        # A Ctrl-Z would stop us now, because the command is not in the foreground yet. It must not, until the watchdog
        # knows of the command.
        stops: list[int] = []
        stopping = signal.signal(signal.SIGTSTP, lambda number, _: stops.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP} - self._mask)
        try:
            if time.clock_gettime(watchdog.CLOCK) >= until:  # this process was stopped, or the machine
                raise TimeoutError("too late to start a command")
            self.group = os.posix_spawnp(
                command[0],
                list(command),
                environment,
                setpgroup=0,
                setsigmask=self._mask,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores, and programs do not expect
            )
        except OSError:
            self._end()
            raise
        else:
            self.until(until)
            self._hand_terminal(os.getpgrp(), self.group)
        finally:
            signal.signal(signal.SIGTSTP, stopping)
        self._early_stop = bool(stops)
        if stops:
            self.send(signal.SIGTSTP)

    def until(self, moment: float) -> None:
        """Have the group killed at `moment`, in seconds on the system's clock, even if this process is gone by then."""
        try:
            os.write(self._line, watchdog.MESSAGE.pack(self.group, moment))
        except OSError:  # the watchdog is gone
            self.send(signal.SIGKILL)

    def send(self, number: int) -> bool:
        """Send a signal to the whole group. Return False if nothing is left of it."""
        try:
            os.killpg(self.group, number)
        except OSError:
            return False
        return True

    def poll(self) -> int | None:
        """Return the exit status as a shell does (128 + n after signal n), or None while the command runs."""
        pid, status = os.waitpid(self.group, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            self._stopped(os.WSTOPSIG(status))
        elif pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        return None

    def clear(self) -> None:
        """Take the terminal back, and end what the ended command left running in its group."""
        self._hand_terminal(self.group, os.getpgrp())
        for number, seconds in CLEARING.items():
            self.send(number)
            end = time.monotonic() + seconds
            while self.send(0) and time.monotonic() < end:
                threading.Event().wait(0.005)
        self._end()

    def _stopped(self, number: int) -> None:
        """Stop this process too, so that the shell gets the terminal, until the shell continues us."""
        if self._terminal is None:
            return
        # The command may have used the terminal just before it got it.
        early = (
            not self._early_stop
            and number in (signal.SIGTTIN, signal.SIGTTOU)
            and self._owner() in (self.group, os.getpgrp())
        )
        self._early_stop = False
        if not early and os.getsid(0) != os.getpid():  # otherwise there is no shell
            self._hand_terminal(self.group, os.getpgrp())
            os.killpg(os.getpgrp(), signal.SIGSTOP)
        self._hand_terminal(os.getpgrp(), self.group)
        self.send(signal.SIGCONT)

    def _owner(self) -> int:
        """Return the group in the foreground of the terminal; 0 if it was hung up."""
        try:
            return os.tcgetpgrp(self._terminal) if self._terminal is not None else 0
        except OSError:
            return 0

    def _hand_terminal(self, owner: int, heir: int) -> None:
        """Give the terminal to the group `heir` if the group `owner` has it."""
        if self._terminal is not None and self._owner() == owner:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._terminal, heir)

    def _end(self) -> None:
        """End the watchdog, and leave this process as it was before."""
        with contextlib.suppress(OSError):
            os.write(self._line, watchdog.MESSAGE.pack(0, 0.0))
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()
        if self._terminal is not None:
            os.close(self._terminal)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _open_terminal() -> int | None:
    """Open our controlling terminal, if there is one."""
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None

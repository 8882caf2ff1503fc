"""A process of its own that kills a process group when its time is over: `python watchdog.py PARENT`.

The process that starts it writes `MESSAGE`s to its standard input: which group to kill, and when. It kills the group at
the last moment that it was told, or as soon as its input ends without a message for group 0, which ends the watchdog.

It is a separate process because the other one may be stopped, killed or stuck, and the group must not outlive its
lease. It imports little, so that it starts quickly.
"""

import contextlib
import os
import select
import signal
import struct
import sys
import time

# A group (0: the watchdog ends), and a moment in seconds on the clock of election/clock.py, which all processes share.
MESSAGE = struct.Struct("=qd")
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def continue_siblings(parent: int) -> None:
    """Continue a child of `parent` that was stopped, as long as we know of no group. Does nothing without /proc.

    A Ctrl-Z may stop the command after its fork and before it has begun its program. Linux holds up the thread that
    spawns it until then, so nobody else could help. The parent has got the Ctrl-Z too, and passes it on afterwards.
    """
    with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{parent}/children") as children:
        for pid in children.read().split():
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "T":
                    os.kill(int(pid), signal.SIGCONT)


def main() -> None:
    """Wait until the watchdog is told to end, or until the group must be killed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent, group, moment = int(sys.argv[1]), 0, float("inf")
    while (left := moment - time.clock_gettime(CLOCK)) > 0:
        # Wait in short steps: select() does not count while the machine sleeps.
        if select.select([0], [], [], min(left, 0.25 if group else 0.02))[0]:
            data = os.read(0, MESSAGE.size)
            if not data:
                break
            group, moment = MESSAGE.unpack(data)
        elif not group:
            continue_siblings(parent)
    if group:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""A process of its own that ends a process group when its time is over: `python warden.py`.

The one that started it tells it, on standard input, which group and until when. It kills the group at the last moment
that it was told, or as soon as its input ends without a farewell. It is a process of its own because the other one may
be stopped, killed or stuck, and the group must not outlive its lease. It imports so little that it starts at once.
"""

import contextlib
import os
import select
import signal
import struct
import time

# A group (0: farewell), and a moment in seconds on the clock of election/clock.py, which a machine's processes share.
MESSAGE = struct.Struct("=qd")
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def main() -> None:
    """Watch until the farewell, or until the group had to be killed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    group, moment = 0, float("inf")
    while (left := moment - time.clock_gettime(CLOCK)) > 0:
        # Never for long: select() does not count while the machine sleeps.
        if select.select([0], [], [], min(left, 0.25))[0]:
            data = os.read(0, MESSAGE.size)
            if not data:
                break
            group, moment = MESSAGE.unpack(data)
    if group:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()

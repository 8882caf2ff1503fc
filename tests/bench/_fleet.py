"""Many workers on one machine, forked from one process that has imported everything, so that no import is measured.

It prints `started PID SECONDS` for each, and `leads PID SECONDS` when one begins to lead. SIGUSR1 makes a leader
hand over. All end with this process's standard input.
"""

import logging
import os
import signal
import sys
import threading
from typing import Any

import politics.group.membership  # noqa: F401
from election.clock import SystemClock
from election.stores.memcached import connect  # noqa: F401
from politics import TokenWorker


def work(store: str, ttl: float, announce: bool) -> None:
    """Be one worker."""
    logging.disable()
    now, over = SystemClock().now, threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: over.set())

    class Worker(TokenWorker):
        group, iteration_length = "bench", 0.05  # the work takes longer, and ends its slot when it is told to

        def perform(self, term: Any) -> None:
            os.write(1, f"leads {os.getpid()} {now()}\n".encode())
            over.wait()
            over.clear()

    Worker(store=store, lease_ttl=ttl, announce=announce).start()
    while True:
        signal.pause()


def main(size: int, store: str, ttl: float, announce: bool) -> None:
    """Fork them, and wait for the end."""
    pids, begun = [], SystemClock().now()
    for _ in range(size):
        if not (pid := os.fork()):
            work(store, ttl, announce)
        pids.append(pid)
        os.write(1, f"started {pid} {begun}\n".encode())
    sys.stdin.read()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4] == "announce")

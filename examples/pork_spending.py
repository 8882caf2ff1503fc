"""Spend the pork barrel: many daemons, one queue, one spender at a time.

    python examples/pork_spending.py --fill     # a hundred pieces of pork
    python examples/pork_spending.py            # in several terminals; then kill the one that spends
    politics run examples/pork_spending.py:PorkSpendingTokenWorker      # the same, under a service manager

The leases are in memcached at 127.0.0.1:11211, unless `--servers` or `--store` says otherwise. The queue is in the
folder `$PORK_FOLDER`, or in `pork` if that is not set. The example has the same structure as the one that came with the
Ruby gem Politics.

Each piece is spent exactly once, even if the leader is killed at any moment. To spend a piece is one rename of a file
from `queue` to `spent`. The operating system does this completely or not at all, and only one process can rename a
file. So a leader that is killed has either spent the piece or left it in the queue. This does not need the lease. The
lease makes sure that one daemon works while the others stand by.
"""

import argparse
import logging
import os
import random
import time
from pathlib import Path

from politics import Term, TokenWorker


class PorkSpendingQueue:
    """A directory of `*.pork` files. Each file contains an amount of money."""

    def __init__(self, folder: Path | None = None) -> None:
        root = folder or Path(os.environ.get("PORK_FOLDER", "pork"))
        self.queue, self.spent = root / "queue", root / "spent"
        for path in (self.queue, self.spent):
            path.mkdir(parents=True, exist_ok=True)

    def start_spending(self, pieces: int = 100) -> None:
        """Fill the queue with this many pieces of random size."""
        fill = time.time_ns()
        for number in range(pieces):
            path = self.queue / f"{fill}-{number:03}"
            path.write_text(str(random.randint(1_000, 1_000_000)))
            path.rename(path.with_suffix(".pork"))  # only now can `pop` see it, with its whole content

    def pop(self, spender: str) -> str | None:
        """Remove the piece with the smallest name and return its amount, or None if the queue is empty."""
        for path in sorted(self.queue.glob("*.pork")):
            try:
                amount = path.read_text()
                path.rename(self.spent / f"{path.stem}-{spender}.pork")
            except FileNotFoundError:
                continue  # another process was faster
            return amount
        return None


class PorkSpendingTokenWorker(TokenWorker):
    """Spends five pieces per slot, with a tenth of the slot between them: one per second."""

    group = "pork_spending_token_worker"
    iteration_length = 10
    servers = ("127.0.0.1:11211",)

    def perform(self, term: Term) -> None:
        """Spend up to five pieces."""
        pork = PorkSpendingQueue()
        for _ in range(5):
            term.check()
            amount = pork.pop(spender=f"{term.fence}-{os.getpid()}")
            if amount is None:
                break
            print(f"PID ({os.getpid()}) just spent: ${amount}", flush=True)
            term.lost.wait(self.iteration_length / 10)


def main() -> None:
    """Fill the queue, or spend it until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Spend the pork barrel.")
    parser.add_argument("--fill", action="store_true", help="put a hundred pieces into the queue and leave")
    parser.add_argument("--servers", metavar="HOST:PORT", nargs="+", help="the memcached servers (127.0.0.1:11211)")
    parser.add_argument("--store", metavar="URL", help="another store, such as sqlite:///pork/leases.db")
    parser.add_argument("--iteration-length", metavar="SECONDS", type=float, help="from one slot to the next (10)")
    parser.add_argument("--lease-ttl", metavar="SECONDS", type=float, help="a silent leader is replaced after (10)")
    options = vars(parser.parse_args())
    if options.pop("fill"):
        PorkSpendingQueue().start_spending()
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    PorkSpendingTokenWorker(**options).process()


if __name__ == "__main__":
    main()

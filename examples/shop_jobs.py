"""The jobs of a shop, which all its machines share: each tick of each job is run by one of them.

    python examples/shop_jobs.py --store memcached://10.0.0.5:11211            # the same on each machine
    politics run examples/shop_jobs.py:jobs --servers 10.0.0.5:11211           # or so, under systemd

Start it twice on your own machine, without arguments, and watch the two share the jobs. Kill one of them in the middle
of `drain`. The other one begins that tick again within the lease, and `term.takeover` tells it so. In the first
minute of a new store nobody knows who was there before, so that it says so of every tick.

1. *A job gets the tick that it is for*, so that a bill has the date of its night, however late it is written.
2. *A job that may take long looks at `term.lost`*, and stops when it has to. An async job is cancelled.
3. *What must not happen twice looks at `term.takeover`*, or sends `term.fence` with its effects (`nightly_report.py`).
"""

import argparse
import asyncio
import logging
import os

from politics import Scheduler, Term

jobs = Scheduler("shop")


@jobs.cron("0 3 * * *", timezone="Europe/Berlin", deadline=6 * 3600)
def bill(term: Term) -> None:
    """Write the bills of a night. If all machines are down until nine, there are none for that night."""
    say(f"writes the bills of {term.tick:%d %B}")


@jobs.cron("* * * * * *", on_error="retry")
def drain(term: Term) -> None:
    """Empty the queue of orders."""
    say("looks what is left of an order" if term.takeover else "takes the next order")
    term.lost.wait(0.5)  # the work
    term.check()


@jobs.every(2, catch_up="skip")
async def measure(term: Term) -> None:
    """Measure something. What was missed is of no interest."""
    await asyncio.sleep(0.1)  # the work
    say(f"has measured at {term.tick:%H:%M:%S}")


def say(text: str) -> None:
    """Print who does what."""
    print(f"PID ({os.getpid()}) {text}", flush=True)


def main() -> None:
    """Run the jobs until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run the jobs of a shop.")
    parser.add_argument("--store", metavar="URL", help="where the leases are ($POLITICS_STORE, else this machine)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    jobs.configure(store=options.store)
    jobs.run()


if __name__ == "__main__":
    main()

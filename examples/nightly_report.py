"""A nightly job that several machines share and that runs once: cron that survives the loss of a machine.

    python examples/nightly_report.py --store memcached://10.0.0.5:11211     # the same on each machine
    python examples/nightly_report.py --show                                 # what has been written

    politics trigger nightly-report --store memcached://10.0.0.5:11211       # now, without waiting for the night

Three decisions make it safe.

1. *The schedule names the night.* Each run is of a tick, an instant that the lease's record keeps. So each night has
   one report, whoever leads, and a missed night is made up for when the machines are back. No clock decides who works.
2. *A new leader raises the mark before it begins.* The mark is the highest fence that the archive has seen.
3. *The write contains the fence, and the archive refuses a smaller one*, in the same transaction as the write. A leader
   may be paused in the middle for any time. When it wakes up it still believes that it leads, but it can do no harm.

The archive is an SQLite file so that you can try this on one machine. With several machines, use a database that all of
them reach. You need the table `mark` and the same two statements there.

`$NIGHTLY_ARCHIVE` names the file (nightly.db). `$NIGHTLY_PACE` is the number of seconds that each chapter takes to
write (2).
"""

import argparse
import contextlib
import logging
import os
import sqlite3
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from politics import LeadershipLost, Term, TokenWorker

CHAPTERS = ("income", "spending", "pork")


class StaleFence(LeadershipLost):
    """The archive has seen a later leader. The slot of this leader counts as interrupted."""


class Archive:
    """Receives the effects: one report for each night. It also keeps the highest fence that it has seen."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, timeout=5, isolation_level=None)
        self.db.execute("CREATE TABLE IF NOT EXISTS mark (one INTEGER PRIMARY KEY CHECK (one = 1), fence INTEGER)")
        self.db.execute("INSERT OR IGNORE INTO mark VALUES (1, 0)")
        self.db.execute("CREATE TABLE IF NOT EXISTS reports (night TEXT PRIMARY KEY, text TEXT, fence INTEGER)")

    def raise_mark(self, fence: int) -> None:
        """Refuse every earlier leader from now on.

        Raises:
            StaleFence: a later leader has been here.
        """
        if self.db.execute("UPDATE mark SET fence = ? WHERE fence <= ?", (fence, fence)).rowcount == 0:
            raise StaleFence(f"the archive refuses the fence {fence}: a later leader has been here")

    def write(self, night: str, text: str, fence: int) -> None:
        """Store a night's report. The check of the fence and the write happen together or not at all.

        Raises:
            StaleFence: a later leader has been here.
        """
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.raise_mark(fence)
            self.db.execute("INSERT OR IGNORE INTO reports VALUES (?, ?, ?)", (night, text, fence))
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def has(self, night: str) -> bool:
        """Return whether the report of that night exists."""
        return self.db.execute("SELECT 1 FROM reports WHERE night = ?", (night,)).fetchone() is not None

    def reports(self) -> list[tuple[str, str, int]]:
        """Return all reports: night, text, and the fence of the leader that wrote the report."""
        return self.db.execute("SELECT night, text, fence FROM reports ORDER BY night").fetchall()

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def open_archive() -> Archive:
    """Open the archive that the environment names."""
    return Archive(os.environ.get("NIGHTLY_ARCHIVE", "nightly.db"))


class NightlyReport(TokenWorker):
    """Writes a report each night at two."""

    group = "nightly-report"
    schedule = "0 2 * * *"
    timezone = "Europe/Berlin"

    def perform(self, term: Term) -> None:
        """Write the report of the night, if it does not exist: an earlier leader may have written it."""
        assert term.tick is not None  # as there is a schedule
        night = night_of(term.tick)
        with contextlib.closing(open_archive()) as archive:
            if archive.has(night):
                print(f"PID ({os.getpid()}) finds the report of {night}", flush=True)
                return
            archive.raise_mark(term.fence)
            print(f"PID ({os.getpid()}) begins the report of {night}", flush=True)
            archive.write(night, compose(night, term), term.fence)
            print(f"PID ({os.getpid()}) has written the report of {night}", flush=True)


def night_of(tick: datetime) -> str:
    """Return the date of the night that a run is for; one that was triggered before two is for the night before."""
    return str((tick.astimezone(ZoneInfo(NightlyReport.timezone)) - timedelta(hours=2)).date())


def compose(night: str, term: Term) -> str:
    """Return the text of a report. This takes some seconds, and stops as soon as the leadership is lost."""
    lines = [f"Report of {night}"]
    for chapter in CHAPTERS:
        term.lost.wait(float(os.environ.get("NIGHTLY_PACE", "2")))  # the work
        term.check()
        lines.append(f"{chapter}: as expected")
    return "\n".join(lines)


def main() -> None:
    """Show the reports, or write them until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Write one report for each night.")
    parser.add_argument("--show", action="store_true", help="print all reports and leave")
    parser.add_argument("--store", metavar="URL", help="where the leases are ($POLITICS_STORE, else this machine)")
    options = parser.parse_args()
    if options.show:
        with contextlib.closing(open_archive()) as archive:
            for _, text, fence in archive.reports():
                print(f"{text}\n(fence {fence})\n")
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    NightlyReport(store=options.store).process()


if __name__ == "__main__":
    main()

"""A leader that was paused too long tries to write. The database and the file refuse.

    python examples/fenced_writes.py

Two accountants compete for one lease. The first is paused in the middle of its work (here it just does not renew), so
the second takes over. Then the first wakes up, still believes that it leads, and writes.
"""

import sqlite3
import tempfile
from pathlib import Path

from election import Candidate, FenceGuard, LeasePolicy, StaleFence, open_register

guard = FenceGuard("accounts")


def book_in_table(db: sqlite3.Connection, fence: int, text: str) -> None:
    """Check the fence and book in one transaction: both happen, or neither."""
    with db:
        guard.check(db, fence)
        db.execute("INSERT INTO bookings VALUES (?, ?)", (fence, text))


def book_in_file(folder: Path, fence: int, text: str) -> None:
    """Check the fence and book under one lock."""
    with guard.locked(folder, fence), (folder / "bookings.txt").open("a") as file:
        file.write(f"{fence} {text}\n")


def main() -> None:
    """Book as the first leader, as the second, and as the first again."""
    store, policy = open_register("memory://"), LeasePolicy(ttl=0.2)
    with tempfile.TemporaryDirectory() as name, sqlite3.connect(":memory:") as db:
        folder = Path(name)
        db.execute("CREATE TABLE bookings (fence INTEGER, text TEXT)")
        guard.prepare(db)

        def book(fence: int, text: str) -> None:
            try:
                book_in_table(db, fence, text)
                book_in_file(folder, fence, text)
                print(f"booked:  {text}")
            except StaleFence as exc:
                print(f"refused: {text} ({exc})")

        paused = Candidate(store, "accounts", policy, renew_with=lambda _register, _term: None).campaign()
        book(paused.fence, "salaries, by the first")
        with Candidate(store, "accounts", policy).campaign() as term:
            book(term.fence, "taxes, by the second")
            book(paused.fence, "salaries once more, by the first")
            try:
                book_in_file(folder, paused.fence, "salaries once more, by the first")
            except StaleFence:
                print("refused: by the file, too")

        rows = db.execute("SELECT text FROM bookings").fetchall()
        print(f"in the table: {[text for (text,) in rows]}")
        print(f"in the file:  {(folder / 'bookings.txt').read_text().splitlines()}")
    db.close()


if __name__ == "__main__":
    main()

"""The programs in `examples/`, run as a user runs them."""

import contextlib
import datetime
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.memcached import Memcached
from tests.processes import running
from tests.waiting import DEADLINE, until

EXAMPLES = Path(__file__).parents[2] / "examples"
PORK = EXAMPLES / "pork_spending.py"
NIGHTLY = EXAMPLES / "nightly_report.py"
POLITICS = (sys.executable, "-c", "from politics.cli import main; main()")


def load(path: Path) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pork_is_spent_exactly_once_though_its_spender_is_killed(tmp_path: Path, own_memcached: Memcached) -> None:
    """Three daemons on memcached spend a hundred pieces, each once, though one is killed on the way."""
    env = {"PORK_FOLDER": str(tmp_path)}
    subprocess.run([sys.executable, PORK, "--fill"], env={**os.environ, **env}, check=True, timeout=DEADLINE)
    todo, spent = tmp_path / "queue", tmp_path / "spent"
    filled = {path.stem for path in todo.iterdir()}
    assert len(filled) == 100

    command = (*POLITICS, "run", f"{PORK}:PorkSpendingTokenWorker", "--servers", own_memcached.address)
    times = ("--iteration-length", "0.2", "--lease-ttl", "0.5")
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(running(*command, *times, env=env)) for _ in range(3)]
        until(lambda: len(list(spent.iterdir())) >= 20)
        last = max(path.stem.split("-", 2)[2] for path in spent.iterdir())
        killed = int(last.rpartition("-")[2])
        next(program for program in programs if program.popen.pid == killed).kill()
        until(lambda: not list(todo.iterdir()))

    pieces = sorted(path.stem.rsplit("-", 2) for path in spent.iterdir())
    assert {piece for piece, _, _ in pieces} == filled
    assert len(pieces) == len(filled)
    assert len({pid for _, _, pid in pieces}) > 1


def test_pork_spending_runs_as_a_script_and_stops_politely(tmp_path: Path) -> None:
    """The script says who spent what, and a signal ends it with status 0."""
    env = {"PORK_FOLDER": str(tmp_path)}
    subprocess.run([sys.executable, PORK, "--fill"], env={**os.environ, **env}, check=True, timeout=DEADLINE)
    times = ("--iteration-length", "0.5", "--lease-ttl", "0.2")
    with running(sys.executable, PORK, "--store", f"sqlite:///{tmp_path}/leases.db", *times, env=env) as program:
        assert program.line("just spent").startswith(f"PID ({program.popen.pid}) just spent: $")
        assert program.stop() == 0


def test_pork_spending_without_options_asks_the_memcached_of_this_machine() -> None:
    """The times and the server are those of the original."""
    worker = load(PORK).PorkSpendingTokenWorker
    assert (worker.group, worker.iteration_length) == ("pork_spending_token_worker", 10)
    assert list(worker.servers) == ["127.0.0.1:11211"]


def nightly(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command of a reporter on a store that is shared in `folder`, and its environment."""
    command = (*POLITICS, "run", f"{NIGHTLY}:NightlyReport", "--store", f"sqlite:///{folder}/leases.db")
    env = {"NIGHTLY_ARCHIVE": str(folder / "nightly.db"), "NIGHTLY_PACE": "0.3"}
    return (*command, "--lease-ttl", "0.5"), env


def trigger(folder: Path) -> None:
    """Order a report, without waiting for the night or for the report."""
    command = (*POLITICS, "trigger", "nightly-report", "--store", f"sqlite:///{folder}/leases.db", "--wait", "0")
    subprocess.run(command, check=True, timeout=DEADLINE)


def reports(folder: Path) -> list[tuple[str, int]]:
    """Each report's night and fence."""
    with contextlib.closing(sqlite3.connect(folder / "nightly.db")) as db:
        return db.execute("SELECT night, fence FROM reports").fetchall()


def test_a_report_whose_writer_is_killed_is_written_once_by_the_next(tmp_path: Path) -> None:
    """The second machine begins the night's report again and finishes it."""
    command, env = nightly(tmp_path)
    with running(*command, env=env) as first:
        first.line("elected leader")
        trigger(tmp_path)
        first.line("begins the report")
        first.popen.send_signal(signal.SIGSTOP)  # however long it takes to start another one
        with running(*command, env=env) as second:
            second.line("waiting to be elected")
            first.kill()
            second.line("which an earlier leader may have begun")
            second.line("has written the report")
            assert len(reports(tmp_path)) == 1
    shown = subprocess.run(
        [sys.executable, NIGHTLY, "--show"], env={**os.environ, **env}, check=True, capture_output=True, text=True
    )
    assert shown.stdout.count("Report of ") == 1


def test_a_reporter_that_was_paused_in_the_middle_stops_when_it_wakes(tmp_path: Path) -> None:
    """The successor's report stays; the one that was paused says that it was interrupted."""
    command, env = nightly(tmp_path)
    with running(*command, env=env) as first:
        first.line("elected leader")
        trigger(tmp_path)
        first.line("begins the report")
        first.popen.send_signal(signal.SIGSTOP)
        with running(*command, env=env) as second:
            second.line("has written the report")
            written = reports(tmp_path)
            first.popen.send_signal(signal.SIGCONT)
            first.line("was interrupted")
            assert reports(tmp_path) == written


def test_nightly_report_runs_as_a_script(tmp_path: Path) -> None:
    """A report that was ordered while nobody led is written by the script, which then stops politely."""
    command, env = nightly(tmp_path)
    with running(*command, env=env) as earlier:
        earlier.line("elected leader")
    trigger(tmp_path)
    with running(sys.executable, NIGHTLY, "--store", f"sqlite:///{tmp_path}/leases.db", env=env) as program:
        program.line("has written the report")
        assert program.stop() == 0


def test_the_archive_refuses_a_leader_whose_successor_was_there(tmp_path: Path) -> None:
    """A write with a smaller fence is refused even if nobody looked at the lease in between."""
    module = load(NIGHTLY)
    with contextlib.closing(module.Archive(str(tmp_path / "nightly.db"))) as archive:
        archive.raise_mark(7)
        archive.raise_mark(8)
        with pytest.raises(module.StaleFence):
            archive.write("2030-01-01", "from yesterday", fence=7)
        assert not archive.has("2030-01-01")
        archive.write("2030-01-01", "from today", fence=8)
        assert archive.reports() == [("2030-01-01", "from today", 8)]


@pytest.mark.parametrize(
    ("tick", "night"),
    [
        ("2030-01-01T01:00:00Z", "2030-01-01"),  # two o'clock in Berlin
        ("2030-01-01T00:30:00Z", "2029-12-31"),  # triggered before
        ("2030-06-30T00:00:00Z", "2030-06-30"),  # two o'clock in summer
    ],
)
def test_a_report_is_of_the_night_of_its_tick(tick: str, night: str) -> None:
    """Whenever it is written."""
    assert load(NIGHTLY).night_of(datetime.datetime.fromisoformat(tick)) == night


def test_a_late_write_is_refused() -> None:
    """The paused leader's last writes are neither in the table nor in the file."""
    command = [sys.executable, EXAMPLES / "fenced_writes.py"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert run.stdout.count("refused: ") == 2
    assert all("once more" not in line for line in run.stdout.splitlines()[-2:])


def test_two_processes_share_the_jobs_of_a_shop(old_store: str) -> None:
    """When one of them is killed, the other does all that is left."""
    command = (sys.executable, EXAMPLES / "shop_jobs.py", "--store", old_store)
    with running(*command) as one, running(*POLITICS, "run", f"{EXAMPLES}/shop_jobs.py:jobs", *command[2:]) as other:
        for process in (one, other):
            process.line("takes the next order")
            process.line("has measured at")
        other.kill()
        seen = len(one.lines)
        until(lambda: sum("takes the next order" in line for line in one.lines[seen:]) >= 2, "the next orders")
        assert one.stop() == 0

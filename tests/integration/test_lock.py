"""`politics lock`, with real processes where it is about processes, signals or terminals."""

import contextlib
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from election import look, open_register
from tests.commands import Result, politics
from tests.memcached import Memcached
from tests.processes import python
from tests.waiting import DEADLINE, until

POLITICS = Path(sys.executable).with_name("politics")
TTL = 3.0
"""Seconds: a sixth of it, half a second, is what a busy machine has to kill a command in time."""
HELLO = "echo ready; read _"

# Dates its file every few milliseconds for as long as it lives; it and its child ignore SIGTERM.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
file = open(sys.argv[1] + "/" + ("parent" if os.fork() else "child"), "w")
os.write(1, b"ready\\n")
while True:
    os.utime(file.fileno())
    time.sleep(0.005)
"""


def alive(pid: int) -> bool:
    """Whether a process of this id runs; one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> set[int]:
    """The processes that this one has started, and that run."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return set(filter(alive, map(int, listed)))


class Locks:
    """Runs of `politics lock` around one store, an SQLite file that is old enough to be believed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "store.db"
        self.url = f"sqlite:///{self.path}"
        self.register = open_register(self.url)
        self.register.identity()
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            db.execute("UPDATE store SET born = born - 1000")
        self.running: list[subprocess.Popen[str]] = []

    def command(self, *command: str, options: tuple[str, ...] = (), name: str = "x") -> list[str]:
        """The words of one run."""
        return [str(POLITICS), "lock", name, "--store", self.url, "--ttl", str(TTL), *options, "--", *command]

    def start(self, *command: str, options: tuple[str, ...] = (), ready: bool = True) -> subprocess.Popen[str]:
        """Start one, and wait until its command says "ready"."""
        run = subprocess.Popen(
            self.command(*command, options=options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(run)
        assert run.stdout is not None
        if ready:
            assert run.stdout.readline().strip() == "ready"
        return run

    def run(self, *command: str, options: tuple[str, ...] = ()) -> Result:
        """Run one to its end, in this process."""
        return politics(*self.command(*command, options=options)[1:])

    def deadline(self, name: str = "x") -> float:
        """When the present holder's lease ends, by the wall clock of this machine."""
        record = look(self.register, name)
        assert record is not None
        return record.at_ms / 1000 + 0.99 * TTL

    def end(self) -> None:
        """End what still runs; its watchdog ends the command."""
        for run in self.running:
            run.send_signal(signal.SIGCONT)
            run.kill()
            run.communicate()
        self.register.close()


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[Locks]:
    """A store, and runs that end with the test."""
    made = Locks(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sh", "-c", "exit 0"), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -9 $$"), 137),
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_the_exit_status_is_that_of_the_command(locks: Locks, command: tuple[str, ...], status: int) -> None:
    """As a shell tells it: 128 + n after a signal, 126 and 127 for what cannot be run."""
    assert locks.run(*command).status == status


def test_the_command_finds_the_fence_and_the_name_in_its_environment(locks: Locks) -> None:
    """$POLITICS_FENCE is what the record says, and it grows from holder to holder."""
    fences, said = [], locks.folder / "said"
    for _ in range(2):
        locks.run("sh", "-c", f"echo $POLITICS_FENCE $POLITICS_LOCK > {said}")
        fence, name = said.read_text().split()
        assert name == "x"
        fences.append(int(fence))
    record = look(locks.register, "x")
    assert record is not None
    assert fences[0] < fences[1] == record.fence


def test_one_at_a_time_and_the_next_one_when_it_ends(locks: Locks) -> None:
    """While one runs, another that tries once gets status 75, and one that waits runs after it."""
    holder = locks.start("sh", "-c", HELLO)
    late = locks.run("touch", str(locks.folder / "never"), options=("--wait", "0"))
    assert (late.status, (locks.folder / "never").exists()) == (75, False)
    assert re.search(r"x is held by \S+:\d+ \(fence \d+\)", late.err)
    patient = locks.start("echo", "at last", options=("--wait", "20"), ready=False)
    assert patient.stderr is not None
    assert "waiting for x" in patient.stderr.readline()
    holder.communicate("\n")
    assert patient.communicate(timeout=DEADLINE)[0] == "at last\n"
    assert (holder.returncode, patient.returncode) == (0, 0)


CRON = ("--wait", "0"), ("--wait", "0", "--hold", "60"), ("--wait", "0", "--once-per", "1d"), ("--once-per", "1d")


@pytest.mark.parametrize("options", CRON[1:], ids=" ".join)
def test_a_short_job_that_four_machines_start_within_a_second_runs_once(locks: Locks, options: tuple[str, ...]) -> None:
    """With a minimum hold, or once per day; whoever comes second finds the lease held, or that it has run well."""
    log, go = locks.folder / "log", threading.Barrier(4)
    log.touch()

    def machine(number: int) -> subprocess.Popen[str]:
        go.wait(DEADLINE)
        threading.Event().wait(number * 0.3)  # as crons do: this is the fault, not a wait for something
        return locks.start("sh", "-c", f"echo {number} >> {log}", options=options, ready=False)

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(machine, range(4)))
    if "--hold" in options:
        until(lambda: sum(run.poll() is None for run in runs) == 1, "the end of all but the one that holds")
        until(log.read_text, "the job")
        next(run for run in runs if run.poll() is None).terminate()  # ends the hold
    statuses = sorted(run.wait(DEADLINE) for run in runs)
    assert len(log.read_text().split()) == 1
    assert statuses[0] == 0
    assert set(statuses[1:]) <= {75, 77}
    assert "--hold" not in options or set(statuses[1:]) == {75}
    assert "--wait" in options or set(statuses[1:]) == {77}


def test_without_a_hold_a_short_job_runs_on_each_machine(locks: Locks) -> None:
    """What `--wait 0` alone does: they do not overlap, and each of them runs."""
    assert [locks.run("true", options=CRON[0]).status for _ in range(3)] == [0, 0, 0]


def test_a_lease_is_held_for_the_minimum_time(locks: Locks) -> None:
    """Longer than the ttl, and after the command has ended; the status is the command's."""
    holder = locks.start("sh", "-c", "echo ready; exit 3", options=("--hold", f"{2 * TTL:g}"))
    begun = time.monotonic()
    statuses = set()
    while holder.poll() is None:
        statuses.add(locks.run("true", options=("--wait", "0")).status)
    assert holder.returncode == 3
    assert time.monotonic() - begun > 1.9 * TTL - 1
    assert 75 in statuses
    assert locks.run("true", options=("--wait", "0")).status == 0


@pytest.mark.parametrize("how", ["SIGTERM", "resign"])
def test_a_hold_ends_when_somebody_wants_it(locks: Locks, how: str) -> None:
    """A signal, or a request to hand over; the status is the command's all the same."""
    holder = locks.start("sh", "-c", "echo ready", options=("--hold", "1h"))
    until(lambda: not children(holder.pid), "the end of the command")
    if how == "resign":
        assert politics("resign", "x", "--store", locks.url).status == 0
    else:
        holder.terminate()
    assert holder.wait(DEADLINE) == 0
    assert locks.run("true", options=("--wait", "0")).status == 0


def test_what_could_not_be_started_is_not_held(locks: Locks) -> None:
    """Another machine may have the program."""
    assert locks.run("no-such-program", options=("--hold", "1h")).status == 127
    assert locks.run("true", options=("--wait", "0")).status == 0


def test_once_per_skips_after_success_only(locks: Locks) -> None:
    """A run that failed is tried again; one that ended well is not, until the time is over; others carry its date."""
    once = ("--once-per", "1d")
    assert locks.run("false", options=once).status == 1
    assert locks.run("true", options=once).status == 0
    skipped = locks.run("touch", str(locks.folder / "never"), options=once)
    assert (skipped.status, (locks.folder / "never").exists()) == (77, False)
    assert re.search(r"x is not run: a run that began \d+ s ago has ended well", skipped.err)
    assert locks.run("false").status == 1
    assert locks.run("true", options=once).status == 77
    record = look(locks.register, "x")
    assert record is not None
    assert 0 <= time.time() * 1000 - record.note["ran_ms"] < DEADLINE * 1000
    until(lambda: locks.run("true", options=("--once-per", "0.1s")).status == 0, "a run after the time")


def test_a_run_that_was_stopped_has_not_ended_well(locks: Locks) -> None:
    """Although its command made the best of it."""
    run = locks.start("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    politics("resign", "x", "--store", locks.url)
    assert run.wait(DEADLINE) == 124
    assert locks.run("true", options=("--once-per", "1d")).status == 0


def test_as_many_at_once_as_there_are_permits(locks: Locks) -> None:
    """Each of them holds a lease of its own."""
    options = ("-n", "2", "--wait", "0")
    for _ in range(2):
        locks.start("sh", "-c", HELLO, options=options)
    assert locks.run("true", options=options).status == 75
    assert set(locks.register.names() or ()) == {"x/0", "x/1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(locks: Locks, number: signal.Signals) -> None:
    """What `politics lock` is sent arrives at the command, which decides what to make of it."""
    name = number.name.removeprefix("SIG")
    run = locks.start("sh", "-c", f"trap 'exit 7' {name}; echo ready; while :; do sleep 0.01; done")
    run.send_signal(number)
    assert run.wait(DEADLINE) == 7


def test_a_signal_ends_the_waiting_at_once(locks: Locks) -> None:
    """Ctrl-C is prompt while somebody else holds the lease."""
    locks.start("sh", "-c", HELLO)
    waiting = locks.start("echo", "never", ready=False)
    assert waiting.stderr is not None
    waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(DEADLINE) == 130


def test_what_the_command_leaves_running_ends_with_it(locks: Locks) -> None:
    """When the next holder begins, nothing of the earlier one's process group is there any more."""
    left = locks.folder / "left"
    locks.run("sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {left}")
    assert not alive(int(left.read_text()))


def test_a_lease_that_cannot_be_renewed_asks_the_command_to_stop(locks: Locks) -> None:
    """The whole group gets SIGTERM while the lease still lasts, and the exit status says why it stopped."""
    script = 'trap "date +%s.%N; exit 0" TERM; echo ready; while :; do sleep 0.01; done'
    run = locks.start("sh", "-c", script)
    with contextlib.closing(sqlite3.connect(locks.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        asked, said = run.communicate(timeout=DEADLINE)
        assert float(asked) < locks.deadline()
    assert run.returncode == 124
    assert "not renewed" in said


@pytest.mark.parametrize("fate", ["unrenewed", "stopped", "killed"])
def test_nothing_of_a_stubborn_command_outlives_the_lease(locks: Locks, fate: str) -> None:
    """Parent and child ignore SIGTERM; both are gone in time, also if `politics lock` itself is stopped or killed."""
    run = locks.start(sys.executable, "-c", STUBBORN, str(locks.folder))
    beats = [locks.folder / name for name in ("parent", "child")]
    until(lambda: all(beat.exists() for beat in beats), "both processes")
    with contextlib.closing(sqlite3.connect(locks.path, isolation_level=None)) as db:
        if fate == "unrenewed":
            db.execute("BEGIN IMMEDIATE")
        else:
            run.send_signal(signal.SIGSTOP if fate == "stopped" else signal.SIGKILL)
        deadline = locks.deadline()
        until(lambda: time.time() > deadline + 0.1, "the deadline")
    assert max(beat.stat().st_mtime for beat in beats) < deadline
    run.send_signal(signal.SIGCONT)
    assert run.wait(DEADLINE) == (-signal.SIGKILL if fate == "killed" else 124)


def test_a_holder_that_was_killed_is_replaced_by_one_that_tries_once(locks: Locks) -> None:
    """Coming again and again, and never staying, is enough: a dead holder does not keep everybody out for ever."""
    locks.start("sh", "-c", HELLO).kill()
    tries = []

    def try_once() -> bool:
        tries.append(locks.run("true", options=("--wait", "0")).status)
        return tries[-1] == 0

    until(try_once, "a try that succeeds")
    assert set(tries[:-1]) <= {75}


def test_a_holder_that_is_asked_to_hand_over_stops_its_command(locks: Locks) -> None:
    """`politics resign` reaches the command as SIGTERM."""
    run = locks.start("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    assert politics("resign", "x", "--store", locks.url).status == 0
    assert run.wait(DEADLINE) == 124


def test_a_store_that_does_not_answer_has_a_status_of_its_own(locks: Locks) -> None:
    """Who tries once can tell that nobody was asked from that somebody else runs."""
    locks.url = "memcached://127.0.0.1:1"
    run = locks.run("true", options=("--wait", "0"))
    assert (run.status, "127.0.0.1:1" in run.err) == (69, True)


def test_a_store_that_comes_back_is_used(locks: Locks) -> None:
    """Who waits says once what is waited for, and runs the command when the store answers; Ctrl-C ends such a wait."""
    store = Memcached()
    locks.url = store.url
    interrupted, patient = (locks.start("echo", "at last", ready=False) for _ in range(2))
    for run in (interrupted, patient):
        assert run.stderr is not None
        assert "waiting for the store: memcached at 127.0.0.1" in run.stderr.readline()
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(DEADLINE) == 130
    with store:
        said, complaints = patient.communicate(timeout=30)
    assert (patient.returncode, said) == (0, "at last\n")
    assert complaints.count("waiting for the store") == 0


@pytest.mark.parametrize(
    "option", ["--wait=-1", "--wait=nan", "--permits=0", "--ttl=0", "--ttl=x", "--hold=x", "--once-per=0"]
)
def test_numbers_that_make_no_sense_are_wrong_usage(locks: Locks, option: str) -> None:
    """Exit status 2, and the message names what it is about."""
    run = locks.run("true", options=(option,))
    assert run.status == 2
    assert option.removeprefix("--").split("=")[0] in run.err


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.text = ""
        self.pid, self.file = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noediting", "-i"], os.environ | {"PS1": "$ ", "TERM": "dumb"})

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.file, text.encode())

    def see(self, pattern: str) -> re.Match[str]:
        """Wait until it appears on the screen, after what was seen before."""

        def seen() -> re.Match[str] | None:
            if select.select([self.file], [], [], 0)[0]:
                self.text += os.read(self.file, 4096).decode(errors="replace")
            return re.search(pattern, self.text)

        match = until(seen, f"{pattern} on the screen")
        self.text = self.text[match.end() :]
        return match

    def end(self) -> None:
        """Hang up."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.file)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A shell that is hung up after the test."""
    shell = Terminal(tmp_path)
    yield shell
    shell.end()


def test_on_a_terminal_the_command_is_in_the_foreground(locks: Locks, terminal: Terminal) -> None:
    """It reads what is typed, Ctrl-C goes to it, and the shell has its terminal back afterwards."""
    script = locks.folder / "ask.sh"
    # It waits in a builtin: dash loses a signal that comes while it starts a program.
    script.write_text('echo "name?"; read name; echo "hello $name"; read _\n')
    terminal.type(" ".join(locks.command("sh", "ask.sh")) + "; echo status=$?\n")
    terminal.see(r"name\?")
    terminal.type("Ada\n")
    terminal.see("hello Ada")
    terminal.type("\x03")
    terminal.see("status=130")
    terminal.type("echo back again | tr a-z A-Z\n")
    terminal.see("BACK AGAIN")


def test_ctrl_z_stops_the_job_and_fg_continues_it(locks: Locks, terminal: Terminal) -> None:
    """As with any job of a shell."""
    script = locks.folder / "ask.sh"
    # What it reads first shows that it has the terminal: before that, a Ctrl-Z may be lost.
    script.write_text('read _; echo "name?"; read name; echo "hello $name"\n')
    terminal.type(" ".join(locks.command("sh", "ask.sh", options=("--ttl", "30"))) + "\ngo\n")
    terminal.see(r"name\?")
    terminal.type("\x1a")
    terminal.see(r"\[1\]\+\s+Stopped")
    terminal.type("fg; echo status=$?\n")
    terminal.see("politics lock")
    terminal.type("Ada\n")
    terminal.see("hello Ada")
    terminal.see("status=0")


STOPPED_AT_BIRTH = """
import os, subprocess, sys
from politics.command import watchdog
command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid())]
dog = subprocess.Popen(command, stdin=subprocess.PIPE)
subprocess.run(["sh", "-c", "kill -STOP $$; echo continued"], check=True)
dog.communicate(watchdog.MESSAGE.pack(0, 0.0))
"""


def test_a_command_that_ctrl_z_stops_before_it_begins_is_continued() -> None:
    """By the watchdog, since whoever spawns it is held up until then; the Ctrl-Z is passed on afterwards."""
    with python(STOPPED_AT_BIRTH) as parent:
        assert parent.result() == (0, "continued")


def test_ctrl_z_in_the_first_moments_is_not_lost(locks: Locks, terminal: Terminal) -> None:
    """As soon as the watchdog is there, just before the command begins: the job stops, and goes on."""
    terminal.type(" ".join(locks.command("sh", "-c", "'read _; echo hello'", options=("--ttl", "30"))) + "; echo =$?\n")
    (job,) = until(lambda: children(terminal.pid), "politics lock")
    until(lambda: children(job), "its watchdog")
    terminal.type("\x1a")
    terminal.see(r"\[1\]\+\s+Stopped")
    terminal.type("fg\n")
    terminal.see("politics lock")
    terminal.type("go\n")
    terminal.see("hello")


def test_a_job_that_is_stopped_for_longer_than_its_lease_is_killed(locks: Locks, terminal: Terminal) -> None:
    """A stopped command would come back to work without the lease."""
    # What it reads first shows that it has the terminal: before that, a Ctrl-Z may be lost.
    terminal.type(" ".join(locks.command("sh", "-c", "'read _; echo pid=$$; read _; echo never'")) + "\ngo\n")
    pid = int(terminal.see(r"pid=(\d+)")[1])
    terminal.type("\x1a")
    terminal.see(r"\[1\]\+\s+Stopped")
    until(lambda: not alive(pid), "the end of the command")
    assert time.time() < locks.deadline()
    terminal.type("fg; echo status=$?\n")
    terminal.see("status=124")

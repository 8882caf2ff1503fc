"""How commands look in terminals of 80 and of 200 columns: nothing is cut, and no word is broken."""

import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery import Registry
from election import Candidate, LeasePolicy, open_register
from tests.terminal import Terminal, terminal
from tests.waiting import DEADLINE, until

POLITICS = Path(sys.executable).with_name("politics")

every_size = pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An SQLite store with a short path."""
    return f"sqlite:///{tmp_path}/store.db"


@contextlib.contextmanager
def shown(*words: str, columns: int, rows: int) -> Iterator[Terminal]:
    """Run a command to its end on a terminal."""
    with terminal(POLITICS, *words, columns=columns, rows=rows) as ended:
        ended.wait()
        yield ended


@every_size
def test_doctor_breaks_no_word(store: str, columns: int, rows: int) -> None:
    """What does not fit goes on below the text, after a whole word."""
    with shown("doctor", "--store", store, columns=columns, rows=rows) as doctor:
        (fine, *_) = [line for line in doctor.lines if line.startswith("fine    clock: leases are timed by ")]
        below = [line for line in doctor.lines if not line.startswith(("fine    ", "advice  ", "danger  "))]
    assert max(map(len, doctor.lines)) <= columns
    assert all(line.startswith("        ") and line[8] != " " for line in below if line.strip())
    assert fine.rstrip().endswith("while the" if columns == 80 else "while the machine sleeps")


@every_size
def test_status_shows_a_leader_whole(store: str, columns: int, rows: int) -> None:
    """On the one line of its group."""
    group = f"group-{secrets.token_hex(4)}"
    with (
        contextlib.closing(open_register(store)) as register,
        Candidate(register, group, LeasePolicy(ttl=2.0)).campaign() as term,
        shown("status", group, "--store", store, columns=columns, rows=rows) as status,
    ):
        assert term.valid
        (line,) = [line for line in status.lines if line.startswith(group)]
        assert line.split()[1] == "led"
        assert line.endswith(f":{os.getpid()}")


@every_size
def test_services_and_their_changes(columns: int, rows: int) -> None:
    """Two lines for each service; changes say what a person would."""
    with Registry(f"shop{secrets.token_hex(4)}", interfaces=["127.0.0.1"]) as registry:
        registry.register("Stock", object(), "What there is")
        url = f"distributed://{registry.app}/Stock"
        with shown("services", "--interface", "127.0.0.1", columns=columns, rows=rows) as services:
            place = services.lines.index(url)
            assert services.lines[place + 1].startswith("  remote://127.0.0.1:")
            assert services.lines[place + 1].endswith("  What there is")
        with terminal(POLITICS, "services", "--watch", "--interface", "127.0.0.1", columns=columns) as watch:
            watch.see(f"added  {url}  remote://")
            watch.see("What there is")
            assert "False" not in watch.text


@every_size
def test_a_long_complaint_breaks_no_word(columns: int, rows: int) -> None:
    """Also where it does not fit on one line."""
    with shown("lookup", f"distributed://{'x' * 60}/Stock", "--timeout", "0", columns=columns, rows=rows) as lookup:
        assert max(map(len, lookup.lines)) <= columns
        said = " ".join(line.strip() for line in lookup.lines)
    assert said.startswith("politics: ")
    assert f"{'x' * 60}/Stock among" in said
    assert (len(lookup.lines) > 1) is (len(said) > columns)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_watched_leader_is_shown_whole(store: str, columns: int) -> None:
    """Where the name of its group is long, it goes on in the next line; where there is room all is in columns."""
    group = "-".join(["group", *(secrets.token_hex(4) for _ in range(7))])
    with (
        contextlib.closing(open_register(store)) as register,
        Candidate(register, group, LeasePolicy(ttl=0.5)).campaign(),
        terminal(POLITICS, "status", group, "--watch", "--store", store, columns=columns) as watching,
    ):
        watching.see("store:")
        watching.type("\x03")
        assert watching.wait() == 130
        lines = watching.lines
    assert max(map(len, lines)) <= max(columns, len(store) + len("store: group"))
    assert f":{os.getpid()}" in "".join(lines).replace(" ", "")
    if columns == 200:
        header, row = lines[:2]
        assert header.index("leader") == row.rindex(" ") + 1


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_lock_runs_its_command_without_the_usual_files(old_store: str, tmp_path: Path, closed: str) -> None:
    """Some service managers and crons start programs without an output or an input."""
    command = f"exec '{POLITICS}' lock a --store '{old_store}' -- touch '{tmp_path}/ran' {closed}"
    assert subprocess.run(["sh", "-c", command], timeout=DEADLINE).returncode == 0
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x04", 1), ("yes\n", 0), ("x\n", 1)])
def test_forget_can_be_left_at_its_question(store: str, key: str, status: int) -> None:
    """By Ctrl-C with the status of all commands, and by the end of the input as by a no."""
    with contextlib.closing(open_register(store)) as register:
        register.swap("pork", b"garbage", None)
        with terminal(POLITICS, "forget", "pork", "--store", store) as asking:
            asking.see("[y/N]")
            asking.type(key)
            assert asking.wait() == status
        assert (register.read("pork").data == b"garbage") is (status != 0)  # type: ignore[union-attr]
        assert "Abort" not in asking.text


@pytest.mark.parametrize("moment", ["Alice", "Carol", "leading"])
def test_ctrl_c_ends_the_demo_quietly(moment: str) -> None:
    """Also while its workers are still importing: none of them shows a traceback, and none is left."""
    with terminal(POLITICS, "demo") as demo:
        demo.see(moment)
        demo.type("\x03")
        assert demo.wait() == 130
        assert "Traceback" not in demo.text
        for pid in re.findall(r"(?:Alice|Bob|Carol) +(\d+)", "\n".join(demo.lines)):
            until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "the end of a worker")  # type: ignore[misc]

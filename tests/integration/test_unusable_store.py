"""A store that no waiting would mend: the start ends with one sentence that says what is wrong."""

import contextlib
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from election import Candidate, LeasePolicy, NotElected, open_register
from election.errors import StoreUnusable
from politics import TokenWorker
from tests.commands import politics

WORKER = """
from politics import TokenWorker
class Mailer(TokenWorker):
    group, announce = "mailer", False
    def perform(self, term):
        term.lost.wait()
"""


def folder_in_its_place(path: Path) -> None:
    path.mkdir()


def file_above_it(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("no folder")


def no_database(path: Path) -> None:
    path.write_text("This is a letter to Alice, and not a database of any kind.\n" * 20)


every_trouble = pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (folder_in_its_place, "unable to open database file"),
        (file_above_it, "(File exists|Not a directory)"),
        (no_database, "file is not a database"),
    ],
)


@every_trouble
def test_a_worker_does_not_wait_for_what_no_waiting_mends(
    tmp_path: Path, spoil: Callable[[Path], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its start ends with an error that names the file; the log has one sentence, and no traceback."""
    path = tmp_path / "folder" / "leases.db"
    path.parent.mkdir()
    spoil(path)
    worker = TokenWorker(group="mailer", store=f"sqlite:///{path}", announce=False)
    with pytest.raises(StoreUnusable, match=rf"mailer: the store {path} cannot be used: .*{why}"):
        worker.process(lambda term: None)
    (said,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert not said.exc_info


@pytest.mark.parametrize("command", [("run", "mailer.py:Mailer"), ("lock", "x", "--", "true"), ("resign", "mailer")])
def test_no_command_waits_for_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    """It says in one sentence what is wrong, and ends."""
    (tmp_path / "mailer.py").write_text(WORKER)
    (tmp_path / "leases.db").mkdir()
    name, *rest = command
    ended = politics(name, "--store", "sqlite:///leases.db", *rest, cwd=tmp_path)
    assert ended.status in (1, 69)
    assert "leases.db cannot be used: unable to open database file" in ended.said
    assert "Traceback" not in ended.said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize(
    ("mode", "why"), [(0o600, "Permission denied"), (0o666, "attempt to write a readonly database")]
)
def test_permission_denied_ends_the_start(mode: int, why: str) -> None:
    """A file that is not ours is refused at once, as is a folder in which the database can have no log."""
    program = (
        "import os, sys, discovery.signals, election.stores.sqlite\n"
        "from politics import TokenWorker\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "TokenWorker(group='mailer', store=sys.argv[1], announce=False).process(print)"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "leases.db"
        path.touch()
        path.chmod(mode)
        path.parent.chmod(0o755)
        command = [sys.executable, "-c", program, f"sqlite:///{path}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"StoreUnusable: mailer: the store {path} cannot be used: " in ended.stderr
    assert why in ended.stderr


def test_what_breaks_later_is_waited_for(tmp_path: Path) -> None:
    """Once the store has answered it is an outage: somebody may be about to mend it, and the leader would lose more."""
    path = tmp_path / "leases.db"
    with contextlib.closing(open_register(f"sqlite:///{path}")) as register:
        candidate = Candidate(register, "mailer", LeasePolicy(1.0))
        candidate.attempt()
        path.unlink()
        path.mkdir()
        with pytest.raises(NotElected):
            candidate.campaign(timeout=0.2)


@pytest.mark.parametrize("command", [("status",), ("run", "mailer.py:Mailer"), ("lock", "x", "--", "true")])
def test_without_a_home_it_asks_for_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """A user who is in no list, as in a container, has no folder for the default store."""

    def nobody(_uid: int) -> None:
        raise KeyError

    (tmp_path / "mailer.py").write_text(WORKER)
    for variable in ("HOME", "XDG_STATE_HOME", "POLITICS_STORE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    ended = politics(*command, cwd=tmp_path)
    assert ended.status == 2
    assert "there is no home directory for a file: name one with" in ended.said
    ended = politics(command[0], "--store", "sqlite:///~/leases.db", *command[1:], cwd=tmp_path)
    assert ended.status == 2
    assert "needs a home directory, and there is none: write the whole path" in ended.said

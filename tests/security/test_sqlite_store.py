"""A store in a file, and who else is on the machine: other users, and a process that forks."""

import contextlib
import fcntl
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from election import FenceGuard, Register, StoreUnavailable, open_register
from election.stores.sqlite import SQLiteRegister
from politics.doctor import findings, probe
from tests.contract.test_register import in_fork

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store lies, in folders that do not exist yet."""
    return tmp_path / "state" / "politics" / "a.db"


@pytest.fixture
def register(path: Path) -> Iterator[Register]:
    """A client, of a process that allows everybody everything."""
    before = os.umask(0)
    try:
        with contextlib.closing(open_register(f"sqlite:///{path}")) as register:
            register.swap("a", b"first", None)
            yield register
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    """The permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def test_what_we_create_is_for_its_user_only(register: Register, path: Path) -> None:
    """The file, what lies beside it and the new folders above it: nobody else may even read them."""
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["a.db", "a.db-shm", "a.db-wal"]
    assert {mode(file) for file in files} == {0o600}
    assert {mode(folder) for folder in (path.parent, path.parent.parent)} == {0o700}


@as_root
def test_another_user_cannot_lock_the_store(register: Register, path: Path) -> None:
    """Who has no right to read the file cannot open it, so cannot lock it either."""
    path.parent.chmod(0o755)
    folder = os.open(path.parent, os.O_RDONLY)

    def lock() -> bool:
        os.setuid(NOBODY)
        assert os.stat(path.name, dir_fd=folder).st_uid == 0, "the folder cannot be entered: this attacks nothing"
        with contextlib.suppress(PermissionError):
            fcntl.lockf(os.open(path.name, os.O_RDONLY, dir_fd=folder), fcntl.LOCK_SH)
            return False
        return True

    assert in_fork(lock)
    os.close(folder)
    assert register.swap("b", b"", None) is not None


def test_a_fence_is_for_its_user_only(tmp_path: Path) -> None:
    """Who could read the file of a fence could lock it, and every effect would wait."""
    before = os.umask(0)
    try:
        with FenceGuard("ledger").locked(tmp_path, 7):
            assert mode(tmp_path / "ledger.fence") == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("of_file", "of_folder", "level", "said"),
    [
        (0o600, 0o777, "danger", "can be written by everybody"),
        (0o666, 0o700, "danger", "can be written by everybody"),
        (0o660, 0o770, "advice", "can be written by other users (0660)"),
        (0o644, 0o755, "advice", "can be read by other users (0644)"),
        (0o600, 0o1777, "fine", "keeps 1 lease,"),
        (0o600, 0o755, "fine", "keeps 1 lease,"),
    ],
)
def test_the_doctor_says_who_else_may_use_the_file(
    register: SQLiteRegister, path: Path, of_file: int, of_folder: int, level: str, said: str
) -> None:
    """Permissions that others have are named, with what they can do with them; those of ours are fine."""
    path.chmod(of_file)
    path.parent.chmod(of_folder)
    found = list(findings.of_file(probe.file(register, 0.0), 0.0))
    assert any(each.level == level and said in each.text for each in found), found
    assert {each.level for each in found} <= {"fine", level}


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE store SET identity = 'x' || char(10) || '[/x]'",
        "UPDATE store SET identity = zeroblob(1000000)",
        "UPDATE store SET identity = CAST(x'ff' AS TEXT)",
        "UPDATE store SET born = 'never'",
        "UPDATE store SET born = 9e999",
        "DELETE FROM store",
        "DELETE FROM generation",
        "UPDATE generation SET name = 'x' || char(10)",
        "UPDATE generation SET name = zeroblob(50000000)",
        "UPDATE generation SET file = CAST(x'ff' AS TEXT)",
        "UPDATE generation SET file = zeroblob(50000000)",
        "INSERT INTO cells VALUES (x'ff', '', ''), (' ', '', ''), (zeroblob(9999), '', ''), ('a' || char(10), '', '')",
        "UPDATE cells SET version = CAST(x'ff00' AS TEXT)",
        "UPDATE cells SET version = x'00', data = CAST(x'ff' AS TEXT)",
        "UPDATE cells SET version = 5, data = 7",
        "UPDATE cells SET data = zeroblob(50000000)",
    ],
)
def test_whatever_is_in_the_file_it_is_a_store_or_unavailable(register: Register, path: Path, edit: str) -> None:
    """Somebody's edits raise nothing else than `StoreUnavailable`, and do not keep the cell from being swapped."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(edit)
    for _ in range(2):
        with contextlib.suppress(StoreUnavailable):
            assert register.identity().removeprefix("sqlite:").isalnum()
            assert len(register.identity()) < 50
        with contextlib.suppress(StoreUnavailable):
            assert not register.remembers(10)
    assert register.names() == ["a"]
    cell = register.read("a")
    assert cell is not None
    assert len(cell.data) < 2000
    assert register.versions(["b", "a"]) == [None, cell.version]
    assert register.swap("a", b"ours", cell.version) is not None
    assert register.read("a").data == b"ours"  # type: ignore[union-attr]


def test_what_a_child_writes_is_not_lost_when_its_parent_closes_the_file(register: Register, path: Path) -> None:
    """A child that goes on with its parent's register writes where everybody sees it."""
    (hear, say), (parents, childs) = os.pipe(), os.pipe()

    def child() -> bool:
        before = register.read("a")
        os.write(say, b".")
        os.read(parents, 1)
        assert before is not None
        return register.swap("a", b"child", before.version) is not None

    def parent() -> None:
        os.read(hear, 1)
        register.close()
        with contextlib.closing(open_register(f"sqlite:///{path}")) as other:
            other.read("a")  # whoever closes the file last takes its log away
        os.write(childs, b".")

    closing = threading.Thread(target=parent)
    closing.start()
    assert in_fork(child)
    closing.join()
    with contextlib.closing(open_register(f"sqlite:///{path}")) as other:
        assert other.read("a").data == b"child"  # type: ignore[union-attr]


def test_a_fork_within_an_answer_of_the_file_is_not_held_up_for_ever(
    register: SQLiteRegister, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that forks while its own thread waits for the file forks all the same."""
    monkeypatch.setattr("election.stores.sqlite.LONGEST_WAIT", 0.05)
    with register._open():
        assert in_fork(lambda: True)
    assert register.swap("b", b"", None) is not None

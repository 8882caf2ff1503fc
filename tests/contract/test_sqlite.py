"""What only a file does: it is deleted, replaced or no database at all."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from election import Register, StoreUnavailable, open_register


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store lies."""
    return tmp_path / "folder" / "store.db"


@pytest.fixture
def register(path: Path) -> Iterator[Register]:
    """A client."""
    with contextlib.closing(open_register(f"sqlite:///{path}")) as register:
        yield register


def remove(path: Path, *, whole: bool = True) -> None:
    """Delete the file, and as a rule what lies beside it."""
    for suffix in ("", "-wal", "-shm", "-journal") if whole else ("",):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("whole", [True, False])
def test_a_deleted_file_is_noticed(path: Path, register: Register, whole: bool) -> None:
    """Everybody who had the file open when it was deleted finds the same new, empty store."""
    version = register.swap("a", b"old", None)
    identity = register.identity()
    remove(path, whole=whole)
    with contextlib.closing(open_register(f"sqlite:///{path}")) as other:
        assert other.read("a") is None
        assert other.swap("b", b"new", None) is not None
        assert register.swap("a", b"late", version) is None
        assert register.read("b").data == b"new"  # type: ignore[union-attr]
        assert register.identity() == other.identity() != identity
        for _ in range(20):
            for one in (other, register):
                cell = one.read("b")
                assert cell is not None
                assert one.swap("b", b"new", cell.version) is not None


def test_a_replaced_file_is_noticed(path: Path, register: Register, tmp_path: Path) -> None:
    """A file that another was moved over is not used any longer, and its versions are void."""
    with contextlib.closing(open_register(f"sqlite:///{tmp_path}/other.db")) as other:
        other.swap("a", b"other", None)
    version = register.swap("a", b"mine", None)
    remove(path)
    os.replace(tmp_path / "other.db", path)
    assert register.swap("a", b"late", version) is None
    assert register.read("a").data == b"other"  # type: ignore[union-attr]


def test_a_file_that_is_replaced_while_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client never goes on with a file that was replaced just while it opened it: nobody else would see its cells."""
    connect, register = sqlite3.connect, open_register(f"sqlite:///{path}")

    def replaced_meanwhile(*args: object, **options: object) -> sqlite3.Connection:
        db = connect(*args, **options)  # type: ignore[call-overload]
        monkeypatch.undo()
        path.unlink()
        with contextlib.closing(open_register(f"sqlite:///{path}")) as other:
            other.swap("a", b"seen", None)
        return db  # type: ignore[no-any-return]

    monkeypatch.setattr(sqlite3, "connect", replaced_meanwhile)
    with contextlib.closing(register):
        with contextlib.suppress(StoreUnavailable):
            register.read("a")
        assert register.read("a").data == b"seen"  # type: ignore[union-attr]


def test_a_young_file_remembers_nothing(register: Register) -> None:
    """A file that has just been made may have taken the place of a deleted one."""
    assert not register.remembers(10)
    assert register.remembers(0)


def test_no_database(path: Path, register: Register) -> None:
    """A file that is something else is left as it is, and reported by its path."""
    path.parent.mkdir()
    path.write_bytes(b"Dear diary, " * 100)
    with pytest.raises(StoreUnavailable, match=str(path)):
        register.read("a")
    assert path.read_bytes() == b"Dear diary, " * 100


def test_no_place(tmp_path: Path) -> None:
    """A path that leads through a file is reported."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        open_register(f"sqlite:///{tmp_path}/file/store.db").read("a")


def test_a_locked_file(path: Path, register: Register) -> None:
    """A file that somebody keeps locked is unavailable, and usable again afterwards."""
    register.read("a")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            register.swap("a", b"", None)
    assert register.swap("a", b"", None) is not None

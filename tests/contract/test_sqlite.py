"""What only a file does: it is deleted, replaced or no database at all."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def copy(path: Path, to: Path) -> Path:
    """Copy what a client has written, as a backup does."""
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(to)) as target:
        source.backup(target)
    return to


def generation(register: Register, name: str) -> str:
    """In which generation a cell is read."""
    cell = register.read(name)
    assert cell is not None
    return register.generation(cell.version)


def edit(path: Path, sql: str) -> None:
    """Change the file by hand."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(sql)


@pytest.fixture
def old(path: Path, register: Register) -> Register:
    """The client, of a file that has been there for long and has a cell `a`."""
    register.swap("a", b"mine", None)
    edit(path, "UPDATE store SET born = born - 10000")
    assert register.remembers(10)
    return register


def test_a_file_keeps_its_generation(old: Register, path: Path) -> None:
    """Whoever opens it, under whatever name, and however often."""
    first, identity = generation(old, "a"), old.identity()
    old.close()
    assert (generation(old, "a"), old.identity()) == (first, identity)
    os.link(path, path.with_name("link.db"))
    with contextlib.closing(open_register(f"sqlite:///{path}")) as other:
        assert (generation(other, "a"), other.identity()) == (first, identity)
    old.close()
    path.rename(path.with_name("moved.db"))
    with contextlib.closing(open_register(f"sqlite:///{path.with_name('moved.db')}")) as moved:
        assert (generation(moved, "a"), moved.identity()) == (first, identity)
        assert moved.remembers(10)


def test_a_copy_is_another_store(old: Register, path: Path) -> None:
    """In another generation, of another identity, and with nothing that it remembers. The first is as it was."""
    cell, identity = old.read("a"), old.identity()
    assert cell is not None
    with contextlib.closing(open_register(f"sqlite:///{copy(path, path.with_name('copy.db'))}")) as other:
        assert other.read("a").data == b"mine"  # type: ignore[union-attr]
        assert generation(other, "a") != generation(old, "a")
        assert other.identity() != identity
        assert not other.remembers(10)
        assert other.swap("a", b"late", cell.version) is None
    assert (old.identity(), old.remembers(10)) == (identity, True)
    assert old.swap("a", b"still", cell.version) is not None


def test_a_restored_backup_is_another_generation(old: Register, path: Path) -> None:
    """Also for a client that has the file open: it reads what was restored, and no earlier version counts."""
    backup = copy(path, path.with_name("backup"))
    before, version = generation(old, "a"), old.version("a")
    later = old.swap("b", b"later", None)
    remove(path)
    os.replace(backup, path)
    assert old.swap("a", b"late", version) is None
    assert old.swap("b", b"late", later) is None
    assert (old.version("a") != version, old.version("b")) == (True, None)
    assert generation(old, "a") != before
    assert not old.remembers(10)


def test_an_inode_that_is_used_again_is_another_file(path: Path) -> None:
    """A backup is not taken for the file that it was made of because the system has used its inode once more."""
    names = set[str]()
    url, backup = f"sqlite:///{path}", path.with_name("backup")
    for _ in range(5):
        with contextlib.closing(open_register(url)) as register:
            register.swap("a", b"", None)
            names.add(generation(register, "a"))
            backup.unlink(missing_ok=True)
            data = copy(path, backup).read_bytes()
        remove(path)
        path.write_bytes(data)
    assert len(names) == 5


def test_a_process_that_cannot_see_when_a_file_was_born(
    old: Register, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It agrees with those that can, whoever was first; and it knows a copy by its inode."""
    first = generation(old, "a")
    monkeypatch.setattr("election.stores.sqlite._birth_of", lambda _path: "")
    with contextlib.closing(open_register(f"sqlite:///{path}")) as blind:
        assert generation(blind, "a") == generation(old, "a") == first
        edit(path, "DELETE FROM generation")
        second = generation(blind, "a")
        assert second not in ("", first)
        assert generation(old, "a") not in ("", first, second)
        assert generation(blind, "a") == generation(old, "a")
    with contextlib.closing(open_register(f"sqlite:///{copy(path, path.with_name('copy.db'))}")) as other:
        assert generation(other, "a") not in (first, generation(old, "a"))


def test_the_content_of_another_file_is_noticed(old: Register, path: Path) -> None:
    """Somebody restores the backup of a copy into the very file that is in use: that content was not described here."""
    other = copy(path, path.with_name("copy.db"))
    with contextlib.closing(open_register(f"sqlite:///{other}")) as client:
        client.swap("b", b"copy", None)
    before, version = generation(old, "a"), old.version("a")
    copy(other, path)
    assert old.swap("a", b"late", version) is None
    assert generation(old, "a") not in ("", before)
    assert old.read("b").data == b"copy"  # type: ignore[union-attr]
    assert not old.remembers(10)
    assert old.swap("c", b"new", None) is not None


EARLIER = """
CREATE TABLE cells (name TEXT PRIMARY KEY, data BLOB NOT NULL, version TEXT NOT NULL);
CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, born REAL NOT NULL);
INSERT INTO store VALUES (1, 'sqlite:0123456789abcdef0123456789abcdef', 5.0);
INSERT INTO cells VALUES ('a', 'earlier', 'v1');
"""
"""What the version before this one has made of a file."""


def test_a_file_of_an_earlier_version_goes_on(path: Path, register: Register) -> None:
    """Its cells and its name stay, and what it remembers begins anew; the earlier version may go on using it, too."""
    path.parent.mkdir()
    edit(path, EARLIER)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        cell = register.read("a")
        assert cell is not None
        assert (cell.data, register.identity()) == (b"earlier", "sqlite:0123456789abcdef0123456789abcdef")
        assert not register.remembers(10)
        # Its own statements, as it sends them.
        earlier.execute("INSERT OR IGNORE INTO store VALUES (1, ?, ?)", ("sqlite:x", 1.0))
        assert earlier.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?) RETURNING 1", ("b", b"", "v2")).fetchone()
        update = "UPDATE cells SET data = ?, version = ? WHERE name = ? AND CAST(version AS BLOB) = ? RETURNING 1"
        assert earlier.execute(update, (b"theirs", "v3", "a", b"v1")).fetchone()
        assert register.swap("a", b"ours", cell.version) is None
        cell = register.read("a")
        assert cell is not None
        assert register.swap("a", b"ours", cell.version) is not None
        assert not earlier.execute(update, (b"theirs", "v4", "a", b"v3")).fetchone()


def test_all_who_open_a_copy_at_once_agree_on_its_generation(old: Register, path: Path) -> None:
    """One of them describes it, and the others find that."""
    url = f"sqlite:///{copy(path, path.with_name('copy.db'))}"
    begin = threading.Barrier(8)

    def look(_number: int) -> tuple[str, str]:
        with contextlib.closing(open_register(url)) as register:
            begin.wait()
            return generation(register, "a"), register.identity()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(look, range(8)))) == 1


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

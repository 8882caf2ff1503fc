"""FenceGuard: what has had an effect is remembered where the effect lands."""

import pickle
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from election import BadPolicy, ElectionError, FenceGuard, StaleFence
from election.errors import BadRecord
from election.testing import FakeClock


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database with a table of effects, prepared for the guard "pork"."""
    connection = sqlite3.connect(tmp_path / "effects.db", timeout=0)
    connection.execute("CREATE TABLE effects (fence INTEGER)")
    FenceGuard("pork").prepare(connection)
    yield connection
    connection.close()


def effects(db: sqlite3.Connection) -> list[int]:
    """What has had an effect."""
    return [fence for (fence,) in db.execute("SELECT fence FROM effects")]


def effect(db: sqlite3.Connection, fence: int) -> None:
    """One effect, guarded."""
    with db:
        FenceGuard("pork").check(db, fence)
        db.execute("INSERT INTO effects VALUES (?)", (fence,))


def test_a_table_refuses_a_smaller_number_and_nothing_else(db: sqlite3.Connection) -> None:
    """A number that grows or stays passes; a smaller one is refused, and its effect with it."""
    for fence in (3, 3, 7):
        effect(db, fence)
    with pytest.raises(StaleFence, match="pork: fence 6 is refused, 7 has been here") as caught:
        effect(db, 6)
    assert (caught.value.name, caught.value.fence, caught.value.largest) == ("pork", 6, 7)
    assert effects(db) == [3, 3, 7]


def test_an_effect_that_is_rolled_back_leaves_no_number_behind(db: sqlite3.Connection) -> None:
    """The check belongs to the caller's transaction: what did not happen holds nobody back."""
    FenceGuard("pork").check(db, 9)
    db.rollback()
    effect(db, 3)
    assert effects(db) == [3]


def test_a_later_leader_waits_for_the_transaction_of_an_earlier_one(db: sqlite3.Connection, tmp_path: Path) -> None:
    """Between a check and the commit of its effect, no other check can pass."""
    other = sqlite3.connect(tmp_path / "effects.db", timeout=0)
    FenceGuard("pork").check(db, 3)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        FenceGuard("pork").check(other, 4)
    db.commit()
    other.rollback()
    effect(other, 4)
    with pytest.raises(StaleFence):
        effect(db, 3)
    other.close()


def test_guards_of_different_names_do_not_disturb_each_other(db: sqlite3.Connection) -> None:
    """Numbers of two leases say nothing of each other."""
    beef = FenceGuard("beef")
    beef.prepare(db)
    effect(db, 9)
    beef.check(db, 2)


def test_preparing_again_forgets_nothing(db: sqlite3.Connection) -> None:
    """A daemon may prepare its table at each start."""
    effect(db, 9)
    FenceGuard("pork").prepare(db)
    with pytest.raises(StaleFence):
        effect(db, 8)


class Busy:
    """A connection whose first statements fail, as those of a database that is locked."""

    def __init__(self, db: sqlite3.Connection, failures: int) -> None:
        self._db, self.failures, self.rollbacks = db, failures, 0

    def cursor(self) -> sqlite3.Cursor:
        """A cursor, unless a failure is due."""
        if self.failures:
            self.failures -= 1
            raise sqlite3.OperationalError("database is locked")
        return self._db.cursor()

    def commit(self) -> None:
        """Commit as usual."""
        self._db.commit()

    def rollback(self) -> None:
        """Roll back as usual, and count it."""
        self.rollbacks += 1
        self._db.rollback()


@pytest.mark.parametrize("failures", [1, 3])
def test_preparing_is_tried_again_while_the_database_is_busy(db: sqlite3.Connection, failures: int) -> None:
    """What fails is rolled back and tried again after a pause, four times in all within half a second."""
    busy, clock = Busy(db, failures), FakeClock(0.0)
    guard = FenceGuard("beef", paramstyle="qmark")
    guard.prepare(busy, clock=clock)
    assert busy.rollbacks == failures
    assert 0 < clock.now() < 0.5
    guard.check(db, 3)


def test_preparing_gives_up_with_the_drivers_own_error(db: sqlite3.Connection) -> None:
    """A database that cannot be used is no reason to try for ever."""
    busy = Busy(db, 100)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        FenceGuard("beef", paramstyle="qmark").prepare(busy, clock=FakeClock())
    assert busy.rollbacks == 4


def test_preparing_is_not_tried_again_with_an_unknown_way_of_marking_parameters(db: sqlite3.Connection) -> None:
    """Time does not mend a mistake of the caller: it is told at once."""
    busy = Busy(db, 0)
    with pytest.raises(BadPolicy, match="paramstyle of Busy is unknown"):
        FenceGuard("beef").prepare(busy, clock=FakeClock())
    assert busy.rollbacks == 1


def test_a_connection_that_commits_each_statement_is_refused(tmp_path: Path) -> None:
    """Where the check and the effect cannot be one transaction, SQLite says so and so does the guard."""
    connection = sqlite3.connect(tmp_path / "effects.db", isolation_level=None)
    FenceGuard("pork").prepare(connection)
    with pytest.raises(BadPolicy, match="share a transaction"):
        FenceGuard("pork").check(connection, 3)
    connection.execute("BEGIN")
    FenceGuard("pork").check(connection, 3)
    connection.rollback()
    connection.close()


def test_a_table_that_was_not_prepared_is_no_permission(db: sqlite3.Connection) -> None:
    """A missing row is an error that says what to do, not a number of 0."""
    with pytest.raises(BadPolicy, match=re.escape("no row for 'beef': call prepare(connection)")):
        FenceGuard("beef").check(db, 3)


class Driver:
    """A connection of a driver that marks parameters in its own way, over sqlite3."""

    def __init__(self, db: sqlite3.Connection, pattern: str, mark: str) -> None:
        self._db, self._pattern, self._mark, self.seen = db, pattern, mark, ""

    def cursor(self) -> "Driver":
        """Itself: it runs one statement at a time."""
        return self

    def execute(self, statement: str, parameters: Any) -> None:
        """Translate the parameter marks to those of sqlite3."""
        self.seen = statement
        self._cursor = self._db.execute(re.sub(self._pattern, self._mark, statement), parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor if name in ("fetchone", "rowcount") else self._db, name)

    def close(self) -> None:
        """Of a cursor."""


@pytest.mark.parametrize(
    ("style", "pattern", "mark", "seen"),
    [
        ("qmark", r"\?", "?", "fence = ?"),
        ("format", r"%s", "?", "fence = %s"),
        ("numeric", r":(\d)", r"?\1", "fence = :1"),
        ("named", ":", ":", "fence = :fence"),
        ("pyformat", r"%\((\w+)\)s", r":\1", "fence = %(fence)s"),
    ],
)
def test_every_paramstyle_of_the_standard_is_spoken(
    db: sqlite3.Connection, style: str, pattern: str, mark: str, seen: str
) -> None:
    """A driver that is not sqlite3 is spoken to in its own way."""
    driver, guard = Driver(db, pattern, mark), FenceGuard("beef", table="main.fences", paramstyle=style)
    guard.prepare(driver)
    guard.check(driver, 7)
    assert seen in driver.seen
    with pytest.raises(StaleFence, match="7 has been here"):
        guard.check(driver, 6)


def test_the_paramstyle_is_that_of_the_module_of_the_connection(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver's connection class may live in a module inside the package that states the style."""
    driver = Driver(db, r"%s", "?")
    with pytest.raises(BadPolicy, match="the paramstyle of Driver is unknown"):
        FenceGuard("pork").check(driver, 7)
    monkeypatch.setattr("tests.paramstyle", "format", raising=False)
    FenceGuard("pork").check(driver, 7)


def test_a_file_refuses_a_smaller_number_and_nothing_else(tmp_path: Path) -> None:
    """The block is entered with a number that grows or stays, and not with a smaller one."""
    entered, guard = [], FenceGuard("pork / monthly")
    for fence in (3, 3, 2**63 - 1):
        with guard.locked(tmp_path, fence):
            entered.append(fence)
    with pytest.raises(StaleFence, match="fence 6 is refused"), guard.locked(tmp_path, 6):
        entered.append(6)
    assert entered == [3, 3, 2**63 - 1]
    assert [file.name for file in tmp_path.iterdir()] == ["pork%20%2F%20monthly.fence"]


def test_an_effect_that_raises_lets_go_of_the_lock(tmp_path: Path) -> None:
    """The number stays, the lock does not."""
    with pytest.raises(ZeroDivisionError), FenceGuard("pork").locked(tmp_path, 3):
        raise ZeroDivisionError
    with FenceGuard("pork").locked(tmp_path, 3):
        pass
    with pytest.raises(StaleFence), FenceGuard("pork").locked(tmp_path, 2):
        pass


@pytest.mark.parametrize("content", [b"7\n", b"x" * 21, b"00000000000000000007\n8", b"00000000000000000007"])
def test_a_file_that_is_not_ours_is_no_permission(tmp_path: Path, content: bytes) -> None:
    """What cannot be read as a number of ours is an error that names the file."""
    (tmp_path / "pork.fence").write_bytes(content)
    with pytest.raises(BadRecord, match=re.escape("pork.fence holds")), FenceGuard("pork").locked(tmp_path, 9):
        pass
    assert (tmp_path / "pork.fence").read_bytes() == content


@pytest.mark.parametrize("fence", [None, True, -1, 1.5, "7", 2**63])
def test_what_is_no_fence_is_refused(db: sqlite3.Connection, tmp_path: Path, fence: Any) -> None:
    """A number that no term can have is named in the error, and nothing is written."""
    with pytest.raises(BadPolicy, match=re.escape(f"not {fence!r}")):
        FenceGuard("pork").check(db, fence)
    with pytest.raises(BadPolicy, match=re.escape(f"not {fence!r}")), FenceGuard("pork").locked(tmp_path, fence):
        pass
    assert not list(tmp_path.glob("*.fence"))


def test_a_guard_that_cannot_work_is_refused() -> None:
    """Names that are empty or would be SQL, and a paramstyle that does not exist."""
    with pytest.raises(BadPolicy, match="name"):
        FenceGuard("")
    with pytest.raises(BadPolicy, match="fences; DROP"):
        FenceGuard("pork", table="fences; DROP TABLE pork")
    with pytest.raises(BadPolicy, match="dollar"):
        FenceGuard("pork", paramstyle="dollar")


def test_the_error_can_be_sent_to_another_process() -> None:
    """A pool of workers passes it on with its numbers."""
    error = pickle.loads(pickle.dumps(StaleFence("pork", 6, 7)))
    assert isinstance(error, ElectionError)
    assert (str(error), error.largest) == ("pork: fence 6 is refused, 7 has been here", 7)

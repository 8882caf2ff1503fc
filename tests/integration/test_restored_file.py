"""Real processes, and a file that somebody replaces by a backup while one of them leads."""

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from election import look, open_register
from election.record import State
from tests.commands import politics
from tests.integration.conftest import MakeStage
from tests.integration.harness import Stage
from tests.waiting import until


def back_up(path: Path, to: Path) -> Path:
    """Make a backup of a file that is in use, as `sqlite3 FILE '.backup TO'` does."""
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(to)) as target:
        source.backup(target)
    return to


def restore(backup: Path, path: Path, *, logs: bool = True) -> None:
    """Put a copy of the backup in the place of the file, after its logs were deleted or without that."""
    copy = path.with_suffix(".new")
    copy.write_bytes(backup.read_bytes())
    if logs:
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.replace(copy, path)


@pytest.fixture
def path(old_store: str) -> Path:
    """The file."""
    return Path(old_store.removeprefix("sqlite:///"))


@pytest.fixture
def stage(make_stage: MakeStage, old_store: str) -> Stage:
    """Workers that share the file."""
    return make_stage(old_store)


def wait_for_record(stage: Stage, fence: int) -> None:
    """Wait until this leader's own record is in the cell, and counts."""

    def there() -> bool:
        with contextlib.closing(open_register(stage.options["store"])) as register:
            record = look(register, stage.options["group"])
        return record is not None and (record.fence, record.state) == (fence, State.HELD)

    until(there, f"the record with fence {fence}")


def test_a_leader_leads_on_over_each_backup_that_is_restored(stage: Stage, path: Path) -> None:
    """Backups with an open record, with that of an earlier leader and without any: the leader puts its own back."""
    backups = [back_up(path, path.with_name("empty"))]
    first, election = stage.start(1)[0], stage.wait("elected")
    backups.append(back_up(path, path.with_name("held")))
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    backups.append(back_up(path, path.with_name("open")))
    stage.start(3)
    fence = stage.wait("elected", after=election["t"])["fence"]
    for backup in [*backups, *reversed(backups)]:
        restore(backup, path)
        wait_for_record(stage, fence)
    assert [each["fence"] for each in stage.events("elected")] == [election["fence"], fence]


@pytest.mark.parametrize("logs", [True, False])
def test_an_open_record_that_was_restored_is_not_free(stage: Stage, path: Path, logs: bool) -> None:
    """While the leader sleeps nobody takes it before the lease is over, whatever became of its log."""
    first, election = stage.start(1)[0], stage.wait("elected")
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    backup = back_up(path, path.with_name("open"))
    stage.start(3)
    leader, second = stage.elected(after=election["t"])
    leader.send(signal.SIGSTOP)
    restore(backup, path, logs=logs)
    third = stage.wait("elected", after=second["t"])
    assert third["who"] != leader.name
    assert third["fence"] > second["fence"]
    assert third["t"] > max(claim["until"] for claim in stage.events("claim", fence=second["fence"]))
    leader.send(signal.SIGCONT)
    stage.wait("lost", who=leader.name)
    wait_for_record(stage, third["fence"])


def test_the_state_of_a_restored_group(stage: Stage, path: Path) -> None:
    """`politics status` says that the record was brought back, until somebody is elected."""
    worker = stage.start(1)[0]
    stage.wait("elected")
    backup = back_up(path, path.with_name("held"))
    worker.send(signal.SIGKILL)
    restore(backup, path)
    where = ("--store", stage.options["store"])
    status, said, _ = politics("status", stage.options["group"], *where, "--json")
    assert (status, json.loads(said)[0]["state"], json.loads(said)[0]["leader"]) == (0, "restored", None)
    assert f"{stage.options['group']}  restored" in politics("status", stage.options["group"], *where).out

"""A stage for each test: leaving it ends every process and verifies every claim of leadership."""

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from election import open_register
from tests.integration.harness import Stage
from tests.memcached import Memcached
from tests.waiting import until

_groups = (f"group {os.getpid()}-{number}" for number in itertools.count(1))

MakeStage = Callable[..., Stage]


@pytest.fixture
def old_memcached(memcached: Memcached) -> Memcached:
    """The shared memcached, once it is old enough to vouch for leases of a second: elections are immediate."""
    until(lambda: int(memcached.stats()["uptime"]) > 5, "an older memcached")
    return memcached


@pytest.fixture
def old_store(tmp_path: Path) -> str:
    """An SQLite store of this test that is old enough to vouch for any lease: elections are immediate."""
    path = tmp_path / "old.db"
    with contextlib.closing(open_register(f"sqlite:///{path}")) as register:
        register.identity()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE store SET born = born - 10000")
    return f"sqlite:///{path}"


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[MakeStage]:
    """Make the stage of this test; workers race for a lease of one second in a group of their own."""
    stages: list[Stage] = []

    def make(store: str, **options: Any) -> Stage:
        given = {"group": next(_groups), "lease_ttl": 1.0, "iteration_length": 3600.0, "seconds": 3600.0}
        stages.append(Stage(tmp_path, store=store, **given | options))
        return stages[-1]

    yield make
    for stage in stages:
        try:
            stage.end()
            stage.verify()
        finally:
            stage.close()


@pytest.fixture
def stage(make_stage: MakeStage, old_memcached: Memcached) -> Stage:
    """A stage around the shared memcached."""
    return make_stage(old_memcached.url)

"""What every store that sends hints has to do (`Register.watch`). Those without are asserted to be the known ones."""

import collections
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from election import Register
from election.register import Hints
from tests.contract.conftest import STORES, Stores
from tests.contract.test_register import in_fork
from tests.waiting import until

WITHOUT = {"sqlite", "memcached", "sharded", "quorum"}
"""Stores that send no hints."""


def kind(store: Any) -> str:
    """The kind of a store that the contract names."""
    return store if isinstance(store, str) else str(store.values[0])


with_hints = pytest.mark.parametrize("stores", [each for each in STORES if kind(each) not in WITHOUT], indirect=True)
without_hints = pytest.mark.parametrize("stores", [each for each in STORES if kind(each) in WITHOUT], indirect=True)


class Ear:
    """Counts the hints about one name."""

    def __init__(self, register: Register, name: str) -> None:
        self.count = 0
        hints = register.watch(name, self.hear)
        assert hints
        self.hints: Hints = hints

    def hear(self) -> None:
        self.count += 1

    def hears(self, change: Callable[[], object]) -> None:
        """Return once a hint has come, after `change`."""
        until(lambda: self.hints.live)
        before = self.count
        change()
        until(lambda: self.count > before)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"test {uuid.uuid4().hex}"


@pytest.fixture
def clients(stores: Stores) -> tuple[Register, Register]:
    """Two clients of a store that sends hints."""
    return stores.client(), stores.client()


def write(register: Register, name: str) -> None:
    """Change the cell, or create it."""
    cell = register.read(name)
    assert register.swap(name, uuid.uuid4().bytes, cell.version if cell else None) is not None


@without_hints
def test_a_store_without_hints_says_so(stores: Stores, name: str) -> None:
    """It returns None, and is one of those that are known to have none."""
    assert stores.client().watch(name, lambda: None) is None


@with_hints
def test_a_change_and_a_creation(clients: tuple[Register, Register], name: str) -> None:
    """Another client's write is told of, whether it creates the cell or changes it."""
    one, two = clients
    ear = Ear(one, name)
    ear.hears(lambda: write(two, name))
    ear.hears(lambda: write(two, name))
    ear.hints.close()


@with_hints
def test_many_names(clients: tuple[Register, Register], name: str) -> None:
    """One register watches many names, with characters of all kinds, and also one name twice."""
    one, two = clients
    names = [f"{name} {number}" for number in range(100)] + [
        "é" * 40,
        f"{name}'",
        f'{name}"%*\\',
        f"{name}/a:b",
        name,
        name,
    ]
    ears = [Ear(one, each) for each in names]
    counts = collections.Counter(names)
    for ear, each in zip(ears, names, strict=True):
        ear.hears(lambda each=each: write(two, each))  # type: ignore[misc]
        if counts[each] > 1:
            ear.hints.close()
    for ear in ears:
        ear.hints.close()


@with_hints
def test_close(clients: tuple[Register, Register], name: str) -> None:
    """Hints that are closed, be it twice, are not sent any more; others of the same name and register are."""
    one, two = clients
    closed, other = Ear(one, name), Ear(one, name)
    closed.hears(lambda: write(two, name))
    closed.hints.close()
    closed.hints.close()
    # What was on its way may still arrive with the first.
    other.hears(lambda: write(two, name))
    before = closed.count
    other.hears(lambda: write(two, name))
    assert closed.count == before
    other.hints.close()


@with_hints
def test_watch_again(clients: tuple[Register, Register], name: str) -> None:
    """When the last watch has ended, a new one begins afresh."""
    one, two = clients
    for _ in range(3):
        ear = Ear(one, name)
        ear.hears(lambda: write(two, name))
        ear.hints.close()


@with_hints
def test_a_closed_register(clients: tuple[Register, Register], name: str) -> None:
    """A register that was closed while it watched can be used again, and the old hints closed late."""
    one, two = clients
    old = Ear(one, name)
    old.hears(lambda: write(two, name))
    one.close()
    ear = Ear(one, name)
    ear.hears(lambda: write(two, name))
    old.hints.close()
    ear.hears(lambda: write(one, name))
    ear.hints.close()


@with_hints
def test_fork(clients: tuple[Register, Register], name: str) -> None:
    """A forked child watches by itself, whatever it closes, and disturbs nothing of what its parent watches."""
    one, two = clients
    ear = Ear(one, name)
    ear.hears(lambda: write(two, name))

    def child() -> bool:
        ear.hints.close()
        own = Ear(one, name)
        own.hears(lambda: write(two, name))
        one.close()
        return True

    assert in_fork(child)
    ear.hears(lambda: write(two, name))
    ear.hints.close()

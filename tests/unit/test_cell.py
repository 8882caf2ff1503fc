"""One place builds all records of a candidate and posts its vacancies."""

import os
from dataclasses import replace

import pytest

from election.cell import LeaseCell, ask_to_resign, order, read_record
from election.errors import BadRecord
from election.record import State, decode
from election.stores.memory import MemoryRegister
from election.testing import FakeClock, FaultyStore
from tests.unit.fakes import NAME


@pytest.fixture
def cell() -> LeaseCell:
    """An empty cell."""
    return LeaseCell(MemoryRegister(), NAME)


def test_each_record_has_a_name_of_its_own(cell: LeaseCell) -> None:
    """The number grows with each record, the holder and its process stay, and no lease is written down too short."""
    records = [cell.record(7, State.HELD, ttl=0.1004, note={"a": 1}, orders={}, unknown={"later": 2}) for _ in range(3)]
    assert [record.seq for record in records] == [1, 2, 3]
    assert {(record.holder, record.pid) for record in records} == {(cell.id, os.getpid())}
    assert (records[0].ttl_ms, records[0].note, records[0].unknown) == (101, {"a": 1}, {"later": 2})
    assert LeaseCell(cell.register, NAME).id != cell.id


def test_only_an_empty_cell_is_filled_and_with_a_vacancy(cell: LeaseCell) -> None:
    """A vacancy keeps the note for the next leader, and does nothing where somebody was first."""
    posted = cell.post_vacancy(7, ttl=1.0, note={"slot": 1}, orders={}, unknown={})
    assert posted is not None
    record, version = posted
    assert (record.state, record.fence, record.note) == (State.VACANT, 7, {"slot": 1})
    assert cell.read() == (record, version)
    assert cell.post_vacancy(8, ttl=1.0, note={}, orders={}, unknown={}) is None
    assert cell.read() == (record, version)


def test_a_swap_names_the_version_that_it_replaces(cell: LeaseCell) -> None:
    """A record is written over exactly what was seen."""
    assert cell.read() == (None, None)
    first = cell.record(7, State.HELD, ttl=1.0, note={}, orders={}, unknown={})
    version = cell.swap(first, None)
    second = cell.record(7, State.OPEN, ttl=1.0, note={}, orders={}, unknown={})
    assert cell.swap(second, version) is not None
    assert cell.swap(first, version) is None
    assert read_record(cell.register, NAME)[0] == second


def test_a_record_names_the_generation_of_what_it_replaces() -> None:
    """One that fills an empty cell replaces nothing, and names none."""
    store = FaultyStore(FakeClock())
    cell = LeaseCell(store.link(), NAME)
    posted = cell.post_vacancy(7, ttl=1.0, note={}, orders={}, unknown={})
    assert posted is not None
    assert posted[0].store == ""
    version = posted[1]
    store.restore(store.cells)
    restored = cell.read()[1]
    assert cell.swap(cell.record(8, State.HELD, ttl=1.0, note={}, orders={}, unknown={}, over=version), version) is None
    cell.swap(cell.record(8, State.HELD, ttl=1.0, note={}, orders={}, unknown={}, over=restored), restored)
    record, _ = cell.read()
    assert record is not None
    assert (record.store, record.state) == ("2", State.HELD)


@pytest.mark.parametrize("state", State)
def test_orders_over_a_record_of_another_generation_do_not_make_it_one_of_this(state: State) -> None:
    """They are written, and what it says of its holder, and of where it was written, stays as it is."""
    store = FaultyStore(FakeClock())
    cell = LeaseCell(store.link(), NAME)
    before = cell.record(7, state, ttl=1.0, note={"a": 1}, orders={}, unknown={"b": 2})
    before = replace(before, store="1")
    store.corrupt(NAME, before.encode())
    store.restore(store.cells)
    assert ask_to_resign(cell.register, NAME) is None
    ordered = order(cell.register, NAME, lambda record: {"foreign": record.foreign})
    assert ordered is not None
    assert ordered.state is State.VACANT
    assert decode(NAME, store.cells[NAME].data) == replace(before, orders={"foreign": True})


def test_what_is_not_ours_is_an_error(cell: LeaseCell) -> None:
    """A cell that cannot be read is never taken for an empty one."""
    cell.register.swap(NAME, b"mine!", None)
    with pytest.raises(BadRecord, match=NAME):
        cell.read()

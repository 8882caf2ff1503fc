"""One lease's cell in a store: the only place that builds records and posts vacancies.

What others than its holder write into a record is here too: orders, and the request to hand over.
"""

import itertools
import math
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tenacity import retry_if_result

from election.clock import Clock, SystemClock, wall_ms
from election.errors import BadPolicy, BadRecord
from election.record import Record, State, check_name, decode, find_fence, is_usable
from election.register import Register
from election.retries import retrying


class LeaseCell:
    """Reads the cell `name`, and writes records into it that tell who wrote them.

    `id` is random; together with the number of the write it names each record that is written here. A forked child
    needs an object of its own.
    """

    def __init__(self, register: Register, name: str) -> None:
        self.register, self.name = register, name
        self.id = uuid.uuid4().hex
        self._writes = itertools.count(1)
        self._host, self._pid = socket.gethostname()[:64], os.getpid()

    def read(self) -> tuple[Record | None, Any]:
        """Return the record and its version; None and None if the cell is empty.

        Raises:
            StoreUnavailable: the store did not answer.
            BadRecord: the cell holds something that is not ours.
        """
        return read_record(self.register, self.name)

    def record(
        self,
        fence: int,
        state: State,
        *,
        ttl: float,
        note: Mapping[str, Any],
        orders: Mapping[str, Any],
        unknown: Mapping[str, Any],
        over: Any = None,
    ) -> Record:
        """Return a new record of this candidate, with a number of its own; nothing is written.

        `over` is the version that it is to replace, None for an empty cell: it names the generation of that.
        """
        return Record(
            fence=fence,
            holder=self.id,
            seq=next(self._writes),
            # Rounded up: no challenger may think the lease shorter than its holder does.
            ttl_ms=math.ceil(ttl * 1000),
            state=state,
            host=self._host,
            pid=self._pid,
            at_ms=wall_ms(),
            note=note,
            orders=orders,
            unknown=unknown,
            store=self.generation(over),
        )

    def generation(self, version: Any) -> str:
        """Return the store's generation in which `version` was read or written; "" for None."""
        return "" if version is None else self.register.generation(version)

    def forgotten(self, fence: int, over: Any) -> Record:
        """Return a vacant record that replaces one that nobody can read; nothing is written."""
        vacant = self.record(fence, State.VACANT, ttl=0.001, note={}, orders={}, unknown={}, over=over)
        return replace(vacant, forgotten=True)

    def rewriter(self, record: Record) -> Callable[[Mapping[str, Any]], bytes]:
        """Return a function of the note that encodes this candidate's next record, which is otherwise like `record`.

        Raises:
            BadPolicy: the function does if the note is not JSON or too long.
        """
        rewrite = replace(record, asked=False).rewriter()
        return lambda note: rewrite(next(self._writes), wall_ms(), note)

    def swap(self, record: Record, expected: Any) -> Any | None:
        """Write `record` over the version `expected`; return the new version, or None if somebody else was first.

        Raises:
            StoreUnavailable: the store did not answer. The write may have landed, or may land later.
            BadPolicy: the note is not JSON or too long.
        """
        return self.register.swap(self.name, record.encode(), expected)

    def post_vacancy(
        self, fence: int, *, ttl: float, note: Mapping[str, Any], orders: Mapping[str, Any], unknown: Mapping[str, Any]
    ) -> tuple[Record, Any] | None:
        """Fill the empty cell with a vacant record; return that and its version, or None if somebody else was first.

        Only vacant records are ever created. A create may be delivered long after its sender gave up, and must then
        look neither like a leader nor like a free lease. It replaces no version, so it names no generation, and says
        the same in each: that the cell was empty when it landed.

        Raises:
            StoreUnavailable: as for `swap`.
        """
        vacant = self.record(fence, State.VACANT, ttl=ttl, note=note, orders=orders, unknown=unknown)
        version = self.swap(vacant, None)
        return None if version is None else (vacant, version)


def read_record(register: Register, name: str) -> tuple[Record | None, Any]:
    """Return the record in the cell `name` and its version; None and None if the cell is empty.

    A record of another generation of the store is returned as what it counts for: see `Record.found_in`.

    Raises:
        StoreUnavailable: the store did not answer.
        BadRecord: the cell holds something that is not ours.
    """
    cell = register.read(name)
    if cell is None:
        return None, None
    return decode(name, cell.data).found_in(register.generation(cell.version)), cell.version


def forget(register: Register, name: str, *, clock: Clock | None = None) -> Record | None:
    """Replace a record that nobody can read by a vacant one, and return that; None if there is no such record.

    This takes nothing from anybody. A holder whose record was spoilt still leads until its deadline: it writes over the
    vacant record, as after a loss. Everybody else waits a whole lease from the moment when they first see the vacant
    record, even if the store remembers (rule 5): what was in the cell was not lost, but overwritten.

    The fence of the new record is that of the old one if it can still be found there, and 0 if not. The next leader's
    is larger than that, than all that it has seen itself, and than its wall clock in milliseconds.

    Args:
        register: the store.
        name: the lease.
        clock: for tests.

    Raises:
        StoreUnavailable: the store did not answer. The vacant record may have been written, or may still be.
    """
    shard = register.shard(check_name(name))

    def replace_it() -> tuple[bool, Record | None]:
        cell = shard.read(name)
        if cell is None or is_usable(name, cell.data):
            return True, None
        vacant = LeaseCell(shard, name).forgotten(find_fence(cell.data, wall_ms()), cell.version)
        return shard.swap(name, vacant.encode(), cell.version) is not None, vacant

    return until_settled(replace_it, clock)


def order(
    register: Register,
    name: str,
    change: Callable[[Record], Mapping[str, Any]],
    *,
    clock: Clock | None = None,
) -> Record | None:
    """Write other orders into the record of `name`, and return the record that has them; None if there is no record.

    Each holder carries them on (`LeaseTerm.orders`). Like a request to resign this takes nothing from anybody: the
    record says of its holder what it said before.

    Args:
        register: the store.
        name: the lease.
        change: returns the new orders for the record that is there; small, and JSON. What it raises is passed on.
        clock: for tests.

    Raises:
        StoreUnavailable, BadRecord: as for `look`. After the first the orders may have been written, or may still be.
    """

    def write(record: Record) -> Record:
        return replace(record, orders=change(record))

    return _rewrite(register, name, write, clock)


def ask_to_resign(register: Register, name: str, *, clock: Clock | None = None) -> Record | None:
    """Ask the leader of `name` to hand over, and return its record; None if nobody holds the lease.

    The request is a field of the record, and the leader finds it when it next looks. It takes nothing away: a leader
    that ignores it goes on leading, and one that is dead is not replaced later because of it. If somebody else writes
    at the same moment, the request is written again after a short random pause.

    Args:
        register: the store.
        name: the lease.
        clock: for tests.

    Raises:
        StoreUnavailable, BadRecord: as for `look`.
    """

    def ask(record: Record) -> Record | None:
        return replace(record, asked=True) if record.state is State.HELD else None

    return _rewrite(register, name, ask, clock)


def _rewrite(
    register: Register, name: str, change: Callable[[Record], Record | None], clock: Clock | None
) -> Record | None:
    """Write into a record what `change` makes of its orders and of `asked`; return that, or None if there is nothing.

    All else stays as it was found, the key too. So a record of another generation of the store goes on being one.

    Raises:
        BadRecord: there is something else, or what there is could not be written again.
    """
    shard = register.shard(check_name(name))

    def attempt() -> tuple[bool, Record | None]:
        """Return whether it is settled, and with which record."""
        cell = shard.read(name)
        record = decode(name, cell.data) if cell else None
        changed = change(record.found_in(shard.generation(cell.version))) if cell and record else None
        if cell is None or record is None or changed is None:
            return True, None
        try:
            data = replace(record, asked=changed.asked, orders=changed.orders).encode()
        except BadPolicy as exc:
            raise BadRecord(f"the lease in the cell {name!r} could not be written again: {exc}") from exc
        return shard.swap(name, data, cell.version) is not None, changed

    return until_settled(attempt, clock)


def until_settled(work: Callable[[], tuple[bool, Record | None]], clock: Clock | None) -> Record | None:
    """Do `work` until it says that it is settled: somebody else may write at the same moment."""
    again = retrying(
        clock or SystemClock(),
        first=0.005,
        longest=0.1,
        retry=retry_if_result(lambda outcome: not outcome[0]),
        wake=threading.Event(),
    )
    return again(work)[1]

"""One lease's cell in a store, as one candidate uses it: the only place that builds records and posts vacancies."""

import itertools
import math
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from election.clock import wall_ms
from election.record import Record, State, decode
from election.register import Register


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
        self, fence: int, state: State, *, ttl: float, note: Mapping[str, Any], unknown: Mapping[str, Any]
    ) -> Record:
        """Return a new record of this candidate, with a number of its own; nothing is written."""
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
            unknown=unknown,
        )

    def forgotten(self, fence: int) -> Record:
        """Return a vacant record that replaces one that nobody can read; nothing is written."""
        vacant = self.record(fence, State.VACANT, ttl=0.001, note={}, unknown={})
        return replace(vacant, forgotten=True)

    def swap(self, record: Record, expected: Any) -> Any | None:
        """Write `record` over the version `expected`; return the new version, or None if somebody else was first.

        Raises:
            StoreUnavailable: the store did not answer. The write may have landed, or may land later.
            BadPolicy: the note is not JSON or too long.
        """
        return self.register.swap(self.name, record.encode(), expected)

    def post_vacancy(
        self, fence: int, *, ttl: float, note: Mapping[str, Any], unknown: Mapping[str, Any]
    ) -> tuple[Record, Any] | None:
        """Fill the empty cell with a vacant record; return that and its version, or None if somebody else was first.

        Only vacant records are ever created. A create may be delivered long after its sender gave up, and must then
        look neither like a leader nor like a free lease.

        Raises:
            StoreUnavailable: as for `swap`.
        """
        vacant = self.record(fence, State.VACANT, ttl=ttl, note=note, unknown=unknown)
        version = self.swap(vacant, None)
        return None if version is None else (vacant, version)


def read_record(register: Register, name: str) -> tuple[Record | None, Any]:
    """Return the record in the cell `name` and its version; None and None if the cell is empty.

    Raises:
        StoreUnavailable: the store did not answer.
        BadRecord: the cell holds something that is not ours.
    """
    cell = register.read(name)
    return (decode(name, cell.data), cell.version) if cell else (None, None)

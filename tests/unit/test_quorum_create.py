"""Several that create one cell of a quorum at the same time: the moments at which their requests arrive."""

import itertools
from typing import Any

from election.stores.quorum.cells import REFUSED, SILENT, Acceptor, Answer, Read, Sight
from election.stores.quorum.rules import Outcome, Setup, Version, create

A, B, C = 0, 1, 2
fresh = itertools.count(1)


class Creator:
    """One that creates, and sends the requests of its present round to one server after the other."""

    def __init__(self, cells: list[tuple[Any, Acceptor | None]], name: str) -> None:
        self._cells, self._steps = cells, create(Setup(3, "conf", name, lambda: f"{next(fresh)}"), name.encode())
        self._round, self._answers = next(self._steps), list[Answer]([SILENT] * 3)
        self.outcome: Version | Outcome | None = None

    def ask(self, *servers: int) -> "Creator":
        """Let the requests to these servers arrive, and the answers come back."""
        for number in servers:
            request, (version, cell) = self._round.requests[number], self._cells[number]
            if isinstance(request, Read):
                self._answers[number] = Sight(version, cell)
            elif request and request.expected != version:
                self._answers[number] = REFUSED
            elif request:
                self._cells[number] = (next(fresh), request.cell)
                self._answers[number] = self._cells[number][0]
        return self

    def go_on(self) -> None:
        """End the round with what was answered."""
        try:
            self._round, self._answers = self._steps.send(self._answers), [SILENT] * 3
        except StopIteration as stop:
            self.outcome = stop.value


def test_reads_at_different_moments_hide_no_choice() -> None:
    """Whoever read one server after an accept and another before it does not undo what is chosen meanwhile."""
    cells: list[tuple[Any, Acceptor | None]] = [(None, None)] * 3
    x, y, z = (Creator(cells, name) for name in "xyz")
    z.ask(A, B, C).go_on()
    z.ask(B, C).go_on()  # takes these two
    x.ask(A, B, C).go_on()
    x.ask(A, B).go_on()  # takes these two, one of them from z
    z.ask(B, C).go_on()  # accepted by C alone
    assert z.outcome is Outcome.UNKNOWN
    x.ask(A)
    y.ask(A, B, C).go_on()  # A has accepted x, B has not yet, C has accepted z
    x.ask(B).go_on()
    assert isinstance(x.outcome, Version)
    y.ask(A, B, C).go_on()
    assert y.outcome is Outcome.REFUSED
    assert [cell and cell.value for _, cell in cells[:2]] == [b"x", b"x"]

"""Several hosts and one fault at a time: who leads next, and how soon."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hosts.chaos import world
from tests.hosts.faults import FAULTS

pytestmark = pytest.mark.xdist_group("the hosts of test_faults")  # one world, which they share

Inject = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def inject() -> Iterator[Inject]:
    """Inject a fault into four hosts that all of these tests share, and return what came of it."""
    with world(seed=1) as process:
        assert process.stdin
        assert process.stdout

        def ask(kind: str) -> dict[str, Any]:
            process.stdin.write(f"{kind}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, "the hosts are gone"
            return json.loads(answer)

        yield ask
        process.stdin.close()
        last = process.stdout.read()
        assert json.loads(last) == {"broken": []}


@pytest.mark.parametrize("kind", FAULTS)
def test_after_any_single_fault_somebody_leads_again(inject: Inject, kind: str) -> None:
    """No two lead, and nobody leads for `lease_ttl` + 1 %, one polling interval and a few seconds.

    The few seconds are for a busy machine; `make chaos` reports what takes longer than one. The time counts from the
    fault where somebody can lead while it lasts, and from its end where nobody reaches the store before. A leader that
    can prove its lease keeps it.
    """
    outcome = inject(kind)
    assert outcome["broken"] == []
    assert outcome["late"] == []
    if FAULTS[kind].moves is not None:
        assert outcome["moved"] == FAULTS[kind].moves

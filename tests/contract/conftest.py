"""Every kind of register, behind one shape: `stores` makes clients that share their cells."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from election import Register, open_register
from election.clock import SystemClock
from election.testing import FaultyStore
from tests.memcached import Memcached


@dataclass
class Stores:
    """`client` opens one more client of one store; `other` opens a client of another one; `url`: for processes."""

    client: Callable[[], Register]
    other: Callable[[], Register]
    url: str | None = None


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        "memcached",
        "sharded",
        "faulty",
        pytest.param("quorum", marks=pytest.mark.xdist_group("quorum")),
    ]
)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Two separate stores of one kind, and clients of them that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def opener(make: Callable[[], Register]) -> Callable[[], Register]:
            return lambda: stack.enter_context(contextlib.closing(make()))

        def urls(one: str, other: str) -> Stores:
            return Stores(opener(lambda: open_register(one)), opener(lambda: open_register(other)), one)

        match request.param:
            case "memory":
                made = urls(f"memory://{tmp_path.name}", f"memory://{tmp_path.name}-other")
                made.url = None
            case "sqlite":
                made = urls(f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/other.db")
            case "memcached":
                servers: list[Memcached] = [request.getfixturevalue(name) for name in ("memcached", "second_memcached")]
                made = urls(servers[0].url, servers[1].url)
            case "sharded":
                one, two = (request.getfixturevalue(name).address for name in ("memcached", "second_memcached"))
                made = urls(f"memcached://{one},{two}", f"memcached://{two}")
            case "quorum":
                made = urls(*request.getfixturevalue("quorum"))
            case _:
                one_store, other_store = FaultyStore(SystemClock()), FaultyStore(SystemClock())
                made = Stores(opener(one_store.link), opener(other_store.link))
        yield made


@pytest.fixture(scope="session")
def second_memcached() -> Iterator[Memcached]:
    """Another memcached for the whole session."""
    with Memcached() as server:
        yield server


@pytest.fixture(scope="session")
def quorum() -> Iterator[tuple[str, str]]:
    """The URLs of two quorums of three memcacheds each, for the whole session."""
    with contextlib.ExitStack() as stack:
        each = [stack.enter_context(Memcached("-m", "32")).address for _ in range(6)]
        yield tuple(f"quorum+memcached://{','.join(addresses)}" for addresses in (each[:3], each[3:]))  # type: ignore[misc]

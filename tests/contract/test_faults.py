"""What every store has to stand: lost answers, Ctrl-C, closing, crowds of threads, event loops, the longest cells."""

import asyncio
import contextlib
import functools
import gc
import random
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from election import Register, StoreUnavailable, open_register
from politics.leading import lead
from tests.contract.conftest import Stores, with_a_server
from tests.contract.histories import Recorder
from tests.proxy import Proxy
from tests.waiting import DEADLINE, SOON, until

CROWD = 200
T = TypeVar("T")


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"fault {uuid.uuid4().hex}"


def all_at_once(works: list[Callable[[], object]]) -> None:
    """Call each in a thread of its own, and wait until all of them have returned.

    Raises:
        AssertionError: one has raised, or has not returned.
    """
    trouble: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def call(work: Callable[[], object]) -> None:
        try:
            gate.wait(DEADLINE)
            work()
        except BaseException as exc:  # noqa: BLE001 - it is reported below
            trouble.append(exc)

    threads = [threading.Thread(target=call, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not trouble, trouble
    assert not any(thread.is_alive() for thread in threads), "some have starved"


@contextlib.contextmanager
def client(url: str) -> Iterator[Register]:
    """A register that is closed at the end."""
    with contextlib.closing(open_register(url)) as register:
        yield register


def patient(stores: Stores) -> contextlib.AbstractContextManager[Register]:
    """A register that waits for an answer for as long as a busy machine may take."""
    return client(stores.through(timeout=SOON)) if stores.server else contextlib.nullcontext(stores.client())


def landed(register: Register, name: str) -> bytes | None:
    """What the cell holds, as soon as the store says so."""
    found: list[bytes | None] = []

    def read() -> bool:
        with contextlib.suppress(StoreUnavailable):
            cell = register.read(name)
            found.append(cell.data if cell else None)
        return bool(found)

    until(read, "an answer")
    return found[0]


@with_a_server
def test_a_swap_whose_answer_is_lost_is_sent_once(stores: Stores, name: str) -> None:
    """The caller hears `StoreUnavailable`; the swap has landed, and neither we nor a library sent it again."""
    assert stores.server
    other = stores.client()
    with Proxy(stores.server.port) as proxy:
        with client(stores.through(proxy.port)) as register:
            before: bytes | None = None
            for data in (b"<created by %d>", b"<swapped by %d>", b"<swapped again by %d>"):
                data %= random.SystemRandom().randrange(10**15)
                assert landed(register, name) == before
                cell = register.read(name)
                proxy.lose_answer_to(data)
                with pytest.raises(StoreUnavailable):
                    register.swap(name, data, cell.version if cell else None)
                assert landed(other, name) in (data, before)
                assert landed(register, name) == landed(other, name)
                assert proxy.sent(data) == 1
                before = landed(other, name)
        assert proxy.lost == 3


@with_a_server
def test_a_store_that_refuses_connections(stores: Stores, name: str) -> None:
    """Each call raises `StoreUnavailable` while nobody listens, and is answered as soon as somebody does."""
    assert stores.server
    with Proxy(stores.server.port) as proxy, client(stores.through(proxy.port)) as register:
        assert register.swap(name, b"first", None) is not None
        for connected in (True, False):
            proxy.refuse()
            for call in (register.identity, lambda: register.read(name), lambda: register.swap(name, b"", None)):
                with pytest.raises(StoreUnavailable):
                    call()
            proxy.accept()
            assert landed(register, name) == b"first"
            if not connected:
                register.close()


@with_a_server
def test_ctrl_c_while_the_server_is_silent(stores: Stores, name: str) -> None:
    """The answer to a question that Ctrl-C has ended is not taken for that of the next one."""
    assert stores.server
    with client(stores.through(timeout=30)) as register, pressing(lambda: 0.02, stores) as press:
        for each in "ab":
            assert register.swap(name + each, each.encode(), None) is not None
        for each, following in ("ab", "ba"):
            stores.server.freeze()
            try:
                assert press(lambda: register.read(name + each)) is None  # noqa: B023
            finally:
                stores.server.thaw()
            assert landed(register, name + following) == following.encode()


@contextlib.contextmanager
def pressing(pause: Callable[[], float], stores: Stores) -> Iterator[Callable[[Callable[[], T]], T | None]]:
    """Press Ctrl-C again and again, with pauses of so many seconds.

    Yields a function that calls another one, which Ctrl-C may end: then it returns None. Only there it has an effect.
    """
    # While kazoo hands a request over, it makes a closed connection of whatever is raised.
    ends = (KeyboardInterrupt, StoreUnavailable) if "zookeeper" in (stores.url or "") else KeyboardInterrupt
    me, armed, over = threading.get_ident(), False, threading.Event()

    def handle(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def strike() -> None:
        while not over.wait(pause()):
            signal.pthread_kill(me, signal.SIGINT)

    def press(work: Callable[[], T]) -> T | None:
        nonlocal armed
        try:
            armed = True
            answer = work()
            armed = False
        except ends:
            assert not armed, "no Ctrl-C, and yet no answer"
            return None
        return answer

    before = signal.signal(signal.SIGINT, handle)
    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield press
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of a socket that was just being made
def test_ctrl_c_at_any_moment(stores: Stores, name: str) -> None:
    """Calls that are ended in their middle hold no lock, and leave no answer for the next one."""
    register, rng, ended = stores.client(), random.Random(7), 0
    names = [f"{name} {number}" for number in range(5)]
    for each in names:
        assert register.swap(each, each.encode(), None) is not None
    with pressing(lambda: rng.uniform(0, 0.001), stores) as press:
        while ended < 25:
            each = rng.choice(names)
            cell = press(lambda: register.read(each))  # noqa: B023
            assert cell is None or cell.data == each.encode()
            ended += cell is None
    gc.collect()  # sockets that were just being made belong to this test
    for each in names:
        assert landed(register, each) == each.encode()


def test_closed_by_another_thread_at_any_time(stores: Stores, name: str) -> None:
    """A register that is closed again and again while it is used answers, or says that it cannot; nothing is lost."""
    register, recorder = stores.client(), Recorder([name], stores.weak)
    with recorder.running([register, register, stores.client()]), recorder.fault():
        for _ in range(40):
            recorder.more(2)
            register.close()
    assert recorder.flaws() == []


def test_a_crowd_on_one_register(stores: Stores, name: str) -> None:
    """Two hundred threads use one register at once: all of them finish, and each answer belongs to its own question."""

    def use(register: Register, number: int) -> None:
        mine = f"{name} {number}"
        first, second = (b"%d %s" % (number, word) for word in (b"first", b"second"))
        version = register.swap(mine, first, None)
        assert register.read(mine).data == first  # type: ignore[union-attr]
        assert register.swap(mine, second, version) is not None
        assert register.read(mine).data == second  # type: ignore[union-attr]

    with patient(stores) as register:
        all_at_once([functools.partial(use, register, number) for number in range(CROWD)])


def test_two_event_loops(stores: Stores, name: str) -> None:
    """Two event loops in two threads use one register, and lead in turn: never both."""
    leading = list[str]()

    async def use(register: Register, who: str) -> None:
        cells = [f"{name} {who} {number}" for number in range(20)]
        versions = await asyncio.gather(
            *(asyncio.to_thread(register.swap, cell, cell.encode(), None) for cell in cells)
        )
        assert None not in versions
        found = await asyncio.gather(*(asyncio.to_thread(register.read, cell) for cell in cells))
        assert [cell and cell.data for cell in found] == [cell.encode() for cell in cells]
        async with lead(name, store=register, lease_ttl=2.0) as term:
            assert not leading
            leading.append(who)
            await asyncio.sleep(0.01)  # time for the other one to come in, if anything lets it
            assert term.valid
            assert leading.pop() == who

    with patient(stores) as register:
        all_at_once([functools.partial(asyncio.run, use(register, who)) for who in ("one", "two")])


@pytest.mark.parametrize("letter", ["é", "☃", "𝄞", "%", " x"])
def test_the_largest_cell(stores: Stores, letter: str) -> None:
    """A name of 80 bytes in any letters, with 1 KB of data, is created, read, swapped and found by its version."""
    own = uuid.uuid4().hex[: 8 + (72 % len(letter.encode()))]
    name = own + letter * ((80 - len(own)) // len(letter.encode()))
    name += "y" * (80 - len(name.encode()))
    register, other = stores.client(), stores.client()
    version = register.swap(name, bytes(range(256)) * 4, None)
    assert version is not None
    assert register.version(name) == version
    assert register.swap(name, bytes(range(255, -1, -1)) * 4, version) is not None
    assert landed(other, name) == bytes(range(255, -1, -1)) * 4
    names = other.names()
    assert names is None or name in list(names)

"""What a quorum of memcacheds promises beyond the contract: a minority may be killed, restarted, frozen or flushed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from election import BadStoreURL, StoreUnavailable, open_register
from election.register import Swap
from election.stores import meta
from election.stores.quorum import register as quorum
from election.stores.quorum.cells import Sight
from election.stores.quorum.parallel import end_of_round, prefix_of
from election.stores.quorum.rules import Version
from tests.memcached import Memcached
from tests.waiting import until

Client = quorum.QuorumRegister


class Three:
    """Three memcacheds of a test's own, and clients that are closed after it. `servers` are in the quorum's order."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        made = [stack.enter_context(Memcached("-m", "8", "-o", "no_lru_maintainer,no_lru_crawler")) for _ in range(3)]
        self.servers = sorted(made, key=lambda server: server.port)
        self.url = f"quorum+memcached://{','.join(server.address for server in made)}"

    def client(self, options: str = "") -> Client:
        """Open one more client."""
        made = open_register(self.url + options)
        assert isinstance(made, Client)
        return self._stack.enter_context(contextlib.closing(made))

    def counts(self, what: str) -> list[int]:
        """What each of the servers that run has counted."""
        return [int(server.stats()[what]) for server in self.servers if server.runs]

    def key(self, name: str, server: Memcached) -> str:
        """The key of a cell on this server."""
        return meta.key(name, prefix_of(server.address)).decode()


@pytest.fixture
def three() -> Iterator[Three]:
    """Three memcacheds that may be killed, frozen and flushed."""
    with contextlib.ExitStack() as stack:
        yield Three(stack)


def write(register: Client, name: str, data: bytes) -> Version:
    """Write over what is there, until all servers have it; return the version."""
    cell = register.read(name)
    version = register.swap(name, data, cell.version if cell else None)

    def written() -> bool:
        nonlocal version
        register.version(name)  # which finds out what has become of the connections
        version = register.swap(name, data, version)
        assert version is not None
        return in_step(register, name)

    until(written, "servers in step")
    assert version is not None
    return version


def in_step(register: Client, name: str) -> bool:
    """Whether all servers have the same accepted proposal, and each knows all others."""
    cells = [sight.cell for sight in register.sights(name) if isinstance(sight, Sight) and sight.cell]
    return len(cells) == 3 and all(
        cell.accepted == cells[0].accepted and cell.seen == tuple(each.incarnation for each in cells) for cell in cells
    )


def renew(register: Client, name: str, times: int) -> None:
    """Write like a leader: over the version that the last write returned."""
    cell = register.read(name)
    assert cell is not None
    version = cell.version
    for number in range(times):
        version = register.swap(name, b"%d" % number, version)
        assert version is not None


def test_one_killed_for_good(three: Three) -> None:
    """With one of three killed, a renewal is one swap and a look is one question to each of the others."""
    register = three.client()
    version = write(register, "a", b"0")
    three.servers[1].stop()
    version = register.swap("a", b"1", version)
    swaps, reads = three.counts("cas_hits"), three.counts("get_hits")
    for _ in range(20):
        version = register.swap("a", b"2", version)
        assert version is not None
    assert three.counts("cas_hits") == [count + 20 for count in swaps]
    assert three.counts("cas_misses") == three.counts("cas_badval") == [0, 0]
    assert three.counts("get_hits") == reads
    assert [register.version("a") for _ in range(20)] == [version] * 20
    assert three.counts("get_hits") == [count + 20 for count in reads]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_restarted_is_repaired(three: Three, place: int) -> None:
    """A server that was restarted takes part again after a look and two renewals: then another one may die."""
    register = three.client()
    assert register.identity() == three.client().identity()
    write(register, "a", b"before")
    three.servers[place].restart()
    register.version("a")
    renew(register, "a", 2)
    assert in_step(register, "a")
    assert in_step(register, quorum.IDENTITY)
    identity = register.identity()
    three.servers[place - 1].stop()
    for client in (register, three.client()):
        assert client.read("a").data == b"1"  # type: ignore[union-attr]
        assert client.identity() == identity
    later = three.client()
    assert later.swap("a", b"later", later.version("a")) is not None
    assert register.read("a").data == b"later"  # type: ignore[union-attr]


def test_one_after_the_other(three: Three) -> None:
    """All servers may be restarted one after the other, if the cell is renewed in between: nothing is lost."""
    register, other = three.client(), three.client()
    write(register, "a", b"kept")
    for server in three.servers * 2:
        server.restart()
        assert other.read("a") is not None
        register.version("a")
        renew(register, "a", 2)
    assert other.read("a").data == b"1"  # type: ignore[union-attr]


def test_a_flush_and_an_eviction(three: Three) -> None:
    """A server that dropped one cell, or all of them, is repaired like one that was restarted."""
    register = three.client()
    write(register, "a", b"kept")
    three.servers[0].evict(three.key("a", three.servers[0]))
    assert register.read("a").data == b"kept"  # type: ignore[union-attr]
    renew(register, "a", 3)
    assert in_step(register, "a")
    assert three.servers[1].ask("flush_all") == "OK"
    renew(register, "a", 3)
    assert in_step(register, "a")


def test_a_blank_server_does_not_count(three: Three) -> None:
    """Of two servers of which one has forgotten the cell, nobody takes it for written: only with the third it is."""
    register = three.client()
    write(register, "a", b"kept")
    three.servers[0].restart()
    three.servers[1].freeze()
    other = three.client("?timeout=0.2")
    # As A2 says, too many have failed at once: that is a loss, never an old value.
    assert other.read("a") is None
    three.servers[1].thaw()
    until(lambda: (cell := other.read("a")) is not None and cell.data == b"kept", "the two that remember")


def test_one_frozen(three: Three) -> None:
    """A frozen server costs no call an error, and is closed once it owes an answer for longer than the timeout."""
    register = three.client("?timeout=0.2")
    version: Version | None = write(register, "a", b"0")
    three.servers[2].freeze()
    link = register._process.links.each[2]

    def goes_on() -> bool:
        nonlocal version
        version = register.swap("a", b"1", version)
        assert version is not None
        assert register.version("a") == version
        return link.trouble == "timed out"

    until(goes_on, "the end of patience with it")
    three.servers[2].thaw()

    def repaired() -> bool:
        goes_on()
        return in_step(register, "a")

    until(repaired, "the frozen server in step again")


def test_two_frozen(three: Three) -> None:
    """Each error names both, also when they are connected again, and nothing was sent since versions are void then."""
    register = three.client("?timeout=0.1")
    version = write(register, "a", b"0")
    for server in three.servers[1:]:
        server.freeze()
    calls: list[Callable[[], object]] = [lambda: register.version("a"), lambda: register.swap("a", b"1", version)]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="did not: timed out") as raised:
            call()
        assert all(server.address in str(raised.value) for server in three.servers[1:])


def test_two_killed(three: Three) -> None:
    """Without a majority each call raises StoreUnavailable, names who is silent, and works again with one back."""
    register = three.client("?timeout=0.3")
    version = write(register, "a", b"0")
    gone = three.servers[1:]
    for server in gone:
        server.stop()
    calls: list[Callable[[], object]] = [
        lambda: register.read("a"),
        lambda: register.versions(["a", "b"]),
        lambda: register.swap("a", b"1", version),
        lambda: register.swap("b", b"1", None),
        register.identity,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="2 of 3 memcacheds must answer") as raised:
            call()
        assert all(server.address in str(raised.value) for server in gone)
    swaps = [Swap("a", b"1", version), Swap("b", b"1", None)]
    assert all(isinstance(each, StoreUnavailable) for each in register.swap_many(swaps))


def test_two_restarted_at_once(three: Three) -> None:
    """If a majority has forgotten the cell, it is empty, and what the third remembers is never seen again."""
    register = three.client()
    version = write(register, "a", b"old")
    three.servers[0].restart()
    three.servers[1].restart()
    other = three.client()
    assert other.read("a") is None
    assert other.swap("a", b"new", None) is not None
    with contextlib.suppress(StoreUnavailable):  # it learns that the connections are gone
        assert register.swap("a", b"late", version) is None
    assert register.swap("a", b"late", version) is None
    renew(other, "a", 2)
    three.servers[0].stop()
    assert three.client().read("a").data == b"1"  # type: ignore[union-attr]


def test_another_list(three: Three) -> None:
    """Whoever names another list that shares a server is told what to do, and changes nothing."""
    register = three.client()
    write(register, "a", b"kept")
    with Memcached("-m", "8") as fourth:
        listed = ",".join(server.address for server in [fourth, *three.servers[:2]])
        with contextlib.closing(open_register(f"quorum+memcached://{listed}")) as other:
            for call in (lambda: other.read("a"), lambda: other.version("a")):
                with pytest.raises(StoreUnavailable, match="stop every worker, wait for a lease, restart") as raised:
                    call()
                assert raised.value.permanent
            assert other.swap("a", b"theirs", None) is None
    assert register.read("a").data == b"kept"  # type: ignore[union-attr]


def test_the_order_of_the_list_does_not_matter(three: Three) -> None:
    """Two workers that name the same servers in another order use one store."""
    write(three.client(), "a", b"shared")
    listed = ",".join(server.address.replace("127.0.0.1", "LOCALHOST") for server in three.servers[::-1])
    with contextlib.closing(open_register(f"quorum+memcached://{listed}")) as other:
        assert other.read("a").data == b"shared"  # type: ignore[union-attr]
        assert other.identity() == three.client().identity()


@pytest.mark.parametrize("garbage", [b"", b"q1 ", b"\xff" * 100, b"q1 a b c 1.d 1.e\nx", b"x" * 900_000])
def test_garbage(three: Three, garbage: bytes) -> None:
    """What a stranger has written into one server's cell counts as forgotten there, and is overwritten."""
    register = three.client()
    write(register, "a", b"kept")
    with socket.create_connection(("127.0.0.1", three.servers[0].port)) as stranger:
        stranger.sendall(
            b"set %b 0 0 %d\r\n%b\r\n" % (three.key("a", three.servers[0]).encode(), len(garbage), garbage)
        )
        assert stranger.recv(100) == b"STORED\r\n"
    assert three.client().read("a").data == b"kept"  # type: ignore[union-attr]
    renew(register, "a", 3)
    assert in_step(register, "a")


def test_duels(three: Three) -> None:
    """Of many who write over one version at once, one at most wins, and the cell has what it wrote."""
    clients = [three.client() for _ in range(4)]
    write(clients[0], "a", b"begin")
    for turn in range(20):
        won = list[bytes]()
        barrier = threading.Barrier(len(clients))

        def duel(number: int, client: Client, turn: int, won: list[bytes], barrier: threading.Barrier) -> None:
            data = b"%d of %d" % (turn, number)
            cell = client.read("a")
            barrier.wait()
            with contextlib.suppress(StoreUnavailable):
                if cell and client.swap("a", data, cell.version) is not None:
                    won.append(data)

        threads = [
            threading.Thread(target=duel, args=(number, client, turn, won, barrier))
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1
        cell = clients[0].read("a")
        assert cell is not None
        assert not won or cell.data == won[0]


def test_late_answers_belong_to_their_own_question(three: Three) -> None:
    """What a paused server answers later is counted for the write that asked, so that it stays in step."""
    register = three.client("?timeout=5")
    version = write(register, "a", b"0")
    three.servers[0].freeze()
    version = register.swap("a", b"1", version)
    three.servers[0].thaw()
    until(lambda: _arrived(register), "the late answer")
    version = register.swap("a", b"2", version)
    register._process.links.drain()
    assert version is not None
    assert in_step(register, "a")
    assert three.counts("cas_hits") == [count + 0 for count in [three.counts("cas_hits")[1]] * 3]
    assert register.read("a").data == b"2"  # type: ignore[union-attr]


def _arrived(register: Client) -> bool:
    register._process.links.drain()
    return not any(link.owed for link in register._process.links.each)


def test_standbys_do_not_defeat_the_leader(three: Three) -> None:
    """While others read as fast as they can, each renewal succeeds at once."""
    leader, stop, seen = three.client(), threading.Event(), list[bytes]()
    version: Version | None = write(leader, "a", b"0")

    def stand_by(client: Client) -> None:
        while not stop.is_set():
            if cell := client.read("a"):
                seen.append(cell.data)

    threads = [threading.Thread(target=stand_by, args=(three.client(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(seen) > 1, "readers")
        for number in range(300):
            version = leader.swap("a", b"%d" % number, version)
            assert version is not None
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ("a:1,b:1", "3, 5, 7 or 9"),
        ("a", "3, 5, 7 or 9"),
        ("a,b,c,d", "3, 5, 7 or 9"),
        ("a:1,b:1,a:1", "a:1 is named twice"),
        ("a,b,A:11211", "a:11211 is named twice"),
        ("localhost,127.0.0.1,b", "127.0.0.1:11211 is named twice"),
        ("a,b,c:x", "'c:x' is not host:port"),
        ("a,b,c?timeout=0", "timeout=0"),
        ("a,b,c?retries=1", "unknown option retries"),
    ],
)
def test_bad_lists(listed: str, told: str) -> None:
    """A list that cannot be a quorum is refused with a sentence that says why."""
    with pytest.raises(BadStoreURL, match=told):
        open_register(f"quorum+memcached://{listed}")


@pytest.mark.parametrize("name", ["nobody.invalid", "a..b", "x" * 64])
def test_a_name_that_nobody_knows(three: Three, name: str) -> None:
    """A host whose name cannot be looked up, or cannot be a name, is like one that is down."""
    listed = ",".join([*(server.address for server in three.servers[:2]), f"{name}:11211"])
    with contextlib.closing(open_register(f"quorum+memcached://{listed}")) as register:
        assert register.swap("a", b"0", None) is not None
        renew(register, "a", 3)  # type: ignore[arg-type]


def test_a_name_that_cannot_be_a_name_is_called_that(three: Three) -> None:
    """Without a majority the error says of such a name what is wrong with it."""
    opened = open_register(f"quorum+memcached://{three.servers[0].address},a..b,c..d")
    with (
        contextlib.closing(opened) as register,
        pytest.raises(StoreUnavailable, match=r"a\.\.b:11211 did not: .*label"),
    ):
        register.read("a")


def test_no_thread_for_a_look_up(three: Three) -> None:
    """Where no thread can be started, as in an interpreter that exits, the hosts that have numbers are enough."""
    listed = ",".join([*(server.address for server in three.servers[:2]), "nobody.invalid:11211"])
    code = f"""
import threading
from election import open_register
def start(self): raise RuntimeError("can't start new thread")
threading.Thread.start = start
register = open_register("quorum+memcached://{listed}")
assert register.swap("a", b"0", None) is not None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("answered", "end"), [(0.001, 0.006), (0.1, 0.2), (0.4, 0.5), (0.6, 0.5)])
def test_a_round_has_an_end(answered: float, end: float) -> None:
    """Once enough have answered, the others may have as long again, but the round never outlasts its time limit."""
    assert end_of_round(begun=0.0, answered=answered, latest=0.5) == pytest.approx(end)


def test_ctrl_c_leaves_no_answer_behind(three: Three) -> None:
    """Who is interrupted while two servers are silent finds each later answer to belong to its own question."""
    register = three.client("?timeout=30")
    write(register, "a", b"kept")
    links = register._process.links.each
    for server in three.servers[1:]:
        server.freeze()

    def interrupt() -> None:
        until(lambda: len(links[1].owed) == len(links[2].owed) == 1, "a question")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        register.swap("b", b"other", None)
    thread.join()
    for server in three.servers[1:]:
        server.thaw()
    assert [register.read("a").data for _ in range(3)] == [b"kept"] * 3  # type: ignore[union-attr]
    write(register, "b", b"new")
    assert register.read("b").data == b"new"  # type: ignore[union-attr]


def test_a_forked_child_proposes_under_a_name_of_its_own(three: Three) -> None:
    """A child may swap over its parent's version, but never with the ballot that was promised to its parent."""
    register = three.client()
    version = write(register, "a", b"parent")
    (promised,), proposer = version.promised, register._process.setup.proposer
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if register.swap("a", b"child", version) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ballots = [sight.cell.accepted for sight in register.sights("a") if isinstance(sight, Sight) and sight.cell]
    assert promised.proposer == proposer
    assert len([ballot for ballot in ballots if ballot.proposer != proposer]) >= 2
    assert promised not in ballots
    assert register.swap("a", b"parent again", version) is None
    cell = register.read("a")
    assert cell is not None
    assert cell.data == b"child"
    assert register.swap("a", b"parent again", cell.version) is not None


def test_an_answer_that_came_while_nobody_asked_is_in_time(three: Three) -> None:
    """A server whose answer arrived after its round had ended, but in time, is not taken for a silent one."""
    register = three.client("?timeout=0.2")
    write(register, "a", b"kept")
    link, begun = register._process.links.each[0], time.monotonic()
    number = link.number
    three.servers[0].freeze()
    version = register.swap("a", b"later", register.version("a"))
    assert version is not None
    three.servers[0].thaw()
    until(lambda: time.monotonic() - begun > 0.5, "the end of the timeout")
    assert register.version("a") == version
    assert link.number == number
    assert not link.trouble

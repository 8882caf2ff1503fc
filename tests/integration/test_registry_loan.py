"""Borrowing: one at a time, decided by the owner, and never lost."""

import itertools
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from discovery import Registry
from discovery.errors import BadTime, ConnectionLost, LoanLost, NoSuchObject, ServiceNotFound, ServiceOnLoan
from tests.integration.nursery import nursery
from tests.processes import python
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
BORROWER = """
import sys, threading
from discovery import Registry
from discovery.errors import LoanLost
url, ttl = sys.argv[1], float(sys.argv[2])
registry = Registry(interfaces=["127.0.0.1"])
registry.watch((url.split("/")[2], None, None, None)).get(60)  # it is heard of, on loan or not
with registry.borrow(url, ttl=ttl, timeout=None) as counter:
    print("mine", counter.count(), flush=True)
    sys.argv[3:] and threading.Event().wait()
    sys.stdin.readline()
    try:
        print("then", counter.count(), flush=True)
    except Exception as exc:
        print(type(exc).__name__, flush=True)
print("returned", flush=True)
"""


class Counter:
    def __init__(self) -> None:
        self.n = 0

    def count(self) -> int:
        self.n += 1
        return self.n


@pytest.fixture
def owner() -> Iterator[Registry]:
    with Registry(f"app{secrets.token_hex(6)}", interfaces=LOOPBACK) as registry:
        yield registry


@pytest.fixture
def url(owner: Registry, other: Registry) -> str:
    """The url of a service that the other registry has heard of."""
    url = owner.register("Counter", Counter())
    other.lookup(url, DEADLINE)
    return url


@pytest.fixture
def other() -> Iterator[Registry]:
    with Registry(interfaces=LOOPBACK) as registry:
        yield registry


def test_what_is_borrowed_is_ours_alone(owner: Registry, other: Registry, url: str) -> None:
    """Others are told so, lookups pass it over, and after the block it is there as before."""
    counter = other.lookup(url, DEADLINE)
    with other.borrow(url) as mine:
        assert mine.count() == 1
        with pytest.raises(ServiceOnLoan, match="on loan"):
            other.lookup(url, timeout=0)
        with pytest.raises(ServiceOnLoan):
            counter.count()
        with pytest.raises(ServiceOnLoan), owner.borrow(url):
            raise AssertionError("borrowed twice")
        with pytest.raises(ServiceOnLoan), owner.borrow(url, timeout=0.1):
            raise AssertionError("borrowed twice")
        until(lambda: owner.on_loan(owner.services((owner.app, None, None, None))[0]))
    assert other.lookup(url, timeout=0).count() == counter.count() - 1 == 2
    with pytest.raises(NoSuchObject):
        mine.count()


def test_a_block_that_raises_gives_it_back(other: Registry, url: str) -> None:
    """The error is its own."""
    with pytest.raises(ZeroDivisionError), other.borrow(url):
        raise ZeroDivisionError
    with other.borrow(url) as counter:
        assert counter.count() == 1


def test_borrowers_are_served_in_the_order_in_which_they_asked(owner: Registry, other: Registry, url: str) -> None:
    """In the order of asking."""
    order: list[int] = []
    service = owner._offering.loans._services["Counter"]

    def borrow(number: int) -> None:
        with other.borrow(url, timeout=DEADLINE):
            order.append(number)

    threads = [threading.Thread(target=borrow, args=(number,)) for number in range(5)]
    with owner.borrow(url):
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda number=number: len(service.waiting) == number)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_killed_borrower_returns_it_at_once(owner: Registry, url: str) -> None:
    """Long before its loan would have ended."""
    with python(BORROWER, url, "600", "for ever") as borrower:
        borrower.line("mine 1")
        borrower.kill()
        with owner.borrow(url, timeout=DEADLINE) as counter:
            assert counter.count() == 2


def test_a_borrower_that_outlives_its_loan_is_refused(owner: Registry, url: str) -> None:
    """Stopped for longer than its loan, it finds another has it; at the end of its block it is told."""
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-u", "-c", BORROWER, url, "2"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        stack.callback(process.kill)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "mine 1\n"
        process.send_signal(signal.SIGSTOP)
        with owner.borrow(url, timeout=DEADLINE) as counter:
            assert counter.count() == 2
            process.send_signal(signal.SIGCONT)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "NoSuchObject\n"
            assert "LoanLost" in process.stderr.read()


def test_it_is_renewed_as_long_as_the_block_runs(owner: Registry, other: Registry, url: str) -> None:
    """Far beyond its ttl."""
    loan = other.borrow(url, ttl=2.5)
    with loan as counter:
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 6.0)
        assert counter.count() == 1
        assert 0 < loan.remaining() <= 2.5
    assert loan.remaining() == 0


def test_an_owner_that_ends_takes_the_loan_with_it(owner: Registry, other: Registry, url: str) -> None:
    """The borrower learns of it, and of the error at the end of its block."""
    loan = other.borrow(url, ttl=0.5)
    counter = loan.__enter__()
    owner.close()
    assert loan.lost.wait(DEADLINE)
    with pytest.raises(ConnectionLost):
        counter.count()
    with pytest.raises(LoanLost, match=re.escape(loan.reason)):
        loan.__exit__(None)
    with pytest.raises(ServiceNotFound), other.borrow(url):
        raise AssertionError("borrowed from nobody")


def test_a_url_is_lent_among_those_who_ask(owner: Registry, other: Registry) -> None:
    """The owner cannot keep others from a url that is not its own, but it lends it to one at a time."""
    url = owner.register("Billing", url="https://10.0.0.9:8443")
    assert other.lookup(url, DEADLINE) == "https://10.0.0.9:8443"
    with other.borrow(url) as billing:
        assert billing == "https://10.0.0.9:8443"
        with pytest.raises(ServiceOnLoan):
            other.lookup(url, timeout=0)
        with pytest.raises(ServiceOnLoan), owner.borrow(url):
            raise AssertionError("borrowed twice")
    assert other.lookup(url, timeout=0) == billing


def test_of_several_providers_a_free_one_is_lent(owner: Registry, other: Registry, url: str) -> None:
    """And lookups find the one that is left."""
    with Registry(owner.app, interfaces=LOOPBACK) as second:
        second.register("Counter", Counter(), shared=True)
        until(lambda: len(other.services((owner.app, None, None, None))) == 2)
        with other.borrow(url) as one, other.borrow(url) as two:
            assert [one.count(), two.count()] == [1, 1]
            with pytest.raises(ServiceOnLoan):
                other.lookup(url, timeout=0)
        with other.borrow(url):
            assert other.lookup(url, timeout=0).count() == 2


@pytest.mark.parametrize("ttl", [0, -1, 1e9, True])
def test_a_loan_has_a_time_that_can_be(other: Registry, url: str, ttl: float) -> None:
    """`BadTime` says which."""
    with pytest.raises(BadTime, match=repr(ttl).replace("+", r"\+")), other.borrow(url, ttl=ttl):
        raise AssertionError("borrowed")


CROWD = """
import os, sys, time
from discovery import Registry
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
def run(url, path):
    registry = Registry(interfaces=["127.0.0.1"])
    registry.watch((url.split("/")[2], None, None, None)).get(60)
    loan = registry.borrow(url, ttl=5, timeout=None)
    with loan as counter, open(path, "a", buffering=1) as diary:
        while loan.remaining() and counter.touch(os.getpid()) < 10:
            diary.write(f"{os.getpid()} {now()}\\n")
            time.sleep(0.002)
"""


class Guarded:
    """Counts the touches of each borrower, and remembers whether somebody came back after another had it."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.touches = 0

    def touch(self, pid: int) -> int:
        if not self.order or self.order[-1] != pid:
            self.order.append(pid)
            self.touches = 0
        self.touches += 1
        return self.touches


def test_a_hundred_borrowers_some_of_them_killed(owner: Registry, tmp_path: Path) -> None:
    """One at a time has it, no loan overlaps another, and it is there at the end, however many were killed."""
    guarded, diary, rng = Guarded(), tmp_path / "diary", random.Random(7)
    diary.touch()
    url = owner.register("Guarded", guarded)
    started = 0
    with nursery(CROWD, url, str(diary)) as crowd:
        while (running := crowd.running()) or started < 100:
            if started < 100 and len(running) < 20:
                crowd.start()
                started += 1
            elif rng.random() < 0.1:
                holder = guarded.order[-1] if guarded.order else 0
                crowd.kill(holder if holder in running and rng.random() < 0.5 else rng.choice(running))
            else:
                threading.Event().wait(0.01)
    assert len(guarded.order) == len(set(guarded.order)), "somebody had it again after another"
    held: dict[str, list[float]] = {}
    for line in diary.read_text().splitlines():
        pid, at = line.split()
        held.setdefault(pid, []).append(float(at))
    spans = sorted((min(times), max(times)) for times in held.values())
    assert len(spans) > 20
    assert all(earlier[1] < later[0] for earlier, later in itertools.pairwise(spans))
    with owner.borrow(url, timeout=DEADLINE) as again:
        assert again.touch(0) == 1

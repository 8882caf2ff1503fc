"""Two thousand services from twenty processes, and a flood by a stranger."""

import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from discovery import Beacon, Registry
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
MANY, EACH = 20, 100
MEMBER = """
import resource, sys, time
from discovery import Registry
app, number, many, each = sys.argv[1], *map(int, sys.argv[2:5])
registry = Registry(app, interfaces=["127.0.0.1"])
for n in range(each):
    registry.register(f"Service{number}_{n}", url=f"http://10.0.0.{number}:{n}", description="one of many", shared=True)
end = time.monotonic() + 90
while (seen := len(registry.services((app, None, None, None)))) < many * each and time.monotonic() < end:
    time.sleep(0.05)
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def members() -> Iterator[list[subprocess.Popen[str]]]:
    """Twenty processes that offer a hundred services each."""
    app = f"app{secrets.token_hex(4)}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, app, str(number), str(MANY), str(EACH)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(MANY)
    ]  # fmt: skip
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_everybody_sees_two_thousand_services(members: list[subprocess.Popen[str]]) -> None:
    """Each of the twenty processes sees all of them, in bounded memory."""
    told = [process.stdout.readline().split() for process in members if process.stdout]
    assert [int(seen) for seen, _ in told] == [MANY * EACH] * MANY
    assert max(int(megabytes) for _, megabytes in told) < 150, told


def test_a_flood_of_names_harms_nobody() -> None:
    """Thousands of names of a stranger; who was known is still found, and calls go on."""
    app = f"app{secrets.token_hex(4)}"
    with (
        Registry(app, interfaces=LOOPBACK) as owner,
        Registry(interfaces=LOOPBACK) as other,
        Registry(interfaces=LOOPBACK, secret="ours") as guarded,
        Beacon(LOOPBACK) as beacon,
    ):
        url = owner.register("Echo", url="http://10.0.0.1")
        assert other.lookup(url, DEADLINE) == "http://10.0.0.1"
        for number in range(3000):
            beacon.announce("service", {"app": "flood", "name": f"n{number}", "url": "PYRO:x@10.0.0.1:1", "n": "0"})
        until(lambda: len(other.services(("flood", None, None, None))) > 2000)
        assert other.lookup(url, 0) == "http://10.0.0.1"
        until(lambda: guarded.refused > 2000)
        assert guarded.services() == []

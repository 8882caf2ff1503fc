"""Two thousand services from ten processes, and a flood by a stranger: on a network that nobody else uses.

On the loopback that all tests share, so many announcements would make the others wait for theirs.
"""

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from discovery import Beacon, Registry
from tests.integration.nursery import nursery
from tests.waiting import DEADLINE, until

LOOPBACK = ["127.0.0.1"]
MANY, EACH = 10, 200
MEMBER = """
import os, resource, sys, threading
from discovery import Registry
def run(app, path, many, each):
    mine = Registry(f"{app}_{os.getpid()}", interfaces=["127.0.0.1"])
    watch, seen = mine.watch(), set()
    for n in range(each):
        mine.register(f"Service{n}", url=f"http://10.0.0.1:{n}", description="one of many", shared=True)
    while len(seen) < many * each:
        change = watch.get(60)
        if change.kind == "added" and change.service.app.startswith(app):
            seen.add(change.service[:2])
    with open(f"{path}/{os.getpid()}.part", "w") as file:
        file.write(f"{len(seen)} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}")
    os.rename(file.name, f"{path}/{os.getpid()}.told")
    threading.Event().wait()  # the others want to see ours
"""


def everybody_sees_two_thousand_services(tmp_path: Path) -> None:
    """Each of the ten processes sees all of them, in bounded memory."""
    code = MEMBER.replace("many, each)", f"many={MANY}, each={EACH})")
    with nursery(code, f"app{secrets.token_hex(4)}", str(tmp_path)) as members:
        for _ in range(MANY):
            members.start()
        until(lambda: len(list(tmp_path.glob("*.told"))) == MANY, 60)
        assert len(members.running()) == MANY
    told = [tuple(map(int, path.read_text().split())) for path in tmp_path.glob("*.told")]
    assert [seen for seen, _ in told] == [MANY * EACH] * MANY
    assert max(megabytes for _, megabytes in told) < 150, told


def a_flood_of_names_harms_nobody() -> None:
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
        for number in range(2000):
            beacon.announce("service", {"app": "flood", "name": f"n{number}", "url": "remote://10.0.0.1:1/x", "n": "0"})
        until(lambda: len(other.services(("flood", None, None, None))) > 1300)
        assert other.lookup(url, 0) == "http://10.0.0.1"
        until(lambda: guarded.refused > 1300)
        assert guarded.services() == []


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up", "multicast", "on"], check=True)
    if sys.argv[1] == "flood":
        a_flood_of_names_harms_nobody()
    else:
        with tempfile.TemporaryDirectory() as folder:
            everybody_sees_two_thousand_services(Path(folder))

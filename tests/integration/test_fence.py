"""FenceGuard among processes that know nothing of each other."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import DEADLINE

RIVAL = """
import random, sqlite3, sys
from election import FenceGuard, StaleFence
sink, folder, fence = sys.argv[1], sys.argv[2], int(sys.argv[3])
guard, refused = FenceGuard("rivals"), 0
db = sqlite3.connect(folder + "/effects.db", timeout=60)
guard.prepare(db)
print("ready", flush=True)
sys.stdin.readline()
for step in range(40):
    mine = fence + step * random.randint(0, 5)
    try:
        if sink == "table":
            with db:
                guard.check(db, mine)
                db.execute("INSERT INTO effects VALUES (?)", (mine,))
        else:
            with guard.locked(folder, mine), open(folder + "/effects", "a") as file:
                file.write(f"{mine}\\n")
    except StaleFence:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("sink", ["table", "file"])
def test_effects_of_rival_processes_never_go_back(tmp_path: Path, sink: str) -> None:
    """Four processes write with numbers of their own, some with old ones: what lands only grows."""
    with sqlite3.connect(tmp_path / "effects.db") as db:
        db.execute("CREATE TABLE effects (fence INTEGER)")
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, sink, str(tmp_path), str(fence)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for fence in (1, 3, 5, 7)
    ]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    refused = [int(rival.communicate("go\n", timeout=DEADLINE)[0]) for rival in rivals]
    if sink == "table":
        landed = [fence for (fence,) in db.execute("SELECT fence FROM effects ORDER BY rowid")]
    else:
        landed = [int(line) for line in (tmp_path / "effects").read_text().splitlines()]
    db.close()
    assert landed == sorted(landed)
    assert len(landed) + sum(refused) == 4 * 40
    assert sum(refused) > 0

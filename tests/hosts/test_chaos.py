"""Random faults on several hosts, and what a run of them leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts import network
from tests.integration.harness import ROOT
from tests.waiting import until


def chaos(folder: Path, minutes: float, seed: int) -> "subprocess.Popen[str]":
    """A run whose files, and so the command lines of all of its processes, are in that folder."""
    command = [sys.executable, "-m", "tests.hosts.chaos", f"--minutes={minutes}", f"--seed={seed}"]
    environment = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def processes(folder: Path) -> list[str]:
    """The command lines of this machine that name the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_text().replace("\0", " "))
        except OSError:  # it has just ended
            continue
    return [line for line in found if str(folder) in line]


def test_half_a_minute_of_random_faults_breaks_no_promise(tmp_path: Path) -> None:
    """No overlap, no slot that is run again unannounced, no process left behind: the report says so."""
    with chaos(tmp_path, minutes=0.4, seed=7) as run:
        report, _ = run.communicate()
    assert run.returncode == 0, report
    assert "overlaps                        0\n" in report
    assert "BROKEN" not in report


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_behind(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C ends everything on all hosts, and so does a kill; what there is to report is reported."""
    with chaos(tmp_path, minutes=5, seed=7) as run:
        until(lambda: len([line for line in processes(tmp_path) if "tests.hosts.worker" in line]) == 3, "workers")
        run.send_signal(how)
        report, _ = run.communicate()
    until(lambda: not processes(tmp_path), "everything to end")
    assert "processes left behind           0\n" in report
    assert "BROKEN" not in report


def test_a_system_without_namespaces_is_a_failure_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is skipped: one line tells why it is not possible, and how it would be."""
    monkeypatch.setattr(network, "INSIDE", ["sh", "-c", "echo unshare failed: Operation not permitted >&2; exit 1"])
    with pytest.raises(AssertionError, match=r"\(unshare failed: Operation not permitted\): run the tests as root, or"):
        network.require()

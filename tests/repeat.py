"""Run the whole suite many times, and count what fails by chance: `make repeat RUNS=10 BUSY=1`.

    python -m tests.repeat --runs 10 --busy -- tests/integration

With `--busy` two processes spin meanwhile, and another one announces services on this machine's loopback and withdraws
them, all the time. What comes after `--` goes to pytest. The output of a run that failed is kept in a file.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tests.processes import ROOT

# Each ends with us, however we end.
SPIN = """
import os
while os.getppid() == PARENT: pass
"""
NEIGHBOUR = """
import itertools, os
from discovery import Registry
with Registry("neighbour", interfaces=["127.0.0.1"]) as registry:
    for number in itertools.count():
        registry.register(f"Service{number}", url=f"http://10.0.0.1:{number}", shared=True)
        if number >= 5:
            registry.unregister(f"Service{number - 5}")
        if os.getppid() != PARENT:
            break
"""
COMMAND = [sys.executable, "-m", "pytest", "--numprocesses", "4", "--dist", "loadgroup", "--durations", "25"]


@contextlib.contextmanager
def company(busy: bool) -> Iterator[None]:
    """Keep both cores and the network busy meanwhile, if so."""
    programs = [SPIN, SPIN, NEIGHBOUR] if busy else []
    begin = f"PARENT = {os.getpid()}"
    started = [subprocess.Popen([sys.executable, "-c", begin + program], cwd=ROOT) for program in programs]
    try:
        yield
        ended = [process.args for process in started if process.poll() is not None]
        assert not ended, f"the machine was less busy than it should have been: {ended} ended"
    finally:
        for process in started:
            process.kill()
            process.wait()


def run(number: int, busy: bool, arguments: list[str]) -> int:
    """Run the suite once, print what came of it, and return how many of its tests failed; 1 if it did not even run."""
    with tempfile.NamedTemporaryFile("w+", prefix=f"politics-run-{number}-", suffix=".txt", delete=False) as output:
        begun, used = time.monotonic(), os.times().children_user
        with company(busy):
            done = subprocess.run(COMMAND + arguments, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            seconds, cpu = time.monotonic() - begun, os.times().children_user - used
        output.seek(0)
        lines = output.read().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR ", "SKIPPED "))]
    last = lines[-1].strip("= ") if lines else "no output"
    print(f"run {number}: {last}; {seconds:.0f} s, {cpu:.0f} s of user time", *failed, sep="\n    ", flush=True)
    if done.returncode == 0 and not failed:
        os.unlink(output.name)
        return 0
    print(f"    its output is in {output.name}", flush=True)
    return max(len(failed), sum(map(int, re.findall(r"(\d+) (?:failed|error)", last))), 1)


def main() -> int:
    """The command line; returns the exit status: 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Run the suite many times, and count what fails.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--busy", action="store_true", help="with both cores busy and a neighbour on the network")
    parser.add_argument("arguments", nargs="*", help="for pytest")
    given = parser.parse_args()
    failures = [run(number, given.busy, given.arguments) for number in range(1, given.runs + 1)]
    how = "busy" if given.busy else "quiet"
    print(f"{given.runs} {how} runs: {sum(failures)} failures, in {sum(map(bool, failures))} of them")
    return int(any(failures))


if __name__ == "__main__":
    sys.exit(main())

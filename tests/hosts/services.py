"""Two hosts, a service on one of them, and a network that is cut and healed: what the other one sees, in JSON."""

import json
import random
import subprocess
import sys

from tests.hosts.network import Host, Network
from tests.integration.harness import ROOT
from tests.integration.worker import now

HEARTBEAT = 1.0
CUT = 6 * HEARTBEAT
"""Seconds without a network: what is not heard for three heartbeats is forgotten."""
PROVIDER = f"""
import sys, threading
from discovery import Registry
from tests.integration.worker import now
class Echo:
    def echo(self, value): return value
registry = Registry("hosts", heartbeat={HEARTBEAT})
registry.register("First", Echo())
print(now(), flush=True)
registry.register("Echo", Echo(), shared=True)
threading.Event().wait()
"""
LISTENER = """
from discovery import Registry
from tests.integration.worker import now
watch = Registry().watch(("hosts", "Echo", None, None))
print("listening", flush=True)
for change in watch:
    print(now(), change.kind, flush=True)
"""
CALLER = """
from discovery import Registry
from tests.integration.worker import now
begun = now()
with Registry() as registry:
    assert registry.lookup("distributed://hosts/Echo", timeout=10).echo("hi") == "hi"
    with registry.borrow("Echo") as echo:
        assert echo.echo("hi") == "hi"
    print(now() - begun)
"""


def run(host: Host, code: str) -> subprocess.Popen[str]:
    """A program on that host."""
    command = [*host.within, sys.executable, "-u", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def line(process: subprocess.Popen[str]) -> list[str]:
    """The next that it says."""
    assert process.stdout
    return process.stdout.readline().split()


def heard_of(listener: subprocess.Popen[str], change: str) -> float:
    """When the listener heard of this change; a loan before it is told in one change or two, or not at all."""
    while (told := line(listener))[1] != change:
        pass
    return float(told[0])


def main() -> None:
    """Print the seconds that everything took."""
    network = Network(random.Random(1))
    one, two = network.add("one"), network.add("two")
    network.start()
    listener = run(two, LISTENER)
    line(listener)
    provider = run(one, PROVIDER)
    registered = float(line(provider)[0])
    heard = heard_of(listener, "added")
    cold = float(line(run(two, CALLER))[0])
    wires = network.wire("one", "two"), network.wire("two", "one")
    cut = now()
    for wire in wires:
        wire.cut = True
    gone = heard_of(listener, "removed")
    subprocess.run(["sleep", str(max(0.0, CUT - (now() - cut)))], check=True)
    for wire in wires:
        wire.cut = False
    healed = now()
    back = heard_of(listener, "added")
    took = {"warm": heard - registered, "cold": cold, "removed": gone - cut, "added": back - healed}
    print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()

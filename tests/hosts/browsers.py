"""A service on one host; Avahi's tools and zeroconf's browser on the other: what they see and how long, in JSON."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.hosts.network import Host, Network
from tests.integration.harness import ROOT
from tests.integration.worker import now
from tests.waiting import until

BUS = """<busconfig><type>system</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow eavesdrop="true"/>
<allow send_destination="*" eavesdrop="true"/></policy></busconfig>"""
AVAHI = "[server]\nuse-ipv6=no\n"
ENVIRONMENT = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin", "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/bus"}
PROVIDER = """
import os, sys
from discovery import Registry
class Stock: pass
with Registry("shop") as registry:
    registry.register("Stock", Stock())
    print(os.getpid(), registry.services()[0].url.split("/")[2].split(":")[1], flush=True)
    sys.stdin.readline()
"""
PLAIN = """
import threading
from zeroconf import ServiceBrowser, ServiceStateChange, Zeroconf
def told(zeroconf, service_type, name, state_change):
    print(state_change.name, name, flush=True)
network = Zeroconf()
ServiceBrowser(network, "_politics._tcp.local.", handlers=[told])
threading.Event().wait()
"""


def start(host: Host, *command: str) -> subprocess.Popen[str]:
    """A program on that host, whose output is read and which is told on its input when to end."""
    return subprocess.Popen(
        [*host.within, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )


def line(process: subprocess.Popen[str], beginning: str = "") -> str:
    """The next that it says and that begins like this."""
    assert process.stdout
    for said in process.stdout:
        if said.startswith(beginning):
            return said.strip()
    raise AssertionError(f"{process.args!r} ended before it said {beginning!r}")


def start_avahi(host: Host) -> None:
    """Avahi's daemon, and the bus on which its tools ask it."""
    for name, text in (("bus.conf", BUS), ("avahi.conf", AVAHI)):
        Path("/run", name).write_text(text)
    start(host, "dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile")
    until(Path("/run/bus").exists, "the bus")
    as_root = ["--no-drop-root", "--no-chroot", "--no-rlimits"]
    start(host, "avahi-daemon", *as_root, "-f", "/run/avahi.conf")
    asked = [*host.within, "avahi-browse", "-t", "_politics._tcp"]
    until(lambda: not subprocess.run(asked, env=ENVIRONMENT, capture_output=True).returncode, "the daemon")


def main() -> None:
    """Print what was seen, and the seconds after which it was seen to have gone."""
    network = Network(random.Random(1))
    one, two = network.add("one"), network.add("two")
    network.start()
    start_avahi(two)
    avahi = start(two, "avahi-browse", "--resolve", "--parsable", "_politics._tcp")
    plain = start(two, sys.executable, "-u", "-c", PLAIN)
    provider = start(one, sys.executable, "-u", "-c", PROVIDER)
    pid, port = line(provider).split()
    resolved = line(avahi, "=").split(";")
    name, host, address, seen = resolved[3], resolved[6], resolved[7], resolved[8]
    added = line(plain, "Added").partition(" ")[2]
    late = start(two, "avahi-browse", "--resolve", "--parsable", "--terminate", "_politics._tcp")
    listed = [each for each in late.communicate()[0].splitlines() if each.startswith("=")]
    assert provider.stdin
    print(file=provider.stdin, flush=True)
    ended = now()
    line(avahi, "-")
    gone = {"avahi": now() - ended}
    line(plain, "Removed")
    gone["zeroconf"] = now() - ended
    print(json.dumps({
        "pid": pid, "served": port, "name": name, "host": host, "address": address, "port": seen, "added": added,
        "listed": len(listed), "gone": gone,
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""A stranger on one host who forges announcements; what beacons on the other host hear of them, in JSON."""

import random
import subprocess
import sys

from tests.hosts.network import Network
from tests.hosts.services import line
from tests.integration.harness import ROOT

FAR = "10.99.0.1"
"""An address behind a router, as far as the other host knows."""
VICTIM = """
import json, sys
from discovery import Beacon
from tests.waiting import until
heard = {}
def listen(interfaces):
    beacon = Beacon(interfaces).start()
    seen = heard[",".join(interfaces or ["all"])] = set()
    beacon.browse("forged", lambda change, sighting: seen.add(sighting.properties["by"]))
    return beacon
beacons = [listen(each) for each in (None, ["10.77.0.2"], ["127.0.0.1"])]
print("listening", flush=True)
sys.stdin.readline()
beacons.append(Beacon(["127.0.0.1", "10.77.0.2"]).start())
beacons[-1].announce("forged", {"by": "the last"})
until(lambda: all("the last" in seen for seen in heard.values()))
print(json.dumps({name: sorted(seen) for name, seen in heard.items()}), flush=True)
"""
FORGER = """
import secrets, socket, sys
from discovery.beacon.format import head, pack
from zeroconf._dns import DNSText
from zeroconf._protocol.outgoing import DNSOutgoing
for number in range(10):
    for source in ("10.77.0.1", sys.argv[1]):
        for target in ("224.0.0.251", "10.77.0.2"):
            name = "forged-" + secrets.token_hex(8)
            out = DNSOutgoing(0x8400)
            text = head(name, [source], 4.0, 1) + pack({"by": f"{source} to {target}"})
            out.add_answer_at_time(DNSText(name + "._politics._tcp.local.", 16, 0x8001, 12, text), 0)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((source, 0))
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.77.0.1"))
                sender.sendto(out.packets()[0], (target, 5353))
"""


def main() -> None:
    """Print which announcements each beacon has heard, by the interfaces that it uses."""
    network = Network(random.Random(1))
    one, two = network.add("one"), network.add("two")
    network.start()
    for command in (f"-n one address add {FAR}/32 dev lo", f"-n two route add {FAR}/32 via {one.address}"):
        subprocess.run(["ip", *command.split()], check=True)
    victim = subprocess.Popen(
        [*two.within, sys.executable, "-u", "-c", VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    line(victim)
    subprocess.run([*one.within, sys.executable, "-c", FORGER, FAR], cwd=ROOT, check=True)
    assert victim.stdin
    print(file=victim.stdin, flush=True)
    print(" ".join(line(victim)), flush=True)


if __name__ == "__main__":
    main()

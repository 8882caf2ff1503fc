"""What strangers can do with packets to the port of multicast DNS."""

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import time

from discovery import Beacon
from discovery.beacon.filter import QUESTIONS
from tests.hosts.network import INSIDE, require
from tests.integration.harness import ROOT
from tests.waiting import until

LOOPBACK = ["127.0.0.1"]
ASKING = b"\0\0\0\1\0\0\0\0\0\0\x09_politics\x04_tcp\x05local\0\0\x0c\0\1"
"""A question of ordinary DNS for everything that is announced, after its number."""


def test_a_beacon_hears_only_the_networks_in_which_it_speaks() -> None:
    """By multicast and sent to an address; what comes from behind a router is heard by nobody."""
    require()
    command = [*INSIDE, sys.executable, "-m", "tests.hosts.strangers"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    near = "10.77.0.1 to 224.0.0.251"
    assert heard["127.0.0.1"] == ["the last"]
    for interfaces in ("all", "10.77.0.2"):
        assert near in heard[interfaces]
        assert not [by for by in heard[interfaces] if by.startswith("10.99.")]


def test_questions_do_not_make_a_flood_of_answers() -> None:
    """A stranger who asks a thousand times is answered a few dozen times, by each process."""
    kind = "".join(secrets.choice("abcdefgh") for _ in range(12))
    with Beacon(LOOPBACK) as beacon, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        seen = set[str]()
        beacon.browse(kind, lambda _, sighting: seen.add(sighting.name))
        for _ in range(40):
            beacon.announce(kind, {"text": "x" * 100})
        until(lambda: len(seen) == 40)
        stranger.bind((LOOPBACK[0], 0))
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK[0]))
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        stranger.settimeout(1.0)
        begun = time.monotonic()
        for number in range(1000):
            stranger.sendto(number.to_bytes(2) + ASKING, ("224.0.0.251", 5353))
        answers = 0
        with contextlib.suppress(TimeoutError):
            while True:
                answers += kind.encode() in stranger.recv(9000)
        packets = 8  # of one answer
        assert 0 < answers <= packets * QUESTIONS * (2 + time.monotonic() - begun)

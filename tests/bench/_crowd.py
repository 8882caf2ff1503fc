"""A network of machines that are not there: their packets, sent by one process when each of them would send its own."""

import heapq
import itertools
import random
import secrets
import select
import socket
import sys
import time
from collections.abc import Iterator

from discovery.beacon import PERIOD, new_name
from discovery.beacon.pace import next_pace, rest, spread
from tests.packets import GROUP, announcement, packet, sender

CHUNK, GAP = 6, 0.03
"""Announcements in one packet, and seconds between two packets, as a beacon sends them."""


class Machine:
    """One machine: its packets, and when it speaks."""

    def __init__(self, services: int, pace: float) -> None:
        host, names = f"machine-{secrets.token_hex(4)}", [new_name("service") for _ in range(services)]
        about = {"host": host, "url": f"remote://{host}:7000/{secrets.token_hex(16)}", "description": "a service"}
        said = [announcement(name, about | {"name": name[-4:]}, pace) for name in names]
        self.packets = [packet(said[start : start + CHUNK], pace) for start in range(0, services, CHUNK)]
        self.asked = self.answering = False


def run(machines: int, services: int) -> None:
    """Beat for all of them, and answer who asks, for ever."""
    heard, pace = machines * services, PERIOD
    for _ in range(100):
        pace = next_pace(pace, PERIOD, heard)
    crowd = [Machine(services, pace) for _ in range(machines)]
    order = itertools.count()
    due = [(time.monotonic() + random.uniform(0, pace), next(order), "beat", machine) for machine in crowd]
    heapq.heapify(due)

    def later(seconds: float, what: str, machine: Machine) -> None:
        heapq.heappush(due, (time.monotonic() + seconds, next(order), what, machine))

    with sender() as out, _listener() as questions:
        print(f"{pace:g}", flush=True)
        asked: dict[bytes, float] = {}
        while True:
            if select.select([questions], [], [], max(0.0, due[0][0] - time.monotonic()))[0]:
                for name in _asking(questions.recv(9000)):
                    known = time.monotonic() - asked.get(name, -1.0) < 0.8  # zeroconf ignores such a repetition
                    for machine in () if known else crowd:
                        machine.asked = True
                        if not machine.answering:
                            machine.answering = True
                            later(random.uniform(0, spread(heard)), "answer", machine)
                    if not known:
                        asked[name] = time.monotonic()
            while due[0][0] <= time.monotonic():
                _, _, what, machine = heapq.heappop(due)
                if what == "beat":
                    later(pace, "beat", machine)
                if what == "answer":
                    machine.answering = machine.asked
                    if machine.asked:
                        machine.asked = False
                        later(rest(heard), "answer", machine)
                number = int(what) if what.isdigit() else 0
                if what != "answer" or machine.answering:
                    out.sendto(machine.packets[number], GROUP)
                    if number + 1 < len(machine.packets):
                        later(GAP, str(number + 1), machine)


def _asking(data: bytes) -> Iterator[bytes]:
    """The names of those who ask in this packet: a kind that is empty, and sixteen digits."""
    start = data.find(b"\x11-")
    if start >= 0:
        yield data[start + 1 : start + 18]


def _listener() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind(("", GROUP[1]))
    member = socket.inet_aton(GROUP[0]) + socket.inet_aton("127.0.0.1")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return sock


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))

"""Packets as beacons send them, made by hand: forged, or of machines that are not there."""

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from zeroconf import const
from zeroconf._dns import DNSText
from zeroconf._protocol.outgoing import DNSOutgoing

from discovery.beacon.format import TYPE, head, name_in, pack, seconds_to_live

GROUP = ("224.0.0.251", 5353)


def announcement(
    name: str, properties: Mapping[str, str], period: float = 4.0, revision: int = 1, address: str = "10.0.0.1"
) -> bytes:
    """The text of an announcement."""
    return head(name, [address], period, revision) + pack(properties)


def packet(announcements: Iterable[bytes], period: float = 4.0) -> bytes:
    """One packet with these texts."""
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    for text in announcements:
        kind, ttl = const._CLASS_IN | const._CLASS_UNIQUE, seconds_to_live(period)
        out.add_answer_at_time(DNSText(f"{name_in(text)}.{TYPE}", const._TYPE_TXT, kind, ttl, text), 0)
    (data,) = out.packets()
    return data


@contextmanager
def sender(interface: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A socket whose packets to `GROUP` leave through this interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        yield sock

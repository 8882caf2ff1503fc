"""What a beacon lets in: packets from its own networks, and not too many questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, ip_address

import ifaddr

QUESTIONS = 20
"""Questions of ordinary DNS that are answered in a second, and at once. A short one may have an answer that is
hundreds of times as long, so that a stranger could make every process flood the network."""
_REMEMBERED = 4096  # senders of whom it is remembered whether they are in our networks


class Filter:
    """Decide which packets may come in.

    A packet comes from the local network if its sender's address is in the network of one of our interfaces. No router
    passes multicast packets to this group on, but it does pass on what is sent to our address.

    Args:
        networks: those of the interfaces that are used.
    """

    def __init__(self, networks: Iterable[IPv4Network] = ()) -> None:
        self.networks = frozenset(networks)
        self._senders: dict[str, bool] = {}
        self._questions, self._counted = float(QUESTIONS), 0.0

    def change(self, networks: Iterable[IPv4Network]) -> None:
        """Go by these networks from now on."""
        self.networks, self._senders = frozenset(networks), {}

    def admits(self, data: bytes, sender: str, now: float) -> bool:
        """Return whether this packet may come in at `now`, in seconds."""
        near = self._senders.get(sender)
        if near is None:
            if len(self._senders) >= _REMEMBERED:
                self._senders.clear()
            address = ip_address(sender)
            near = self._senders[sender] = any(address in network for network in self.networks)
        return near and (not is_question(data) or self._may_answer(now))

    def _may_answer(self, now: float) -> bool:
        self._questions = min(QUESTIONS, self._questions + QUESTIONS * (now - self._counted))
        self._counted = now
        if self._questions < 1:
            return False
        self._questions -= 1
        return True


def is_question(data: bytes) -> bool:
    """Return whether a packet asks: the first bit of its flags says so."""
    return len(data) > 2 and not data[2] & 0x80


def networks(interfaces: Sequence[str] | None) -> list[IPv4Network]:
    """Return the networks of these interfaces of this machine, named by their addresses; None: of all."""
    found = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return [
        IPv4Network(f"{ip.ip}/{ip.network_prefix}", strict=False)
        for ip in found
        if interfaces is None or ip.ip in interfaces
    ]

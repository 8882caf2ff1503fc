"""How offers travel between processes: the `Transport` port, and multicast. `ring_transport` has the other way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from discovery.beacon import Announcement, Beacon, Change, Sighting
from discovery.errors import MulticastUnavailable
from discovery.registry.offer import KIND, remote_address

Properties = Mapping[str, str]
Heard = Callable[[str, Properties | None], object]
"""Called with the name of an announcement and its properties, or None when it is gone. It must not block."""


class Transport(Protocol):
    """Announces offers, and tells `heard` what others announce, from `start` to `close`. For any thread."""

    @property
    def where(self) -> str:
        """What it hears, for messages."""

    def start(self) -> None:
        """Begin to hear. Raises `MulticastUnavailable`; a ring may come later."""

    def publish(self, name: str, properties: Properties) -> None:
        """Announce this, or replace what was announced under that name. Return at once.

        Raises:
            BadAnnouncement: the properties cannot be sent.
        """

    def withdraw(self, name: str) -> None:
        """Announce it no longer. Return at once."""

    def suspect(self, name: str) -> None:
        """Forget what was heard under that name until it is heard again."""

    def close(self) -> None:
        """Withdraw everything, and stop."""


class MulticastTransport:
    """Announcements by a beacon."""

    def __init__(self, interfaces: Sequence[str] | None, heard: Heard, heartbeat: float) -> None:
        self.where = "the local network" if interfaces is None else f"the network of {', '.join(interfaces)}"
        self._beacon, self._heard = Beacon(interfaces, period=heartbeat), heard
        self._announced: dict[str, Announcement] = {}

    def start(self) -> None:
        try:
            self._beacon.start().browse(KIND, self._sighted)
        except MulticastUnavailable as exc:
            raise MulticastUnavailable(
                f"{exc}; where multicast does not reach, run `politics ring` on a host that all can reach, "
                "and name it: Registry(ring='host:port')"
            ) from exc

    def publish(self, name: str, properties: Properties) -> None:
        if name in self._announced:
            self._announced[name].update(properties)
        else:
            address = remote_address(properties["url"]) or remote_address(properties["lender"])
            port = address.port if address else 0
            subject = properties["name"]
            self._announced[name] = self._beacon.announce(KIND, properties, name, subject=subject, port=port)

    def withdraw(self, name: str) -> None:
        self._announced.pop(name).withdraw()

    def suspect(self, name: str) -> None:
        self._beacon.suspect(name)

    def close(self) -> None:
        self._beacon.close()

    def _sighted(self, change: Change, sighting: Sighting) -> None:
        self._heard(sighting.name, None if change == "removed" else sighting.properties)

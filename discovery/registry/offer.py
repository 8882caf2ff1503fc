"""What a process announces of a service, and whether to believe what others announce. The time comes in."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from discovery.beacon import pack
from discovery.errors import BadAddress, BadAnnouncement, BadURL
from discovery.registry import url
from discovery.remote.address import SCHEME, Address

KIND = "service"
"""The kind of the announcements."""
SKEW = 300.0
"""Seconds by which the wall clocks of those who share a secret may differ; as old may a signed announcement be."""
RESIGN = 60.0
"""Seconds after which an announcement is signed anew, with the present time."""


class Service(NamedTuple):
    """A service as it is known here: what `services()` lists, and what a template of `watch` matches."""

    app: str
    service: str
    url: str
    description: str


@dataclass(frozen=True)
class Offer:
    """One provider's offer: `name` is the announcement's, `desk` where to borrow, `turn` counts its changes."""

    name: str
    service: Service
    desk: str
    on_loan: bool = False
    turn: int = 0

    def changed(self, on_loan: bool) -> Offer:
        """The next state of the same offer."""
        return replace(self, on_loan=on_loan, turn=self.turn + 1)

    def properties(self, secret: bytes, now: float) -> dict[str, str]:
        """As it is announced; signed with a secret at `now`, in seconds of the wall clock, unless that is empty."""
        app, service, where, description = self.service
        found = {"app": app, "name": service, "url": where, "desk": self.desk, "n": str(self.turn)}
        found |= {"loan": "1"} if self.on_loan else {}
        found |= {"text": description} if description else {}
        if secret:
            found["time"] = str(int(now))
            found["mac"] = _signature(secret, self.name, found)
        return found


class Refused(Exception):
    """An announcement that is not believed, and why."""


def check(properties: Mapping[str, str]) -> None:
    """Raises `BadAnnouncement` for what others would refuse to hear: the same, whichever way it goes."""
    pack(properties)
    for key, value in properties.items():
        if not value.isprintable():
            raise BadAnnouncement(f"{key} would confuse a terminal: {value!r}")


def understand(name: str, properties: Mapping[str, str], secret: bytes, now: float) -> Offer:
    """The offer that somebody announces. Raises `Refused`."""
    try:
        check(properties)
        if secret:
            _verify(name, properties, secret, now)
        service = Service(
            url.name(properties["app"], "an app"), url.name(properties["name"], "a service"), properties["url"],
            properties.get("text", ""),
        )  # fmt: skip
        turn, desk = int(properties["n"]), properties.get("desk", "")
        for where in (service.url, desk):
            if where.startswith(SCHEME):
                Address.parse(where)
    except (KeyError, ValueError, BadURL, BadAddress, BadAnnouncement) as exc:
        raise Refused(f"malformed: {repr(exc)[:200]}") from exc
    return Offer(name, service, desk, "loan" in properties, turn)


def _verify(name: str, properties: Mapping[str, str], secret: bytes, now: float) -> None:
    """The signature covers the announcement's name and the address that it leads to, so it can only be repeated as it
    is, from wherever; and its time, so that nobody believes an old one who has not heard it when it was new."""
    signed = dict(properties)
    mac = signed.pop("mac", "")
    if not mac:
        raise Refused("unsigned")
    if not hmac.compare_digest(mac.encode(), _signature(secret, name, signed).encode()):
        raise Refused("forged, or signed with another secret")
    if not abs(now - int(signed.get("time", "0"))) <= SKEW:
        raise Refused(f"signed more than {SKEW:g} s ago, or the clocks differ by that much")


def _signature(secret: bytes, name: str, properties: Mapping[str, str]) -> str:
    text = json.dumps([name, sorted(properties.items())])
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:40]

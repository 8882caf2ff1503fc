"""What a process announces of a service, and whether to believe what others announce. The time is an argument."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import re
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
"""Seconds by which the wall clocks of those who share a secret may differ. A signed announcement may be as old."""
RESIGN = 60.0
"""Seconds after which an announcement is signed again, with the present time."""


class Service(NamedTuple):
    """A service as it is known here: what `services()` lists, and what the template of `watch` matches."""

    app: str
    service: str
    url: str
    description: str


@dataclass(frozen=True)
class Offer:
    """What one provider offers.

    `name` is the name of its announcement, `lender` the address of its `LoanQueue`, and `revision` counts the changes.
    """

    name: str
    service: Service
    lender: str
    on_loan: bool = False
    revision: int = 0

    @property
    def server(self) -> tuple[str, int] | None:
        """The host and the port of its provider; None where neither the service nor the lender can be called."""
        address = remote_address(self.service.url) or remote_address(self.lender)
        return address[1:] if address is not None else None

    def changed(self, on_loan: bool) -> Offer:
        """Return the next revision of this offer."""
        return replace(self, on_loan=on_loan, revision=self.revision + 1)

    def forges(self, mine: Offer) -> bool:
        """Return whether this was announced under the name of `mine` by somebody else.

        An earlier announcement of ours may still be under way, so an older state of the same service is none.
        """
        same = (self.service, self.lender) == (mine.service, mine.lender)
        return not same or self.revision > mine.revision or (self.revision == mine.revision and self != mine)

    def properties(self, secret: bytes, now: float) -> dict[str, str]:
        """Return what is announced: with a `secret` signed at `now`, in seconds of the wall clock.

        Raises:
            BadAnnouncement: a text in it cannot be printed, so that others would ignore the announcement.
        """
        app, service, where, description = self.service
        found = {"app": app, "name": service, "url": where, "lender": self.lender, "n": str(self.revision)}
        found |= {"loan": "1"} if self.on_loan else {}
        found |= {"text": description} if description else {}
        if secret:
            found["time"] = str(int(now))
            found["mac"] = _signature(secret, self.name, found)
        _refuse_unprintable(found)
        return found


class Refused(Exception):
    """An announcement that is not believed, and why."""


def parse(name: str, properties: Mapping[str, str], secret: bytes, now: float) -> Offer:
    """Return the offer that somebody announces.

    Raises:
        Refused: it is malformed, or not signed with our `secret` at about the time `now`.
    """
    try:
        pack(properties)  # a ring lets strangers write what a beacon would never let through
        _refuse_unprintable(properties)
        if secret:
            _verify(name, properties, secret, now)
        service = Service(
            url.name(properties["app"], "an app"), url.name(properties["name"], "a service"), properties["url"],
            properties.get("text", ""),
        )  # fmt: skip
        revision, lender = _number(properties["n"]), properties.get("lender", "")
        remote_address(service.url)
        remote_address(lender)
    except (KeyError, ValueError, BadURL, BadAddress, BadAnnouncement) as exc:
        raise Refused(f"malformed: {repr(exc)[:200]}") from exc
    return Offer(name, service, lender, "loan" in properties, revision)


@functools.lru_cache(4096)
def remote_address(text: str) -> Address | None:
    """Return the address of an object that can be called; None where the text is any other url.

    Raises:
        BadAddress: it begins like an address of an object, and is none.
    """
    return Address.parse(text) if text.startswith(SCHEME) else None


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text):
        raise ValueError(f"no number of at most twelve digits: {text!r:.100}")
    return int(text)


def _refuse_unprintable(properties: Mapping[str, str]) -> None:
    for key, value in properties.items():
        if not value.isprintable():
            raise BadAnnouncement(f"{key} would confuse a terminal: {value!r}")


def _verify(name: str, properties: Mapping[str, str], secret: bytes, now: float) -> None:
    """Check the signature of an announcement.

    It covers the name of the announcement and the address in it, so that a stranger can only repeat it unchanged. It
    also covers the time, so that nobody believes an old announcement.
    """
    signed = dict(properties)
    mac = signed.pop("mac", "")
    if not mac:
        raise Refused("unsigned")
    if not hmac.compare_digest(mac.encode(), _signature(secret, name, signed).encode()):
        raise Refused("forged, or signed with another secret")
    if not abs(now - _number(signed.get("time", "0"))) <= SKEW:
        raise Refused(f"signed more than {SKEW:g} s ago, or the clocks differ by that much")


def _signature(secret: bytes, name: str, properties: Mapping[str, str]) -> str:
    text = json.dumps([name, sorted(properties.items())])
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:40]

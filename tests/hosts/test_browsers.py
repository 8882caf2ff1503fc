"""What the browsers of others see of ours, on another host."""

import json
import re
import socket

from tests.hosts.network import inside


def test_other_browsers_list_a_service_and_no_longer_when_it_has_gone() -> None:
    """Avahi's tools on a real daemon and zeroconf's browser: its name, host and port; gone long before it expires."""
    seen = json.loads(inside("tests.hosts.browsers"))
    host = socket.gethostname().partition(".")[0]
    name = f"Stock on {host[:24]} ({seen['pid']})"
    assert re.sub(r"\\(\d{3})", lambda escaped: chr(int(escaped[1])), seen["name"]) == name
    assert seen["added"] == f"{name}._politics._tcp.local."
    assert re.fullmatch(re.escape(host[:50]) + r"-[0-9a-f]{8}\.local", seen["host"])
    assert (seen["address"], seen["port"]) == ("10.77.0.1", seen["served"])
    assert seen["listed"] == 1
    assert max(seen["gone"].values()) < 6, seen

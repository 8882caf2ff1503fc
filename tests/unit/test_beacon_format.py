"""What an announcement looks like on the wire, and what is not one."""

from typing import Any

import pytest

from discovery.beacon import MAX_SIZE, Beacon, Sighting, pack, parse
from discovery.beacon.format import GOODBYE, MAX_HEAD, head, seconds_to_live
from discovery.errors import BadAnnouncement, BadTime
from discovery.registry import Registry

NAME = "ring-0123456789abcdef._politics._tcp.local."


def test_what_is_packed_is_parsed() -> None:
    """Properties arrive as they were sent, the addresses and the period beside them."""
    properties = {"empty": "", "sum": "1=1", "name": "Zoë"}
    text = head(["10.0.0.1", "10.0.0.2"], 0.4, 17) + pack(properties)
    assert parse(NAME, text) == Sighting("ring", "ring-0123456789abcdef", properties, ("10.0.0.1", "10.0.0.2"), 0.4)


def test_what_the_beacon_adds_may_be_missing() -> None:
    """Then there are no addresses, and the period is the usual one."""
    assert parse(NAME, pack({"a": "b"})) == Sighting("ring", "ring-0123456789abcdef", {"a": "b"}, (), 4.0)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"a": "x" * 254}, "'a' needs 255"), ({"": "x"}, "''"), ({"a=b": "x"}, "'a=b'"), ({"a": 1}, "1"),
        ({"_at": "x"}, "'_at'"),
    ],
)  # fmt: skip
def test_properties_that_cannot_be_sent_are_refused_by_name(bad: dict[str, str], named: str) -> None:
    """The message shows which property it is."""
    with pytest.raises(BadAnnouncement, match=named):
        pack(bad)


def test_properties_that_do_not_fit_one_packet_are_refused() -> None:
    """All of them together have an upper limit, and the message names it."""
    with pytest.raises(BadAnnouncement, match=str(MAX_SIZE)):
        pack({f"key{number}": "x" * 200 for number in range(6)})


def test_what_is_packed_always_fits() -> None:
    """As much as may be packed, from a machine with many long addresses, is still an announcement."""
    full = {f"{number:03}": "x" * 195 for number in range(6)}
    text = head(["255.255.255.255"] * 20, 59.123456, 10**9) + pack(full)
    assert MAX_SIZE < len(text) <= MAX_SIZE + MAX_HEAD
    assert parse(NAME, text) is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (NAME, b"\x05a=b"),
        (NAME, b"\x03a=\xff"),
        (NAME, b"\x01a"),
        (NAME, b"\x02=b"),
        (NAME, b"\x00"),
        (NAME, b"\x03a=b\x03a=c"),
        (NAME, b"\x03a=b" * MAX_SIZE),
        (NAME, b"\x08_every=x"),
        (NAME, b"\x08_every=0"),
        (NAME, b"\x0a_every=nan"),
        (NAME, b"\x0a_every=1e9"),
        (NAME, GOODBYE),
        ("ring-0123._politics._tcp.local.", b""),
        ("RING-0123456789abcdef._politics._tcp.local.", b""),
        ("ring-0123456789abcdef._http._tcp.local.", b""),
    ],
)
def test_what_is_malformed_or_oversized_is_no_announcement(name: str, text: bytes) -> None:
    """Cut off, not UTF-8, without a key, twice the same key, too long, a nonsensical period, or not named as ours."""
    assert parse(name, text) is None


@pytest.mark.parametrize(("period", "seconds"), [(0.1, 2), (0.4, 2), (0.8, 3), (4.0, 12), (60.0, 180)])
def test_a_record_lives_for_whole_seconds(period: float, seconds: int) -> None:
    """Three periods, rounded up, and never as short as a goodbye, which lives for one second."""
    assert seconds_to_live(period) == seconds


@pytest.mark.parametrize("period", [0.0, 0.09, 61.0, float("nan"), True, "4", None])
def test_a_period_out_of_range_is_refused(period: Any) -> None:
    """By a beacon, and by a registry however it announces; the message names the limits and what was given."""
    for refuse in (
        lambda: Beacon(period=period),
        lambda: Registry(heartbeat=period),
        lambda: Registry(heartbeat=period, ring="127.0.0.1:1"),
    ):
        with pytest.raises(BadTime, match=rf"0\.1 to 60, not {period!r}"):
            refuse()

"""What an announcement looks like on the wire, and what is not one."""

from typing import Any

import pytest

from discovery.beacon import MAX_SIZE, PERIOD, Beacon, Sighting, pack, parse
from discovery.beacon.format import MAX_HEAD, MAX_LABEL, goodbye, head, instance, name_in, seconds_to_live
from discovery.errors import BadAnnouncement, BadTime
from discovery.registry import Registry

NAME = "ring-0123456789abcdef"
OURS = b"\x19_id=" + NAME.encode()


def test_what_is_packed_is_parsed() -> None:
    """Properties arrive as they were sent, the addresses and the period beside them."""
    properties = {"empty": "", "sum": "1=1", "name": "Zoë"}
    text = head(NAME, ["10.0.0.1", "10.0.0.2"], 0.4, 17) + pack(properties)
    assert parse(text) == Sighting("ring", NAME, properties, ("10.0.0.1", "10.0.0.2"), 0.4)


def test_what_the_beacon_adds_may_be_missing() -> None:
    """Except its name. Then there are no addresses, and the period is the usual one."""
    assert parse(OURS + pack({"a": "b"})) == Sighting("ring", NAME, {"a": "b"}, (), PERIOD)
    assert parse(pack({"a": "b"})) is None


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
    full = {f"{number:03}": "x" * 178 for number in range(6)}
    text = head(f"{'k' * 40}-0123456789abcdef", ["255.255.255.255"] * 20, 59.123456, 10**9) + pack(full)
    assert MAX_SIZE < len(text) <= MAX_SIZE + MAX_HEAD
    assert parse(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        OURS + b"\x05a=b",
        OURS + b"\x03a=\xff",
        OURS + b"\x01a",
        OURS + b"\x02=b",
        OURS + b"\x00",
        OURS + b"\x03a=b\x03a=c",
        OURS + OURS,
        OURS + b"\x03a=b" * MAX_SIZE,
        OURS + b"\x08_every=x",
        OURS + b"\x08_every=0",
        OURS + b"\x0a_every=nan",
        OURS + b"\x0a_every=1e9",
        OURS + b"\x0b_every=0x10",
        OURS + b"\x0f_at=example.com",
        OURS + b"\x0d_at=10.0.0.1,x",
        OURS + b"\x08_at=[/x]",
        OURS + b"\x08_at=a..b",
        OURS + b"\x54_at=" + b",".join([b"10.0.0.1"] * 9),
        goodbye(NAME),
        b"",
        b"\x00",
        b"\xff",
        OURS[:-1],
        b"\x0d_id=ring-0123",
        b"\x19_id=RING-0123456789abcdef",
        b"\x03a=b" + OURS,
        b"\x46_id=" + b"k" * 49 + b"-0123456789abcdef",
    ],
)
def test_what_is_malformed_or_oversized_is_no_announcement(text: bytes) -> None:
    """Cut off, not UTF-8, without a key, twice the same key, too long, no period, no addresses, or not ours."""
    assert parse(text) is None


def test_the_name_is_read_without_the_rest() -> None:
    """Of an announcement and of its goodbye, whatever follows it."""
    assert name_in(OURS + b"\xff") == name_in(goodbye(NAME)) == NAME
    assert name_in(b"") == name_in(b"\x03a=b") == ""


@pytest.mark.parametrize(
    ("subject", "host", "number", "shown"),
    [
        ("Stock", "web1", 1, "Stock on web1 (4711)"),
        ("Stock", "web1", 2, "Stock on web1 (4711) 2"),
        ("shop.v2\n", "a.b", 1, "shop_v2_ on a_b (4711)"),
        ("ü" * 40, "h" * 30, 12, "ü" * 12 + " on " + "h" * 24 + " (4711) 12"),
    ],
)
def test_what_people_see_is_one_part_of_a_dns_name(subject: str, host: str, number: int, shown: str) -> None:
    """Whatever the service and the host are called; what is too long is cut, but not the process and its number."""
    assert instance(subject, host, 4711, number) == shown
    assert len(shown.encode()) <= MAX_LABEL


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

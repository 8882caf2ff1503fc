"""What an announcement looks like on the wire, and what is not one."""

import pytest

from discovery.beacon import MAX_SIZE, Sighting, pack, understand
from discovery.errors import BadAnnouncement

NAME = "ring-0123456789abcdef._politics._tcp.local."


def test_what_is_packed_is_understood() -> None:
    """Properties arrive as they were sent, the addresses beside them."""
    text = pack({"at": "10.0.0.1,10.0.0.2", "empty": "", "sum": "1=1", "name": "Zoë"})
    properties = {"empty": "", "sum": "1=1", "name": "Zoë"}
    assert understand(NAME, text) == Sighting("ring", "ring-0123456789abcdef", properties, ("10.0.0.1", "10.0.0.2"))


@pytest.mark.parametrize(
    ("bad", "named"),
    [({"a": "x" * 254}, "'a' needs 255"), ({"": "x"}, "''"), ({"a=b": "x"}, "'a=b'"), ({"a": 1}, "1")],
)
def test_properties_that_cannot_be_sent_are_refused_by_name(bad: dict[str, str], named: str) -> None:
    """The message shows which property it is."""
    with pytest.raises(BadAnnouncement, match=named):
        pack(bad)


def test_properties_that_do_not_fit_one_packet_are_refused() -> None:
    """All of them together have an upper limit, and the message names it."""
    with pytest.raises(BadAnnouncement, match=str(MAX_SIZE)):
        pack({f"key{number}": "x" * 200 for number in range(6)})


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
        ("ring-0123._politics._tcp.local.", b""),
        ("RING-0123456789abcdef._politics._tcp.local.", b""),
        ("ring-0123456789abcdef._http._tcp.local.", b""),
    ],
)
def test_what_is_malformed_or_oversized_is_no_announcement(name: str, text: bytes) -> None:
    """Cut off, not UTF-8, without a key, twice the same key, too long, or not named as ours are."""
    assert understand(name, text) is None

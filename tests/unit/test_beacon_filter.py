"""Which packets a beacon lets in."""

from ipaddress import IPv4Network

import pytest

from discovery.beacon.filter import _REMEMBERED, QUESTIONS, Filter, is_question, networks

TELLS, ASKS = b"\0\0\x84\0" + b"\0" * 8, b"\0\0\0\0" + b"\0" * 8
LAN = IPv4Network("10.0.0.0/24")


@pytest.mark.parametrize(
    ("sender", "near"),
    [("10.0.0.9", True), ("10.0.1.9", False), ("127.0.0.1", False), ("192.0.2.1", False), ("0.0.0.0", False)],
)
def test_only_senders_of_our_networks_are_heard(sender: str, near: bool) -> None:
    """Each time, also when it is known who they are."""
    door = Filter([LAN])
    assert [door.admits(TELLS, sender, 0.0) for _ in range(2)] == [near, near]


def test_the_networks_may_change() -> None:
    """What was known of a sender is forgotten with them; without a network nobody is heard."""
    door = Filter()
    assert not door.admits(TELLS, "10.0.0.9", 0.0)
    door.change([LAN])
    assert door.admits(TELLS, "10.0.0.9", 0.0)


def test_senders_are_remembered_in_bounded_memory() -> None:
    """However many addresses a stranger invents."""
    door = Filter([LAN])
    for number in range(2 * _REMEMBERED + 1):
        door.admits(TELLS, f"172.16.{number // 256}.{number % 256}", 0.0)
    assert len(door._senders) <= _REMEMBERED


def test_questions_are_limited_and_answers_are_not() -> None:
    """So many at once and so many a second; those that are refused use up nothing."""
    door = Filter([LAN])

    def admitted(now: float) -> int:
        return sum(door.admits(ASKS, "10.0.0.9", now) for _ in range(10 * QUESTIONS))

    assert [admitted(now) for now in (1.0, 1.5, 1.5, 100.0)] == [QUESTIONS, QUESTIONS // 2, 0, QUESTIONS]
    assert all(door.admits(TELLS, "10.0.0.9", 100.0) for _ in range(10 * QUESTIONS))


@pytest.mark.parametrize(("data", "asks"), [(ASKS, True), (TELLS, False), (b"", False), (b"\0\0", False)])
def test_what_a_question_is(data: bytes, asks: bool) -> None:
    """Its flags say so; what is too short to have flags is nothing."""
    assert is_question(data) == asks


def test_the_networks_of_an_interface_are_found_by_its_address() -> None:
    """Loopback has one of its own; an address that is not ours has none."""
    assert networks(["127.0.0.1"]) == [IPv4Network("127.0.0.0/8")]
    assert networks(["203.0.113.1"]) == []
    assert IPv4Network("127.0.0.0/8") in networks(None)

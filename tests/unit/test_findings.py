"""What the doctor makes of what was measured."""

from dataclasses import replace
from typing import Any

import pytest

from election import open_register
from politics.doctor.findings import (
    ClockTick,
    File,
    Finding,
    Level,
    Machine,
    MemcachedServer,
    of_choice,
    of_file,
    of_machine,
    of_server,
    rate,
)
from politics.doctor.probe import any_server
from politics.doctor.servers import StoreServer, of_any_server

TEN = ClockTick(10, 0.0, 0.01)
MACHINE = Machine("CLOCK_BOOTTIME", counts_sleep=True, slept=0.0, interfaces={"eth0": True})
STATS = {
    "pid": "1", "uptime": "1000", "curr_items": "5", "total_items": "7", "cmd_flush": "0", "evictions": "0",
    "bytes": "1000", "limit_maxbytes": "67108864",
}  # fmt: skip
SERVER = MemcachedServer(
    "10.0.0.5:11211",
    round_trips=(0.0001, 0.0002, 0.5),
    version="1.6.18",
    processes=(("1", 100), ("1", 101), ("1", 100)),
    stats=STATS,
    settings={"evictions": "on"},
    ours=3,
    ticks=(TEN, ClockTick(13, 3.0, 3.01)),
)
FILE = File("/var/lib/leases.db", filesystem="ext4", leases=2, round_trips=(0.001,))


def worse(findings: Any) -> list[tuple[Level, str]]:
    """What is not fine."""
    found: list[Finding] = list(findings)
    assert all(finding.remedy for finding in found if finding.level is not Level.FINE), "each trouble has a remedy"
    return [(finding.level, f"{finding.text} -> {finding.remedy}") for finding in found if finding.level != Level.FINE]


def test_nothing_is_found_where_all_is_well() -> None:
    """A sound machine with a sound store gets no advice, and the reasons why it is fine."""
    assert not worse(of_machine(MACHINE))
    assert not worse(of_server(SERVER, 10))
    assert not worse(of_file(FILE, 10))
    assert not worse(of_choice("memcached", named=True))
    texts = " / ".join(finding.text for finding in of_server(SERVER, 10))
    for text in ("0.20 ms (median of 3)", "version 1.6.18, up for 17 min", "3 of its 5 items are ours", "within 0."):
        assert text in texts


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        ({"counts_sleep": False}, Level.DANGER, "may stand still while the machine sleeps"),
        ({"slept": 3600.0}, Level.ADVICE, "has slept for 3600 s"),
        ({"interfaces": {"eth0": True, "wlan0": False}}, Level.ADVICE, "does not work on wlan0"),
        ({"interfaces": {}}, Level.ADVICE, "no interface"),
    ],
)
def test_a_machine_that_is_not_sound(change: dict[str, Any], level: Level, text: str) -> None:
    """Each trouble of the machine is one line."""
    [(found, said)] = worse(of_machine(replace(MACHINE, **change)))
    assert found is level
    assert text in said


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        ({"error": "refused", "reached": False}, Level.DANGER, "does not answer: refused -> start it"),
        ({"error": "closed"}, Level.DANGER, "something listens, but does not answer as memcached does: closed"),
        ({"round_trips": (0.4,)}, Level.ADVICE, "answers in 400.00 ms (median of 1), much for a lease of 10 s"),
        ({"version": "mcrouter 41"}, Level.DANGER, "not memcached itself: it calls itself 'mcrouter 41'"),
        ({"stats": {}}, Level.DANGER, "not memcached itself"),
        ({"settings": {"proxy_enabled": "yes"}}, Level.DANGER, "runs as a proxy"),
        ({"processes": (("1", 100), ("2", 100))}, Level.DANGER, "is 2 different servers behind one address"),
        ({"processes": (("1", 100), ("1", 200))}, Level.DANGER, "is 2 different servers behind one address"),
        ({"version": "1.6.9"}, Level.DANGER, "is version 1.6.9 -> use 1.6.10 or later"),
        ({"version": "1.4.39"}, Level.DANGER, "is version 1.4.39"),
        ({"meta": "create is answered b'ERROR'"}, Level.DANGER, "create is answered b'ERROR'"),
        (
            {"ticks": (TEN, ClockTick(13, 2.8, 2.81))},
            Level.DANGER,
            "1.068 to 1.075 times the speed of ours",
        ),
        (
            {"ticks": (TEN, ClockTick(13, 3.2, 3.21))},
            Level.DANGER,
            "0.935 to 0.940 times the speed",
        ),
        ({"ticks": (TEN,)}, Level.ADVICE, "its clock was not seen to run"),
        ({"behind": 7200.0}, Level.ADVICE, "differ by 2 h -> run NTP"),
        ({"behind": -61.0}, Level.ADVICE, "differ by 61 s"),
    ],
)
def test_a_server_that_is_not_sound(change: dict[str, Any], level: Level, text: str) -> None:
    """Each trouble of a memcached server is one line."""
    [(found, said)] = worse(of_server(replace(SERVER, **change), 10))
    assert found is level
    assert text in said


@pytest.mark.parametrize(
    ("stats", "settings", "level", "text"),
    [
        ({"evictions": "7"}, "on", Level.ADVICE, "has dropped 7 items for lack of memory, so each first"),
        ({"store_no_memory": "2"}, "off", Level.ADVICE, "has dropped 2 items"),
        ({"cmd_flush": "2"}, "on", Level.ADVICE, "was flushed 2 times"),
        ({"total_items": "4"}, "on", Level.DANGER, "stats reset"),
        ({"uptime": "5"}, "on", Level.ADVICE, "up for 5 s only, so a first election waits one lease of 10 s"),
        ({"bytes": "60000000"}, "on", Level.ADVICE, "89% of its memory is used, and then it evicts"),
        ({"bytes": "60000000"}, "off", Level.ADVICE, "89% of its memory is used, and then renewals fail"),
    ],
)
def test_what_a_server_counts(stats: dict[str, str], settings: str, level: Level, text: str) -> None:
    """Its counters say what has been lost, and what may be."""
    server = replace(SERVER, stats=STATS | stats, settings={"evictions": settings})
    [(found, said)] = worse(of_server(server, 10))
    assert found is level
    assert text in said


def test_items_that_cannot_be_counted_are_not_guessed() -> None:
    """Too many to look through, or a server that does not list them."""
    texts = [finding.text for finding in of_server(replace(SERVER, ours=None), 10)]
    assert any("an unknown number of its 5 items are ours" in text for text in texts)


def test_one_server_of_a_quorum() -> None:
    """Of several servers one that is frozen is advice, and nobody relies on their clocks."""
    frozen, slow = replace(SERVER, error="timed out"), replace(SERVER, ticks=(TEN,))
    assert [each.level for each in of_server(frozen, 10)] == [Level.DANGER]
    assert [each.level for each in of_server(frozen, 10, alone=False)] == [Level.ADVICE]
    assert any("its clock" in each.text for each in of_server(slow, 10))
    assert not any("its clock" in each.text for each in of_server(slow, 10, alone=False))


def test_clock_rates_are_bounds_and_not_guesses() -> None:
    """What was seen late may have happened earlier, by as much as a look takes."""
    assert rate(ClockTick(10, 0.0, 0.5), ClockTick(12, 2.0, 2.5)) == (2 / 2.5, 2 / 1.5)


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        ({"error": "readonly"}, Level.DANGER, "cannot be used: readonly"),
        ({"filesystem": "nfs4"}, Level.DANGER, "network file system (nfs4)"),
        ({"filesystem": "overlay"}, Level.ADVICE, "container's own layer"),
        ({"old_enough": False}, Level.ADVICE, "younger than a lease of 10 s"),
    ],
)
def test_a_file_that_is_not_sound(change: dict[str, Any], level: Level, text: str) -> None:
    """Each trouble of an SQLite store is one line."""
    [(found, said)] = worse(of_file(replace(FILE, **change), 10))
    assert found is level
    assert text in said


@pytest.mark.parametrize(
    ("kind", "named", "expected"),
    [
        ("memory", True, [Level.DANGER]),
        ("sqlite", True, []),
        ("sqlite", False, [Level.ADVICE]),
        ("memcached", True, []),
    ],
)
def test_the_choice_of_a_store(kind: str, named: bool, expected: list[Level]) -> None:
    """A store that nobody named elects a leader of each machine; one in memory, a leader of each process."""
    assert [level for level, _ in worse(of_choice(kind, named))] == expected


@pytest.mark.parametrize(
    ("server", "level", "text"),
    [
        (StoreServer("etcd", error="etcd at h:1 does not answer"), Level.DANGER, "etcd at h:1 does not answer"),
        (StoreServer("etcd", reads=(0.001, 0.5, 0.6)), Level.ADVICE, "a read in 500.00 ms"),
        (StoreServer("etcd", reads=(0.001,), swaps=(0.4,)), Level.ADVICE, "a swap that is refused in 400.00 ms"),
        (StoreServer("etcd", identity="etcd:1", generation="g"), Level.FINE, "is the store etcd:1, generation g"),
        (StoreServer("etcd", hints=True), Level.FINE, "sends hints"),
        (StoreServer("etcd", hints=False), Level.ADVICE, "hints of changes do not arrive"),
        (StoreServer("etcd", leases=1), Level.FINE, "keeps 1 lease"),
    ],
)
def test_a_store_of_another_kind(server: StoreServer, level: Level, text: str) -> None:
    """Of any other store the doctor says whether it can be used, how fast it answers, what it is and what it keeps."""
    found = list(of_any_server(server, 10.0))
    assert [each.level for each in found if text in each.text] == [level]
    assert all(each.level is Level.FINE for each in found if text not in each.text)


@pytest.mark.parametrize("kind", ["redis", "postgresql", "etcd"])
def test_a_store_is_called_by_its_kind(kind: str) -> None:
    """A finding names the kind of store, wherever its register is written."""
    assert any_server(open_register(f"{kind}://127.0.0.1:1/?timeout=0.2")).kind == kind

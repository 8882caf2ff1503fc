"""What strangers call themselves is shown as it is: it is no markup, no link, no emoji and no command."""

import contextlib
import json
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.beacon import Beacon
from election import open_register
from election.clock import wall_ms
from election.record import Record, State
from politics.cli.common import err, out, styled
from politics.group.peers import KIND, Peer, parse
from tests.commands import politics
from tests.terminal import terminal
from tests.waiting import until

POLITICS = Path(sys.executable).with_name("politics")
HOSTS = ["[/x]", "[link=https://example.org]here[/link]", "\\[/x]", ":skull:", "[bold", "a[red]b"]
"""Names that are markup, links, broken markup and emoji, for whoever does not take them as they are."""

every_host = pytest.mark.parametrize("host", HOSTS)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An SQLite store."""
    return f"sqlite:///{tmp_path}/store.db"


def led_by(host: str, store: str, group: str) -> None:
    """Let a stranger of that name lead, for so long that nobody else is elected."""
    with contextlib.closing(open_register(store)) as register:
        stranger = Record(7, "f" * 32, 1, 60_000, State.HELD, host=host, pid=4711, at_ms=wall_ms())
        assert register.swap(group, stranger.encode(), None)


@contextlib.contextmanager
def announced(name: str, group: str) -> Iterator[None]:
    """Let two members be heard, on two stores of that name. A host that is no name would not be heard."""
    with Beacon(["127.0.0.1"]) as beacon:
        for number in (1, 2):
            peer = Peer(group, secrets.token_hex(8), "web", 4711 + number, f"memcached:{name[:40]}{number}", number)
            beacon.announce(KIND, peer.properties())
        yield


def test_status_doctor_and_resign_show_a_host_as_it_is(store: str) -> None:
    """The host of the record, and the store that a member names; none of them ends with an error of its own."""
    groups = {f"group {secrets.token_hex(4)} {host[:8]}": host for host in HOSTS}
    with contextlib.ExitStack() as stack:
        for group, host in groups.items():
            led_by(host, store, group)
            stack.enter_context(announced(host, group))
        shown = politics("status", *groups, "--store", store)
        assert shown.status == 0
        rows = json.loads(politics("status", *groups, "--store", store, "--json").out)
        checked = politics("doctor", "--store", store)
    assert [row["leader"]["host"] for row in rows] == HOSTS
    for group, host in groups.items():
        for text in (group, f" {host}:4711\n", "web:4712 leads", f"memcached:{host}1"):
            assert text in shown.out
        assert f"danger  peers of {group}: use 2 stores, and each has a leader of its own" in checked.out
        assert f"memcached:{host}1: web:4712" in checked.out
        asked = politics("resign", group, "--store", store, "--timeout", "0")
        assert (asked.status, asked.out) == (1, f"asked {host}:4711 (fence 7) to hand over {group} …\n")
        assert f"{host}:4711 (fence 7) has not handed over" in asked.err


@every_host
def test_lock_says_who_holds_the_lease(host: str, store: str) -> None:
    """Whatever the holder calls its host."""
    led_by(host, store, "x")
    ended = politics("lock", "x", "--wait", "0", "--store", store, "--", "true")
    assert (ended.status, ended.err) == (75, f"politics: x is held by {host}:4711 (fence 7)\n")


def test_a_watching_terminal_shows_a_host_as_it_is(store: str) -> None:
    """A table that is drawn again and again is drawn with it, and has no live link."""
    groups = [f"x{number}" for number in range(len(HOSTS))]
    for group, host in zip(groups, HOSTS, strict=True):
        led_by(host, store, group)
    with terminal(POLITICS, "status", *groups, "--watch", "--store", store) as watch:
        until(lambda: watch.text.count("leader") > 1, "two looks")
        for host in HOSTS:
            assert f"{host}:4711" in "\n".join(watch.lines)
        assert "\x1b]8" not in watch.text
        watch.type("\x03")
        assert watch.wait() == 130
        assert "Traceback" not in watch.text


def test_a_terminal_obeys_no_name(store: str) -> None:
    """Escapes, line breaks and reversed writing in a record's host are other signs when they are shown."""
    led_by("a\x1b]0;owned\x07\n\u202eb", store, "x")
    for said in (
        politics("status", "x", "--store", store).out.splitlines()[1],
        politics("lock", "x", "--wait", "0", "--store", store, "--", "true").err.removesuffix("\n"),
        politics("resign", "x", "--store", store, "--timeout", "0").out.removesuffix("\n"),
    ):
        assert "owned" in said
        assert said.isprintable()


def test_text_has_one_door_to_the_terminal() -> None:
    """The consoles take no text for markup, whoever prints; only the module that makes them makes styled text."""
    for console in (out, err):
        with console.capture() as captured:
            console.print("[/x] [red]a[/red] :skull:\x1b\n")
        assert captured.get() == "[/x] [red]a[/red] :skull:\N{REPLACEMENT CHARACTER} \n"
    assert styled(("[/x]\x1b", "red"), " b").plain == "[/x]\N{REPLACEMENT CHARACTER} b"
    modules = Path(politics.__code__.co_filename).parents[1] / "politics" / "cli"
    made = re.compile(r"markup=|Console\(|Text\.|escape")
    makers = [path.name for path in modules.glob("*.py") if made.search(path.read_text())]
    assert set(makers) <= {"common.py"}


def test_a_group_that_cannot_be_one_is_not_heard(store: str) -> None:
    """An announcement of a name that no lease can have is nobody's; it does not end `status`."""
    strangers = [Peer(group, secrets.token_hex(8), "web", 1) for group in (" ", "x" * 81, "ü" * 41, "\u202ea", "")]
    assert [parse(stranger.properties()) for stranger in strangers] == [None] * 5
    with Beacon(["127.0.0.1"]) as beacon:
        for stranger in strangers:
            beacon.announce(KIND, stranger.properties())
        assert politics("status", "--store", store).status == 0


def test_a_host_that_is_too_long_is_not_heard() -> None:
    """A worker announces 64 characters at most."""
    assert parse(Peer("pork", "a", "h" * 64, 1).properties())
    assert parse(Peer("pork", "a", "h" * 65, 1).properties()) is None


def test_a_store_may_list_what_is_no_group(store: str) -> None:
    """A cell that somebody wrote under a name that no group can have is left out, and the groups are shown."""
    led_by("web", store, "pork")
    with contextlib.closing(open_register(store)) as register:
        register.swap(" ", b"{}", None)
    shown = politics("status", "--store", store, "--json")
    assert shown.status == 0
    groups = {row["group"]: row for row in json.loads(shown.out)}
    assert " " not in groups
    assert groups["pork"]["leader"]["host"] == "web"

"""`politics services`, `lookup`, `call` and `borrow`; as processes of their own where a command or a signal is."""

import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from discovery import Registry, RingServer
from tests import commands
from tests.processes import Process, running
from tests.waiting import DEADLINE, until

POLITICS = str(Path(sys.executable).parent / "politics")
LOOPBACK = "127.0.0.1"


@dataclass
class Item:
    name: str
    inside: Any


class Stock:
    def count(self, what: str, times: int = 1) -> dict[str, Any]:
        return {"what": what, "times": times}

    def fail(self) -> None:
        raise ValueError("on purpose")

    def odd(self) -> object:
        return {1, 2}

    def add(self, one: float, two: float = 0) -> float:
        return one + two

    def item(self) -> list[Item]:
        return [Item("apples", Item("pips", None))]

    def pairs(self) -> dict[tuple[int, int], int]:
        return {(1, 2): 3}


@pytest.fixture
def shop() -> Iterator[Registry]:
    with Registry(f"shop{secrets.token_hex(6)}", interfaces=[LOOPBACK]) as registry:
        registry.register("Stock", Stock(), "What there is")
        yield registry


@pytest.fixture
def url(shop: Registry) -> str:
    return f"distributed://{shop.app}/Stock"


def process(*words: str) -> AbstractContextManager[Process]:
    return running(POLITICS, words[0], "--interface", LOOPBACK, *words[1:])


def result(*words: str) -> tuple[int, str]:
    """Run it in this process; its exit status and all that it printed."""
    ended = commands.politics(words[0], "--interface", LOOPBACK, *words[1:])
    # Other programs of this machine, and other tests, may announce nonsense meanwhile, of which the log tells.
    lines = (ended.out + ended.err).splitlines()
    return ended.status, "\n".join(line for line in lines if not line.startswith("ignored an announcement"))


def borrowed(*words: str) -> int:
    """Borrow in a process of its own, for whose command we wait; its exit status."""
    with process("borrow", *words) as borrower:
        return borrower.result()[0]


def test_services_are_listed(shop: Registry, url: str) -> None:
    """For people and for programs, with where they are and whether they are on loan."""
    code, output = result("services")
    assert (code, url in output, "What there is" in output) == (0, True, True)
    with shop.borrow(url):
        code, output = result("services", "--json")
    (row,) = (row for row in json.loads(output) if row["url"] == url)
    assert (row["on_loan"], row["description"]) == (True, "What there is")
    assert row["address"] == shop.services((shop.app, None, None, None))[0].url


def test_services_are_watched(shop: Registry, url: str) -> None:
    """A line for each change; Ctrl-C ends it."""
    with process("services", "--watch", "--json") as watch:
        assert json.loads(watch.line(url))["change"] == "added"
        shop.unregister("Stock")
        # Others on this network come and go too.
        until(lambda: {("removed", url)} & {(row["change"], row["url"]) for row in map(json.loads, watch.lines)})
        watch.popen.send_signal(signal.SIGINT)
        status, output = watch.result()
        assert (status, "Abort" in output, "Interrupt" in output) == (130, False, False)


def test_a_lookup_prints_the_address_or_fails(shop: Registry, url: str) -> None:
    """By url or name; what is not there is exit status 1 and one line, what is no url 2."""
    where = shop.services((shop.app, None, None, None))[0].url
    assert result("lookup", url) == (0, where)
    code, output = result("lookup", url + "s", "--timeout", "0.2")
    assert (code, output.count("\n"), "did you mean" in output) == (1, 0, True), output
    code, output = result("lookup", "http://nowhere")
    assert (code, output.count("\n"), "http://nowhere" in output) == (2, 0, True), output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["count", "apples"], 0, '{"what": "apples", "times": 1}'),
        (["count", '"7"', "3"], 0, '{"what": "7", "times": 3}'),
        (["odd"], 0, '"{1, 2}"'),
        (["fail"], 1, "ValueError: on purpose"),
        (["nothing"], 1, "no public method 'nothing'"),
        (["__class__"], 1, "only public methods can be called from afar, not '__class__'"),
        (["__repr__"], 1, "only public methods can be called from afar, not '__repr__'"),
        (["_client"], 1, "only public methods can be called from afar, not '_client'"),
        (["item"], 0, '[{"name": "apples", "inside": {"name": "pips", "inside": null}}]'),
        (["pairs"], 0, '"{(1, 2): 3}"'),
        (["add", "-3"], 0, "-3"),
        (["add", "-1.5e1", "5", "--timeout", "5"], 0, "-10.0"),
        (["add", "--", "-3"], 0, "-3"),
    ],
)
def test_a_method_is_called(url: str, words: list[str], code: int, said: str) -> None:
    """Arguments are JSON or text, the answer is JSON, an error is one line."""
    ended, output = result("call", url, *words)
    assert (ended, said in output, output.count("\n")) == (code, True, 0), output


@pytest.mark.parametrize("word", ["-x", "-007", "--tiemout"])
def test_what_looks_like_an_option_is_none_of_the_arguments(url: str, word: str) -> None:
    """Unless it comes after `--`; a misspelt option is not passed on."""
    assert commands.politics("call", "--interface", LOOPBACK, url, "count", word).status == 2
    assert result("call", url, "count", "--", word) == (0, f'{{"what": "{word}", "times": 1}}')


def test_a_command_runs_while_the_loan_holds(shop: Registry, url: str) -> None:
    """With the address in its environment, under its own exit status; others have to wait, and may do so in vain."""
    with process("borrow", url, "--", "sh", "-c", "echo at $POLITICS_SERVICE; sleep 60; exit 7") as borrower:
        assert f"{LOOPBACK}:" in borrower.line("at ")
        code, output = result("borrow", url, "--wait", "0", "--", "echo", "never")
        assert (code, "on loan" in output, "never" in output.replace("politics:", "")) == (75, True, False), output
        borrower.popen.send_signal(signal.SIGTERM)
        assert borrower.result()[0] == 128 + signal.SIGTERM
    with shop.borrow(url, timeout=DEADLINE):
        pass
    assert borrowed(url, "--", "sh", "-c", "exit 7") == 7
    assert borrowed(url, "--", "/nowhere/command") == 127
    assert result("borrow", f"{url}s", "--", "true")[0] == 1


def test_a_command_is_stopped_when_its_loan_is_lost(shop: Registry, url: str) -> None:
    """Asked first, then by force."""
    script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done"
    with process("borrow", url, "--ttl", "2", "--", "sh", "-c", script) as borrower:
        borrower.line("up")
        shop.close()
        borrower.line("asked")
        assert borrower.result()[0] == 124


def test_a_secret_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is no UTF-8: the same bytes in a variable and in a program are the same secret."""
    monkeypatch.setenv("POLITICS_SECRET", os.fsdecode(b"\xff"))
    with Registry(f"shop{secrets.token_hex(6)}", interfaces=[LOOPBACK], secret=b"\xff") as shop:
        url = shop.register("Stock", Stock())
        assert result("lookup", url, "--interface", LOOPBACK)[0] == 0


def test_all_of_it_works_through_a_ring() -> None:
    """The same commands with --ring, and with a secret in the environment's place."""
    with (
        RingServer(port=0, host=LOOPBACK, announce=False) as server,
        Registry("shop", interfaces=[LOOPBACK], ring=f"{LOOPBACK}:{server.port}", secret="s") as shop,
    ):
        url = shop.register("Stock", Stock())
        options = ["--ring", f"{LOOPBACK}:{server.port}", "--secret", "s"]
        until(lambda: len(shop.services()) == 1)
        assert result("call", url, "count", "apples", *options) == (0, '{"what": "apples", "times": 1}')
        assert borrowed(*options, url, "--", "true") == 0
        assert result("lookup", *options[:2], "--secret", "t", url)[0] == 1
    code, output = result("services", *options)
    assert (code, output.count("\n"), "no ring" in output) == (1, 0, True), output

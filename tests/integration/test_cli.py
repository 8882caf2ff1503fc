"""The command line, as people and service managers use it."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import election
from election import Candidate, LeasePolicy, StoreUnavailable, open_register
from politics.cli import resign
from politics.cli.common import out
from politics.cli.status import Rows, picture
from tests import commands
from tests.integration.conftest import MakeStage
from tests.integration.harness import Stage
from tests.integration.worker import now
from tests.memcached import Memcached
from tests.waiting import DEADLINE, SOON, until

POLITICS = str(Path(sys.executable).with_name("politics"))

WORKERS = """
import sys
from politics import TokenWorker

class Pork(TokenWorker):
    group = "pork"
    iteration_length = 3600

    def perform(self, term):
        print("slot", term.iteration, self.group, self.iteration_length, self.lease_ttl, flush=True)
        term.lost.wait()

class Leaver(Pork):
    def perform(self, term):
        sys.exit(3)

class Idle(TokenWorker):
    group = "idle"

class Other:
    pass
"""


class Command:
    """One `politics` command in a session of its own, so that whatever it leaves behind can be seen."""

    def __init__(self, *arguments: str, cwd: Path, terminal: int | None = None) -> None:
        self.popen = subprocess.Popen(
            [POLITICS, *arguments],
            cwd=cwd,
            env=os.environ | {"TMPDIR": str(cwd), "TERM": "xterm", "COLUMNS": "120"},
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.STDOUT if terminal is None else terminal,
            start_new_session=True,
        )
        self.text = ""
        source = self.popen.stdout.fileno() if self.popen.stdout else None
        self._listener = threading.Thread(target=self.listen, args=(source,), daemon=True)
        if source is not None:
            self._listener.start()

    def listen(self, source: int) -> None:
        """Take in what it says, until nobody can say anything any more."""
        with contextlib.suppress(OSError):  # EIO: the terminal's last user has gone
            while data := os.read(source, 65536):
                self.text += data.decode(errors="replace")

    def says(self, phrase: str) -> str:
        """Wait until it has said something."""
        until(lambda: phrase in self.text or self.popen.poll() is not None, repr(phrase))
        until(lambda: phrase in self.text, f"{phrase!r} in {self.text}", SOON)
        return self.text

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its exit status, once all that it said is here."""
        status = self.popen.wait(seconds)
        if self.popen.stdout:
            self._listener.join(DEADLINE)
        return status

    def family(self) -> list[int]:
        """The processes of its session that still run."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, _, rest = stat.read_text().partition(" ")
                state, _parent, _group, session, *_ = rest.rpartition(")")[2].split()
                if int(session) == self.popen.pid and state != "Z":
                    found.append(int(pid))
        return found

    def end(self) -> None:
        """End whatever is left of it."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.popen.wait(DEADLINE)
        if self.popen.stdout:
            self._listener.join(DEADLINE)
            self.popen.stdout.close()


Start = Callable[..., Command]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with some workers in it."""
    (tmp_path / "workers.py").write_text(WORKERS)
    return tmp_path


@pytest.fixture
def command(place: Path) -> Iterator[Start]:
    """Start commands in that folder; they end with the test."""
    begun: list[Command] = []

    def start(*arguments: str, **options: int) -> Command:
        begun.append(Command(*arguments, cwd=place, **options))
        return begun[-1]

    yield start
    for each in begun:
        each.end()


@pytest.fixture(scope="module")
def whole_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Command, Path, float]]:
    """A demo that plays while the other commands are tested."""
    folder = tmp_path_factory.mktemp("demo")
    played = Command("demo", cwd=folder)
    yield played, folder, now()
    played.end()


@pytest.fixture(autouse=True)
def _(whole_demo: object) -> None:
    """Begin the demo with the first test."""


def call(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command in this process; its exit status and all that it said."""
    ended = commands.politics(*arguments, **environment)
    return ended.status, ended.said


# politics run


def test_run_runs_a_class_of_a_module(command: Start, old_memcached: Memcached) -> None:
    """Options override the class; the log says who was elected, with fence and slot, and why leadership ended."""
    group, target = "run workers", "workers:Pork"
    options = ["--servers", old_memcached.address, "--group", group, "--iteration-length", "7", "--lease-ttl", "1"]
    runner = command("run", target, *options)
    runner.says(f"slot 1 {group} 7.0 1.0")
    assert re.search(rf"INFO {runner.popen.pid} {group}: elected leader \(fence \d+, slot 1\)", runner.text)
    runner.popen.send_signal(signal.SIGTERM)
    assert runner.wait() == 0
    assert re.search(rf"{group}: leadership ended after \d+\.\d s \(fence \d+\): asked to stop by SIGTERM", runner.text)
    assert "Traceback" not in runner.text


def test_run_ends_with_the_status_that_the_work_gives(command: Start, old_memcached: Memcached) -> None:
    """`sys.exit(3)` in the work, here of a class of a file, is the command's exit status."""
    leaver = command("run", "workers.py:Leaver", "--servers", old_memcached.address, "--lease-ttl", "1")
    assert leaver.wait() == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["workers.py"], "'workers.py' is not path/to/file.py:Class or package.module:Class"),
        (["nowhere.py:Pork"], "there is no file nowhere.py"),
        (["nowhere.at.all:Pork"], "there is no module nowhere.at.all"),
        (["workers.py:Beef"], "Beef in workers.py does not exist; workers there: Idle, Leaver, Pork"),
        (["workers.py:Other"], "Other in workers.py is not a subclass of politics.TokenWorker"),
        (["workers.py:Idle"], "Idle has no work: override perform(term)"),
        (["workers.py:Pork", "--store", "mysql://a"], "'mysql://a' is no store URL"),
        (["workers.py:Pork", "--store", ""], "'' is no store URL"),
        (["workers.py:Pork", "--store", "memory://", "--servers", "a:1"], "name one store, not both"),
        (["workers.py:Pork", "--servers", "a:b"], "'a:b' is not host:port"),
        (["workers.py:Pork", "--lease-ttl", "0"], "lease_ttl must be between 0.1 and 3600, not 0.0"),
        (["workers.py:Pork", "--lease-ttl", "nan"], "lease_ttl must be a number of seconds, not nan"),
        (["workers.py:Pork", "--iteration-length", "-1"], "iteration_length must be a positive number"),
        (["workers.py:Pork", "--iteration-length", "long"], "--iteration-length"),
        (["workers.py:Pork", "--group", ""], "needs a group"),
        (["workers.py:Pork", "--group", "x" * 81], "80 bytes at most"),
        ([], "Missing argument"),
    ],
)
def test_run_refuses_what_cannot_be_run(place: Path, arguments: list[str], sentence: str) -> None:
    """Wrong usage: exit status 2, and a sentence that names what is wrong."""
    ended = commands.politics("run", *arguments, cwd=place, POLITICS_STORE="memory://cli")
    assert (ended.status, sentence in ended.said) == (2, True), ended


# politics status


def test_status_shows_who_leads(stage: Stage, old_memcached: Memcached) -> None:
    """As a table and as JSON: host, process, fence, slot and its state, the time left; a dead leader shows as such."""
    (process,) = stage.start()
    _, election = stage.elected()
    stage.wait("effect")
    group, where = stage.options["group"], ["--servers", old_memcached.address]
    status, said = call("status", group, "nobody's", *where, "--json")
    assert status == 0
    led, unknown = json.loads(said)
    assert led["leader"] == {"host": os.uname().nodename[:64], "pid": process.pid}
    assert (led["group"], led["state"], led["fence"]) == (group, "led", election["fence"])
    assert (led["slot"], led["work"]) == (1, "running")
    assert 0 < led["lease_left"] <= 1
    assert (unknown["group"], unknown["state"], unknown["leader"]) == ("nobody's", "unknown", None)
    status, said = call("status", group, *where)
    assert status == 0
    assert re.search(rf"{group} led [01]\.\d s 1 running {os.uname().nodename}:{process.pid}", said)
    process.send(signal.SIGKILL)

    def silent() -> list[dict[str, object]]:
        rows = json.loads(call("status", group, *where, "--json")[1])
        return [row for row in rows if row["state"] == "silent"]

    (dead,) = until(silent, "the leader's silence")
    assert (dead["leader"], dead["lease_left"]) == ({"host": os.uname().nodename[:64], "pid": process.pid}, 0)
    assert f"{group} silent" in call("status", group, *where)[1]


def test_status_lists_what_the_store_can_list(make_stage: MakeStage, place: Path, old_memcached: Memcached) -> None:
    """SQLite can, memcached cannot: who is not heard either must be named."""
    stage = make_stage(f"sqlite:///{place}/store.db", lease_ttl=0.2)
    groups = [f"{stage.options['group']}{letter}" for letter in "ab"]
    for group in groups:
        stage.thread(group=group, announce=False)
    until(lambda: len(stage.events("elected")) == 2, "two leaders")
    status, said = call("status", "--store", stage.options["store"], "--json")
    assert status == 0
    assert [row["group"] for row in json.loads(said) if row["group"] in groups] == groups
    said = call("status", "--store", old_memcached.url)[1]
    assert not any(group in said for group in groups)


def test_ctrl_c_ends_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes a second and longer, and Ctrl-C does not wait for its end."""

    def look(_: object) -> list[dict[str, object]]:
        signal.raise_signal(signal.SIGINT)
        return []

    monkeypatch.setattr(Rows, "look", look)
    monkeypatch.setenv("POLITICS_INTERFACES", "203.0.113.1")
    assert call("status", "--store", "memory://")[0] == 130
    assert call("status", "--watch", "--store", "memory://")[0] == 130


LEADER = {"host": "db-replica-17.example.org", "pid": 4194304}
LED = {
    "group": "nightly-mail", "state": "led", "leader": LEADER, "fence": 1795516686474, "slot": 12, "work": "running",
    "lease_left": 9.5, "renewed": 0.5, "store": "memcached://10.0.0.5:11211", "split": False, "elsewhere": False,
    "members": [
        {**LEADER, "leads": True, "fence": 1795516686474, "store": "memcached:" + "a" * 32},
        {"host": "web-1", "pid": 812, "leads": False, "fence": None, "store": "memcached:" + "a" * 32},
    ],
}  # fmt: skip
UNKNOWN = {**LED, "group": "mailer", "state": "unknown", "leader": None, "members": []}
for _absent in ("fence", "slot", "work", "lease_left", "renewed"):
    del UNKNOWN[_absent]


def test_status_fits_a_narrow_terminal() -> None:
    """In 80 columns each group has one line, its leader whole, its members below it, and the store once at the end."""
    with out.capture() as captured:
        out.print(picture([LED, UNKNOWN]))
    assert captured.get().splitlines() == [
        "group         state    left   slot        leader",
        "nightly-mail  led      9.5 s  12 running  db-replica-17.example.org:4194304",
        "  db-replica-17.example.org:4194304 leads",
        "  web-1:812 stands by",
        "mailer        unknown  -      -           -",
        "store: memcached://10.0.0.5:11211",
    ]
    assert max(map(len, captured.get().splitlines())) <= 80


def test_status_shows_more_in_a_wide_terminal() -> None:
    """With --wide the fence, the last renewal, and the store of each member as well."""
    wide = picture([LED], wide=True).plain.splitlines()
    assert wide[0].split() == ["group", "state", "left", "slot", "fence", "renewed", "leader"]
    assert "12 running  1795516686474  0.5 s ago  db-replica-17" in wide[1]
    assert wide[2].endswith(f"leads (fence 1795516686474), memcached:{'a' * 32}")


def test_status_names_the_stores_of_a_split() -> None:
    """Then it matters which member uses which."""
    split = picture([{**LED, "split": True}]).plain.splitlines()
    assert "  SPLIT: each store has a leader of its own" in split
    assert f"  web-1:812 stands by, memcached:{'a' * 32}" in split


@pytest.mark.parametrize("groups", [[], ["pork"]])
def test_status_of_a_store_that_is_down(groups: list[str]) -> None:
    """Where nobody is heard either, status 1: the line on standard error says why, and so does the JSON."""
    nobody = {"POLITICS_INTERFACES": "203.0.113.1"}  # other tests may have workers on this machine
    ended = commands.politics("status", *groups, "--store", "memcached://127.0.0.1:1", "--json", **nobody)
    (row,) = json.loads(ended.out)
    assert (ended.status, row["group"], row["state"]) == (1, groups[0] if groups else None, "unreachable")
    assert "memcached at 127.0.0.1:1 did not answer" in row["trouble"]
    assert ended.err.endswith(f"\npolitics: {row['trouble']}\n")


def test_status_refuses_a_name_that_is_none() -> None:
    """A group that nobody can have, named by hand, is wrong usage."""
    assert call("status", " ", "--store", "memory://")[0] == 2


def test_status_watches(command: Start, stage: Stage, old_memcached: Memcached) -> None:
    """One JSON array a second, until Ctrl-C, which is no error worth a traceback."""
    stage.thread()
    stage.wait("elected")
    watch = command("status", stage.options["group"], "--servers", old_memcached.address, "--watch", "--json")
    until(lambda: watch.text.count("\n") >= 2, "two looks")
    first, second = (json.loads(line)[0] for line in watch.text.splitlines()[:2])
    assert first["state"] == second["state"] == "led"
    assert first["fence"] == second["fence"]
    watch.popen.send_signal(signal.SIGINT)
    assert watch.wait() == 130
    assert "Traceback" not in watch.text


# politics resign


def test_resign_hands_over(stage: Stage, old_memcached: Memcached) -> None:
    """The leader stops its work and another one is elected: exit status 0."""
    stage.start(2)
    leader, election = stage.elected()
    asked = now()
    status, said = call("resign", stage.options["group"], "--servers", old_memcached.address)
    assert status == 0, said
    assert f":{leader.pid} (fence {election['fence']}) has handed over" in said
    assert "asked to hand over" in stage.wait("refused", who=leader.name)["why"]
    assert stage.elected(after=asked)[1]["fence"] > election["fence"]


def test_resign_takes_nothing_from_a_leader_that_does_not_listen(stage: Stage, old_memcached: Memcached) -> None:
    """It goes on leading, and the command says so with exit status 1."""
    stage.start(2, work="ignore")
    _, election = stage.elected()
    group, where = stage.options["group"], ["--servers", old_memcached.address]
    status, said = call("resign", group, *where, "--timeout", "1.2")
    assert status == 1
    assert "has not handed over within 1.2 s; it leads as long as it renews its lease" in said
    asked = now()
    stage.wait("claim", fence=election["fence"], after=asked + 1.2)
    assert len(stage.events("elected")) == 1


def test_resign_of_nobody(old_memcached: Memcached) -> None:
    """Where nobody leads, nobody can be asked: exit status 1, also without a store; 2 is wrong usage."""
    where = ["--servers", old_memcached.address]
    assert call("resign", "nobody", *where) == (1, "politics: nobody leads 'nobody'")
    assert call("resign", " ", *where)[0] == 2
    assert call("resign", "nobody", *where, "--timeout", "nan")[0] == 2
    status, said = call("resign", "nobody", "--servers", "127.0.0.1:1")
    assert status == 1
    assert "memcached at 127.0.0.1:1 did not answer" in said


def test_resign_waits_for_a_store_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once, and goes on when the store answers again."""
    silent = 3

    def look(*arguments: Any) -> Any:
        nonlocal silent
        silent -= 1
        if silent >= 0:
            raise StoreUnavailable("the store has gone")
        term.resign()
        return election.look(*arguments)

    monkeypatch.setattr(resign, "LONGEST", 0.04)
    monkeypatch.setattr(resign, "look", look)
    store = f"sqlite:///{tmp_path}/store.db"
    with (
        contextlib.closing(open_register(store)) as register,
        Candidate(register, "pork", LeasePolicy(ttl=0.5)).campaign() as term,
    ):
        ended = commands.politics("resign", "pork", "--store", store)
    assert (ended.status, ended.err) == (0, "politics: waiting for the store: the store has gone\n")
    assert ended.out.endswith("has handed over\n")


# politics demo


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(command: Start, number: signal.Signals) -> None:
    """Whether it is asked to end or killed, its workers end with it."""
    demo = command("demo")
    demo.says("is elected")
    assert len(demo.family()) >= 4
    demo.popen.send_signal(number)
    assert demo.wait() != 0
    until(lambda: not demo.family(), f"the end of {demo.family()}")
    assert "Traceback" not in demo.text


def test_the_demo_is_live_on_a_terminal(command: Start, place: Path) -> None:
    """It draws a table there, and Ctrl-C ends it, and its workers with it, and leaves nothing."""
    ours, theirs = pty.openpty()
    demo = command("demo", terminal=theirs)
    os.close(theirs)
    listener = threading.Thread(target=demo.listen, args=(ours,), daemon=True)
    listener.start()
    demo.says("is elected")
    demo.says("pieces left")
    assert "\x1b[" in demo.text
    os.killpg(demo.popen.pid, signal.SIGINT)
    assert demo.wait() != 0
    until(lambda: not demo.family(), "the end of its workers")
    listener.join(DEADLINE)
    os.close(ours)
    assert not list(place.glob("politics-demo-*"))
    assert "Traceback" not in demo.text


def test_the_demo_plays_to_its_end(command: Start, place: Path) -> None:
    """In plain lines when piped, with a murder, a resignation and a summary that is true."""
    demo = command("demo")
    assert demo.wait() == 0, demo.text
    assert "\x1b" not in demo.text
    for phrase in ("gets SIGKILL in the middle of its slot", "gets SIGTERM in the middle of its slot"):
        assert demo.text.count(phrase) == 1, demo.text
    assert demo.text.count("again: its first leader was interrupted") == 2
    assert len(re.findall(r"taken over \d+\.\d\d s after \w+ was (?:killed|stopped)", demo.text)) == 2
    assert "all 30 pieces were spent, each once, and only ever by the leader" in demo.text
    counts = re.search(r"spent: Alice (\d+), Bob (\d+), Carol (\d+)", demo.text)
    assert counts is not None
    assert sum(map(int, counts.groups())) in (29, 30)  # the killed one may have spent a piece that it could not report
    assert not demo.family()
    assert not list(place.glob("politics-demo-*"))

"""`politics run` with its log, its policies, and several workers in one process."""

import json
import logging
import re
import sys
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from politics.cli.logs import JSONFormatter
from tests import commands
from tests.processes import Process, running
from tests.waiting import SOON, until

WORKERS = """
import sys
from politics import TokenWorker

class Pork(TokenWorker):
    group, iteration_length, announce = "pork", 3600, False

    def perform(self, term):
        print("works", self.group, self.sticky, self.on_failover, self.on_error, flush=True)
        term.lost.wait()

class Beans(Pork):
    group = "beans"

class Cook(Pork):
    group = "cook"
    def perform(self, term):
        raise ValueError("the pork\\nis off")

class Leaver(Pork):
    group = "leaver"
    def perform(self, term):
        sys.exit(3)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file with some workers in it."""
    (tmp_path / "workers.py").write_text(WORKERS)
    return tmp_path / "workers.py"


def run(place: Path, store: str, *words: str) -> AbstractContextManager[Process]:
    """Run `politics run` on these workers of the file, with these options; it is killed at the end."""
    targets = [f"{place}:{word}" if word.istitle() else word for word in words]
    program = "from politics.cli import main; main()"
    return running(sys.executable, "-c", program, "run", "--store", store, *targets)


def test_the_log_as_json(place: Path, old_store: str) -> None:
    """Each line is one object with its time, its level and the fields of its event; a traceback is in one of them."""
    with run(place, old_store, "Cook", "--log-json", "--log-level", "debug") as process:
        process.line("slot_failed")
        assert process.stop() == 0
        lines = [json.loads(line) for line in process.result()[1].splitlines()]
    (elected,) = [line for line in lines if line.get("event") == "elected" and line["level"] == "info"]
    assert (elected["group"], elected["slot"], elected["logger"], elected["pid"]) == (
        "cook", 1, "politics", process.popen.pid,
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", elected["time"])
    (failed,) = [line for line in lines if line.get("event") == "slot_failed"]
    assert failed["reason"] == "ValueError: the pork\nis off"
    assert "Traceback (most recent call last)" in failed["error"]


def test_no_field_keeps_a_line_out_of_the_json_log() -> None:
    """What JSON does not have is written as Python shows it, so that each line can be read, and none is lost."""
    endless: list[object] = []
    endless.append(endless)
    extra = {"pairs": {(1, 2): 3}, "endless": endless, "worst": float("nan"), "kinds": [int], "good": {"a": [1.5]}}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    line = JSONFormatter().format(logging.makeLogRecord({"msg": "counted", **extra}))
    found = json.loads(line, parse_constant=refuse)
    assert {key: found[key] for key in ("message", *extra)} == {
        "message": "counted", "pairs": "{(1, 2): 3}", "endless": "[[...]]", "worst": "nan",
        "kinds": ["<class 'int'>"], "good": {"a": [1.5]},
    }  # fmt: skip


def test_the_level_of_the_log(place: Path, old_store: str) -> None:
    """From WARNING on it says nothing of an ordinary election."""
    with run(place, old_store, "Pork", "--log-level", "WARNING") as process:
        process.line("works")
        assert process.stop() == 0
        assert process.result()[1] == "works pork False rerun done"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sticky", "--on-failover", "skip"], "works pork True skip done"),
        (["--no-sticky", "--on-error", "retry"], "works pork False rerun retry"),
    ],
)
def test_policies_can_be_options(place: Path, old_store: str, options: list[str], said: str) -> None:
    """They override the class's."""
    with run(place, old_store, "Pork", *options) as process:
        process.line(said)


def test_several_workers_share_a_process(place: Path, old_store: str) -> None:
    """Each leads its own group; one signal stops them all; one page has the metrics of both, each with its group."""
    with run(place, old_store, "Pork", "Beans", "--metrics-port", "0") as process:
        process.line("works pork")
        process.line("works beans")
        found = re.search(r"pork, beans: metrics on port (\d+) of 127\.0\.0\.1", process.line("metrics on port"))
        assert found

        def get(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=SOON) as answer:
                return str(answer.read().decode())

        text = until(lambda: (page := get("/metrics")).count("politics_is_leader{") == 2 and page)
        assert 'politics_is_leader{group="pork"} 1.0' in text
        assert 'politics_is_leader{group="beans"} 1.0' in text
        assert text.count("# TYPE politics_is_leader gauge") == 1
        assert get("/leader/beans") == get("/leader") == "leading\n"
        assert process.stop() == 0
        assert process.result()[1].count("asked to stop by SIGTERM") == 2


def test_the_default_store_is_said_once(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers use it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_STATE_HOME", "POLITICS_STORE"):
        monkeypatch.delenv(variable, raising=False)
    program = "from politics.cli import main; main()"
    with running(sys.executable, "-c", program, "run", f"{place}:Pork", f"{place}:Beans") as process:
        process.line("works")
        assert process.stop() == 0
        assert process.result()[1].count("no store is named") == 1


def test_the_end_of_one_worker_ends_the_others(place: Path, old_store: str) -> None:
    """They hand over first, and the status is the one that the first gave."""
    with run(place, old_store, "Pork", "Leaver") as process:
        code, said = process.result()
    assert code == 3
    assert "leaver: the worker ends: SystemExit(3)" in said
    assert "pork: stopped" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Pork", "Pork"], "two of the workers are of the group 'pork'"),
        (["Pork", "Beans", "--group", "one"], "--group is for one worker"),
        (["Pork", "Nothing"], "Nothing in "),
        (["Pork", "--on-failover", "stop"], "on_failover must be 'rerun' or 'skip', not 'stop'"),
        (["Pork", "--on-error", "stop"], "on_error must be 'done' or 'retry', not 'stop'"),
        (["Pork", "--log-level", "loud"], "'loud' is not one of"),
    ],
)
def test_what_cannot_be_run_together_is_refused(place: Path, words: list[str], sentence: str) -> None:
    """With status 2, before anything has started."""
    targets = [f"{place}:{word}" if word.istitle() else word for word in words]
    ended = commands.politics("run", "--store", "memory://run", *targets)
    assert (ended.status, sentence in ended.said) == (2, True), ended


@pytest.mark.parametrize(
    ("code", "lines", "said"),
    [
        ("import no_such_module_at_all", 4, "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def perform(:", 4, "SyntaxError: invalid syntax"),
        (WORKERS + "class X(Pork):\n    def __init__(self, a): pass\n", 1, "TypeError: X.__init__() got an unexpected"),
    ],
)
def test_a_program_that_cannot_be_loaded_is_named(tmp_path: Path, code: str, lines: int, said: str) -> None:
    """One line says why, below a traceback that has the program's own lines alone."""
    (tmp_path / "broken.py").write_text(code)
    target = f"{tmp_path / 'broken.py'}:X"
    ended = commands.politics("run", target, "--store", "memory://")
    *trace, last = ended.err.splitlines()
    assert (ended.status, len(trace)) == (1, lines), ended.err
    assert last.startswith(f"politics: {target} cannot be loaded: {said}")

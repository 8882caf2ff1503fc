"""How the command line presents itself: help, version, completion, and what a wrong word gets."""

import enum
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import politics as package
from politics.cli import COMMANDS
from politics.cli.usage import Command
from tests.commands import politics
from tests.waiting import DEADLINE

POLITICS = str(Path(sys.executable).with_name("politics"))

every_help = pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=" ".join)


@every_help
@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_fits_a_terminal(words: list[str], columns: str) -> None:
    """At most 80 columns, also in a wide terminal, without types and brackets that nobody types."""
    shown = politics(*words, "--help", COLUMNS=columns).out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith(f"Usage: politics {' '.join([*words, '[OPTIONS]'])}")
    assert not re.search(
        r"[{}<>]|\]\.\.\.|\(.*\)\]$|\.\.\.$(?<!COMMAND\.\.\.)", shown.partition("\n\n")[2], re.MULTILINE
    )


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("lock", "NAME -- COMMAND..."), ("borrow", "URL -- COMMAND..."), ("status", "[GROUP...]"),
        ("call", "URL METHOD [ARG...]"), ("run", "TARGET..."),
    ],
)  # fmt: skip
def test_the_usage_is_what_is_typed(command: str, usage: str) -> None:
    """With brackets around what may be left out, and nothing else."""
    assert politics(command, "--help").out.splitlines()[0] == f"Usage: politics {command} [OPTIONS] {usage}"


def test_help_shows_any_kind_of_option() -> None:
    """A choice, a flag with its opposite, a name without a metavar."""

    class Level(enum.StrEnum):
        LOUD = "loud"

    def shout(
        level: Annotated[Level, typer.Option(help="How.")] = Level.LOUD,
        echo: Annotated[bool, typer.Option("--echo/--no-echo", help="Again.")] = False,
        times: Annotated[int, typer.Option(help="How often.")] = 0,
    ) -> None:
        """Shout."""

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=Command)(shout)
    shown = CliRunner().invoke(app, ["--help"]).output
    for line in (
        "  --level LEVEL      How. [default: loud]\n",
        "  --echo, --no-echo  Again.\n",
        "  --times TIMES      How often. [default: 0]\n",
    ):
        assert line in shown


def test_help_tells_defaults() -> None:
    """Numbers as they are typed, words where there is no number, and variables of the environment."""
    said = politics("lock", "--help").said
    assert "[default: 10]" in said
    assert "[default: as long as it takes]" in said
    assert "[$POLITICS_SECRET]" in politics("lookup", "--help").said


@pytest.mark.parametrize("words", [["lock", "x", "sh", "-c", "true"], ["borrow", "Printer", "lp", "-n", "2"]])
def test_dashes_that_were_forgotten_are_named(words: list[str]) -> None:
    """An option of the command is not one of ours; the message says what is missing."""
    ended = politics(*words)
    assert ended.status == 2
    assert f"No such option: {words[3]}" in ended.err
    assert "If this is an option of COMMAND, write -- before COMMAND." in ended.err


def test_an_option_that_does_not_exist_needs_no_dashes() -> None:
    """The hint is for those who forgot them."""
    assert "write --" not in politics("lock", "--nonsense", "x", "--", "true").err
    assert "write --" not in politics("status", "--nonsense").err


def test_the_version_is_told() -> None:
    """By the command, by the package and by its metadata."""
    assert politics("--version").out == f"politics {package.__version__}\n"
    assert version("politics") == package.__version__


def test_the_module_is_the_command() -> None:
    """`python -m politics` does what `politics` does."""
    run = subprocess.run(
        [sys.executable, "-m", "politics", "--version"], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (run.returncode, run.stdout) == (0, f"politics {package.__version__}\n")


@pytest.mark.parametrize(("typed", "offered"), [("politics st", "status"), ("politics status --wi", "--wide")])
def test_a_shell_completes(typed: str, offered: str) -> None:
    """Commands, and the options of a command."""
    variables = {"_POLITICS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    run = subprocess.run([POLITICS], env=os.environ | variables, capture_output=True, text=True, timeout=DEADLINE)
    assert run.stdout.split() == [offered]
    # Otherwise the shell is that which has started the tests, if any.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "_POLITICS_COMPLETE=complete_bash" in politics("--show-completion", "bash", **named).out


@pytest.mark.parametrize("module", ["typer", "rich.console"])
def test_ctrl_c_while_modules_are_imported_is_quiet(tmp_path: Path, module: str) -> None:
    """Status 130 and no traceback, whatever is being imported: here a module that presses Ctrl-C."""
    file = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    words = ["status", "--store", "memory://"]
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run([POLITICS, *words], env=variables, capture_output=True, text=True, timeout=DEADLINE)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


@pytest.mark.parametrize("target", ["queue:Q", "json.decoder:Worker"])
def test_a_module_of_the_standard_library_is_not_run(target: str, tmp_path: Path) -> None:
    """Python finds its own before yours; the message says so."""
    (tmp_path / "queue.py").write_text("class Q: pass")
    ended = politics("run", target, cwd=tmp_path)
    assert ended.status == 2
    assert f"{target.split(':')[0]} is a module of Python's standard library; rename yours" in ended.said

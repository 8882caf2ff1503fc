"""What the documentation says of commands, code and files is so."""

import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from politics import Term, cli
from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
EXAMPLES = [path for path in sorted(ROOT.glob("examples/**/*.py")) if "__main__" in path.read_text()]
COMMANDS: dict[str, Any] = {name: cli.load(name) for name in cli.COMMANDS}


def name_of(page: Path) -> str:
    """A page's path in the project."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[str]:
    """The Python code on a page."""
    yield from re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


CODE = [
    pytest.param(code, id=f"{name_of(page)}-{number}") for page in PAGES for number, code in enumerate(blocks(page), 1)
]


def section(command: str) -> str:
    """What docs/cli.md says under the heading of a command."""
    found = re.search(rf"^## politics {command}\b.*?(?=^## |\Z)", (ROOT / "docs/cli.md").read_text(), re.M | re.S)
    assert found, f"docs/cli.md has no heading '## politics {command}'"
    return found[0]


def options(command: str) -> set[str]:
    """The options of a command, as typed."""
    return {option for parameter in COMMANDS[command].params for option in parameter.opts if option.startswith("--")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_and_argument_is_documented(command: str) -> None:
    """The section of a command names each of its options and arguments."""
    text = section(command)
    missing = [option for option in options(command) - {"--help"} if f"`{option}" not in text]
    arguments = [p.metavar.strip("[].") for p in COMMANDS[command].params if p.param_type_name == "argument"]
    missing += [argument for argument in arguments if argument not in text.splitlines()[0]]
    assert missing == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_documented_option_exists(command: str) -> None:
    """The tables of a command's section name no option that it does not have."""
    cells = re.findall(r"^\| (`--.*?) \|", section(command), re.MULTILINE)
    assert {option for cell in cells for option in re.findall(r"--[a-z-]+", cell)} <= options(command)


def test_every_documented_command_exists() -> None:
    """docs/cli.md has one heading for each command, and no other."""
    headings = re.findall(r"^## politics ([\w-]+)", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_text_for_everything(command: str) -> None:
    """Each command and each of its parameters says what it is for."""
    assert COMMANDS[command].help.split("\n\n")[0] == cli.COMMANDS[command][1], "as in the list of commands"
    assert [parameter.name for parameter in COMMANDS[command].params if not parameter.help] == []


def test_every_environment_variable_is_documented() -> None:
    """docs/cli.md names each variable that the packages read."""
    code = "".join(path.read_text() for package in ("politics", "election") for path in ROOT.glob(f"{package}/**/*.py"))
    variables = set(re.findall(r"environ(?:\.get\(|\[)[\"'](\w+)", code))
    assert "POLITICS_STORE" in variables
    text = (ROOT / "docs/cli.md").read_text()
    assert [variable for variable in variables if f"`{variable}`" not in text] == []


@pytest.mark.parametrize("code", CODE)
def test_python_on_a_page_runs(code: str, tmp_path: Path) -> None:
    """Each block runs as it stands; what it starts under `__main__` is not started."""
    (tmp_path / "block.py").write_text(code)
    runner = "import runpy; runpy.run_path('block.py', run_name='documentation')"
    command = [sys.executable, "-c", runner]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr


def test_the_worker_of_the_readme_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer who copies the first example sees it lead and do its work."""
    (tmp_path / "mailer.py").write_text(next(blocks(ROOT / "README.md")))
    mailer = runpy.run_path(str(tmp_path / "mailer.py"))["Mailer"](store="memory://readme")
    worked = threading.Event()

    def work(term: Term) -> None:
        mailer.perform(term)
        worked.set()

    mailer.start(work)
    assert worked.wait(DEADLINE)
    mailer.stop()
    assert "Dear Bob (fence " in capsys.readouterr().out


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each linked file exists, and each linked heading."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_on_a_page_exist(page: Path) -> None:
    """Each `make` command that a page shows is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^ {4}make ([a-z]+)", page.read_text(), re.MULTILINE)) <= targets


def test_the_layout_in_the_design_exists() -> None:
    """docs/design.md lists no file that is not there."""
    text = (ROOT / "docs/design.md").read_text().split("## Layout")[1].split("## ")[0]
    package, listed = "", []
    for indent, name in re.findall(r"^ {4}(  )?([\w.]+(?:/|\.py)) ", text.replace("/\n", "/ \n"), re.MULTILINE):
        package = package if indent else name
        listed.append(package + name if indent else name)
    assert "election/rules.py" in listed
    assert [path for path in listed if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_every_example_is_run_and_listed(example: Path) -> None:
    """A test runs each example, and the list of examples links it."""
    assert any(runs(example, path.read_text()) for path in ROOT.glob("tests/integration/test_*examples.py"))
    assert f"]({example.relative_to(ROOT / 'examples')})" in (ROOT / "examples/README.md").read_text()


def runs(example: Path, test: str) -> bool:
    """Whether the text of a test names the example, with its folder or beside it."""
    folder, name = example.parent.name, rf'"{example.stem}(\.py)?"'
    return f'"{folder}/{example.stem}"' in test or (f'"{folder}"' in test and re.search(name, test) is not None)


def test_each_test_that_the_page_on_security_names_exists() -> None:
    """What docs/security.md says to be tested is."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in tests} == set()

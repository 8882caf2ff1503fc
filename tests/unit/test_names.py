"""The names that users import: all there, in order, explained, one root error per package, and imported late."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import discovery
import politics

ROOT = Path(__file__).parents[2]
PACKAGES = [
    name
    for name in (
        *("election", "election.testing", "politics", "politics.leading"),
        *("discovery", "discovery.tuples", "discovery.remote", "discovery.rings", "discovery.registry"),
    )
    if list(ROOT.glob(f"{name.replace('.', '/')}*")) and hasattr(importlib.import_module(name), "__all__")
]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the public packages."""
    return importlib.import_module(request.param)


def test_election_is_public() -> None:
    """This test sees the packages that it is about."""
    assert {"election", "election.testing"} <= set(PACKAGES)


def test_all_is_sorted(package: ModuleType) -> None:
    """`__all__` names each thing once, in alphabetical order, what is in capitals first."""
    assert package.__all__ == sorted(set(package.__all__), key=lambda name: (not name.isupper(), name))


def test_all_is_complete(package: ModuleType) -> None:
    """`__all__` names everything public that the package's own file imports or defines, and only what is there."""
    assert all(hasattr(package, name) for name in package.__all__)
    if not (package.__file__ or "").endswith("__init__.py"):
        return
    tree = ast.parse(Path(package.__file__ or "").read_text())
    ours = {
        alias.asname or alias.name
        for node in imports(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("election", "politics", "discovery")
        for alias in node.names
    }
    ours |= {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert {name for name in ours if not name.startswith("_")} == set(package.__all__)


def imports(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, and those that only a type checker sees."""
    for node in tree.body:
        checking = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        yield from node.body if isinstance(node, ast.If) and checking else [node]


@pytest.mark.parametrize(("lazy", "prefix"), [(discovery, "discovery."), (politics, "")], ids=["discovery", "politics"])
def test_lazy_names_are_those_that_type_checkers_see(lazy: ModuleType, prefix: str) -> None:
    """The package finds each name where its block for type checkers says, keeps it, and lists it."""
    tree = ast.parse(Path(lazy.__file__ or "").read_text())
    seen = {
        alias.name: node.module
        for node in imports(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
    }
    assert {name: f"{prefix}{home}" for name, home in lazy._HOMES.items()} == seen
    for name, home in seen.items():
        assert getattr(lazy, name) is getattr(importlib.import_module(home or ""), name)
    assert set(lazy.__all__) <= set(dir(lazy))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lazy.nothing


HEAVY = ["discovery.beacon", "discovery.registry", "zeroconf", "rich", "typer", "platformdirs", "sqlite3"]


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import politics", ["election", "discovery", "logging", "tenacity", *HEAVY]),
        ("from politics import TokenWorker; import election", ["discovery", "asyncio", *HEAVY]),
        ("import discovery, discovery.signals, discovery.errors", ["discovery.tuples", "discovery.remote", *HEAVY]),
        (
            "import politics.cli; politics.cli.app(['--help'], standalone_mode=False)",
            ["election", "discovery", "rich", "politics.cli.common", *HEAVY[:3], "sqlite3"],
        ),
    ],
)
def test_imports_are_light(code: str, unwanted: list[str]) -> None:
    """What a program does not use is not imported: `politics` alone imports nothing of `discovery`."""
    script = f"{code}\nimport json, sys; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=20)
    assert not set(unwanted) & set(json.loads(run.stdout.splitlines()[-1]))


def test_everything_is_explained(package: ModuleType) -> None:
    """Every exported class and function says what it is for, and so does each public method of a class."""
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, name
        if inspect.isclass(thing) and thing.__module__.split(".")[0] == package.__name__.split(".")[0]:
            for member, value in vars(thing).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert value.__doc__, f"{name}.{member}"


def test_no_two_public_classes_share_a_name() -> None:
    """The name of a public class says which class is meant, without its module."""
    homes: dict[str, list[str]] = {}
    for package in ("election", "discovery", "politics"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert len(homes) > 100
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("name", ["election", "politics", "discovery"])
def test_one_root_error(name: str) -> None:
    """All errors of a package have one root in it, which is a plain Exception."""
    try:
        errors = importlib.import_module(f"{name}.errors")
    except ModuleNotFoundError:
        errors = importlib.import_module(name)
    own = [
        thing
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__.split(".")[0] == name
    ]
    roots = [error for error in own if not any(issubclass(error, other) for other in own if other is not error)]
    assert len(roots) == bool(own)
    assert all(Exception in root.__bases__ for root in roots)
    assert {error.__name__ for error in roots} <= set(importlib.import_module(name).__all__)

"""Imports run one way, pure modules stay pure, and each foreign library has one door."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("politics", "election", "discovery")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PURE = {
    Path(name)
    for name in ("election/lease.py", "election/record.py", "election/rules.py", "politics/worker/slots.py",
                 "politics/doctor/findings.py", "politics/group/peers.py", "discovery/tuples/template.py",
                 "discovery/registry/url.py", "discovery/remote/address.py", "discovery/remote/protocol.py")
}  # fmt: skip
DOORS = {
    "pymemcache": "election/stores/memcached.py",
    "zeroconf": "discovery/beacon.py",
    "prometheus_client": "politics/metrics.py",
}
FORBIDDEN = {"election": {"discovery", "politics"}, "discovery": {"election", "politics"}, "politics": set[str]()}

every_module = pytest.mark.parametrize("module", MODULES, ids=str)


def imports(module: Path) -> set[str]:
    """The full names of what a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def tops(module: Path) -> set[str]:
    """The same, without what comes after the first dot."""
    return {name.partition(".")[0] for name in imports(module)}


@every_module
def test_direction(module: Path) -> None:
    """`politics` may import the other two; those import neither each other nor `politics`."""
    assert not tops(module) & FORBIDDEN[module.parts[0]]


@pytest.mark.parametrize("module", sorted(PURE & set(MODULES)), ids=str)
def test_purity(module: Path) -> None:
    """A pure module gets its time as an argument, and imports no impure module of ours either."""
    assert not tops(module) & {"time", "datetime", "socket", "threading", "random", "os", "secrets", "uuid", "asyncio"}
    ours = {path: ".".join(path.with_suffix("").parts) for path in MODULES if path.name != "__init__.py"}
    impure = {name for path, name in ours.items() if path not in PURE and path.name != "errors.py"}
    assert not imports(module) & impure


def test_the_pure_modules_are_there() -> None:
    """The heart of the lease protocol is pure."""
    assert {Path(f"election/{name}.py") for name in ("lease", "record", "rules")} <= set(MODULES)


@every_module
def test_doors(module: Path) -> None:
    """Each foreign library is imported by one adapter only, which translates its errors."""
    assert {name: module.as_posix() for name in tops(module) & DOORS.keys()}.items() <= DOORS.items()


@every_module
def test_nobody_uses_the_fakes(module: Path) -> None:
    """The fakes are for tests: no other module imports them."""
    assert "testing" in module.as_posix() or not any("testing" in name for name in imports(module))


@every_module
def test_size(module: Path) -> None:
    """A module stays under 400 lines and begins by saying what it is for."""
    text = (ROOT / module).read_text()
    assert len(text.splitlines()) < 400
    assert ast.get_docstring(ast.parse(text))

"""Every module has its room, imports run one way, pure modules stay pure, and each foreign library has one door."""

import ast
import re
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("politics", "election", "discovery")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = {".".join(module.with_suffix("").parts).removesuffix(".__init__"): module for module in MODULES}
ROOMS = {  # each room, a folder or a file, and the rooms of its own package that it may import, itself aside
    "election/__init__": "election election/stores",
    "election": "",
    "election/stores": "election",
    "election/testing": "election",
    "discovery/__init__": "discovery/beacon discovery/errors discovery/tuples discovery/remote discovery/rings "
    "discovery/registry",
    "discovery/errors": "",
    "discovery/clock": "",
    "discovery/fork": "",
    "discovery/retries": "discovery/errors",
    "discovery/signals": "discovery/clock discovery/fork",
    "discovery/beacon": "discovery/errors discovery/fork",
    "discovery/tuples": "discovery/errors discovery/clock",
    "discovery/patterns": "discovery/errors",
    "discovery/remote": "discovery/errors discovery/clock discovery/fork discovery/patterns",
    "discovery/rings": "discovery/errors discovery/clock discovery/retries discovery/patterns discovery/beacon "
    "discovery/tuples discovery/remote",
    "discovery/registry": "discovery/errors discovery/clock discovery/fork discovery/retries discovery/signals "
    "discovery/beacon discovery/tuples discovery/remote discovery/rings",
    "politics/__init__": "politics/neighbours politics/worker politics/group politics/leading",
    "politics/__main__": "politics/cli",
    "politics/neighbours": "",
    "politics/settings": "",
    "politics/metrics": "",
    "politics/command": "politics/settings",
    "politics/group": "politics/settings",
    "politics/worker": "politics/settings politics/group",
    "politics/leading": "politics/settings politics/worker",
    "politics/integrations": "politics/settings politics/leading",
    "politics/doctor": "politics/settings politics/group politics/worker",
    "politics/cli": "politics/__init__ politics/settings politics/metrics politics/command "
    "politics/group politics/worker politics/doctor",
}
PURE = {
    Path(name)
    for name in ("election/lease.py", "election/record.py", "election/rules.py", "election/stores/etcd/generation.py",
                 "election/stores/etcd/operations.py",
                 "election/stores/quorum/rules.py", "election/stores/quorum/cells.py", "politics/worker/slots.py",
                 "politics/worker/schedule.py", "politics/worker/ticks.py",
                 "politics/doctor/findings.py", "politics/doctor/clocks.py", "politics/doctor/servers.py",
                 "politics/doctor/quorums.py",
                 "politics/group/peers.py",
                 "politics/command/leases.py",
                 "politics/integrations/beat_record.py",
                 "discovery/tuples/template.py", "discovery/tuples/index.py", "discovery/tuples/deadlines.py",
                 "discovery/tuples/state.py", "discovery/registry/url.py", "discovery/beacon/format.py",
                 "discovery/beacon/pace.py",
                 "discovery/remote/address.py", "discovery/remote/protocol.py")
}  # fmt: skip
ERRORS = {Path(f"{package}/errors.py") for package in PACKAGES}
DOORS = {
    "zeroconf": "discovery/beacon/engine.py",
    "prometheus_client": "politics/metrics.py",
    "regex": "discovery/patterns.py",
    "cronsim": "politics/worker/schedule.py",
    "apscheduler": "politics/integrations/apscheduler.py",
    "celery": "politics/integrations/celery.py",
    "psycopg": "election/stores/postgresql/session.py",
    "redis": "election/stores/redis.py",
    "etcd3gw": "election/stores/etcd/line.py",
    "kazoo": "election/stores/zookeeper/line.py",
}
FORBIDDEN = {"election": {"discovery", "politics"}, "discovery": {"election", "politics"}, "politics": set[str]()}

every_module = pytest.mark.parametrize("module", MODULES, ids=str)


@cache
def imports(module: Path) -> set[str]:
    """The full names of what a module imports, wherever in it: in a function and under `TYPE_CHECKING` too."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tops(module: Path) -> set[str]:
    """The same, without what comes after the first dot."""
    return {name.partition(".")[0] for name in imports(module)}


@cache
def ours(module: Path) -> set[Path]:
    """Which of our modules it imports by name: for a package its `__init__`, or the module that is imported from it."""
    found = (NAMES.get(name) or NAMES.get(name.rpartition(".")[0]) for name in imports(module))
    return {path for path in found if path is not None}


def room(module: Path) -> str:
    """The room that a module is in."""
    inner = Path(*module.parts[:2]).with_suffix("").as_posix()
    return inner if inner in ROOMS or len(module.parts) > 2 else module.parts[0]


@every_module
def test_room(module: Path) -> None:
    """Every module is in a room that has a name."""
    assert room(module) in ROOMS


@every_module
def test_direction(module: Path) -> None:
    """`politics` may import the other two, which import neither each other nor `politics`; rooms do as `ROOMS` says."""
    assert not tops(module) & FORBIDDEN[module.parts[0]]
    imported = {room(other) for other in ours(module) if other.parts[0] == module.parts[0]}
    assert imported <= {room(module), *ROOMS[room(module)].split()}


def test_the_rooms_are_ranked() -> None:
    """No two rooms may import each other, not even by way of a third."""
    TopologicalSorter({name: allowed.split() for name, allowed in ROOMS.items()}).prepare()


@every_module
def test_no_circle(module: Path) -> None:
    """No module imports itself by way of others, not even for types or within a function."""
    reached, following = set[Path](), ours(module)
    while following:
        reached |= following
        following = {other for path in following for other in ours(path)} - reached
    assert module not in reached


def test_folders_are_small() -> None:
    """No folder holds more than fourteen modules beside its `__init__`."""
    sizes = Counter(module.parent.as_posix() for module in MODULES if module.name != "__init__.py")
    assert {folder: size for folder, size in sizes.items() if size > 14} == {}


@pytest.mark.parametrize("module", sorted(PURE), ids=str)
def test_purity(module: Path) -> None:
    """A pure module is there, gets its time as an argument, and imports nothing of ours but pure modules and errors."""
    assert module in MODULES
    assert not re.search(r"\b(now|utcnow|today)\(", (ROOT / module).read_text())  # what is wrong with datetime
    assert not tops(module) & {"time", "socket", "threading", "random", "os", "secrets", "uuid", "asyncio"}
    assert ours(module) <= PURE | ERRORS


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

"""What is built for a package index: complete metadata, and a README whose links lead somewhere."""

import email
import email.message
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import politics
from tests.minimum import constraints
from tests.processes import ROOT
from tests.waiting import DEADLINE


def metadata(folder: Path, **environment: str) -> email.message.Message:
    """Build a wheel into a folder; what it says of itself."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=DEADLINE
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        packed = set(files.namelist())
        assert {f"{package}/py.typed" for package in ("politics", "election", "discovery")} <= packed
        assert not any(name.startswith(("tests", "docs", "examples")) for name in packed)
        return email.message_from_bytes(files.read(f"politics-{politics.__version__}.dist-info/METADATA"))


def links(described: email.message.Message) -> list[str]:
    """The targets of the links in the description."""
    return re.findall(r"\]\(([^)]*)\)", described.get_payload())


def test_without_an_address_nothing_is_linked(tmp_path: Path) -> None:
    """No link is dead, since files are named and not linked; no URL is made up."""
    described = metadata(tmp_path, POLITICS_URL="")
    assert links(described) == []
    assert "docs/leases.md" in described.get_payload()
    assert described.get_all("Project-URL") is None
    assert described["Version"] == politics.__version__


def test_with_an_address_each_link_is_whole(tmp_path: Path) -> None:
    """Each leads to a file of the project under that address, and so do the project's URLs."""
    base = "https://example.org/politics/tree/main"
    described = metadata(tmp_path, POLITICS_URL=f"{base}/")
    found = [*links(described), *(text.partition(", ")[2] for text in described.get_all("Project-URL") or [])]
    assert len(found) > 10
    for link in found:
        assert link.startswith(base)
        assert (ROOT / link.removeprefix(base).lstrip("/").partition("#")[0]).exists()


def test_each_dependency_has_a_lowest_version() -> None:
    """`make minimum` installs exactly these."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = list(constraints())
    assert len(pinned) == len(project["dependencies"]) + 6  # metrics, celery and four stores
    assert all(re.fullmatch(r"[\w-]+==\d+(\.\d+)*", line) for line in pinned)


def test_the_extra_that_is_promised_exists() -> None:
    """The pages install the extra from a checkout, which is where they say that the project comes from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, other in {"metrics": "operations", "celery": "recipes"}.items():
        assert extra in project["optional-dependencies"]
        for page in (ROOT / "README.md", ROOT / f"docs/{other}.md"):
            assert f"pip install '.[{extra}]'" in page.read_text()
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("politics/**/*.py")]:
        assert not re.search(r"pip install '?politics", page.read_text()), page


@pytest.mark.parametrize("target", ["minimum", "check", "test"])
def test_continuous_integration_runs_it(target: str) -> None:
    """The checks, the lowest versions and every test."""
    assert re.search(rf"^make {target}\b", (ROOT / ".ci/run").read_text(), re.MULTILINE)

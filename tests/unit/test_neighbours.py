"""A program may have a module of its own called `election` or `discovery`: then a sentence says which file it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import politics
from tests.processes import ROOT
from tests.waiting import DEADLINE


def failure(folder: Path, code: str = "from politics import TokenWorker") -> str:
    """Run code in a folder; the last line of its traceback."""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE)
    return run.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("path", ["election/__init__.py", "election.py", "discovery.py", "discovery/__init__.py"])
def test_what_shadows_a_package_is_named(tmp_path: Path, path: str) -> None:
    """Whatever it contains, and whatever of `politics` is used."""
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text("class Candidate: pass")
    name = Path(path).parts[0].removesuffix(".py")
    expected = (
        f"ImportError: politics needs its own package {name!r}, but {file} is imported in its place: rename that, or "
        "start the program from another folder"
    )
    assert failure(tmp_path) == expected
    assert failure(tmp_path, f"import {name}, politics; politics.StoreUnavailable") == expected


def test_a_folder_that_is_no_package_shadows_nothing(tmp_path: Path) -> None:
    """Python goes on looking, and finds ours."""
    (tmp_path / "election").mkdir()
    assert failure(tmp_path) == ""


@pytest.mark.parametrize("name", ["election", "discovery"])
def test_a_package_that_was_installed_over_ours_is_named(tmp_path: Path, name: str) -> None:
    """Or one that is missing: the index has packages of both names."""
    shutil.copytree(ROOT / "politics", tmp_path / "politics")
    shutil.copytree(ROOT / "election", tmp_path / "election")
    shutil.copytree(ROOT / "discovery", tmp_path / "discovery")
    assert failure(tmp_path) == ""
    shutil.rmtree(tmp_path / name)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    assert f"{name!r}, but another distribution has been installed over it in {tmp_path}" in failure(tmp_path)


def test_politics_run_works_beside_such_a_file(tmp_path: Path) -> None:
    """The command has imported ours before it looks into the folder of the worker."""
    (tmp_path / "discovery.py").touch()
    (tmp_path / "election.py").touch()
    (tmp_path / "jobs.py").write_text("from politics import TokenWorker\nclass Job(TokenWorker): pass")
    for target in ("jobs.py:Job", "jobs:Job"):
        ended = politics("run", target, "--store", "memory://", cwd=tmp_path)
        assert (ended.status, "Job needs a group" in ended.err) == (2, True)

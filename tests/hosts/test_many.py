"""Thousands of services, on a network that nobody else uses."""

import subprocess
import sys

import pytest

from tests.hosts.network import INSIDE, require
from tests.processes import ROOT


@pytest.mark.parametrize("what", ["two thousand services", "flood"])
def test_everybody_hears_thousands_and_a_flood_of_names_harms_nobody(what: str) -> None:
    """Ten processes see two thousand services; among a stranger's two thousand names the known are still found."""
    require()
    done = subprocess.run(
        [*INSIDE, sys.executable, "-m", "tests.hosts.many", what], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr

"""A service on one host, seen from another."""

import json
import subprocess
import sys

from tests.hosts.network import INSIDE, require
from tests.integration.harness import ROOT


def test_a_service_is_found_on_another_host_and_again_after_the_network_was_cut() -> None:
    """Found, called and borrowed; forgotten while the network is cut; there again when it has healed."""
    require()
    command = [*INSIDE, sys.executable, "-m", "tests.hosts.services"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"warm", "cold", "removed", "added"}

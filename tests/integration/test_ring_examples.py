"""The examples about rings run, and print what they are about."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery import RingServer
from tests.processes import running
from tests.waiting import DEADLINE

EXAMPLES = Path(__file__).parents[2] / "examples" / "rinda"


@pytest.fixture
def ring() -> Iterator[str]:
    with RingServer(port=0, host="127.0.0.1", announce=False) as server:
        yield f"127.0.0.1:{server.port}"


def example(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout.splitlines()


def test_hello_and_the_service_list(ring: str) -> None:
    """The client is greeted by the service's process, and the list names the service."""
    with running(sys.executable, "-u", str(EXAMPLES / "hello_service.py"), ring) as service:
        greeting, proxy = example("hello_client", ring)
        assert greeting == f"says hello: Hello, world! Yours, {service.popen.pid}"
        listed, where = example("service_list", ring)
        assert listed == "HelloWorld: says hello"
        assert where.strip() == proxy


def test_two_rings() -> None:
    """One is chosen by its port, both are found, and neither when they are closed."""
    before, chosen, both, closed = example("two_rings")
    assert before == "before the lookup: None"
    assert chosen == "by its port: second"
    assert both == "all: ['first', 'second']"
    assert closed == "closed: no ring at localhost:N, 127.0.0.1:N, localhost:M"

"""Fixtures that several folders of tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.memcached import Memcached

# Whatever a test starts announces itself to this machine only.
os.environ["POLITICS_INTERFACES"] = "127.0.0.1"

# A shell starts what it runs in the background with Ctrl-C ignored, and nohup with SIGHUP. All that a test starts would
# inherit that.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Hypothesis fails an example that takes longer than 200 ms, which on a busy machine any of them may.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SLOW_FIRST = ("hosts", "simulation", "integration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders with the longest tests first, so that none of these is the last one that everybody waits for."""
    order = {folder: place for place, folder in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(Path(__file__).parent).parts[0], len(order)))


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    """A memcached for the whole session (of each process of xdist): do not restart, flush or fill this one."""
    with Memcached() as server:
        yield server


@pytest.fixture
def own_memcached() -> Iterator[Memcached]:
    """A memcached for this test alone, to be restarted, flushed, frozen or filled."""
    with Memcached("-m", "8") as server:
        yield server

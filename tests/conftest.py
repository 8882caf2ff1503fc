"""Fixtures that several folders of tests share."""

import os
from collections.abc import Iterator

import pytest

from tests.memcached import Memcached

# Whatever a test starts announces itself to this machine only.
os.environ["POLITICS_INTERFACES"] = "127.0.0.1"


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    """A memcached for the whole session: do not restart, flush or fill this one."""
    with Memcached() as server:
        yield server


@pytest.fixture
def own_memcached() -> Iterator[Memcached]:
    """A memcached for this test alone, to be restarted, flushed, frozen or filled."""
    with Memcached("-m", "8") as server:
        yield server

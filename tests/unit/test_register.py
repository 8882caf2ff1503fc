"""Store URLs, and what is said of those that make no sense."""

import contextlib
import os
from pathlib import Path

import pytest

from election import BadStoreURL, open_register
from election.stores.memcached import MemcachedRegister, ShardedRegister
from election.stores.memory import MemoryRegister
from election.stores.sqlite import SQLiteRegister


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("memcached://10.0.0.5", "10.0.0.5", 11211),
        ("memcached://cache.example:1", "cache.example", 1),
        ("memcached://[::1]:11212", "::1", 11212),
        ("memcached://[fe80::1]", "fe80::1", 11211),
    ],
)
def test_memcached(url: str, host: str, port: int) -> None:
    """One server, by name or number, with or without its port; nothing is connected."""
    register = open_register(url)
    assert isinstance(register, MemcachedRegister)
    assert (register.host, register.port, register.timeout) == (host, port, 0.5)


def test_several_servers() -> None:
    """Several servers share the names, and the timeout is an option."""
    register = open_register("memcached://a:1,b:2?timeout=2")
    assert isinstance(register, ShardedRegister)
    assert [(s.host, s.port, s.timeout) for s in register.servers] == [("a", 1, 2.0), ("b", 2, 2.0)]


def test_sqlite(tmp_path: Path) -> None:
    """A path, absolute or relative; nothing is made before the first call."""
    for url, path in ((f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"), ("sqlite:///a.db", Path("a.db").absolute())):
        register = open_register(url)
        assert isinstance(register, SQLiteRegister)
        assert register.path == path
        assert not path.exists()
    assert open_register("sqlite:///~/a.db").path == Path.home() / "a.db"  # type: ignore[attr-defined]


def test_memory() -> None:
    """The same URL is the same store, in this process and not in its children."""
    register = open_register("memory://unit")
    assert isinstance(register, MemoryRegister)
    assert register is open_register("memory://unit")
    assert register is not open_register("memory://")
    assert str(os.getpid()) in register.identity()
    with contextlib.closing(register):
        assert register.read("never written") is None


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:11211", "mysql://localhost", "memcached://", "memcached://:11211", "memcached://a:0",
        "memcached://a:65536", "memcached://a:b", "memcached://a,,b", "memcached://a?timeout=0", "memcached://a?timeout=x",
        "memcached://a?timeout=nan", "memcached://a?speed=1", "memcached://a?speed", "sqlite://", "sqlite:///",
        "sqlite:///folder/", "memcached://[::1", "memory://?x=1", None, 5,
    ],
)  # fmt: skip
def test_bad_url(url: str) -> None:
    """Anything else is refused with a sentence that names it and shows what would do."""
    with pytest.raises(BadStoreURL) as caught:
        open_register(url)
    assert repr(url) in str(caught.value)
    assert "sqlite:///" in str(caught.value)

"""Cells in ZooKeeper 3.5 or later."""

from urllib.parse import SplitResult, unquote

from election.stores.urls import address, pop_files, pop_timeout
from election.stores.zookeeper.line import ZooKeeperSettings
from election.stores.zookeeper.register import ZooKeeperRegister

__all__ = ["ZooKeeperRegister", "connect"]

DEFAULT_PORT = 2181


def connect(parts: SplitResult, options: dict[str, str]) -> ZooKeeperRegister:
    """Return the register for `//[user:password@]host[:port][,host[:port]…][/prefix]`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    timeout = pop_timeout(options, 1)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    files = pop_files(options)
    prefix = "/" + (unquote(parts.path).strip("/") or "politics")
    if not {"", ".", ".."}.isdisjoint(prefix[1:].split("/")):
        raise ValueError(f"{prefix!r} is no path of a node")
    settings = ZooKeeperSettings(timeout, unquote(user), unquote(password), any(files.values()), **files)
    return ZooKeeperRegister([address(part, DEFAULT_PORT) for part in hosts.split(",")], prefix, settings)

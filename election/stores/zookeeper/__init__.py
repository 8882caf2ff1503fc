"""Cells in ZooKeeper 3.5 or later."""

from urllib.parse import SplitResult

from election.stores.ensemble import ensemble_of
from election.stores.zookeeper.line import ZooKeeperSettings
from election.stores.zookeeper.register import ZooKeeperRegister

__all__ = ["ZooKeeperRegister", "connect"]

DEFAULT_PORT = 2181


def connect(parts: SplitResult, options: dict[str, str]) -> ZooKeeperRegister:
    """Return the register for `//[user:password@]host[:port][,host[:port]…][/prefix]`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    endpoints, prefix, timeout, user, password, files = ensemble_of(parts, options, DEFAULT_PORT)
    if not {"", ".", ".."}.isdisjoint(prefix.split("/")):
        raise ValueError(f"/{prefix} is no path of a node")
    settings = ZooKeeperSettings(timeout, user, password, any(files.values()), **files)
    return ZooKeeperRegister(endpoints, f"/{prefix}", settings)

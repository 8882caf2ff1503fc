"""Cells in etcd 3.4 or later, through its HTTP gateway."""

from urllib.parse import SplitResult

from election.stores.ensemble import ensemble_of
from election.stores.etcd.line import EtcdSettings
from election.stores.etcd.register import EtcdRegister

__all__ = ["EtcdRegister", "connect"]

DEFAULT_PORT = 2379


def connect(parts: SplitResult, options: dict[str, str]) -> EtcdRegister:
    """Return the register for `//[user:password@]host[:port][,host[:port]…][/prefix]`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    endpoints, prefix, timeout, user, password, files = ensemble_of(parts, options, DEFAULT_PORT)
    secure = parts.scheme == "etcds"
    if not secure and any(files.values()):
        raise ValueError("ca, cert and key are for TLS: write etcds://")
    settings = EtcdSettings("https" if secure else "http", timeout, user, password, **files)
    return EtcdRegister(endpoints, f"{prefix}/", settings)

"""Cells in etcd 3.4 or later, through its HTTP gateway."""

from urllib.parse import SplitResult, unquote

from election.stores.etcd.line import EtcdSettings
from election.stores.etcd.register import EtcdRegister
from election.stores.urls import address, pop_files, pop_timeout

__all__ = ["EtcdRegister", "connect"]

DEFAULT_PORT = 2379


def connect(parts: SplitResult, options: dict[str, str]) -> EtcdRegister:
    """Return the register for `//[user:password@]host[:port][,host[:port]…][/prefix]`.

    Raises:
        ValueError: an address or an option makes no sense; the message names it.
    """
    timeout = pop_timeout(options, 1)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    files = pop_files(options)
    secure = parts.scheme == "etcds"
    if not secure and any(files.values()):
        raise ValueError("ca, cert and key are for TLS: write etcds://")
    settings = EtcdSettings("https" if secure else "http", timeout, unquote(user), unquote(password), **files)
    prefix = unquote(parts.path).strip("/") or "politics"
    return EtcdRegister([address(part, DEFAULT_PORT) for part in hosts.split(",")], f"{prefix}/", settings)

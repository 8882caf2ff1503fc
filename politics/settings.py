"""Environment and defaults, read in one place."""

import logging
import os
from collections.abc import Sequence

from platformdirs import user_state_path

from election import BadStoreURL, Register, open_register

log = logging.getLogger("politics")


def default_store() -> str:
    """The store's URL where none was named: `$POLITICS_STORE`, else a file of this user on this machine."""
    return os.environ.get("POLITICS_STORE") or f"sqlite:///{user_state_path('politics') / 'politics.db'}"


def interfaces() -> list[str] | None:
    """The addresses of the interfaces on which peers are announced and heard: `$POLITICS_INTERFACES`; None: all."""
    return [part.strip() for part in os.environ.get("POLITICS_INTERFACES", "").split(",") if part.strip()] or None


def choose_store(store: str | Register | None = None, servers: Sequence[str] | None = None) -> str | Register:
    """The store that is meant: a URL, also for a list of memcached servers (`host:port`); the default without either.

    Raises:
        BadStoreURL: both are given, or one that cannot be understood.
    """
    if store is not None and servers is not None:
        raise BadStoreURL(f"name one store, not both {store!r} and the servers {servers!r}")
    if servers is not None:
        if isinstance(servers, str) or not servers or not all(isinstance(server, str) for server in servers):
            raise BadStoreURL(f"servers must be a list such as ['10.0.0.5:11211'], not {servers!r}")
        store = "memcached://" + ",".join(servers)
    if store is not None and not isinstance(store, str) and not hasattr(store, "swap"):
        raise BadStoreURL(f"store must be a URL or a Register, not {store!r}")
    if store is None:
        store = default_store()
        if not os.environ.get("POLITICS_STORE"):
            log.warning(
                "no store is named, so %s is used, which elects a leader of this machine only (name one for several "
                "machines: servers=, store= or $POLITICS_STORE)",
                store,
            )
    return store


def open_store(store: str | Register) -> Register:
    """The register behind a URL, or the one that is given. Raises `BadStoreURL`."""
    return open_register(store) if isinstance(store, str) else store


def find_store(store: str | Register | None = None, servers: Sequence[str] | None = None) -> Register:
    """Choose and open. Raises `BadStoreURL`."""
    return open_store(choose_store(store, servers))

"""Environment and defaults, read in one place."""

import functools
import logging
import os
from collections.abc import Sequence

from election import BadPolicy, BadStoreURL, Register, open_register
from election.stores import redacted

log = logging.getLogger("politics")

HEARTBEAT = 3.0
"""Seconds between two announcements of a worker, if `$POLITICS_HEARTBEAT` does not say otherwise."""


def default_store() -> str:
    """Return the URL of the store if none was named: `$POLITICS_STORE`, else a file of this user on this machine.

    Raises:
        BadStoreURL: this user has no home directory.
    """
    if url := os.environ.get("POLITICS_STORE"):
        return url
    import platformdirs  # here, because most programs name their store

    try:
        return f"sqlite:///{platformdirs.user_state_path('politics') / 'politics.db'}"
    except RuntimeError as exc:  # neither $HOME nor an entry for this user
        raise BadStoreURL(
            "no store is named, and there is no home directory for a file: name one with servers=, store= or "
            "$POLITICS_STORE (on the command line --servers or --store)"
        ) from exc


def heartbeat() -> float:
    """Return the seconds between two announcements of a worker: `$POLITICS_HEARTBEAT`, else `HEARTBEAT`.

    Raises:
        BadPolicy: it is not a number between 0.1 and 60.
    """
    text = os.environ.get("POLITICS_HEARTBEAT", "") or str(HEARTBEAT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 60:
        raise BadPolicy(f"$POLITICS_HEARTBEAT must be between 0.1 and 60 seconds, not {text!r}")
    return seconds


def interfaces() -> list[str] | None:
    """Return the addresses on which peers are announced and heard: `$POLITICS_INTERFACES`; None means all."""
    return [part.strip() for part in os.environ.get("POLITICS_INTERFACES", "").split(",") if part.strip()] or None


def service_manager() -> tuple[str, float, int]:
    """Return what a service manager that started this process wants, as systemd says it.

    The address of its socket ("": there is none), the seconds within which it wants a sign of life (0: it wants none),
    and which process it means (0: any).
    """
    numbers = [os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")]
    microseconds, pid = (int(text) if text.isdecimal() and len(text) < 20 else 0 for text in numbers)
    return os.environ.get("NOTIFY_SOCKET", ""), microseconds / 1e6, pid


def choose_store(store: str | Register | None = None, servers: Sequence[str] | None = None) -> str | Register:
    """Return the store to use, as a URL or a `Register`: the one given, or that of the servers, or the default.

    Args:
        store: a URL or a `Register`.
        servers: memcached servers, each `host:port`.

    Raises:
        BadStoreURL: both are given, or one of them is invalid.
    """
    if servers is not None and any("@" in str(server) for server in servers):
        raise BadStoreURL("servers are host:port; a password goes into a store's URL, memcached://user:password@host")
    if store is not None and servers is not None:
        raise BadStoreURL(f"name one store, not both {redacted(store)!r} and the servers {servers!r}")
    if servers is not None:
        if isinstance(servers, str) or not servers or not all(isinstance(server, str) for server in servers):
            raise BadStoreURL(f"servers must be a list such as ['10.0.0.5:11211'], not {servers!r}")
        store = "memcached://" + ",".join(servers)
    if store is not None and not isinstance(store, str) and not hasattr(store, "swap"):
        raise BadStoreURL(f"store must be a URL or a Register, not {store!r}")
    if store is None:
        store = default_store()
        if not os.environ.get("POLITICS_STORE"):
            _warn_of_default(store)
    return store


@functools.cache
def _warn_of_default(store: str) -> None:
    """Say once per process that no store was named, however many workers it has."""
    log.warning(
        "no store is named: using %s, which elects a leader of this machine only. For several machines, name one with "
        "servers=, store= or $POLITICS_STORE",
        store,
    )


def open_store(store: str | Register) -> Register:
    """Open the store at a URL; return a `Register` as it is. Raises `BadStoreURL`."""
    return open_register(store) if isinstance(store, str) else store


def find_store(store: str | Register | None = None, servers: Sequence[str] | None = None) -> Register:
    """Choose a store and open it. Raises `BadStoreURL`."""
    return open_store(choose_store(store, servers))

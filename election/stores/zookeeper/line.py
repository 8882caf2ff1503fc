"""One connection to one server of ZooKeeper, by kazoo."""

import atexit
import contextlib
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE

from election.errors import StoreUnavailable

SESSION = 10.0
"""Seconds of silence after which a server forgets us. Nothing depends on it."""
QUIET = logging.Logger("kazoo", logging.CRITICAL + 1)
DENIED = "the nodes belong to another user, or the password is another one"


@dataclass(frozen=True)
class ZooKeeperSettings:
    """The seconds for each answer, who we are, and for TLS the files that it needs."""

    timeout: float = 1.0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class _Once(SequentialThreadingHandler):  # type: ignore[misc]
    """Connects once. A client of kazoo's would connect again by itself, and send what it has in its queue."""

    def __init__(self, settings: ZooKeeperSettings) -> None:
        super().__init__()
        self.made: socket.socket | None = None
        self.failure = ": it is silent, or its name is not known"
        self._settings = settings

    def start(self) -> None:
        super().start()
        # It would wait for its threads when the process ends, also in a fork, where there are none.
        atexit.unregister(self.stop)

    def create_connection(self, address: tuple[str, int], hostname: str | None = None, **_: Any) -> socket.socket:
        if self.made is not None:
            raise ConnectionError("the connection was closed")
        try:
            self.made = self._secured(socket.create_connection(address, self._settings.timeout), hostname)
        except OSError as exc:
            self.failure = f": {exc}"
            raise
        return self.made

    def _secured(self, made: socket.socket, hostname: str | None) -> socket.socket:
        settings = self._settings
        try:
            if settings.tls:
                context = ssl.create_default_context(cafile=settings.ca)
                if settings.cert:
                    context.load_cert_chain(settings.cert, settings.key)
                return context.wrap_socket(made, server_hostname=hostname)
        except BaseException:
            made.close()
            raise
        return made


class ZooKeeperLine:
    """One connection to one server, with a session of its own. Once it is lost, it is never made again."""

    def __init__(self, host: str, port: int, settings: ZooKeeperSettings) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.generation, self.since = "", math.inf
        self._timeout = settings.timeout
        self._handler = _Once(settings)
        login = [("digest", f"{settings.user}:{settings.password}")] if settings.user else None
        never = {"max_tries": 0, "sleep_func": self._handler.sleep_func}
        self.client = KazooClient(
            hosts=self.address,
            timeout=SESSION,
            handler=self._handler,
            default_acl=CREATOR_ALL_ACL if settings.user else OPEN_ACL_UNSAFE,
            auth_data=login,
            connection_retry=KazooRetry(**never),
            command_retry=KazooRetry(**never),
            logger=QUIET,
        )

    def open(self) -> None:
        """Connect."""
        if not self.client.start_async().wait(self._timeout):
            raise StoreUnavailable(f"ZooKeeper at {self.address} cannot be reached{self._handler.failure}")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Make `StoreUnavailable` of what goes wrong with a request, and in reading its answer."""
        try:
            yield
        except (KazooException, KazooTimeoutError, OSError, LookupError, ValueError, TypeError, AttributeError) as exc:
            lasts = isinstance(exc, NoAuthError | AuthFailedError)
            said, kind = str(exc) or (DENIED if lasts else ""), type(exc).__name__
            text = f"{said} ({kind})" if said else kind
            raise StoreUnavailable(f"ZooKeeper at {self.address}: {text}", permanent=lasts) from exc

    def wait(self, requests: Iterable[Any]) -> Iterator[Any]:
        """Wait for the answers of requests that were sent together, all within one timeout."""
        until = time.monotonic() + self._timeout
        for each in requests:
            yield each.get(timeout=max(0.001, until - time.monotonic()))

    def found(self, request: Any) -> Any | None:
        """Wait for an answer; return None if it is that there is no such node."""
        try:
            return next(self.wait([request]))
        except NoNodeError:
            return None

    def make(self, path: str, data: bytes = b"") -> None:
        """Create a node if it is not there."""
        # Who may not create nodes beside one that is there may use it.
        if self.found(self.client.exists_async(path)) is None:
            with contextlib.suppress(NodeExistsError):
                next(self.wait([self.client.create_async(path, data)]))

    def cut(self) -> None:
        """End the connection, from any thread."""
        if self._handler.made is not None:
            with contextlib.suppress(OSError):
                self._handler.made.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection, and the threads of kazoo's."""
        self.cut()
        # Its threads end by themselves within milliseconds; what they still wait for must not hold us up.
        closer = threading.Thread(target=self._close, name="store closer", daemon=True)
        closer.start()
        closer.join(self._timeout)

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            try:
                self.client.stop()
            finally:
                self.client.close()


def succeeded(results: Sequence[Any]) -> bool:
    """Return whether a transaction was done; raise what is neither that nor a lost race."""
    refused = [each for each in results if isinstance(each, Exception)]
    for each in refused:
        if not isinstance(
            each, NoNodeError | NodeExistsError | BadVersionError | RolledBackError | RuntimeInconsistency
        ):
            raise each
    return not refused


def is_missing(result: object) -> bool:
    """Return whether an operation of a transaction was refused since its node is not there."""
    return isinstance(result, NoNodeError)

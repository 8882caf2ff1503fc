"""One connection to one member of etcd, through its HTTP gateway."""

import contextlib
import json
import math
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import Etcd3Exception
from requests import Session
from requests.adapters import HTTPAdapter

from election.errors import StoreUnavailable
from election.stores.etcd.generation import Generation, MemberState
from election.stores.etcd.operations import Json

SILENCE = 60.0
"""Seconds without a change after which a watch connects again: its connection may have died unnoticed."""
PERMANENT = re.compile("authentication failed|permission denied|user name is empty")
"""What etcd says where no waiting mends anything."""
UNAUTHENTICATED = 16
"""The code for a token that the server does not know: it has expired, or the server was started again."""


class NotDone(StoreUnavailable):
    """The request was not sent, since the connection was found closed, or the server did not know its token."""


@dataclass(frozen=True)
class EtcdSettings:
    """How to connect: the scheme, the seconds for each answer, who we are, and the files for TLS."""

    scheme: str = "http"
    timeout: float = 1.0
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class EtcdLine:
    """One connection to one member. It is made by the first request and never again.

    Sessions of `requests` connect again when they find their connection closed. Then it would not be known that the
    server is still the one that was looked at.
    """

    def __init__(self, host: str, port: int, settings: EtcdSettings) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.socket: socket.socket | None = None
        self.dropped = False
        self.generation = Generation("", "", 0)
        self.since = math.inf
        self._headers = {"Content-Type": "application/json"}
        self._settings = settings
        session = Session()
        # Nothing of the environment: no proxies, no passwords from ~/.netrc.
        session.trust_env = False
        session.verify = settings.ca or True
        session.cert = (settings.cert, settings.key) if settings.cert and settings.key else settings.cert
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
        classes = adapter.poolmanager.pool_classes_by_scheme
        adapter.poolmanager.pool_classes_by_scheme = {scheme: self._once(pool) for scheme, pool in classes.items()}
        session.mount(f"{settings.scheme}://", adapter)
        self._session = session
        self._client = Etcd3Client(
            host, port, settings.scheme, timeout=settings.timeout, api_path="/v3/", session=session
        )

    def _once(self, pool: Any) -> Any:
        line = self

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                if line.socket is not None:
                    line.dropped = True
                    raise ConnectionError("the connection was closed")
                super().connect()
                line.socket = self.sock

        return type("Pool", (pool,), {"ConnectionCls": Connection})

    def ask(self, path: str, body: Json) -> Json:
        """Send one request; return its answer.

        Raises:
            StoreUnavailable: there was none in time, or it was a refusal; `NotDone` if nothing was done for certain.
        """
        with self.errors():
            url = self._client.get_url(path)
            answer = self._client.post(url, data=json.dumps(body), headers=self._headers, allow_redirects=False)
            if not isinstance(answer, dict):
                raise ValueError("the answer is no object")
            return answer

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Make `StoreUnavailable` of what goes wrong with a request, and in reading its answer."""
        try:
            yield
        except (Etcd3Exception, OSError, LookupError, ValueError, TypeError, AttributeError) as exc:
            said, code = _refusal(exc)
            kind = NotDone if self.dropped or code == UNAUTHENTICATED else StoreUnavailable
            raise kind(f"etcd at {self.address}: {said}", permanent=bool(code and PERMANENT.search(said))) from exc

    def transact(self, compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()) -> Json:
        """Do one transaction."""
        return self.ask("/kv/txn", {"compare": list(compare), "success": list(success), "failure": list(failure)})

    def sign_in(self) -> None:
        """Get a token, if there is a user."""
        if self._settings.user:
            user = {"name": self._settings.user, "password": self._settings.password}
            try:
                self._headers["Authorization"] = self.ask("/auth/authenticate", user)["token"]
            except StoreUnavailable as exc:
                if "authentication is not enabled" not in str(exc):
                    raise

    def look(self) -> MemberState:
        """Ask the member for its own state."""
        try:
            said = self.ask("/maintenance/status", {})
        except StoreUnavailable as exc:
            if "permission denied" not in str(exc):
                raise
            # Versions of etcd differ in whether this needs the role root.
            said = self.transact([], [])
        with self.errors():
            applied = int(said["raftAppliedIndex"]) if "raftAppliedIndex" in said else None
            return MemberState(said["header"]["cluster_id"], int(said["header"]["revision"]), applied)

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """Send one request; return an iterator over the lines of its answer, which may never end."""
        with self.errors():
            timeouts = (self._settings.timeout, SILENCE)
            url, session = self._client.get_url(path), self._session
            with session.post(
                url, data=json.dumps(body), headers=self._headers, timeout=timeouts, stream=True, allow_redirects=False
            ) as response:
                response.raise_for_status()
                for line in filter(None, response.iter_lines()):
                    yield json.loads(line)

    def cut(self) -> None:
        """End whatever waits on this connection, from any thread."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _refusal(exc: BaseException) -> tuple[str, int | None]:
    """Return what an error says, and gRPC's code if it is etcd's own."""
    text = (exc.detail_text if isinstance(exc, Etcd3Exception) else None) or str(exc) or type(exc).__name__
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        said = json.loads(text)
        return str(said.get("error") or said.get("message")), said.get("code")
    # Of an error of the network the libraries make several, each with more words.
    cause = exc.__context__
    while cause is not None:
        if isinstance(cause, OSError) and str(cause):
            text = str(cause)
        cause = cause.__context__
    return text[:300], None

"""Rings: a tuple space shared over the network, found by whoever looks for it. The idea is Rinda's.

with RingServer(TupleSpace()) as server: ...          # on one machine
ring = RingFinger.primary()                            # on any other: a space to read, take and write
"""

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import overload

from discovery import remote
from discovery.beacon import Beacon, Change, Sighting
from discovery.client import Client
from discovery.errors import DiscoveryError, MulticastUnavailable, RingNotFound
from discovery.remotespace import Board, RemoteSpace
from discovery.security import TLS, Access
from discovery.server import Server
from discovery.tuplespace import TupleSpace
from discovery.wire import MAX_MESSAGE, Address

__all__ = ["BROADCAST", "PORT", "RingFinger", "RingServer"]

PORT = 7647
"""Where Rinda's rings are, too. (There it is UDP, and here TCP: the two can share a machine.)"""

BROADCAST = "<broadcast>"
"""In a list of hosts: all rings on this port that announce themselves on the local network."""

ANYWHERE = ("", "0.0.0.0", "::")
MANY = 100
"""Addresses that are asked in one search, at most, whatever is announced."""

_OBJECT_ID = "ring"
log = logging.getLogger(__name__)


class RingServer:
    """Shares a tuple space on a port, 0 for any free one, and announces it on the local network.

    `host` is the address of the interface to listen on, and to announce itself on; by default all of them. Where it
    cannot announce itself, that is a warning. `access`, `tls` and `max_message` (bytes) are those of `remote.Server`.
    Renewers in other processes get five seconds to answer. It listens from `start` or `with` on, until `close`; a
    space of its own making is then closed too. OSError when the port cannot be had.
    """

    def __init__(
        self,
        space: TupleSpace | None = None,
        port: int = PORT,
        *,
        host: str = "",
        access: Access | None = None,
        tls: TLS | None = None,
        max_message: int = MAX_MESSAGE,
        announce: bool = True,
    ) -> None:
        self.space = TupleSpace() if space is None else space
        self.identity = secrets.token_urlsafe(16)
        self._own_space = space is None
        self._announce, self._host = announce, host
        self._beacon: Beacon | None = None
        trusted = tls if tls is not None and tls.authority is not None else None
        client = Client(tls=trusted, timeout=5.0, connect_timeout=2.0, server=lambda: self._server)
        self._server = Server(host, port, access=access, tls=tls, client=client, max_message=max_message)

    @property
    def port(self) -> int:
        """The port that it listens on, once it does."""
        return self._server.port

    def start(self) -> "RingServer":
        """Listen and announce."""
        self._server.serve(Board(self.space, self.identity), _OBJECT_ID)
        if self._announce:
            self._beacon = Beacon([self._host] if self._host not in ANYWHERE else None)
            try:
                self._beacon.start().announce("ring", {"port": str(self.port)})
            except MulticastUnavailable as exc:
                log.warning("%r cannot announce itself, and is found by its host's name only: %s", self, exc)
        return self

    def close(self) -> None:
        """Stop at once: clients that wait get an error."""
        if self._beacon is not None:
            self._beacon.close()
        self._server.close()
        if self._own_space:
            self.space.close()

    def __enter__(self) -> "RingServer":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RingServer on port {self.port} of {self.space!r}>"


class _Primary:
    """`finger.primary` is the ring that this finger found first, None before; `RingFinger.primary()` finds one."""

    @overload
    def __get__(self, finger: None, owner: "type[RingFinger]") -> Callable[..., RemoteSpace]: ...
    @overload
    def __get__(self, finger: "RingFinger", owner: "type[RingFinger]") -> RemoteSpace | None: ...
    def __get__(
        self, finger: "RingFinger | None", owner: "type[RingFinger]"
    ) -> RemoteSpace | Callable[..., RemoteSpace] | None:
        if finger is not None:
            return finger._primary

        def primary(
            hosts: Sequence[str] = (BROADCAST, "localhost"), port: int = PORT, timeout: float = 5
        ) -> RemoteSpace:
            """The first ring that is found within `timeout` seconds; raises `RingNotFound`."""
            return owner(hosts, port).lookup_ring_any(timeout)

        return primary


class RingFinger:
    """Finds rings on one port: on the named hosts, and with "<broadcast>" on the local network.

    Named hosts are asked directly, all at once, which works where multicast does not; "host:port" names one on another
    port. `client` has the settings for the way there (TLS); the spaces that are found use it too. `interfaces` are the
    addresses of those to listen on for announcements, by default all.
    """

    primary = _Primary()

    def __init__(
        self,
        hosts: Sequence[str] | str = (BROADCAST, "localhost"),
        port: int = PORT,
        *,
        client: Client | None = None,
        interfaces: Sequence[str] | None = None,
    ) -> None:
        self.hosts = [hosts] if isinstance(hosts, str) else list(hosts)
        self.port, self.interfaces = port, interfaces
        self.client = client or remote.default_client
        self._primary: RemoteSpace | None = None

    def lookup_ring_any(self, timeout: float = 5) -> RemoteSpace:
        """The ring that answers first, which is `primary` from now on. `RingNotFound` after `timeout` seconds."""
        reasons: list[str] = []
        with contextlib.closing(self._search(timeout, reasons)) as found:
            for ring in found:
                self._primary = ring
                return ring
        looked = ", ".join(self.hosts) or "no host at all"
        because = f" ({'; '.join(reasons)})" if reasons else ""
        raise RingNotFound(f"no ring on port {self.port} of {looked} within {timeout} s{because}")

    def rings(self, timeout: float = 2) -> Iterator[RemoteSpace]:
        """Every ring that is found within `timeout` seconds, each once, as they answer; sooner where all hosts have.

        On the local network a second is too short: an announcement is not repeated sooner, whoever asks.
        """
        seen = set()
        for ring in self._search(timeout, []):
            if ring.identity not in seen:
                seen.add(ring.identity)
                yield ring

    def __iter__(self) -> Iterator[RemoteSpace]:
        return self.rings()

    def __repr__(self) -> str:
        return f"<RingFinger {self.hosts!r} port {self.port} primary {self._primary!r}>"

    def _search(self, timeout: float, reasons: list[str]) -> Generator[RemoteSpace, None, None]:
        """The rings that answer, as they do; until `timeout`, or all hosts have answered where only hosts are asked."""
        deadline = time.monotonic() + timeout
        patience = max(0.9 * timeout, 0.01)  # so that there is time to hear why one did not answer
        answers: queue.SimpleQueue[RemoteSpace | Exception] = queue.SimpleQueue()
        asked: set[Address] = set()

        def ask(address: Address) -> None:
            try:
                identity = self.client.call(address, "identity", within=patience)
                answers.put(RemoteSpace(self.client, address, str(identity)))
            except (DiscoveryError, OSError) as exc:
                answers.put(exc)

        def start(address: Address) -> None:
            if address not in asked and len(asked) < MANY:
                asked.add(address)
                threading.Thread(target=ask, args=(address,), name=f"finger {address.host}", daemon=True).start()

        def heard(change: Change, sighting: Sighting) -> None:
            if change != "removed" and sighting.properties.get("port") == str(self.port):
                for host in sighting.addresses:
                    start(Address(_OBJECT_ID, host, self.port))

        for host in self.hosts:
            if host != BROADCAST:
                start(self._address(host))
        with contextlib.ExitStack() as stack:
            if BROADCAST in self.hosts:
                try:
                    stack.enter_context(Beacon(self.interfaces)).browse("ring", heard)
                except MulticastUnavailable as exc:
                    reasons.append(str(exc))
            told = 0
            while told < len(asked) or BROADCAST in self.hosts:
                try:
                    found = answers.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    return
                told += 1
                if isinstance(found, RemoteSpace):
                    yield found
                else:
                    reasons.append(str(found))

    def _address(self, host: str) -> Address:
        name, colon, port = host.rpartition(":")
        if colon and port.isdecimal() and (":" not in name or name.startswith("[")):
            return Address(_OBJECT_ID, name.strip("[]"), int(port))
        return Address(_OBJECT_ID, host, self.port)

"""Finding rings: on hosts that are named, and on the local network."""

import contextlib
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import overload

from discovery.beacon import Beacon, Change, Sighting
from discovery.clock import uptime
from discovery.errors import BadAddress, MulticastUnavailable, RingNotFound
from discovery.remote.address import Address
from discovery.remote.client import Client
from discovery.remote.defaults import default_client
from discovery.rings.server import OBJECT_ID, PORT
from discovery.rings.space import RemoteSpace

__all__ = ["BROADCAST", "RingFinger", "Stop"]

BROADCAST = "<broadcast>"
"""In a list of hosts: every ring on this port that announces itself on the local network."""

MANY = 100
"""Addresses that one search asks at most, however many are announced."""

_PLACE = re.compile(
    r"(?P<bare>[^\s\[\]:]*:[^\s\[\]:]*:[^\s\[\]]*)"  # an IPv6 address, as it is
    r"|(\[(?P<six>[^\s\[\]]+)\]|(?P<name>[^\s\[\]:]+))(:(?P<port>[0-9]{1,5}))?"
)


class Stop(threading.Event):
    """An event that also ends searches that wait for something else."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: set[Callable[[], object]] = set()

    def set(self) -> None:
        """Set it, on whatever thread, and end what is under way."""
        super().set()
        for call in list(self._calls):
            call()

    @contextlib.contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """Call this when it is set within the block, or was set before. The call must not block."""
        self._calls.add(call)
        try:
            if self.is_set():
                call()
            yield
        finally:
            self._calls.discard(call)


class _Primary:
    """`finger.primary` is the ring that this finger found last, or None; `RingFinger.primary()` finds one."""

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
            """Return the first ring that is found. Raise `RingNotFound` after `timeout` seconds."""
            return owner(hosts, port).lookup_ring_any(timeout)

        return primary


class RingFinger:
    """Finds rings on one port: on the named hosts, and with "<broadcast>" on the local network.

    Named hosts are asked directly, all at once. That works where multicast does not.

    Args:
        hosts: Names and addresses; "host:port" names a ring on another port.
        port: The port of the other hosts, and of the rings on the local network.
        client: Settings for the way there, such as TLS. The spaces that are found use it too.
        interfaces: The addresses of the interfaces on which to listen for announcements; by default all.

    Raises:
        BadAddress: one of the hosts cannot be one; the message shows it.
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
        self.client = client or default_client
        self._primary: RemoteSpace | None = None
        for host in self.hosts:
            self._address(host)  # so that one that cannot be is refused here

    def lookup_ring_any(self, timeout: float = 5, *, stop: "Stop | None" = None) -> RemoteSpace:
        """Return the ring that answers first, which is `primary` from now on.

        Args:
            timeout: Seconds to look for it.
            stop: Ends the search at once when it is set.

        Raises:
            RingNotFound: none answers within `timeout` seconds. The message says where was looked, and what was heard.
        """
        reasons: list[str] = []
        with contextlib.closing(self._search(timeout, reasons, stop)) as found:
            for ring in found:
                self._primary = ring
                return ring
        looked = ", ".join(map(self._place, self.hosts)) or "no host at all"
        because = f" ({'; '.join(reasons)})" if reasons else ""
        raise RingNotFound(f"no ring at {looked} within {timeout:g} s{because}")

    def rings(self, timeout: float = 2) -> Iterator[RemoteSpace]:
        """Yield every ring that answers within `timeout` seconds, each once; end sooner where all named hosts have.

        On the local network a second is too short, since an announcement is not repeated sooner.
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

    def _search(
        self, timeout: float, reasons: list[str], stop: "Stop | None" = None
    ) -> Generator[RemoteSpace, None, None]:
        """Yield the rings that answer, until `timeout`, or until all have answered where only named hosts are asked."""
        deadline = uptime() + timeout
        patience = max(0.9 * timeout, 0.01)  # so that there is time to hear why one did not answer
        answers: queue.SimpleQueue[RemoteSpace | Exception | None] = queue.SimpleQueue()
        asked: set[Address] = set()

        def ask(address: Address) -> None:
            try:
                identity = self.client.call(address, "identity", within=patience)
                answers.put(RemoteSpace(self.client, address, str(identity)))
            except Exception as exc:  # noqa: BLE001 - what answers there may be anything, and may raise anything
                answers.put(exc)

        def start(address: Address) -> None:
            if address not in asked and len(asked) < MANY:
                asked.add(address)
                threading.Thread(target=ask, args=(address,), name=f"finger {address.host}", daemon=True).start()

        def heard(change: Change, sighting: Sighting) -> None:
            if change != "removed" and sighting.properties.get("port") == str(self.port):
                for host in sighting.addresses:
                    start(Address(OBJECT_ID, host, self.port))

        for host in self.hosts:
            if host != BROADCAST:
                start(self._address(host))
        with contextlib.ExitStack() as stack:
            if stop is not None:
                stack.enter_context(stop.calling(lambda: answers.put(None)))
            if BROADCAST in self.hosts:
                try:
                    stack.enter_context(Beacon(self.interfaces)).browse("ring", heard)
                except MulticastUnavailable as exc:
                    reasons.append(str(exc))
            told = 0
            while told < len(asked) or BROADCAST in self.hosts:
                try:
                    found = answers.get(timeout=max(0.0, deadline - uptime()))
                except queue.Empty:
                    return
                if found is None:  # stopped
                    return
                told += 1
                if isinstance(found, RemoteSpace):
                    yield found
                else:
                    reasons.append(str(found))

    def _place(self, host: str) -> str:
        if host == BROADCAST:
            return f"port {self.port} of the local network"
        _, name, port = self._address(host)
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

    def _address(self, host: str) -> Address:
        found = _PLACE.fullmatch(host)
        port = int(found["port"] or self.port) if found else 0
        if not found or (found["port"] and not 1 <= port <= 65535):
            raise BadAddress(f"{host!r} names no ring: write HOST or HOST:PORT")
        return Address(OBJECT_ID, found["bare"] or found["six"] or found["name"], port)

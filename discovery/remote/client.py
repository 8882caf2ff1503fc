"""The calling side: `Client` keeps connections and settings, `Proxy` stands for an object in another process."""

import contextlib
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from discovery.errors import BadMessage, CallTimeout, CannotTravel, ConnectionLost, RequestCanceled
from discovery.remote import encoding, objects
from discovery.remote.security import TLS
from discovery.remote.wire import CALL, ERROR, GREETING, HELD, MAX_MESSAGE, STREAM, Address, Connection, Message

if TYPE_CHECKING:
    from discovery.remote.server import Server

__all__ = ["Call", "Client", "Proxy", "RemoteStream", "address_of"]

_IDLE = 8  # connections kept open to one server when nobody uses them


class Client:
    """Settings for calls, and the connections that they use. Every method may be used from any thread.

    `tls` is what to prove and whom to trust; without it nothing is encrypted. `timeout` is how many seconds a call may
    take (None: for ever, as a `take` may), `connect_timeout` how many it may take to reach the server. Connecting is
    left to the first call. A proxy that arrives through a client calls through the same client.
    `server` says which server lends the objects whose class is marked by reference, when they are sent as arguments.
    `lost(address)` is called when a server cannot be reached, goes away or does not answer in time, on the caller's
    thread.
    """

    def __init__(
        self,
        *,
        tls: TLS | None = None,
        timeout: float | None = None,
        connect_timeout: float = 5.0,
        max_message: int = MAX_MESSAGE,
        server: "Callable[[], Server] | None" = None,
        lost: Callable[[Address], object] = lambda address: None,
    ) -> None:
        self.tls = tls
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.max_message = max_message
        self.server = server
        self.lost = lost
        self._context = tls.for_client() if tls else None
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._pid = os.getpid()

    def proxy(self, address: Address | str) -> "Proxy":
        """The object at that address, to call as if it were here; `BadAddress` when it is none. Nothing is sent yet."""
        return Proxy(self, address if isinstance(address, Address) else Address.parse(address))

    def call(
        self,
        address: Address,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        within: float | None = None,
    ) -> Any:
        """Call a method and return or raise what it does, as the proxies do.

        `within` is a number of seconds for this call, in place of the client's `timeout`. Raises `CannotTravel`, and
        `ConnectionLost`, which says whether the call may have been executed.
        """
        call = Call(self, address, method, args, kwargs, within)
        answer = call.result()
        if call.held:
            call.confirm()
        return answer

    def stream(
        self, address: Address, method: str, args: Sequence[Any] = (), within: float | None = None
    ) -> "RemoteStream":
        """Call a method that answers with a stream: batch after batch, each when it is asked for."""
        call = Call(self, address, method, args, within=within)
        answer = call.result()
        if not isinstance(answer, RemoteStream):
            raise BadMessage(f"{method} of {address} answers with no stream")
        return answer

    def close(self) -> None:
        """Close the connections that nobody is using. The client remains usable, and opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def refer(self, value: Any) -> str | None:
        """The address under which a value travels; None when it goes by value."""
        if isinstance(value, Proxy):
            return str(address_of(value))
        if not objects.goes_by_reference(value):
            return None
        address = objects.addresses.get(id(value))
        if address is None:
            address = self.lend(value)
        return str(address)

    def lend(self, value: Any, keep: float = 0.0) -> Address:
        """Lend an object to whoever gets its address, see `Server.lend`; `CannotTravel` without a server for that."""
        if self.server is None:
            raise CannotTravel(f"{value!r} goes by reference, but this client has no server to lend it from")
        return self.server().lend(value, keep)

    def resolve(self, text: str) -> Any:
        """The object behind an address that arrived: itself where it lives here, otherwise a proxy."""
        address = Address.parse(text)
        here = objects.objects.get(address)
        return Proxy(self, address) if here is None else here

    def _pick_up(self, address: Address, within: float | None) -> Connection:
        if self._pid != os.getpid():  # a child must not speak on connections of its parent
            self._lock, self._idle, self._pid = threading.Lock(), {}, os.getpid()
        while True:
            with self._lock:
                idle = self._idle.get(address[1:])
                connection = idle.pop() if idle else None
            if connection is None:
                return self._connect(address, min(self.connect_timeout, within or self.connect_timeout))
            if not _readable(connection.sock):
                return connection
            connection.close()  # the server has ended it, and has nothing to say that we asked for

    def _put_back(self, address: Address, connection: Connection) -> None:
        with self._lock:
            idle = self._idle.setdefault(address[1:], [])
            if len(idle) < _IDLE:
                idle.append(connection)
                return
        connection.close()

    def _forget_the_dead(self) -> None:
        with self._lock:
            for connections in self._idle.values():
                for dead in [connection for connection in connections if _readable(connection.sock)]:
                    connections.remove(dead)
                    dead.close()

    def _connect(self, address: Address, within: float) -> Connection:
        """Connect and wait for the greeting, so that a refusal is known before anything has been sent."""
        self._forget_the_dead()
        sock = None
        try:
            sock = socket.create_connection(address[1:], within)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=address.host)
            connection = Connection(sock, self.max_message)
            if connection.receive(within).kind != GREETING:
                raise BadMessage("no greeting")
        except (OSError, BadMessage) as exc:
            if sock is not None:
                sock.close()
            self.lost(address)
            hint = " (its access list may not admit us, or only one side speaks TLS)"
            if sock is None or (isinstance(exc, ssl.SSLError) and re.search("CERTIFICATE|ALERT", exc.reason or "")):
                hint = ""  # no connection at all; or TLS itself says why
            raise ConnectionLost(f"cannot connect to {_where(address)}: {exc}{hint}") from exc
        return connection


class Call:
    """One call that has been sent, or so much as could be. For one thread; `cancel` may be called from any.

    `held` says, once there is a result, that the server keeps it for us until `confirm`; `cancel` gives it back.
    """

    def __init__(
        self,
        client: Client,
        address: Address,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        within: float | None = None,
    ) -> None:
        request = encoding.dumps([address.object_id, method, list(args), dict(kwargs or {})], client.refer)
        self._client, self._address = client, address
        self._within = within or client.timeout
        self.held = self._cancelled = self._sent = False
        self._value: Any = None
        self._connection = client._pick_up(address, self._within)
        with self._trouble():
            self._connection.sock.settimeout(self._within)
            self._connection.send(CALL, request)
            self._sent = True

    def result(self) -> Any:
        """Wait for the answer and return or raise it."""
        with self._trouble():
            message = self._connection.receive(self._within)
            if message.flags & STREAM:
                return RemoteStream(self._client, self._address, self._connection)
            answer = encoding.loads(message.body, self._client.resolve)
        if message.flags & HELD:
            self.held, self._value = True, answer
            return answer
        return self._done(message, answer)

    def confirm(self) -> None:
        """Tell the server that its answer has arrived, and wait until it knows.

        Where the connection is lost meanwhile, `ConnectionLost` holds the answer as its `value`.
        """
        self._sent = False
        with self._trouble():
            self._connection.send(CALL, flags=HELD)
            self._sent = True
            message = self._connection.receive(self._within)
            answer = encoding.loads(message.body, self._client.resolve) if message.flags & ERROR else None
        self._done(message, answer)

    def cancel(self) -> None:
        """End it: a `result` that waits raises `RequestCanceled`, and what the server holds for us it has back."""
        self._cancelled = True
        self._connection.abort()
        if self.held:  # nobody is waiting, so nobody else would
            self._connection.close()

    def _done(self, message: Message, answer: Any) -> Any:
        self._client._put_back(self._address, self._connection)
        if message.flags & ERROR:
            if isinstance(answer, ConnectionLost):
                answer.maybe_executed = True  # the method lost another connection, well after we had called it
            raise answer
        return answer

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        """Ends the connection with any error, and says of those of the network what they mean."""
        try:
            yield
        except BaseException as exc:
            self._connection.close()
            if not isinstance(exc, OSError):
                raise
            if self._cancelled:
                raise RequestCanceled(f"the call to {_where(self._address)} was canceled") from None
            self._client.lost(self._address)
            late = isinstance(exc, TimeoutError)
            text = f"no answer in {self._within} s from" if late else f"{exc}: lost"
            kind = CallTimeout if late else ConnectionLost
            raise kind(f"{text} {_where(self._address)}", maybe_executed=self._sent, value=self._value) from exc


class RemoteStream:
    """Batches of values from the other side. For one thread; `close` may be called from any."""

    def __init__(self, client: Client, address: Address, connection: Connection) -> None:
        self._client, self._address, self._connection = client, address, connection
        self._asked = self._closed = False

    def next_batch(self, timeout: float | None = None) -> Any:
        """The next batch, or None at the end.

        TimeoutError when none came within `timeout` seconds: it may still. `ConnectionLost` when the server is gone.
        """
        if self._closed:
            return None
        try:
            if not self._asked:
                self._connection.send(CALL, flags=STREAM)
                self._asked = True
            reply = self._connection.receive(timeout)
        except TimeoutError:
            raise
        except OSError as exc:
            self._connection.close()
            if self._closed:
                return None
            raise ConnectionLost(f"lost {_where(self._address)}: {exc}") from exc
        self._asked = False
        batch = encoding.loads(reply.body, self._client.resolve)
        if not reply.flags & STREAM:
            self._closed = True
            self._connection.close()
        if reply.flags & ERROR:
            raise batch
        return batch

    def close(self) -> None:
        """End the stream on both sides; a `next_batch` that waits returns None."""
        self._closed = True
        self._connection.abort()

    def drop(self) -> None:
        """End the stream and free its connection; for the one thread that reads."""
        self.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Any]:
        while (batch := self.next_batch()) is not None:
            yield from batch

    def __del__(self) -> None:
        self._connection.close()  # which lets the other side know that nobody will ask again


class Proxy:
    """Stands for an object in another process: its public methods can be called as if it were here, from any thread.

    Two proxies are equal when they stand for the same object. The idea is DRb's.
    """

    __slots__ = ("_address", "_client")

    def __init__(self, client: Client, address: Address) -> None:
        self._client, self._address = client, address

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"only public methods can be called from afar, not {name!r}")
        return lambda *args, **kwargs: self._client.call(self._address, name, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._client.call(self._address, "__call__", args, kwargs)

    def __repr__(self) -> str:
        return f"<Proxy {self._address}>"

    def __eq__(self, other: object) -> bool:
        return self._address == other._address if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._address)


def address_of(proxy: Proxy) -> Address:
    """Where the object is that a proxy stands for."""
    return proxy._address


def _where(address: Address) -> str:
    return f"{address.host}:{address.port}"


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))

"""The calling side: `Client` with its settings, `Call`, and `RemoteStream`, whose answers come in batches."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from discovery.errors import BadMessage, CallTimeout, CannotTravel, ConnectionLost, RequestCanceled
from discovery.remote import objects
from discovery.remote.address import Address
from discovery.remote.encoding import Codec
from discovery.remote.pool import ConnectionPool
from discovery.remote.protocol import MAX_MESSAGE, Kind
from discovery.remote.proxy import Proxy, address_of
from discovery.remote.security import TLS
from discovery.remote.wire import Connection

__all__ = ["Call", "Client", "Lender", "RemoteStream"]


class Lender(Protocol):
    """What a client needs of a server: a way to give an object an address."""

    def lend(self, target: Any, keep: float = 0.0) -> Address:
        """Serve an object for as long as it is used, and `keep` seconds more; return its address."""
        ...


class Client:
    """Call objects in other processes. Connections are opened by the first call and kept. For any thread.

    A proxy that arrives through a client calls through the same client.

    Args:
        tls: What to prove and whom to trust. Without it nothing is encrypted.
        timeout: Seconds that a call may take; None: for ever, as a `take` may.
        connect_timeout: Seconds in which a server must be reached.
        max_message: The most bytes in one message.
        server: Returns the server that lends the objects whose class is marked by reference, when they are sent as
            arguments.
        lost: Called with the address when a server cannot be reached or goes away, on the caller's thread.
    """

    def __init__(
        self,
        *,
        tls: TLS | None = None,
        timeout: float | None = None,
        connect_timeout: float = 5.0,
        max_message: int = MAX_MESSAGE,
        server: Callable[[], Lender] | None = None,
        lost: Callable[[Address], object] = lambda address: None,
    ) -> None:
        context = tls.for_client() if tls else None
        self._timeout, self._server, self._lost = timeout, server, lost
        self._pool = ConnectionPool(
            context=context, connect_timeout=connect_timeout, max_message=max_message, lost=lost
        )
        self._codec = Codec(self.refer, self.resolve)

    def proxy(self, address: Address | str) -> Proxy:
        """Return the object at that address, to call as if it were here. Nothing is sent yet.

        Raises:
            BadAddress: The text is no address.
        """
        return Proxy(self, address if isinstance(address, Address) else Address.parse(address))

    def call(
        self,
        address: Address,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        within: float | None = None,
    ) -> Any:
        """Call a method and return or raise what it does, as the proxies do.

        Args:
            address: Where the object is.
            method: The name of a public method.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            within: Seconds for this call, in place of the client's `timeout`.

        Raises:
            CannotTravel: An argument cannot be sent. Nothing has been sent.
            ConnectionLost: There is no answer. It says whether the call may have been executed.
        """
        call = Call(self, address, method, args, kwargs, within=within)
        answer = call.result()
        if call.held:
            call.confirm()
        return answer

    def stream(
        self, address: Address, method: str, args: Sequence[Any] = (), *, within: float | None = None
    ) -> "RemoteStream":
        """Call a method that answers with a stream: batch after batch, each when it is asked for."""
        call = Call(self, address, method, args, within=within)
        answer = call.result()
        if not isinstance(answer, RemoteStream):
            call.cancel()  # which gives back what the server may hold
            raise BadMessage(f"{method} of {address} answers with no stream")
        return answer

    def forget(self, address: Address) -> None:
        """Close the idle connections to a server, so that the next call must be greeted by it first."""
        self._pool.forget(address)

    def close(self) -> None:
        """Close the connections that nobody is using. The client remains usable, and opens new ones."""
        self._pool.close()

    def tidy(self) -> None:
        """Close connections that have long been idle. Each new connection does so too."""
        self._pool.tidy()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def refer(self, value: Any) -> str | None:
        """Return the address under which a value travels; None when it goes by value."""
        if isinstance(value, Proxy):
            return str(address_of(value))
        if not objects.goes_by_reference(value):
            return None
        address = objects.addresses.get(id(value))
        if address is None:
            address = self.lend(value)
        return str(address)

    def lend(self, target: Any, keep: float = 0.0) -> Address:
        """Lend an object to those who get its address, see `Server.lend`.

        Raises:
            CannotTravel: This client has no server to lend it from.
        """
        if self._server is None:
            raise CannotTravel(f"{target!r} goes by reference, but this client has no server to lend it from")
        return self._server().lend(target, keep)

    def resolve(self, text: str) -> Any:
        """Return the object behind an address that arrived: itself where it lives here, otherwise a proxy."""
        address = Address.parse(text)
        here = objects.objects.get(address)
        return Proxy(self, address) if here is None else here


class Call:
    """One call that has been sent, as far as that was possible. For one thread; `cancel` may be called from any.

    Once there is a result, `held` says whether the server keeps it for us until `confirm`; `cancel` gives it back.
    """

    def __init__(
        self,
        client: Client,
        address: Address,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        within: float | None = None,
    ) -> None:
        request = client._codec.dumps([address.object_id, method, list(args), dict(kwargs or {})])
        self._client, self._address = client, address
        self._within = within or client._timeout
        self.held = self._cancelled = self._sent = self._done = False
        self._value: Any = None
        self._lock = threading.Lock()  # around what another thread may `cancel` meanwhile
        self._connection = client._pool.acquire(address, self._within)
        try:
            self._connection.send(Kind.CALL, request, self._within)
            self._sent = True
        except BaseException as exc:  # noqa: BLE001 - it is raised again
            self._fail(exc)

    def result(self) -> Any:
        """Wait for the answer and return or raise it."""
        try:
            kind, body = self._connection.receive(self._within)
            if kind is Kind.STREAM:
                return RemoteStream(self._client, self._address, self._connection)
            answer = self._client._codec.loads(body)
        except BaseException as exc:  # noqa: BLE001 - it is raised again
            self._fail(exc)
        if kind is Kind.HOLD:
            self.held, self._value = True, answer
            return answer
        return self._end(kind, answer)

    def confirm(self) -> None:
        """Tell the server that its answer has arrived, and wait until it knows.

        Raises:
            ConnectionLost: The connection was lost meanwhile. The answer is its `value`.
        """
        self._sent = False
        try:
            self._connection.send(Kind.CONFIRM, timeout=self._within)
            self._sent = True
            kind, body = self._connection.receive(self._within)
            answer = self._client._codec.loads(body)
        except BaseException as exc:  # noqa: BLE001 - it is raised again
            self._fail(exc)
        self._end(kind, answer)

    def cancel(self) -> None:
        """End it: a `result` that waits raises `RequestCanceled`, and the server has back what it holds for us.

        Do nothing when the call is over.
        """
        with self._lock:
            if self._done:
                return  # the connection may be in use for another call
            self._cancelled = True
            self._connection.abort()
        if self.held:  # nobody is waiting, so nobody else would
            self._connection.close()

    def _end(self, kind: Kind, answer: Any) -> Any:
        with self._lock:
            self._done, self.held = True, False
        self._client._pool.release(self._address, self._connection)
        if kind is Kind.ERROR:
            answer = _error(answer)
            if isinstance(answer, ConnectionLost):
                answer.maybe_executed = True  # the method lost another connection, well after we had called it
            raise answer
        return answer

    def _fail(self, exc: BaseException) -> NoReturn:
        """End the connection with any error, and say of those of the network what they mean."""
        self._connection.close()
        if not isinstance(exc, OSError):
            raise exc
        if self._cancelled:
            raise RequestCanceled(f"the call to {_where(self._address)} was canceled") from None
        late = isinstance(exc, TimeoutError)
        if not late:  # what takes long may be well
            self._client._lost(self._address)
        text = f"no answer in {self._within} s from" if late else f"{exc}: lost"
        kind = CallTimeout if late else ConnectionLost
        raise kind(f"{text} {_where(self._address)}", maybe_executed=self._sent, value=self._value) from exc


class RemoteStream:
    """Batches of values from the other side. For one thread; `close` may be called from any."""

    def __init__(self, client: Client, address: Address, connection: Connection) -> None:
        self._client, self._address, self._connection = client, address, connection
        self._asked = self._closed = False

    def next_batch(self, timeout: float | None = None) -> Any:
        """Return the next batch, or None at the end.

        Raises:
            TimeoutError: None came within `timeout` seconds. Call this again to go on waiting for it.
            ConnectionLost: The server is gone.
            BadMessage: No honest server sends what arrived.
        """
        if self._closed:
            return None
        try:
            if not self._asked:
                self._connection.send(Kind.NEXT)
                self._asked = True
            kind, body = self._connection.receive(timeout)
            batch = self._client._codec.loads(body)
            if kind is Kind.BATCH and type(batch) is not list:
                raise BadMessage("a batch that is no list")
        except TimeoutError:
            raise
        except BadMessage:
            self.drop()
            raise
        except OSError as exc:
            self._connection.close()
            if self._closed:
                return None
            raise ConnectionLost(f"lost {_where(self._address)}: {exc}") from exc
        self._asked = False
        if kind is not Kind.BATCH:
            self._closed = True
            self._connection.close()
        if kind is Kind.ERROR:
            raise _error(batch)
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


def _error(answer: Any) -> Exception:
    """Return the error that arrived. What arrived as one and is none is an error as well."""
    return answer if isinstance(answer, Exception) else BadMessage("an error that is none")


def _where(address: Address) -> str:
    return f"{address.host}:{address.port}"

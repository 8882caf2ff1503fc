"""The serving side: `Server` lends and serves objects, `Pending` and `Stream` are answers that take their time."""

import abc
import contextlib
import logging
import os
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from discovery.errors import BadMessage, CannotTravel, RemoteError
from discovery.remote import encoding, objects
from discovery.remote.client import Client
from discovery.remote.security import TLS, Access
from discovery.remote.wire import CALL, ERROR, GREETING, HELD, MAX_MESSAGE, RESULT, STREAM, Address, Connection, Message

__all__ = ["Pending", "Server", "Stream"]

log = logging.getLogger(__name__)

HANDSHAKE = 10.0
"""Seconds that a client has to agree on TLS."""


class Pending(abc.ABC):
    """What a served method returns when its answer is yet to come, and the caller may be gone by then.

    `wait` is called on the caller's own thread at the server; `cancel` from another one, when the caller goes away
    meanwhile. With `held`, the answer is only done with when the caller has it: `confirm`, else `put_back`.
    """

    held = True
    ready = False  # True: `wait` will return at once

    @abc.abstractmethod
    def wait(self) -> Any:
        """Block until there is an answer, and return or raise it."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """End the wait with any error; too late, do nothing. Must not block."""

    def confirm(self) -> None:  # noqa: B027 - nothing to do unless held
        """The caller has the answer."""

    def put_back(self) -> None:  # noqa: B027
        """The caller never confirmed the answer, and may or may not have it. Does nothing if there was none."""


class Stream(abc.ABC):
    """What a served method returns when it has many answers: the caller fetches them, batch by batch."""

    @abc.abstractmethod
    def next_batch(self) -> list[Any] | None:
        """Block until there is something, and return all that there is; None at the end."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """End: `next_batch` returns None, resources are freed. Called from any thread, maybe twice; must not block."""


class Server:
    """Serves objects on one port, each server with settings of its own.

    `host` is the interface to listen on (empty: all), `port` 0 any free port; `advertise` is the host in addresses
    that are given out, where the server cannot know how others reach it. `access` is who may connect and `tls` how
    both sides prove themselves. `client` makes the calls to references that arrive here. An object that was lent,
    which is served because it was sent by reference, is kept for `keep` seconds after its last use.

    One thread per connected client runs the methods; the server refuses clients beyond `max_connections` and messages
    beyond `max_message` bytes. It listens from `start`, the first `serve` or `with` on, until `close`. A forked child
    serves nothing.
    """

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        *,
        advertise: str | None = None,
        access: Access | None = None,
        tls: TLS | None = None,
        client: Client | None = None,
        keep: float = 600.0,
        max_connections: int = 2000,
        max_message: int = MAX_MESSAGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.port = host, port
        self.advertise = advertise or host
        self._access = access or Access()
        self._context = tls.for_server() if tls else None
        self._client = client or Client(tls=tls if tls and tls.authority else None, server=lambda: self)
        self._keep, self._shelf = keep, objects.Shelf(keep, clock)
        self._max_connections, self._max_message = max_connections, max_message
        self._lock = threading.RLock()
        self._connections: set[Connection] = set()
        self._selector: selectors.BaseSelector | None = None
        self._sockets: list[socket.socket] = []
        self._closed = False
        _servers.add(self)

    def start(self) -> "Server":
        """Listen; OSError when the port cannot be had. Again does nothing."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self!r} is closed")
            if self._selector is None:
                self._listen()
        return self

    def serve(self, target: Any, name: str | None = None) -> str:
        """Serve an object, a function or a class until `unserve` or `close`, and return its address.

        From now on it travels by reference. Of a class, its public class and static methods can be called, and the
        class itself: that makes an instance here and lends it. With a `name` the object's id is that name, which others
        can guess; ValueError when something else has it.
        """
        self.start()
        return str(self._shelf.add(target, name))

    def lend(self, target: Any, keep: float = 0.0) -> Address:
        """Serve an object for as long as it is used, and `keep` seconds more; returns its address."""
        self.start()
        return self._shelf.lend(target, keep)

    def unserve(self, target: Any) -> None:
        """Serve an object no longer; its address is refused from now on. One that is not served is left alone."""
        self._shelf.remove(target)

    def lend_alone(self, target: Any, address: Address | None, error: Exception) -> Address:
        """A new address for an object, which nobody can guess, while calls to `address` get `error`."""
        if address is not None:
            self._shelf.bar(address.object_id, error)
        return self._shelf.alias(target)

    def take_back(self, alone: Address, address: Address | None) -> None:
        """Refuse the address of `lend_alone` from now on, and calls to `address` no longer."""
        self._shelf.remove_alias(alone)
        if address is not None:
            self._shelf.bar(address.object_id, None)

    def close(self) -> None:
        """Stop at once: clients get an error, waiting calls are cancelled. Methods that run, run to their end."""
        with self._lock:
            self._closed = True
            self._shelf.clear()
            connections, selector = list(self._connections), self._selector
        for connection in connections:
            connection.abort()
        if selector is not None:
            self._wake.close()  # which ends the thread that listens
            self._thread.join()
        self._client.close()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server {self.advertise or '*'}:{self.port} serving {len(self._shelf)}>"

    def _refer(self, value: Any) -> str | None:
        return str(self.lend(value)) if objects.goes_by_reference(value) else self._client.refer(value)

    # The thread that listens

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=512)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        if self.advertise in ("", "0.0.0.0", "::"):
            self.advertise = own_host()
        self._shelf.host, self._shelf.port = self.advertise, self.port
        self._wake, woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self._selector.register(woken, selectors.EVENT_READ, None)
        self._sockets = [listener, self._wake, woken]
        self._thread = threading.Thread(target=self._attend, name=f"server {self.port}", daemon=True)
        self._thread.start()

    def _attend(self) -> None:
        """Let clients in, and tell calls that wait when their caller has gone, without a thread or a poll for each."""
        assert self._selector is not None
        while not self._closed:
            for key, _ in self._selector.select(min(max(self._keep, 1.0), 60.0)):
                if key.data is not None:
                    try:
                        key.data()
                    except Exception:  # one client's trouble must not become everybody's
                        log.exception("while attending to a client")
            self._shelf.let_go()
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.fileobj not in self._sockets:
                key.data()  # whoever waits here for anything waits in vain
        for sock in self._sockets:
            sock.close()
        self._selector.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError as exc:
            log.warning("cannot accept a connection: %s", exc)
            time.sleep(0.05)  # out of file descriptors: the listener stays readable, and this must not spin
            return
        sock.setblocking(True)
        full = len(self._connections) >= self._max_connections
        if full or not self._access.admits(peer[0]):
            log.warning("refused %s: %s", peer[0], "too many connections" if full else "not on the access list")
            sock.close()
            return
        connection = Connection(sock, self._max_message)
        with self._lock:
            self._connections.add(connection)
        try:
            name = f"client {peer[0]}:{peer[1]}"
            threading.Thread(target=self._converse, args=(connection, peer[0]), name=name, daemon=True).start()
        except RuntimeError as exc:
            log.warning("refused %s: %s", peer[0], exc)
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    @contextlib.contextmanager
    def _watching(self, connection: Connection, gone: Callable[[], None]) -> Iterator[None]:
        """Meanwhile, a client that does anything at all has gone: it has nothing to say until it is answered."""
        selector, sock = self._selector, connection.sock
        assert selector is not None

        def forget() -> None:
            with contextlib.suppress(KeyError, ValueError, RuntimeError):  # forgotten, or the server is closed
                selector.unregister(sock)

        def leave() -> None:
            forget()
            gone()

        selector.register(sock, selectors.EVENT_READ, leave)
        try:
            if self._closed:
                gone()
            yield
        finally:
            forget()

    # The thread of one client

    def _converse(self, connection: Connection, peer: str) -> None:
        try:
            if self._context is not None:
                connection.agree_on_tls(self._context, HANDSHAKE)
            connection.send(GREETING)
            while not self._closed:
                self._answer(connection, connection.receive())
        except (BadMessage, ssl.SSLError) as exc:
            log.warning("hung up on %s: %s", peer, exc)
        except OSError as exc:
            log.debug("%s has gone: %s", peer, exc)
        finally:
            self._forget(connection)

    def _answer(self, connection: Connection, message: Message) -> None:
        if message.kind != CALL or message.flags & (HELD | STREAM):
            raise BadMessage(f"a call was expected, not a message of kind {message.kind}")
        try:
            answer = self._invoke(message.body)
            later = isinstance(answer, Pending | Stream)
            body, flags = b"" if later else self._encode(answer), 0
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            later, body, flags = False, self._encode_error(exc), ERROR
        if later:
            (self._send_pending if isinstance(answer, Pending) else self._send_stream)(connection, answer)
        else:
            connection.send(RESULT, body, flags)

    def _invoke(self, body: bytes | bytearray) -> Any:
        request = encoding.loads(body, self._client.resolve)
        if type(request) is not list or [type(part) for part in request[1:]] != [str, list, dict]:
            raise BadMessage("not a call: an id, a method's name, a list and a dictionary of arguments")
        object_id, name, args, kwargs = request
        target = self._shelf.find(object_id)
        result = objects.method(target, name)(*args, **kwargs)
        if isinstance(target, type) and name in ("__call__", "new") and isinstance(result, target):
            self.lend(result)
        return result

    def _send_pending(self, connection: Connection, pending: Pending) -> None:
        try:
            with contextlib.nullcontext() if pending.ready else self._watching(connection, pending.cancel):
                answer = pending.wait()
            body, flags = self._encode(answer), HELD if pending.held else 0
        except Exception as exc:  # noqa: BLE001
            pending.put_back()
            connection.send(RESULT, self._encode_error(exc), ERROR)
            return
        try:
            connection.send(RESULT, body, flags)
            if flags and not connection.receive().flags & HELD:
                raise BadMessage("a confirmation was expected")
        except BaseException:
            pending.put_back()
            raise
        if flags:
            try:
                pending.confirm()
                body, flags = b"", 0
            except Exception as exc:  # noqa: BLE001
                body, flags = self._encode_error(exc), ERROR
            connection.send(RESULT, body, flags)

    def _send_stream(self, connection: Connection, stream: Stream) -> None:
        try:
            connection.send(RESULT, flags=STREAM)
            while True:
                if not connection.receive().flags & STREAM:
                    raise BadMessage("a request for more was expected")
                try:
                    with self._watching(connection, stream.cancel):
                        batch = stream.next_batch()
                    body, flags = self._encode(batch), 0 if batch is None else STREAM
                except Exception as exc:  # noqa: BLE001
                    batch, body, flags = None, self._encode_error(exc), ERROR
                connection.send(RESULT, body, flags)
                if batch is None:
                    return
        finally:
            stream.cancel()

    def _encode(self, value: Any) -> bytes:
        body = encoding.dumps(value, self._refer)
        if len(body) > self._max_message:
            raise CannotTravel(f"an answer of {len(body)} bytes, of {self._max_message} that are allowed")
        return body

    def _encode_error(self, error: Exception) -> bytes:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next  # the caller's business begins below us
        try:
            return self._encode(error.with_traceback(trace))
        except Exception:  # noqa: BLE001 - what it holds cannot be sent; its name and its words can
            return encoding.dumps(RemoteError(type(error).__name__, repr(error)[:1000]), self._refer)


def own_host() -> str:
    """The address under which others most likely reach this machine: that of the interface of the default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation, and connecting a UDP socket sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _forked() -> None:
    """A child holds copies of its parent's sockets, and lets go of them: the port and the clients are not its own."""
    objects.addresses.clear()
    objects.objects.clear()
    for server in list(_servers):
        server._closed = True
        for sock in [*server._sockets, *(connection.sock for connection in server._connections)]:
            sock.close()


_servers: weakref.WeakSet[Server] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forked)

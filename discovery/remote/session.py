"""The conversation of a server with one client: calls come in, methods run, answers go out."""

import logging
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from discovery.errors import BadMessage, CannotTravel, RemoteError
from discovery.remote import objects
from discovery.remote.answers import Later, Pending, Stream
from discovery.remote.encoding import Codec
from discovery.remote.protocol import Kind
from discovery.remote.wire import Connection

__all__ = ["HANDSHAKE", "Session"]

log = logging.getLogger(__name__)

HANDSHAKE = 10.0
"""Seconds that a client has to agree on TLS."""

_NONE = b"null"
_CALL = (str, str, list, dict)


class Session:
    """Serve one client on the thread that calls `run`, until the client goes away or breaks the protocol.

    Args:
        connection: The connection to the client.
        peer: The client's address, for the log.
        table: The objects that may be called.
        codec: How values are written and read.
        watching: `watching(connection, gone)` calls `gone` when the client goes away within the block.
        warn: `warn(kind, text, *args)` logs a warning, unless there have been too many of that kind.
    """

    def __init__(
        self,
        connection: Connection,
        peer: str,
        *,
        table: objects.ObjectTable,
        codec: Codec,
        watching: Callable[[Connection, Callable[[], None]], AbstractContextManager[None]],
        warn: Callable[..., None],
    ) -> None:
        self._connection, self._peer, self._warn = connection, peer, warn
        self._table, self._codec, self._watching = table, codec, watching

    def run(self, context: ssl.SSLContext | None) -> None:
        """Greet the client, in TLS where there is a context, and answer its calls. Return when it has gone."""
        try:
            if context is not None:
                self._connection.accept_tls(context, HANDSHAKE)
            self._connection.send(Kind.GREETING)
            while True:
                self._answer(self._connection.receive().body)
        except (BadMessage, CannotTravel, ssl.SSLError) as exc:
            self._warn("hung up", "hung up on %s: %s", self._peer, exc)
        except OSError as exc:
            log.debug("%s has gone: %s", self._peer, exc)

    def _answer(self, request: bytes | bytearray) -> None:
        try:
            answer = self._invoke(request)
            kind, body = Kind.RESULT, b"" if isinstance(answer, Later) else self._encode(answer)
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            answer, kind, body = None, Kind.ERROR, self._encode_error(exc)
        if not isinstance(answer, Later):
            self._connection.send(kind, body)
        elif isinstance(answer, Pending):
            self._answer_later(answer)
        elif isinstance(answer, Stream):
            self._answer_in_batches(answer)

    def _invoke(self, body: bytes | bytearray) -> Any:
        request = self._codec.loads(body)
        if type(request) is not list or tuple(map(type, request)) != _CALL:
            raise BadMessage("not a call: an id, a method's name, a list and a dictionary of arguments")
        object_id, name, args, kwargs = request
        target = self._table.find(object_id)
        result = objects.method(target, name)(*args, **kwargs)
        if name in ("__call__", "new") and isinstance(target, type) and isinstance(result, target):
            self._table.lend(result)
        return result

    def _answer_later(self, pending: Pending) -> None:
        try:
            if pending.ready:
                answer = pending.wait()
            else:
                with self._watching(self._connection, pending.cancel):
                    answer = pending.wait()
            kind, body = Kind.HOLD if pending.held else Kind.RESULT, self._encode(answer)
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            pending.put_back()
            self._connection.send(Kind.ERROR, self._encode_error(exc))
            return
        try:
            self._connection.send(kind, body)
            if not pending.held:
                return
            self._connection.receive()  # the protocol allows nothing but a confirmation
        except BaseException:
            pending.put_back()
            raise
        try:
            pending.confirm()
            kind, body = Kind.RESULT, _NONE
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            kind, body = Kind.ERROR, self._encode_error(exc)
        self._connection.send(kind, body)

    def _answer_in_batches(self, stream: Stream) -> None:
        try:
            self._connection.send(Kind.STREAM)
            kind = Kind.BATCH
            pieces: list[list[Any]] = []  # of a batch that is too long for one message
            while kind is Kind.BATCH:
                self._connection.receive()  # the protocol allows nothing but a request for the next batch
                try:
                    with self._watching(self._connection, stream.cancel):
                        batch = pieces.pop() if pieces else stream.next_batch()
                    kind, body = Kind.RESULT if batch is None else Kind.BATCH, self._encode_first(batch, pieces)
                except Exception as exc:  # noqa: BLE001 - it is the caller's
                    kind, body = Kind.ERROR, self._encode_error(exc)
                self._connection.send(kind, body)
        finally:
            stream.cancel()

    def _encode_first(self, batch: list[Any] | None, pieces: list[list[Any]]) -> bytes:
        """Encode as much of a batch as fits into a message, and put the rest before the other `pieces`."""
        while True:
            try:
                return self._encode(batch)
            except CannotTravel:
                if batch is None or len(batch) < 2:
                    raise
                half = len(batch) // 2
                pieces.append(batch[half:])
                batch = batch[:half]

    def _encode(self, value: Any) -> bytes:
        body, limit = self._codec.dumps(value), self._connection.protocol.limit
        if len(body) > limit:
            raise CannotTravel(f"an answer of {len(body)} bytes, of {limit} that are allowed")
        return body

    def _encode_error(self, error: Exception) -> bytes:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next  # leave out the lines of this file, which say nothing to the caller
        try:
            return self._encode(error.with_traceback(trace))
        except Exception:  # noqa: BLE001 - what it holds cannot be sent; its name and its words can
            return self._codec.dumps(RemoteError(type(error).__name__, repr(error)[:1000]))

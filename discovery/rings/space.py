"""A tuple space in another process, with the same calls as if it were here."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from discovery.errors import BadMessage, BadTemplate, CannotTravel, ConnectionLost, RequestCanceled, RequestExpired
from discovery.patterns import ForeignPattern
from discovery.remote.address import Address
from discovery.remote.client import Call, Client, RemoteStream
from discovery.remote.objects import by_reference
from discovery.rings.board import plain
from discovery.tuples.entry import Expiry, answer
from discovery.tuples.requests import TupleEvent, TupleEventKind
from discovery.tuples.template import PLAIN, Fields, Stored, freeze

__all__ = ["RemoteBatch", "RemoteEntry", "RemoteEvents", "RemoteRequest", "RemoteSpace"]

PATIENCE = 15.0
"""Seconds beyond its own timeout that a request may take, before its server is given up."""

FIRST_PAGE, LONGEST_PAGE = 1000, 16_000
"""Tuples that `read_all` asks for in one message: more and more of them, and fewer where they do not fit."""


class RemoteSpace:
    """A tuple space in another process, with the methods of a local one and their meaning. For any thread.

    Every method raises `ConnectionLost` when the server cannot be reached or dies, also one that waits, and
    `CannotTravel` for what cannot be sent: plain data and dataclasses travel by value, what is served by reference.

    What a `take` promises over a network: the server holds the tuple, unseen by others, until this process has
    confirmed that it has it; if the connection breaks before, the tuple is back in its place. So nothing is lost when a
    taker dies, and nobody gets what another has. If the connection breaks while the confirmation is on its way, nobody
    here can know whether it arrived: then `ConnectionLost` has `maybe_executed` set and the tuple as its `value`.
    """

    def __init__(self, client: Client, address: Address, identity: str = "") -> None:
        self.address, self.identity = address, identity
        self._client = client

    def write(self, fields: Fields, expires: Expiry = None) -> "RemoteEntry":
        """Write a tuple, as `TupleSpace.write`. A renewer stays here, and the ring asks it over the network."""
        renewer = self._lent(expires)
        return RemoteEntry(self, self._call("write", plain(freeze(fields)), renewer), fields)

    def write_all(self, tuples: Iterable[Fields], expires: float | None = None) -> "list[RemoteEntry]":
        """Write many tuples in one message, in their order. Write none of them if one is no tuple."""
        many = [plain(freeze(fields)) for fields in tuples]
        numbers = self._call("write_all", many, expires)
        return [RemoteEntry(self, number, fields) for number, fields in zip(numbers, many, strict=True)]

    def read(self, template: Fields, timeout: float | None = None) -> Any:
        """Return the oldest tuple that matches, as `TupleSpace.read`."""
        return self.reading(template, timeout).result()

    def take(self, template: Fields, timeout: float | None = None) -> Any:
        """Remove and return a tuple, as `TupleSpace.take`; the class says what is promised when something fails."""
        with self.taking(template, timeout) as taken:
            return taken

    def take_all(self, template: Fields, limit: int | None = None) -> list[Any]:
        """Remove and return the tuples that match now, oldest first, in one message. Never wait.

        At most `limit` of them, at most 16,000, and fewer where they do not fit: call it until nothing is left. All of
        them are held until they are confirmed, as the one of a `take`.

        Raises:
            CannotTravel: The oldest of them cannot be sent. It stays where it is.
        """
        with self.taking_all(template, limit) as taken:
            return list(taken)

    def move(self, port: Callable[[Any], object], template: Fields, timeout: float | None = None) -> Any:
        """Hand a tuple to `port`, as `TupleSpace.move`, and remove it once `port(tuple)` has returned.

        If this process dies in `port`, the tuple is back in the space, so it is handed on at least once.
        """
        with self.taking(template, timeout) as taken:
            port(taken)
            return taken

    def read_all(self, template: Fields, limit: int | None = None, *, skip: bool = False) -> list[Any]:
        """Return all tuples that match, oldest first; with a `limit` at most so many.

        What does not fit into one message comes in several. What changes meanwhile may or may not be among it.

        Args:
            limit: How many, at most; None: all.
            skip: Leave out a tuple that cannot be sent, or does not fit into a message, instead of raising.

        Raises:
            CannotTravel: A tuple cannot be sent.
        """
        pattern = _sendable(template)
        found: list[Any] = []
        after, size = -1, FIRST_PAGE
        while limit is None or len(found) < limit:
            wanted = size if limit is None else min(size, limit - len(found))
            try:
                page = self._call("read_all", pattern, after, wanted)
            except CannotTravel:
                if wanted <= 1 and not skip:
                    raise
                size = max(1, wanted // 8) if wanted > 1 else 0  # a page of 0 passes over one tuple
                continue
            tuples, following = _page(page, after)
            found += tuples
            if following is None:
                break
            after, size = following, min(2 * size or 1, LONGEST_PAGE)
        return found

    def notify(
        self, kind: TupleEventKind | None, template: Fields, expires: float | None = None, *, limit: int = 1000
    ) -> "RemoteEvents":
        """Return a stream of events, as `TupleSpace.notify`.

        Events that are not fetched wait at the server. Beyond `limit`, at most 10,000, it drops the oldest, and the
        next event says how many.
        """
        return RemoteEvents(self._client.stream(self.address, "notify", [kind, _sendable(template), expires, limit]))

    def reading(self, template: Fields, timeout: float | None = None) -> "RemoteRequest":
        """Send a `read`, and return it as a request that can be cancelled."""
        return self._request("reading", template, timeout)

    def taking(self, template: Fields, timeout: float | None = None) -> "RemoteRequest":
        """Send a `take` as such a request. The server holds the tuple until it is confirmed, cancelled, or we die."""
        return self._request("taking", template, timeout)

    def taking_all(self, template: Fields, limit: int | None = None) -> "RemoteBatch":
        """Return `take_all` as a request that holds the tuples until it is confirmed, cancelled, or we die."""
        pattern, wanted = _sendable(template), LONGEST_PAGE if limit is None else min(limit, LONGEST_PAGE)
        while True:
            call = Call(self._client, self.address, "taking_all", [pattern, wanted])
            try:
                return RemoteBatch(call)
            except CannotTravel:  # the server has put them back
                if wanted <= 1:
                    raise
                wanted = max(1, wanted // 8)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteSpace) and (self.identity, self.address) == (other.identity, other.address)

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<RemoteSpace {self.address.host}:{self.address.port}>"

    def _call(self, method: str, *args: Any) -> Any:
        return self._client.call(self.address, method, args)

    def _request(self, method: str, template: Fields, timeout: float | None) -> "RemoteRequest":
        within = None if timeout is None or type(timeout) not in (int, float) else timeout + PATIENCE
        return RemoteRequest(Call(self._client, self.address, method, [_sendable(template), timeout], within=within))

    def _lent(self, expires: Expiry) -> Any:
        if expires is None or isinstance(expires, int | float):
            return expires
        if not hasattr(type(expires), "renew"):
            return expires  # the server says what is wrong with it, or asks the proxy that it is
        return _Lent(expires, self._client)


class RemoteRequest:
    """A `read` or `take` that has been sent.

    As a context manager it confirms at the end of the block, and cancels when the block raises. `result` and `confirm`
    are for one thread, `cancel` for any.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def result(self) -> Any:
        """Wait for the tuple and return it.

        Raises:
            RequestExpired: there is none in time.
            RequestCanceled: it was cancelled, or the space closed.
            BadTemplate: the template is none.
            ConnectionLost: the server is gone. Nothing is taken then.
        """
        return self._receive("tuple", _is_tuple)

    def _receive(self, what: str, fits: Callable[[Any], bool]) -> Any:
        try:
            answer = self._call.result()
        except ConnectionLost as exc:
            exc.maybe_executed = False  # nothing is taken before we confirm
            raise
        if not fits(answer):
            self._call.cancel()
            if isinstance(answer, RemoteStream):
                answer.drop()
            raise BadMessage(f"no {what}: {answer!r:.100}")
        return answer

    def confirm(self) -> None:
        """Tell the server that the tuple has arrived, so that a taken one is gone.

        Raises:
            ConnectionLost: nobody knows whether the server was told; the error has the tuple as its `value`.
        """
        if self._call.held:
            self._call.confirm()

    def cancel(self) -> None:
        """Stop waiting, or give back what the server holds for us."""
        self._call.cancel()

    def __enter__(self) -> Any:
        return self.result()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.confirm()
        else:
            self.cancel()


class RemoteBatch(RemoteRequest):
    """A `take_all` that has been answered: the server holds the tuples. Confirm or cancel it as a `RemoteRequest`."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._tuples: list[Any] = self._receive("tuples", _are_tuples)

    def result(self) -> list[Any]:
        """Return the tuples, oldest first; none where nothing matched."""
        return self._tuples


class RemoteEntry:
    """What the writer of a tuple in a remote space holds of it. Each method is a call."""

    def __init__(self, space: RemoteSpace, number: int, fields: Fields) -> None:
        self._space, self._number, self._fields = space, number, fields

    @property
    def alive(self) -> bool:
        """Whether the tuple is in the space, as `Entry.alive`."""
        return bool(self._space._call("entry", self._number, "alive", None))

    def renew(self, expires: Expiry) -> bool:
        """Let the tuple live so many seconds from now, as `Entry.renew`. Return False where it is gone."""
        return bool(self._space._call("entry", self._number, "renew", self._space._lent(expires)))

    def cancel(self) -> bool:
        """Remove the tuple, as `Entry.cancel`. Return False where it is gone."""
        return bool(self._space._call("entry", self._number, "cancel", None))

    def __repr__(self) -> str:
        return f"<RemoteEntry {self._fields!r} in {self._space!r}>"


class RemoteEvents:
    """The events of a remote space, as `EventStream`. For one thread, `cancel` for any."""

    def __init__(self, stream: RemoteStream) -> None:
        self._stream = stream
        self._events: list[TupleEvent] = []
        self.closed = False

    def get(self, timeout: float | None = None) -> TupleEvent:
        """Return the next event.

        Raises:
            RequestExpired: none comes within `timeout` seconds.
            RequestCanceled: `close` has been fetched.
            ConnectionLost: the server is gone.
        """
        if self.closed:
            raise RequestCanceled("the stream is closed")
        if not self._events:
            try:
                batch = self._stream.next_batch(timeout)
            except TimeoutError:
                raise RequestExpired(f"no event in {timeout} s") from None
            try:
                self._events = [TupleEvent(*event) for event in reversed(batch or [["close", None]])]
            except TypeError as exc:
                self.drop()
                raise BadMessage(f"not events: {exc}") from exc
        event = self._events.pop()
        if event.kind == "close":
            self.closed = True
            self._stream.close()
        return event

    def __iter__(self) -> Iterator[TupleEvent]:
        while not self.closed:
            yield self.get()

    def cancel(self) -> bool:
        """End the stream with `close`. Return False if it had ended."""
        ended = self.closed
        self._stream.close()
        return not ended

    def drop(self) -> None:
        """End the stream and free its connection. For the thread that reads."""
        self.closed = True
        self._stream.drop()


@by_reference
class _Lent:
    """A renewer that is lent to the server for as long as it wants to be asked again."""

    def __init__(self, renewer: Any, client: Client) -> None:
        self._renewer, self._client = renewer, client

    def renew(self, stored: Stored) -> float:
        seconds, again = answer(self._renewer, stored)
        if again is not None:
            self._client.lend(self, keep=2 * seconds + PATIENCE)
        return seconds


def _page(answer: Any, after: int) -> tuple[list[Any], int | None]:
    """Return the tuples of a page, and where the next one begins. Raise `BadMessage` for what is no page."""
    if isinstance(answer, list) and len(answer) == 2 and isinstance(answer[0], list):
        tuples, following = answer
        if following is None or (type(following) is int and following > after):
            return tuples, following
    raise BadMessage(f"no page of tuples: {answer!r:.100}")


def _is_tuple(answer: Any) -> bool:
    return isinstance(answer, (tuple, dict))


def _are_tuples(answer: Any) -> bool:
    return isinstance(answer, list) and all(map(_is_tuple, answer))


def _sendable(template: Fields) -> Stored:
    """Return a template that means the same on the other side. Raise `CannotTravel` where there is none."""
    pattern = freeze(template, BadTemplate)
    for wanted in pattern.values() if isinstance(pattern, dict) else pattern:
        kind = type(wanted)
        if kind not in PLAIN and kind is not ForeignPattern and callable(getattr(kind, "matches", None)):
            raise CannotTravel(f"{wanted!r} cannot be sent: a pattern of one's own only matches where it is")
    return plain(pattern)

"""The remote protocol: which messages there are, who may send which of them when, and how they are written as bytes.

Nothing here touches a socket, a clock or a thread. Bytes go in and messages come out; `wire.py` connects this to a
socket. The idea, and the table that the documentation is checked against, are those of h11 (Nathaniel Smith).

A conversation has one state, which both sides know, and in each state exactly one side may send. A frame is a header of
eight bytes and a body: two bytes of magic, one for the version, one for the kind, four for the length of the body.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from discovery.errors import BadMessage, CannotTravel

__all__ = ["HEADER", "MAX_MESSAGE", "TRANSITIONS", "ConversationState", "Kind", "Message", "Protocol", "Role"]

MAX_MESSAGE = 16 * 1024 * 1024
"""The most bytes in the body of one message, where nothing else is asked for."""

MAGIC = b"\xabR"  # the first byte begins neither text nor TLS
VERSION = 1
HEADER = struct.Struct("!2sBBI")

_OURS = MAGIC, VERSION
_READ_AHEAD = 16_384  # as much as TLS delivers at once, so that nothing is left behind in its buffer
_PIECE = 1 << 20  # of a large body


class Role(IntEnum):
    """The two sides of a conversation."""

    CLIENT = 0
    SERVER = 1


class Kind(IntEnum):
    """The kinds of messages. The comment says what the body holds."""

    GREETING = 1  # nothing
    CALL = 2  # [object id, method, arguments, keyword arguments]
    RESULT = 3  # the answer; to CONFIRM None; to NEXT None, the end of the stream
    ERROR = 4  # the error that the method raised
    HOLD = 5  # an answer that the server keeps for the client until CONFIRM
    CONFIRM = 6  # nothing
    STREAM = 7  # nothing: the answer comes in batches
    NEXT = 8  # nothing
    BATCH = 9  # a list


class ConversationState(IntEnum):
    """The states of a conversation."""

    OPENING = 0  # the server greets, or closes the connection
    IDLE = 1  # the client may call
    CALLED = 2  # the method runs
    HELD = 3  # the client has an answer that is not its own yet
    CONFIRMED = 4  # the server lets go of what it held
    STREAMING = 5  # the client may ask for the next batch
    FETCHING = 6  # the server waits for something to send
    BROKEN = 7  # bytes arrived that are not allowed; neither side may send


_ANSWERED = {Kind.RESULT: ConversationState.IDLE, Kind.ERROR: ConversationState.IDLE}

TRANSITIONS: dict[ConversationState, tuple[Role, dict[Kind, ConversationState]]] = {
    ConversationState.OPENING: (Role.SERVER, {Kind.GREETING: ConversationState.IDLE}),
    ConversationState.IDLE: (Role.CLIENT, {Kind.CALL: ConversationState.CALLED}),
    ConversationState.CALLED: (
        Role.SERVER,
        {**_ANSWERED, Kind.HOLD: ConversationState.HELD, Kind.STREAM: ConversationState.STREAMING},
    ),
    ConversationState.HELD: (Role.CLIENT, {Kind.CONFIRM: ConversationState.CONFIRMED}),
    ConversationState.CONFIRMED: (Role.SERVER, _ANSWERED),
    ConversationState.STREAMING: (Role.CLIENT, {Kind.NEXT: ConversationState.FETCHING}),
    ConversationState.FETCHING: (Role.SERVER, {**_ANSWERED, Kind.BATCH: ConversationState.STREAMING}),
}
"""For each state: who may send, what, and the state that follows. Either side may close the connection at any time."""

_TURNS = {
    role: {state: allowed for state, (turn, allowed) in TRANSITIONS.items() if turn is role} for role in Role
}  # the same, for each side
_KINDS = {int(kind): kind for kind in Kind}  # quicker than to call `Kind`


class Message(NamedTuple):
    """A message that has arrived."""

    kind: Kind
    body: bytes | bytearray


class Protocol:
    """One side of a conversation.

    It holds at most one message, which is the one that is arriving. All work is linear in the number of bytes,
    whatever the pieces in which they arrive.

    Args:
        role: The side that this is. Only the other side's messages are accepted.
        limit: The most bytes that the body of a message may have, in either direction.
    """

    def __init__(self, role: Role, limit: int = MAX_MESSAGE) -> None:
        self.state = ConversationState.OPENING
        self.limit = limit
        self.partial = False  # whether a message has begun to arrive and is not complete
        self.wanted = _READ_AHEAD  # how many bytes it is best to ask the socket for
        self._role, self._ours, self._theirs = role, _TURNS[role], _TURNS[Role(1 - role)]
        self._partial = bytearray()  # of such a message
        self._size = 0  # of its whole frame, once its header is there

    def send(self, kind: Kind, body: bytes = b"") -> bytes:
        """Return the bytes of a message, which are to be sent now.

        Raises:
            CannotTravel: The body is longer than the limit. The state is as it was.
            RuntimeError: This side may not send that now, which is an error in the program.
        """
        allowed = self._ours.get(self.state, {})
        if kind not in allowed:
            raise RuntimeError(f"the {self._role.name.lower()} may not send {kind.name} when {self.state.name}")
        if len(body) > self.limit:
            raise CannotTravel(f"a message of {len(body)} bytes, of {self.limit} that are allowed")
        self.state = allowed[kind]
        return HEADER.pack(MAGIC, VERSION, kind, len(body)) + body

    def receive(self, data: bytes | bytearray) -> Message | None:
        """Take in bytes that have arrived, and return the message that they complete, if they do.

        They never hold more than one, since the turn then is ours. The header is checked as soon as it is there, before
        any of the body is kept.

        Raises:
            BadMessage: No honest peer sends these bytes now. Nothing can be sent or received any more.
        """
        allowed = self._theirs.get(self.state)
        if allowed and not self.partial and len(data) >= HEADER.size:
            magic, version, number, size = HEADER.unpack_from(data)
            if (
                (magic, version) == _OURS
                and number in allowed
                and size <= self.limit
                and len(data) == HEADER.size + size
            ):
                kind = _KINDS[number]  # a whole message in one piece, as nearly all are
                self.state = allowed[kind]
                return tuple.__new__(Message, (kind, data[HEADER.size :]))  # `Message(...)` is a call more
        try:
            return self._receive(data, allowed)
        except BadMessage:
            self.state = ConversationState.BROKEN
            self._partial, self.partial, self._size = bytearray(), False, 0
            raise

    def _receive(self, data: bytes | bytearray, allowed: dict[Kind, ConversationState] | None) -> Message | None:
        if allowed is None:
            raise BadMessage(f"bytes that arrive out of turn, when {self.state.name}: {bytes(data[:8])!r}")
        frame = data
        if self.partial:
            self._partial += data
            frame = self._partial
        size = self._size or _frame_size(frame, allowed, self.limit)
        if not size or len(frame) < size:
            if frame is data:
                self._partial += data
            self.partial, self._size = True, size
            self.wanted = min(size - len(frame), _PIECE) if size else _READ_AHEAD
            return None
        if len(frame) > size:
            raise BadMessage(f"{len(frame) - size} bytes more than one message")
        kind = _KINDS[frame[3]]
        if frame is data:
            body = data[HEADER.size :]
        else:
            body, self._partial = self._partial, bytearray()
            del body[: HEADER.size]
            self.partial, self.wanted, self._size = False, _READ_AHEAD, 0
        self.state = allowed[kind]
        return Message(kind, body)


def _frame_size(frame: bytes | bytearray, allowed: dict[Kind, ConversationState], limit: int) -> int:
    """Return the size of the whole frame that begins like this, 0 while that is unknown; `BadMessage` for no frame."""
    magic = frame[: len(MAGIC)]
    if magic != MAGIC and not MAGIC.startswith(magic):
        raise BadMessage(f"not one of our messages: it begins with {bytes(frame[:8])!r}")
    if len(frame) < HEADER.size:
        return 0
    size: int
    _, version, kind, size = HEADER.unpack_from(frame)
    if version != VERSION:
        raise BadMessage(f"version {version} of the protocol, and this is version {VERSION}")
    if kind not in allowed:
        name = Kind(kind).name if kind in Kind.__members__.values() else f"a message of kind {kind}"
        raise BadMessage(f"{name}, where only {' or '.join(each.name for each in allowed)} may arrive")
    if size > limit:
        raise BadMessage(f"a message of {size} bytes, of {limit} that are allowed")
    return HEADER.size + size

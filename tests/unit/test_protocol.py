"""The remote protocol without a socket: allowed messages arrive in pieces of any size, anything else is one error."""

import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from discovery.errors import BadMessage, CannotTravel
from discovery.remote.protocol import (
    HEADER,
    MAGIC,
    TRANSITIONS,
    VERSION,
    ConversationState,
    Kind,
    Message,
    Protocol,
    Role,
)

DESIGN = Path(__file__).parents[2] / "docs/design.md"
LIMIT = 1000
EVERY_PLACE = [(state, role) for state in TRANSITIONS for role in Role]


def frame(kind: int, body: bytes = b"", size: int | None = None) -> bytes:
    return HEADER.pack(MAGIC, VERSION, kind, len(body) if size is None else size) + body


def pair(state: ConversationState = ConversationState.OPENING) -> tuple[Protocol, Protocol]:
    """Both sides, in a state; indexed by role."""
    sides = Protocol(Role.CLIENT, LIMIT), Protocol(Role.SERVER, LIMIT)
    for side in sides:
        side.state = state
    return sides


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    return [data[a:b] for a, b in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]) if a < b]


def test_the_documented_table_is_the_real_one() -> None:
    """docs/design.md shows for each state who may send what, and what state follows."""
    rows = re.findall(r"^\| `([A-Z]+)` \| (client|server) \| (.*) \|$", DESIGN.read_text(), re.MULTILINE)
    documented = {state: (who, dict(re.findall(r"`([A-Z]+)` → `([A-Z]+)`", moves))) for state, who, moves in rows}
    assert documented == {
        state.name: (turn.name.lower(), {kind.name: then.name for kind, then in allowed.items()})
        for state, (turn, allowed) in TRANSITIONS.items()
    }


def test_every_kind_and_every_state_is_used() -> None:
    """The table has nothing that cannot be reached or sent."""
    moves = [move for _, allowed in TRANSITIONS.values() for move in allowed.items()]
    assert {kind for kind, _ in moves} == set(Kind)
    assert {ConversationState.OPENING, ConversationState.BROKEN} | {state for _, state in moves} == set(
        ConversationState
    )
    for kind in Kind:  # so that a kind says who sends it
        assert len({turn for turn, allowed in TRANSITIONS.values() if kind in allowed}) == 1


@pytest.mark.parametrize(("state", "role"), EVERY_PLACE, ids=lambda value: value.name)
def test_what_may_be_sent_and_received(state: ConversationState, role: Role) -> None:
    """In each state each side may send what the table says; else it is our error to send it and theirs to have sent."""
    turn, allowed = TRANSITIONS[state]
    for kind in Kind:
        if turn is role and kind in allowed:
            us, them = pair(state)[role], pair(state)[1 - role]
            assert them.receive(us.send(kind, b"body")) == Message(kind, b"body")
            assert us.state is them.state is allowed[kind]
        else:
            us, them = pair(state)[role], pair(state)[1 - role]
            with pytest.raises(RuntimeError, match=f"may not send {kind.name} when {state.name}"):
                us.send(kind)
            assert us.state is state
            with pytest.raises(BadMessage):
                them.receive(frame(kind))
            assert them.state is ConversationState.BROKEN


def test_what_is_broken_stays_broken() -> None:
    """After bytes that are not allowed nothing can be received or sent, and nothing is kept."""
    server = pair()[Role.SERVER]
    server.send(Kind.GREETING)
    with pytest.raises(BadMessage, match="begins with b'GET / HT'"):
        server.receive(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(BadMessage):
        server.receive(frame(Kind.CALL))
    with pytest.raises(RuntimeError, match="BROKEN"):
        server.send(Kind.RESULT)
    assert not server.partial


@pytest.mark.parametrize("data", [b"G", b"\x16\x03\x01", MAGIC[:1] + b"x", b"\0"])
def test_a_wrong_beginning_is_refused_without_waiting_for_the_rest(data: bytes) -> None:
    """The first byte of HTTP or TLS is enough."""
    with pytest.raises(BadMessage, match="not one of our messages"):
        pair(ConversationState.IDLE)[Role.SERVER].receive(data)


@pytest.mark.parametrize("size", [LIMIT + 1, 2**31, 2**32 - 1])
def test_a_length_is_refused_before_any_of_the_body(size: int) -> None:
    """The header alone is enough, at whatever byte it ends."""
    server = pair(ConversationState.IDLE)[Role.SERVER]
    header = frame(Kind.CALL, size=size)
    for byte in header[:-1]:
        assert server.receive(bytes([byte])) is None
    with pytest.raises(BadMessage, match=f"{size} bytes, of 1000 that are allowed"):
        server.receive(header[-1:])
    with pytest.raises(CannotTravel, match="1001 bytes, of 1000"):
        pair(ConversationState.IDLE)[Role.CLIENT].send(Kind.CALL, b"x" * (LIMIT + 1))


def test_a_message_that_was_too_long_to_send_changes_nothing() -> None:
    """Nothing has been sent, so the client may send something else."""
    client = pair(ConversationState.IDLE)[Role.CLIENT]
    with pytest.raises(CannotTravel):
        client.send(Kind.CALL, b"x" * (LIMIT + 1))
    assert client.send(Kind.CALL, b"x" * LIMIT)


def test_one_message_after_the_other() -> None:
    """Each has its own length, and a byte more than one of them is out of turn."""
    client, server = pair(ConversationState.IDLE)
    for size in (5, 900, 0):
        assert server.receive(client.send(Kind.CALL, bytes(size))) == Message(Kind.CALL, bytes(size))
        assert client.receive(server.send(Kind.RESULT, b"x")) == Message(Kind.RESULT, b"x")
    with pytest.raises(BadMessage, match="3 bytes more than one message"):
        server.receive(client.send(Kind.CALL, b"body") + b"abc")


def test_nothing_is_kept_of_what_is_refused() -> None:
    """Half a message is forgotten as soon as the rest of it is wrong."""
    server = pair(ConversationState.IDLE)[Role.SERVER]
    assert server.receive(frame(Kind.CALL, b"x" * 500)[:400]) is None
    assert server.partial
    with pytest.raises(BadMessage):
        server.receive(b"x" * 500)
    assert not server.partial


@given(st.data())
def test_a_conversation_in_any_pieces(data: st.DataObject) -> None:
    """Whatever the table allows arrives as it was sent, wherever it is cut, and both sides agree on the state."""
    sides = pair()
    for _ in range(data.draw(st.integers(1, 12))):
        state = sides[0].state
        turn, allowed = TRANSITIONS[state]
        kind, body = data.draw(st.sampled_from(list(allowed))), data.draw(st.binary(max_size=40))
        sent = sides[turn].send(kind, body)
        *most, last = [sides[1 - turn].receive(piece) for piece in pieces(sent, data.draw(st.lists(st.integers(0))))]
        arrived = [message for message in [*most, last] if message is not None]
        assert [(message.kind, bytes(message.body)) for message in arrived] == [(kind, body)]
        assert sides[0].state is sides[1].state is allowed[kind]
        assert not sides[1 - turn].partial


def test_a_byte_at_a_time() -> None:
    """Two megabytes in as many pieces: were the work quadratic, this would take hours."""
    size = 2_000_000
    server = Protocol(Role.SERVER, size)
    server.state = ConversationState.IDLE
    data = frame(Kind.CALL, bytes(size))
    for at in range(len(data) - 1):
        server.receive(data[at : at + 1])
    message = server.receive(data[-1:])
    assert message is not None
    assert len(message.body) == size


@pytest.mark.parametrize(("state", "role"), EVERY_PLACE, ids=lambda value: value.name)
def test_mutations(state: ConversationState, role: Role) -> None:
    """Frames with bytes changed, added or left out, in every state of both sides: a message or a `BadMessage`."""
    dice = random.Random(state * 2 + role)
    for _ in range(2000):
        side = pair(state)[role]
        data = bytearray(frame(dice.choice(list(Kind)), dice.randbytes(dice.choice([0, 3, 900]))))
        for _ in range(dice.randrange(4)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(3)] = dice.randbytes(dice.randrange(3)) or data[at : at + 2]
        try:
            for piece in pieces(bytes(data), [dice.randrange(2**16) for _ in range(dice.randrange(4))]):
                message = side.receive(piece)
                assert message is None or message.kind in TRANSITIONS[state][1]
        except BadMessage:
            assert side.state is ConversationState.BROKEN


class Conversation(RuleBasedStateMachine):
    """A client and a server of ours, and somebody between them who adds bytes of his own."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = pair()
        self.under_way = [bytearray(), bytearray()]  # to each of the sides

    @rule(kind=st.sampled_from(Kind), role=st.sampled_from(Role), body=st.binary(max_size=LIMIT + 20))
    def send(self, kind: Kind, role: Role, body: bytes) -> None:
        side = self.sides[role]
        turn, allowed = TRANSITIONS.get(side.state, (None, {}))
        may = turn is role and kind in allowed
        try:
            self.under_way[1 - role] += side.send(kind, body)
            assert may
            assert len(body) <= LIMIT
        except CannotTravel:
            assert may
            assert len(body) > LIMIT
        except RuntimeError:
            assert not may

    @rule(role=st.sampled_from(Role), data=st.binary(max_size=20) | st.sampled_from(Kind).map(frame))
    def meddle(self, role: Role, data: bytes) -> None:
        self.under_way[role] += data

    @precondition(lambda self: any(self.under_way))
    @rule(role=st.sampled_from(Role), size=st.integers(1, 2 * LIMIT))
    def arrive(self, role: Role, size: int) -> None:
        side, before = self.sides[role], self.sides[role].state
        data = bytes(self.under_way[role][:size])
        del self.under_way[role][:size]
        if not data:
            return
        try:
            message = side.receive(data)
        except BadMessage:
            assert side.state is ConversationState.BROKEN
            return
        assert side.state is (before if message is None else TRANSITIONS[before][1][message.kind])
        assert TRANSITIONS[before][0] is not role

    @invariant()
    def little_is_kept(self) -> None:
        for side in self.sides:
            assert len(side._partial) < HEADER.size + LIMIT
            assert side.wanted > 0


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_conversation = Conversation.TestCase

"""Tuples and templates of strangers: they harm nobody's requests but their own."""

import decimal
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from discovery.errors import BadTemplate
from discovery.patterns import BURST, ForeignPattern
from discovery.remote import Address, Client
from discovery.rings import RemoteSpace, RingServer
from discovery.tuples.space import TupleSpace
from tests.security.budget import cpu
from tests.waiting import DEADLINE

ENDLESS = [
    re.compile("(a|a)*$"),
    re.compile("(?=(a+)+$)"),
    re.compile(r"^(\w+\s?)*$"),
    re.compile(b"(a|a)*$"),
]


def ring(server: RingServer, client: Client) -> RemoteSpace:
    return RemoteSpace(client, Address("ring", "127.0.0.1", server.port))


@pytest.mark.parametrize("pattern", ENDLESS, ids=repr)
def test_a_pattern_that_backtracks_fails_its_request_alone(pattern: re.Pattern[Any]) -> None:
    """It would search for years. Its request fails, in one read and as one that waits, and others go on."""
    text: Any = "a" * 20_000 + "!"
    if isinstance(pattern.pattern, bytes):
        text = text.encode()
    with RingServer(port=0, host="127.0.0.1", announce=False) as server, Client() as client, cpu(20 * BURST + 2.0):
        space = ring(server, client)
        waiting = space.taking((pattern, "later"), DEADLINE)
        space.write((text, "now"))
        with pytest.raises(BadTemplate, match="too long"):
            space.read((pattern, "now"), 0)
        space.write((text, "later"))
        with pytest.raises(BadTemplate, match="too long"):
            waiting.result()
        assert space.take((None, "later"), DEADLINE)[1] == "later"


def test_other_threads_run_while_a_pattern_searches() -> None:
    """The interpreter is not locked: a thread counts on meanwhile."""
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.wait(0.001):
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    with pytest.raises(BadTemplate, match="too long"):
        ForeignPattern("(a|a)*$", 0).matches("a" * 40 + "!")
    seen = counted[0]
    stop.set()
    thread.join(DEADLINE)
    assert seen >= 2


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (re.compile("^job-[0-9]{3}$"), "job-017"),
        (re.compile("job", re.IGNORECASE), "a JOB"),
        (re.compile("^b.c$", re.MULTILINE | re.DOTALL), "a\nb\nc\nd"),
        (re.compile("a b # c", re.VERBOSE), "ab"),
        (re.compile(r"\w", re.ASCII), "éa"),
        (re.compile(r"^\w$"), "é"),
        (re.compile(r"(\w)\1"), "hello"),
        (re.compile(r"(?<=a)b(?!c)"), "abd"),
        (re.compile(rb"a\x00"), b"a\x00"),
        (re.compile(r"\{x\}"), "{x}"),
    ],
)  # fmt: skip
def test_a_pattern_means_the_same_there(pattern: re.Pattern[Any], text: Any) -> None:
    """Flags and syntax are those of `re`, and only texts of its own kind are searched."""
    foreign = ForeignPattern(pattern.pattern, pattern.flags)
    other = text.encode() if isinstance(text, str) else text.decode()
    for value in (text, text[:-1], text * 2, other, 1, None):
        assert foreign.matches(value) == (isinstance(value, type(text)) and pattern.search(value) is not None)


@pytest.mark.parametrize("text", ["a{e}", "(?:abc){e<=2}", "[[:alpha:]]", "("])
def test_what_means_something_else_there_is_refused(text: str) -> None:
    """The other engine reads more into braces; one who means braces writes a backslash."""
    with pytest.raises(Exception, match=r"backslash|missing"):
        ForeignPattern(text, 0).matches("abc")


def test_a_pattern_may_search_many_texts() -> None:
    """Its time grows with each of them, so that one that is quick searches any number."""
    foreign = ForeignPattern("x$", 0)
    with cpu(10.0):
        assert not any(foreign.matches("text") for _ in range(50_000))


class Raises:
    """What cannot be compared, nor hashed."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError

    def __hash__(self) -> int:
        raise ArithmeticError

    def __repr__(self) -> str:
        return "Raises()"


@pytest.mark.parametrize("poison", [decimal.Decimal("sNaN"), Raises(), (1, decimal.Decimal("sNaN"))], ids=repr)
@pytest.mark.parametrize("literal", [decimal.Decimal(1), 1, (1, decimal.Decimal(1)), [1]], ids=repr)
def test_a_comparison_that_raises_is_no_match(poison: Any, literal: Any) -> None:
    """A tuple that cannot be compared is passed over by all but those who ask for anything."""
    with TupleSpace() as space:
        space.write(("job", poison))
        space.write(("job", literal))
        assert space.read_all(("job", literal)) == [("job", literal)]
        waiting = space.taking(("later", literal), DEADLINE)
        events = space.notify("write", ("later", literal))
        space.write(("later", poison))
        space.write(("later", literal))
        assert waiting.result() == ("later", literal)
        assert events.get(DEADLINE).tuple == ("later", literal)
        assert space.take(("job", None), 0)[1] is poison


def put(taken: Any) -> None:
    pass


@pytest.mark.parametrize("take", [TupleSpace.take, lambda *args: TupleSpace.move(args[0], put, *args[1:])])
def test_ctrl_c_leaves_no_taker_behind(take: Callable[..., Any]) -> None:
    """Wherever a `take` that waits is interrupted, no request is left that is given a tuple which nobody gets.

    It is interrupted at each line in turn, up to the one that waits. The few lines that take and release the lock are
    left out.
    """
    places: list[tuple[str, int]] = []
    waiting = False
    while not waiting:
        with TupleSpace(background=False) as space:
            name, line, waiting = interrupted(take, space, places)
            places.append((name, line))
            space.write(("job",))
            assert space.read_all(("job",)) == [("job",)], places[-1]
            assert len(space._state.takers) == 0
    assert len(places) > 15


def test_ctrl_c_in_a_take_of_many_takes_nothing() -> None:
    """Wherever a `take_all` is interrupted before it confirms, all of its tuples are back."""
    places: list[tuple[str, int]] = []
    confirming = False
    while not confirming:
        with TupleSpace(background=False) as space:
            space.write_all([("job",)] * 3)
            take_all = lambda space, template, _: space.take_all(template)  # noqa: E731
            name, line, confirming = interrupted(take_all, space, places, "confirm")
            places.append((name, line))
            assert space.take_all(("job",)) == [("job",)] * 3, places[-1]
    assert len(places) > 10


def interrupted(
    take: Callable[..., Any], space: TupleSpace, known: list[tuple[str, int]], last: str = "wait"
) -> tuple[str, int, bool]:
    """Interrupt a `take` at the first line that is not known; return where, and whether it is the `last` method."""
    reached: list[tuple[str, int, bool]] = []

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        name, method = Path(frame.f_code.co_filename).name, frame.f_code.co_name
        if name not in ("space.py", "requests.py", "state.py") or method in ("__enter__", "__exit__"):
            return None
        if event == "line" and not reached and (name, frame.f_lineno) not in known:
            reached.append((name, frame.f_lineno, method == last))
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            take(space, ("job",), DEADLINE)
    finally:
        sys.settrace(before)
    return reached[0]

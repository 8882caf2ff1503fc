"""What matches what."""

import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest

from discovery.errors import BadTemplate
from discovery.tuples import Template
from discovery.tuples.template import freeze

Point = namedtuple("Point", "x y")


@dataclass
class AtLeast:
    """A pattern of one's own."""

    least: int

    def matches(self, value: object) -> bool:
        return isinstance(value, int) and value >= self.least


class Unhelpful:
    def matches(self, value: object) -> bool:
        raise RuntimeError("out of order")


class Faraway:
    """Minds being asked for `matches`, as a proxy would that goes over the network for it."""

    def __getattr__(self, name: str) -> object:
        assert name != "matches"
        raise AttributeError(name)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        (None, "anything", True),
        (None, None, True),
        ("a", "a", True),
        ("a", "b", False),
        ("1", 1, False),
        (1, 1.0, True),
        (1.0, 1, True),
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ({"a": 1}, {"a": 1}, True),
        (frozenset({1}), {1}, True),
        (float("nan"), float("nan"), False),
        (b"a", "a", False),
        (str, "a", True),
        (str, 1, False),
        (int, 1, True),
        (int, True, False),
        (int, int, True),
        (bool, True, True),
        (bool, 1, False),
        (float, 1, False),
        (object, True, True),
        (object, None, True),
        (type(None), None, True),
        (type(None), 0, False),
        (Exception, ValueError("a subclass"), True),
        (Exception, Exception, True),
        (range(1, 10), 1, True),
        (range(1, 10), 10, False),
        (range(1, 10), 9.0, True),
        (range(1, 10), 8.5, False),
        (range(10**18), 0.5, False),
        (range(0, 10, 5), 4, False),
        (range(10), True, False),
        (range(10), "1", False),
        (range(10), float("inf"), False),
        (re.compile("or"), "world", True),
        (re.compile("^or"), "world", False),
        (re.compile(b"or"), b"world", True),
        (re.compile(b"or"), "world", False),
        (re.compile("1"), 1, False),
        (AtLeast(5), 5, True),
        (AtLeast(5), 4, False),
        (Faraway(), 1, False),
        (AtLeast, AtLeast(1), True),
    ],
)
def test_a_field_matches_as_the_table_says(pattern: object, value: object, expected: bool) -> None:
    """Literals match what equals them, bools only bools; everything else matches what it describes."""
    assert Template((pattern,)).matches((value,)) is expected


def test_sizes_must_match() -> None:
    """A template with a field more or less than the tuple does not match it."""
    assert Template(()).matches(())
    assert not Template((None,)).matches(())
    assert not Template((None,)).matches((1, 2))


def test_mappings_must_have_the_same_keys() -> None:
    """A mapping template matches exactly the mappings with its keys, in any order, and no sequence."""
    template = Template(OrderedDict(name="hello", port=int))
    assert template.matches({"port": 1, "name": "hello"})
    assert not template.matches({"name": "hello"})
    assert not template.matches({"name": "hello", "port": 1, "host": "a"})
    assert not template.matches({"name": "hello", "host": 1})
    assert not template.matches(("hello", 1))
    assert not Template((None, None)).matches({"name": "hello", "port": 1})


def test_lists_and_named_tuples_are_sequences() -> None:
    """A list, a tuple and a named tuple of the same fields are the same template."""
    assert all(Template(pattern).matches(Point(1, 2)) for pattern in ([1, None], (1, None), Point(1, None)))


@pytest.mark.parametrize("bad", ["text", b"bytes", 5, None, {1: 2}, {"a", "b"}, object()])
def test_what_is_no_template_is_refused_by_name(bad: object) -> None:
    """Anything but a sequence or a mapping with string keys raises, and the message shows it."""
    with pytest.raises(BadTemplate, match=re.escape(repr(bad))):
        Template(bad)  # type: ignore[arg-type]


def test_a_pattern_that_raises_is_named() -> None:
    """An error inside a pattern of one's own comes as BadTemplate that says which field, which pattern and what."""
    with pytest.raises(BadTemplate, match=r"field 1 .*Unhelpful.*out of order"):
        Template((None, Unhelpful())).matches((1, 2))


def test_a_template_is_a_copy() -> None:
    """Changing the list that a template was made from changes nothing."""
    fields = ["a", None]
    template = Template(fields)
    fields[0] = "b"
    assert template.matches(("a", 1))
    assert freeze(fields) == ("b", None)

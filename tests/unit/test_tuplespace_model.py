"""A tuple space against a model of it that is slow and obvious: lists, searched from the front."""

from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from discovery import TupleSpace
from discovery.errors import RequestExpired
from discovery.tuples import Entry, EventStream, Request
from tests.clock import HandClock

NAMES = ("a",)
VALUES = (1, True, [1])  # few, so that much matches


def matches(template: Any, fields: Any) -> bool:
    """The meaning of a template, for the patterns that are tried here."""
    if type(template) is not type(fields) or len(template) != len(fields):
        return False
    if isinstance(fields, dict):
        return template.keys() == fields.keys() and all(fits(template[key], fields[key]) for key in fields)
    return all(map(fits, template, fields))


def fits(wanted: Any, value: Any) -> bool:
    if wanted is None:
        return True
    if wanted is int:
        return type(value) is int
    return type(wanted) is type(value) and bool(wanted == value)


@dataclass
class Thing:
    """A tuple, a request or a stream in the model, beside its real counterpart."""

    real: Any
    fields: Any
    due: float
    stamp: int  # of things due at the same time, the one whose deadline was set first is dealt with first
    kind: str
    state: str
    got: "Thing | None" = None
    events: list[tuple[str, Any]] = field(default_factory=list)


class Model:
    """The same semantics, naively."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stamps = count()
        self.tuples: list[Thing] = []
        self.requests: list[Thing] = []
        self.streams: list[Thing] = []

    def add(self, things: list[Thing], real: Any, fields: Any, seconds: float | None, kind: str, state: str) -> Thing:
        due = inf if seconds is None else self.now + seconds
        things.append(Thing(real, fields, due, next(self.stamps), kind, state))
        return things[-1]

    def settle(self) -> None:
        """Whatever is due happens, in the order in which it was due."""
        live = [thing for thing in self.tuples + self.requests + self.streams if thing.state in ("there", "waiting")]
        for thing in sorted((t for t in live if t.due <= self.now), key=lambda t: (t.due, t.stamp)):
            self.end(thing)

    def end(self, thing: Thing) -> None:
        thing.state = "gone"
        if thing in self.tuples:
            self.tell("delete", thing.fields)
        elif thing in self.streams:
            thing.events.append(("close", None))

    def tell(self, kind: str, fields: Any) -> None:
        for stream in self.streams:
            if stream.state == "there" and stream.kind in (kind, "all") and matches(stream.fields, fields):
                stream.events.append((kind, fields))

    def visible(self, template: Any) -> list[Thing]:
        return [t for t in self.tuples if t.state == "there" and t.due > self.now and matches(template, t.fields)]

    def serve(self) -> None:
        """Readers first, then takers, each in the order in which they came."""
        for kind in ("read", "take"):
            for request in self.requests:
                if request.state == "waiting" and request.kind == kind and (found := self.visible(request.fields)):
                    request.got = found[0]
                    request.state = "done" if kind == "read" else "held"
                    if kind == "take":
                        found[0].state = "held"


def values(*more: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(VALUES + more)


def shapes(*more: Any) -> st.SearchStrategy[Any]:
    """Tuples, and with None and types among the values, templates."""
    names = st.sampled_from(NAMES + more[:1])
    return st.one_of(
        st.tuples(names, values(*more)),
        st.fixed_dictionaries({"name": names, "value": values(*more)}),
    )


written = shapes()
templates = shapes(None, int)
seconds = st.sampled_from([None, 0, 1, 2, 3])


class SpaceMachine(RuleBasedStateMachine):
    """Everything that can be done to a space, done to both."""

    tuples: Bundle[Thing] = Bundle("tuples")
    requests: Bundle[Thing] = Bundle("requests")
    streams: Bundle[Thing] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.space = TupleSpace(self.clock, background=False)
        self.model = Model()

    @rule(target=tuples, fields=written, expires=seconds)
    def write(self, fields: Any, expires: float | None) -> Thing:
        entry = self.space.write(fields, expires)
        thing = self.model.add(self.model.tuples, entry, fields, expires, "tuple", "there")
        self.model.tell("write", fields)
        self.model.serve()
        return thing

    @rule(template=templates, takes=st.booleans())
    def now_or_never(self, template: Any, takes: bool) -> None:
        found = self.model.visible(template)
        try:
            got = self.space.take(template, 0) if takes else self.space.read(template, 0)
        except RequestExpired:
            assert not found
            return
        assert got == found[0].fields
        if takes:
            found[0].state = "gone"
            self.model.tell("take", got)

    @rule(target=requests, template=templates, timeout=seconds, takes=st.booleans())
    def ask(self, template: Any, timeout: float | None, takes: bool) -> Thing:
        request = self.space.taking(template, timeout) if takes else self.space.reading(template, timeout)
        kind = "take" if takes else "read"
        thing = self.model.add(self.model.requests, request, template, timeout, kind, "waiting")
        self.model.serve()
        return thing

    @rule(thing=requests)
    def cancel_request(self, thing: Thing) -> None:
        assert thing.real.cancel() is (thing.state in ("waiting", "held"))
        if thing.state == "held" and thing.got is not None:
            thing.got.state, thing.got.stamp = "there", next(self.model.stamps)
        if thing.state in ("waiting", "held"):
            thing.state = "gone"
        self.model.serve()

    @rule(thing=requests)
    def confirm(self, thing: Thing) -> None:
        if thing.state == "held" and thing.got is not None:
            thing.real.confirm()
            thing.state, thing.got.state = "done", "gone"
            self.model.tell("take", thing.got.fields)

    @rule(thing=tuples, expires=seconds)
    def renew(self, thing: Thing, expires: float | None) -> None:
        alive = thing.state != "gone" and thing.due > self.model.now
        assert thing.real.renew(expires) is alive
        if alive:
            thing.due = inf if expires is None else self.model.now + expires
            thing.stamp = next(self.model.stamps)

    @rule(thing=tuples)
    def cancel_tuple(self, thing: Thing) -> None:
        assert thing.real.cancel() is (thing.state == "there")
        if thing.state == "held":
            thing.due = self.model.now
        elif thing.state == "there":
            self.model.end(thing)

    @rule(target=streams, kind=st.sampled_from(["write", "take", "delete", "all"]), template=templates, expires=seconds)
    def listen(self, kind: Any, template: Any, expires: float | None) -> Thing:
        stream = self.space.notify(None if kind == "all" else kind, template, expires)
        return self.model.add(self.model.streams, stream, template, expires, kind, "there")

    @rule(thing=streams)
    def cancel_stream(self, thing: Thing) -> None:
        assert thing.real.cancel() is (thing.state == "there")
        if thing.state == "there":
            self.model.end(thing)

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @invariant()
    def both_agree(self) -> None:
        self.space.sweep()
        self.model.settle()
        for template in ((None, None), {"name": None, "value": None}):
            assert self.space.read_all(template) == [thing.fields for thing in self.model.visible(template)]
        assert len(self.space) == sum(thing.state != "gone" for thing in self.model.tuples)
        for thing in self.model.tuples:
            entry: Entry = thing.real
            assert entry.alive is (thing.state != "gone" and thing.due > self.model.now)
        for thing in self.model.requests:
            request: Request = thing.real
            assert request.state == ("failed" if thing.state == "gone" else thing.state)
            assert thing.got is None or request.answer == thing.got.fields
        for thing in self.model.streams:
            stream: EventStream = thing.real
            while thing.events:
                assert stream.get(timeout=0)[:2] == thing.events.pop(0)
            assert not stream._events


TestSpaceAgainstModel = SpaceMachine.TestCase
TestSpaceAgainstModel.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)

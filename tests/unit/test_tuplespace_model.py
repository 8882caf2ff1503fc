"""A tuple space, and its pure state alone, against a model that is slow and obvious: lists, searched from the front."""

from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from discovery import TupleSpace
from discovery.errors import RequestCanceled, RequestExpired
from discovery.tuples import TupleEvent
from discovery.tuples.state import Batch, EventListener, Item, SpaceState, Waiter
from discovery.tuples.template import Template, freeze, thaw
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
    batch: "list[Thing]" = field(default_factory=list)
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


class BareSpace:
    """A `SpaceState` behind the methods of a `TupleSpace` that are tried here, with nothing in between."""

    def __init__(self, now: Any) -> None:
        self._now = now
        self._state: SpaceState[BareRequest, BareStream] = SpaceState()

    @property
    def state(self) -> "SpaceState[BareRequest, BareStream]":
        """The state as it is now, after its events have gone to their streams."""
        self._state.settle(self._now())
        for stream, event in self._state.events:
            stream.events.append(event)
        self._state.events.clear()
        return self._state

    def write(self, fields: Any, seconds: float | None) -> "BareEntry":
        entry = BareEntry(self, freeze(fields))
        self.state.write(entry, forever(seconds), None, self._now())
        return entry

    def request(self, template: Any, seconds: float | None, takes: bool) -> "BareRequest":
        request = BareRequest(self, Template(template), takes)
        self.state.ask(request, forever(seconds), self._now())
        return request

    def reading(self, template: Any, seconds: float | None) -> "BareRequest":
        return self.request(template, seconds, False)

    def taking(self, template: Any, seconds: float | None) -> "BareRequest":
        return self.request(template, seconds, True)

    def taking_all(self, template: Any, limit: int | None) -> "BareBatch":
        batch = BareBatch(self)
        self.state.hold_all(batch, Template(template), limit, self._now())
        return batch

    def read(self, template: Any, seconds: float) -> Any:
        return self.reading(template, seconds).result()

    def take(self, template: Any, seconds: float) -> Any:
        request = self.taking(template, seconds)
        answer = request.result()
        request.confirm()
        return answer

    def read_all(self, template: Any) -> list[Any]:
        return [thaw(item.stored) for item in self.state.find_all(Template(template), self._now())]

    def notify(self, kind: Any, template: Any, seconds: float | None) -> "BareStream":
        stream = BareStream(self, kind, Template(template))
        self.state.listen(stream, forever(seconds), self._now())
        return stream

    def sweep(self) -> None:
        assert not self.state.to_ask

    def __len__(self) -> int:
        return len(self.state.items)


class BareEntry(Item):
    def __init__(self, space: BareSpace, stored: Any) -> None:
        super().__init__(stored)
        self.space = space

    @property
    def alive(self) -> bool:
        return self.listed and self.expires > self.space._now()

    def renew(self, seconds: float | None) -> bool:
        return self.space.state.renew(self, forever(seconds), None, self.space._now())

    def cancel(self) -> bool:
        return self.space.state.withdraw(self, self.space._now())


class BareRequest(Waiter):
    def __init__(self, space: BareSpace, template: Template, takes: bool) -> None:
        super().__init__(template, takes)
        self.space = space

    def cancel(self) -> bool:
        return self.space.state.cancel(self, self.space._now())

    def confirm(self) -> None:
        self.space.state.confirm(self)

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer


class BareBatch(Batch):
    def __init__(self, space: BareSpace) -> None:
        super().__init__()
        self.space = space

    def cancel(self) -> bool:
        return self.space.state.cancel_all(self, self.space._now())

    def confirm(self) -> None:
        self.space.state.confirm_all(self)

    def result(self) -> list[Any]:
        return [thaw(item.stored) for item in self.items]


class BareStream(EventListener):
    def __init__(self, space: BareSpace, kind: Any, template: Template) -> None:
        super().__init__(kind, template)
        self.space = space
        self.events: list[TupleEvent] = []

    def cancel(self) -> bool:
        return self.space.state.leave(self)

    def get(self, timeout: float) -> TupleEvent:
        assert self.space.state.events == []
        if not self.events:
            raise RequestExpired
        return self.events.pop(0)


def forever(seconds: float | None) -> float:
    return inf if seconds is None else seconds


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

    kind: Any = staticmethod(lambda clock: TupleSpace(clock, background=False))

    tuples: Bundle[Thing] = Bundle("tuples")
    requests: Bundle[Thing] = Bundle("requests")
    batches: Bundle[Thing] = Bundle("batches")
    streams: Bundle[Thing] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.space = self.kind(self.clock)
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

    @rule(target=batches, template=templates, limit=st.sampled_from([None, 0, 1, 2]))
    def hold_all(self, template: Any, limit: int | None) -> Thing:
        real = self.space.taking_all(template, limit)
        thing = self.model.add([], real, template, None, "batch", "held")
        thing.batch = self.model.visible(template)[:limit]
        for each in thing.batch:
            each.state = "held"
        assert real.result() == [each.fields for each in thing.batch]
        return thing

    @rule(thing=batches)
    def cancel_batch(self, thing: Thing) -> None:
        assert thing.real.cancel() is (thing.state == "held")
        for each in thing.batch if thing.state == "held" else ():
            each.state, each.stamp = "there", next(self.model.stamps)
        if thing.state == "held":
            thing.state = "gone"
        self.model.serve()

    @rule(thing=batches)
    def confirm_batch(self, thing: Thing) -> None:
        if thing.state == "held":
            thing.real.confirm()
            thing.state = "done"
            for each in thing.batch:
                each.state = "gone"
                self.model.tell("take", each.fields)

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
            assert thing.real.alive is (thing.state != "gone" and thing.due > self.model.now)
        for thing in self.model.requests:
            assert thing.real.state == ("failed" if thing.state == "gone" else thing.state)
            assert thing.got is None or thing.real.answer == thing.got.fields
        for thing in self.model.streams:
            while thing.events:
                assert thing.real.get(timeout=0)[:2] == thing.events.pop(0)
            with pytest.raises((RequestExpired, RequestCanceled)):
                thing.real.get(timeout=0)


class StateMachine(SpaceMachine):
    """The same, done to the pure state."""

    kind = BareSpace


TestSpaceAgainstModel = SpaceMachine.TestCase
TestSpaceAgainstModel.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestStateAgainstModel = StateMachine.TestCase
TestStateAgainstModel.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)

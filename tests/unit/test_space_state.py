"""The pure state of a tuple space: what it says is to be done, without a lock, a thread or a clock."""

from math import inf

import pytest

from discovery.errors import BadTemplate, RequestCanceled, RequestExpired
from discovery.tuples.state import Batch, EventListener, Item, SpaceState, TupleEvent, TupleEventKind, Waiter
from discovery.tuples.template import Template

State = SpaceState[Waiter, EventListener]


class Unhelpful:
    """A pattern that raises."""

    def matches(self, value: object) -> bool:
        raise RuntimeError("out of order")


@pytest.fixture
def state() -> State:
    return SpaceState()


def write(state: State, *fields: object, seconds: float = inf, renewer: object = None, now: float = 0) -> Item:
    item = Item(fields)
    state.write(item, seconds, renewer, now)
    return item


def ask(state: State, *pattern: object, takes: bool = False, seconds: float = inf, now: float = 0) -> Waiter:
    waiter = Waiter(Template(pattern), takes)
    state.ask(waiter, seconds, now)
    return waiter


def listen(state: State, *pattern: object, kind: TupleEventKind | None = None, seconds: float = inf) -> EventListener:
    listener = EventListener(kind, Template(pattern))
    state.listen(listener, seconds, 0)
    return listener


def test_who_need_not_wait_is_not_told(state: State) -> None:
    """An answer that comes at once, good or bad, is in the waiter and not in `answered`."""
    write(state, "a", 1)
    read, none = ask(state, "a", None), ask(state, "b", None, seconds=0)
    assert (read.state, read.answer) == ("done", ("a", 1))
    assert none.state == "failed"
    assert isinstance(none.error, RequestExpired)
    assert state.answered == []


def test_a_write_says_who_is_answered(state: State) -> None:
    """All readers, then the first taker, which holds the tuple; the second goes on waiting."""
    first, reader, second = ask(state, "a", takes=True), ask(state, "a"), ask(state, "a", takes=True)
    item = write(state, "a")
    assert state.answered == [reader, first]
    assert (first.entry, item.holder, second.state) == (item, first, "waiting")


def test_a_batch_puts_back_only_what_it_holds(state: State) -> None:
    """If it was interrupted before it held the second tuple, another may hold that one."""
    first, second = write(state, "a", 1), write(state, "a", 2)
    batch = Batch()
    state.hold_all(batch, Template(("a", None)), None, 0)
    second.holder = None
    other = ask(state, "a", 2, takes=True)
    assert state.cancel_all(batch, 0)
    assert (first.holder, second.holder) == (None, other)
    assert not state.cancel_all(batch, 0)
    state.confirm_all(batch)
    assert len(state.items) == 2


def test_it_says_which_events_go_where(state: State) -> None:
    """In order, to each listener whose kind and template fit; a put-back is no event, a confirmation is."""
    everything, takes = listen(state, None), listen(state, "a", kind="take")
    write(state, "a")
    write(state, "b")
    state.cancel(ask(state, "a", takes=True), 0)
    state.confirm(ask(state, "a", takes=True))
    state.leave(takes)
    assert state.events == [
        (everything, TupleEvent("write", ("a",))),
        (everything, TupleEvent("write", ("b",))),
        (everything, TupleEvent("take", ("a",))),
        (takes, TupleEvent("take", ("a",))),
        (takes, TupleEvent("close", None)),
    ]


def test_it_says_when_to_look_again(state: State) -> None:
    """At the earliest deadline of a tuple, a waiter, a listener or a renewer; at once while one is to be asked."""
    assert state.next_look == inf
    write(state, "renewed", seconds=20, renewer="somebody")
    assert state.next_look == 19
    listen(state, None, seconds=9)
    assert state.next_look == 9
    ask(state, "b", seconds=7)
    assert state.next_look == 7
    write(state, "a", seconds=5)
    assert state.next_look == 5
    state.settle(20)
    assert state.next_look == -inf
    state.to_ask.clear()
    assert state.next_look == inf


def test_of_what_is_due_at_once_the_deadline_that_was_set_first_counts(state: State) -> None:
    """A tuple that was renewed to the very time that it had is due after what has got that time meanwhile."""
    item = write(state, "a", seconds=3)
    listener = listen(state, "a", seconds=3)
    state.renew(item, 2, None, 1)
    state.settle(3)
    assert state.events == [(listener, TupleEvent("close", None))]


def test_settling_lets_everything_expire_that_is_due(state: State) -> None:
    """A tuple is deleted, a waiter fails, a listener is closed, in the order of their times; what is not due stays."""
    listener = listen(state, str, seconds=3)
    waiter, patient = ask(state, "b", seconds=2), ask(state, "b", seconds=4)
    write(state, "a", seconds=1)
    state.events.clear()
    state.settle(3)
    assert state.events == [(listener, TupleEvent("delete", ("a",))), (listener, TupleEvent("close", None))]
    assert state.answered == [waiter]
    assert isinstance(waiter.error, RequestExpired)
    assert patient.state == "waiting"
    assert len(state.items) == 0


def test_who_has_left_is_not_due_again(state: State) -> None:
    """The deadline of a listener, a waiter or a tuple that is gone before it means nothing."""
    listener, waiter, item = listen(state, None, seconds=3), ask(state, "b", seconds=3), write(state, "a", seconds=3)
    state.cancel(waiter, 1)
    state.withdraw(item, 1)
    state.leave(listener)
    state.events.clear()
    state.answered.clear()
    state.settle(3)
    assert (state.events, state.answered, state.next_look) == ([], [], inf)


def test_it_says_which_renewers_are_to_be_asked(state: State) -> None:
    """Shortly before the time is up; the answer counts from the old end, and from now where it came too late."""
    item = write(state, "a", seconds=20, renewer="somebody")
    state.settle(18.9)
    assert state.to_ask == []
    state.settle(19)
    assert state.to_ask == [item]
    state.renewed(item, "somebody", 20, "somebody", 19.5)
    assert item.expires == 40
    state.settle(39)
    assert state.find_all(Template((str,)), 41) == []
    waiter = ask(state, "a", now=41)
    state.renewed(item, "somebody", 20, None, 41)
    assert (item.expires, waiter.answer) == (61, ("a",))
    state.settle(61)
    assert not item.listed


def test_an_answer_that_is_out_of_date_is_ignored(state: State) -> None:
    """A renewer that answers after its tuple was renewed by hand, or withdrawn, changes nothing."""
    item, withdrawn = (write(state, name, seconds=20, renewer="somebody") for name in "ab")
    state.settle(19)
    assert state.to_ask == [item, withdrawn]
    state.renew(item, 100, None, 19)
    state.withdraw(withdrawn, 19)
    for asked in (item, withdrawn):
        state.renewed(asked, "somebody", 1, None, 19)
    assert (item.expires, withdrawn.listed) == (119, False)
    state.renew(item, 20, "another", 19)
    state.settle(38)
    state.renewed(item, "somebody", 1, None, 38)
    assert item.expires == 39


def test_whose_template_raises_is_failed_or_closed(state: State) -> None:
    """The writer notices nothing; the waiter has the error, and the listener is among the `failed`."""
    waiter, listener = ask(state, Unhelpful(), takes=True), listen(state, Unhelpful())
    write(state, "a")
    assert state.answered == [waiter]
    assert isinstance(waiter.error, BadTemplate)
    assert state.events == [(listener, TupleEvent("close", None))]
    assert [(who, type(error)) for who, error in state.failed] == [(listener, BadTemplate)]


def test_after_close_everybody_is_told_and_nothing_is_let_in(state: State) -> None:
    """Waiters fail, listeners are closed, and writing, asking and listening raise."""
    waiters, listener = [ask(state, "a"), ask(state, "a", takes=True)], listen(state, None)
    state.close()
    assert state.answered == waiters
    assert all(isinstance(waiter.error, RequestCanceled) for waiter in waiters)
    assert state.events == [(listener, TupleEvent("close", None))]
    assert not state.leave(listener)
    for call in (write, ask, listen):
        with pytest.raises(RequestCanceled, match="closed"):
            call(state, "a")

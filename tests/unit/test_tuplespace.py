"""What a tuple space promises, without a clock of its own and without sleeping."""

import queue
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from discovery import TupleSpace
from discovery.errors import BadTemplate, BadTime, BadTuple, RequestCanceled, RequestExpired
from discovery.tuples import Request, SimpleRenewer, TupleEvent
from tests.clock import HandClock

SOON = 10.0  # seconds of real time within which a thread must have done what it is about to do


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def space(clock: HandClock) -> Iterator[TupleSpace]:
    with TupleSpace(clock, background=False) as space:
        yield space


@pytest.fixture
def busy() -> Iterator[TupleSpace]:
    """A space as users have it: real time, and a background thread."""
    with TupleSpace() as space:
        yield space


class Answers:
    """A renewer that gives these answers in turn; an exception is raised."""

    def __init__(self, *answers: float | bool | Exception | None) -> None:
        self.answers = list(answers)
        self.asked = threading.Semaphore(0)

    def renew(self) -> Any:
        self.asked.release()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Unhelpful:
    """A pattern that raises."""

    def matches(self, value: object) -> bool:
        raise RuntimeError("out of order")


def gone(space: TupleSpace, template: tuple[object, ...]) -> bool:
    """Whether nothing matches now."""
    try:
        space.read(template, timeout=0)
    except RequestExpired:
        return True
    return False


# reading and taking


def test_read_leaves_the_tuple_and_take_removes_it(space: TupleSpace) -> None:
    """A tuple can be read any number of times and taken once."""
    space.write(("hello", 1))
    assert space.read(("hello", None)) == ("hello", 1)
    assert space.take(("hello", None)) == ("hello", 1)
    assert gone(space, ("hello", None))


def test_the_oldest_match_is_returned(space: TupleSpace) -> None:
    """Of several matching tuples the one written first is read and taken, so a space is a queue."""
    for number in range(5):
        space.write(("job", number))
    assert space.read(("job", None)) == ("job", 0)
    assert [space.take(("job", None))[1] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_read_all_returns_every_match_oldest_first(space: TupleSpace) -> None:
    """`read_all` gives a list, empty where nothing matches."""
    for name in ("b", "a", "b"):
        space.write((name, len(space)))
    assert space.read_all(("b", None)) == [("b", 0), ("b", 2)]
    assert space.read_all(("c", None)) == []
    assert len(space) == 3


def test_sequences_come_back_as_tuples_and_mappings_as_copies(space: TupleSpace) -> None:
    """What a writer or a reader does to its own list or dictionary reaches nobody else."""
    fields = ["list", 1]
    space.write(fields)
    fields[1] = 2
    assert space.read(("list", None)) == ("list", 1)
    space.write({"count": 1})
    space.read({"count": int})["count"] = 2
    assert space.read({"count": int}) == {"count": 1}


@pytest.mark.parametrize("bad", ["text", 5, None, {1: 2}])
def test_what_is_no_tuple_is_refused_by_name(space: TupleSpace, bad: Any) -> None:
    """Only sequences and mappings with string keys can be written; the message shows what was given."""
    with pytest.raises(BadTuple, match=re.escape(repr(bad))):
        space.write(bad)


@pytest.mark.parametrize("literal", ["x", 1, True, (1, 2), [1, 2], {1}, frozenset({1}), None])
def test_any_literal_in_any_field_is_found(space: TupleSpace, literal: object) -> None:
    """Hashable or not, in the first field or the last, among tuples written before and after the first search."""
    for round_ in range(2):
        for other in ("y", 2, False, (2,), [3], {4}, frozenset({5})):
            space.write((other, round_, other))
        space.write((literal, round_, literal))
        assert space.read((literal, round_, None)) in ((literal, round_, literal), ("y", round_, "y"))
        assert (literal, round_, literal) in space.read_all((None, round_, literal))


def test_an_index_of_values_that_differ_takes_little_memory(space: TupleSpace) -> None:
    """A value that belongs to a single tuple has no dictionary of its own, which would take 400 bytes."""
    tuples = [(f"name {number}", number, f"address {number}") for number in range(2000)]
    space.write_all(tuples)
    tracemalloc.start()
    for template in (("name 7", None, None), (None, 7, None), (None, None, "address 7")):
        assert space.read(template, 0) == tuples[7]
    used = tracemalloc.get_traced_memory()[0] / len(tuples)
    tracemalloc.stop()
    assert used < 3 * 150


def test_equal_values_of_two_kinds_keep_their_order(space: TupleSpace) -> None:
    """A set equals a frozen set although only one of them has a hash; the older of the two is still found first."""
    space.write(({1}, "set"))
    space.write((frozenset({1}), "frozenset"))
    space.write(("another", "so that a scan of all is not the shortest way"))
    assert space.read_all((frozenset({1}), None)) == [({1}, "set"), (frozenset({1}), "frozenset")]


# timeouts and cancelling


def test_a_timeout_of_zero_means_now(space: TupleSpace) -> None:
    """With nothing there, `timeout=0` raises at once and says what was looked for."""
    with pytest.raises(RequestExpired, match=re.escape("('job', None)")):
        space.take(("job", None), timeout=0)


def test_a_request_waits_as_long_as_it_was_told(space: TupleSpace, clock: HandClock) -> None:
    """It is still waiting just before its timeout, and has expired at it."""
    request = space.taking(("job",), timeout=5)
    clock.advance(4.9)
    space.sweep()
    assert request.state == "waiting"
    clock.advance(0.1)
    space.sweep()
    with pytest.raises(RequestExpired, match="job"):
        request.result()


def test_a_request_that_has_expired_is_not_served(space: TupleSpace, clock: HandClock) -> None:
    """Even if nothing has swept since its timeout passed, the tuple goes to the next."""
    late, patient = space.taking(("job",), timeout=5), space.taking(("job",))
    clock.advance(6)
    space.write(("job",))
    assert (late.state, patient.state) == ("failed", "held")


def test_a_blocked_take_is_woken_by_a_write(busy: TupleSpace) -> None:
    """A thread that waits in `take` returns with the tuple that another writes."""
    taken: queue.Queue[Any] = queue.Queue()
    thread = threading.Thread(target=lambda: taken.put(busy.take(("job", None))))
    thread.start()
    busy.write(("job", 1))
    assert taken.get(timeout=SOON) == ("job", 1)
    thread.join()


def test_a_blocked_take_is_woken_by_its_timeout(busy: TupleSpace) -> None:
    """The background thread expires a request although nobody else touches the space."""
    with pytest.raises(RequestExpired):
        busy.take(("job",), timeout=0.01)


def test_a_waiting_request_can_be_cancelled_once(space: TupleSpace) -> None:
    """Its waiter gets RequestCanceled, and what is written later stays for others."""
    request = space.taking(("job",))
    assert request.cancel()
    assert not request.cancel()
    with pytest.raises(RequestCanceled):
        request.result()
    space.write(("job",))
    assert space.take(("job",), timeout=0) == ("job",)


@pytest.mark.parametrize("bad", [-1, "5", True, float("nan")])
def test_a_bad_time_is_refused_by_name(space: TupleSpace, bad: Any) -> None:
    """Timeouts and expiries are seconds from 0 up, or None; the message shows what was given."""
    for call in (space.read, space.write, lambda fields, time: space.notify(None, fields, time)):
        with pytest.raises(BadTime, match=re.escape(repr(bad))):
            call(("a",), bad)


def test_closing_ends_every_wait(clock: HandClock) -> None:
    """Waiting requests are cancelled, streams get their `close`, and nothing new can be asked or written."""
    space = TupleSpace(clock, background=False)
    request, stream = space.taking(("a",)), space.notify(None, ("a",))
    space.close()
    with pytest.raises(RequestCanceled, match="closed"):
        request.result()
    assert list(stream) == [TupleEvent("close", None)]
    for call in (space.write, space.read, space.take, lambda fields: space.notify(None, fields)):
        with pytest.raises(RequestCanceled, match="closed"):
            call(("a",))


# fairness, and takes that lose nothing


def test_waiting_takers_are_served_in_the_order_in_which_they_came(space: TupleSpace) -> None:
    """Whatever the shape of their templates, the first to ask is the first to get."""
    first, second, third = space.taking((None, None)), space.taking(("job", None)), space.taking(("job", int))
    for number in range(3):
        space.write(("job", number))
    assert [request.result()[1] for request in (first, second, third)] == [0, 1, 2]


def test_waiting_readers_all_see_a_tuple_before_a_taker_gets_it(space: TupleSpace) -> None:
    """A reader that came after the taker is still answered by the tuple that the taker takes."""
    taker, readers = space.taking(("go",)), [space.reading(("go",)) for _ in range(3)]
    space.write(("go",))
    assert [reader.result() for reader in readers] == [("go",)] * 3
    assert taker.result() == ("go",)


def test_a_held_tuple_is_seen_by_nobody_else(space: TupleSpace) -> None:
    """Between the answer and its confirmation a taken tuple can be neither read nor taken."""
    space.write(("job",))
    request = space.taking(("job",))
    assert request.result() == ("job",)
    assert gone(space, ("job",))
    assert len(space) == 1
    request.confirm()
    request.confirm()
    assert len(space) == 0
    assert not request.cancel()


def test_a_tuple_that_is_put_back_has_its_old_place(space: TupleSpace) -> None:
    """A cancelled take leaves the order as if it had never been."""
    for number in range(3):
        space.write(("job", number))
    request = space.taking(("job", None))
    assert request.cancel()
    assert [space.take(("job", None))[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RequestCanceled):
        request.confirm()


def test_a_tuple_that_is_put_back_goes_to_who_waits(space: TupleSpace) -> None:
    """A taker that came while the tuple was held is served when it returns."""
    space.write(("job",))
    dying = space.taking(("job",))
    waiting = space.taking(("job",))
    dying.cancel()
    assert waiting.result() == ("job",)


def test_a_take_as_a_block_confirms_at_its_end_and_puts_back_when_it_raises(space: TupleSpace) -> None:
    """`with space.taking(…) as job` is a queue whose failed jobs are not lost."""
    space.write(("job", 1))
    with pytest.raises(ZeroDivisionError), space.taking(("job", None)) as job:
        1 / (job[1] - 1)
    with space.taking(("job", None)) as job:
        assert job == ("job", 1)
    assert len(space) == 0


def test_many_are_taken_at_once_oldest_first(space: TupleSpace) -> None:
    """As many as asked for, and none where there are none; it never waits, and each is a `take` to those who listen."""
    takes = space.notify("take", ("job", None))
    entries = space.write_all([("job", number) for number in range(4)])
    assert space.take_all(("job", None), 0) == []
    assert space.take_all(("job", None), 3) == [("job", 0), ("job", 1), ("job", 2)]
    assert space.take_all(("job", None)) == [("job", 3)]
    assert space.take_all(("job", None)) == []
    assert [takes.get(0).tuple[1] for _ in entries] == [0, 1, 2, 3]
    assert not any(entry.alive for entry in entries)
    with pytest.raises(ValueError, match="-1"):
        space.take_all(("job", None), -1)


def test_many_that_are_held_together_go_back_together(space: TupleSpace) -> None:
    """Nobody sees them meanwhile; if the block raises they have their old places, and go to who waits; once only."""
    space.write_all([("job", number) for number in range(3)])
    with suppress(LookupError), space.taking_all(("job", None), 2) as jobs:
        assert jobs == [("job", 0), ("job", 1)]
        assert space.take_all(("job", None)) == [("job", 2)]
        waiting = space.taking(("job", 1))
        raise LookupError
    assert waiting.result() == ("job", 1)
    with space.taking_all(("job", None)) as jobs:
        assert jobs == [("job", 0)]
    batch = space.taking_all(("job", None))
    assert batch.cancel()
    assert not batch.cancel()
    with pytest.raises(RequestCanceled):
        batch.confirm()
    assert repr(batch) == "<BatchRequest of 0 tuples, failed>"
    waiting.cancel()
    assert space.read_all(("job", None)) == [("job", 1)]


def test_all_are_written_or_none(space: TupleSpace) -> None:
    """`write_all` refuses all where one is no tuple, or the time is none; otherwise they come in their order."""
    for tuples, expires, error in (([("n", 1), "text"], None, BadTuple), ([("n", 1)], -1, BadTime)):
        with pytest.raises(error):
            space.write_all(tuples, expires)  # type: ignore[arg-type]
    assert len(space) == 0
    waiting = space.taking(("n", 2))
    assert [entry.stored for entry in space.write_all([("n", 1), ("n", 2)], 5)] == [("n", 1), ("n", 2)]
    assert waiting.result() == ("n", 2)


def test_a_move_that_fails_loses_nothing(space: TupleSpace) -> None:
    """Where the port raises the tuple is still there, in its old place; where it returns, the tuple is gone."""
    space.write(("job", 1))
    space.write(("job", 2))

    def full(_: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        space.move(full, ("job", None))
    arrived: list[object] = []
    assert space.move(arrived.append, ("job", None)) == ("job", 1)
    assert arrived == [("job", 1)]
    assert space.read_all(("job", None)) == [("job", 2)]


def test_a_callback_tells_of_the_answer_once(space: TupleSpace) -> None:
    """Nobody need block: a callback comes with the answer, or at once where there is one, and may use the space."""
    told: list[tuple[Request, object]] = []

    def callback(request: Request) -> None:
        request.confirm()
        told.append((request, request.result()))

    request = space.taking(("job", None))
    request.add_done_callback(callback)
    assert not request.wait(0)
    space.write(("job", 1))
    space.write(("job", 2))
    early = space.taking(("job", None))
    early.add_done_callback(callback)
    assert told == [(request, ("job", 1)), (early, ("job", 2))]
    assert len(space) == 0


def test_a_callback_that_raises_harms_nobody(space: TupleSpace, caplog: pytest.LogCaptureFixture) -> None:
    """The writer on whose thread it runs is spared; the log has it."""
    request = space.reading(("job",))
    request.add_done_callback(lambda _: 1 / 0)
    space.write(("job",))
    assert "ZeroDivisionError" in caplog.text


def test_a_template_that_raises_is_its_own_users_fault(space: TupleSpace) -> None:
    """The request that waits with it fails, the stream that listens with it is closed, the writer notices nothing."""
    request, stream = space.taking((Unhelpful(),)), space.notify("write", (Unhelpful(),))
    space.write(("a",))
    with pytest.raises(BadTemplate, match="out of order"):
        request.result()
    assert [event.kind for event in stream] == ["close"]
    with pytest.raises(BadTemplate, match="out of order"):
        space.read((Unhelpful(),))


def test_ten_threads_count_to_a_thousand(busy: TupleSpace) -> None:
    """Ten threads take, increment and write a counter a hundred times each, and none of it is lost."""
    busy.write(("counter", 0))

    def count() -> None:
        for _ in range(100):
            _, number = busy.take(("counter", None))
            busy.write(("counter", number + 1))

    threads = [threading.Thread(target=count) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert busy.read(("counter", None)) == ("counter", 1000)


def test_many_takers_get_each_tuple_once(busy: TupleSpace) -> None:
    """Eight takers, two of which drop every other tuple, share a thousand tuples without loss or repetition."""
    got: queue.Queue[int] = queue.Queue()

    def take(drops: bool) -> None:
        for turn in range(10_000):
            try:
                request = busy.taking(("n", None))
                number = request.result()[1]
            except RequestCanceled:
                return
            if drops and turn % 2:
                request.cancel()
            else:
                request.confirm()
                got.put(number)

    threads = [threading.Thread(target=take, args=(index < 2,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for number in range(1000):
        busy.write(("n", number))
    assert sorted(got.get(timeout=SOON) for _ in range(1000)) == list(range(1000))
    busy.close()
    for thread in threads:
        thread.join()
    assert got.empty()


# expiry


def test_an_expired_tuple_is_never_returned(space: TupleSpace, clock: HandClock) -> None:
    """It is there until its time is up and gone at it, though nothing has swept."""
    entry = space.write(("a",), expires=5)
    clock.advance(4.9)
    assert entry.alive
    assert not gone(space, ("a",))
    clock.advance(0.1)
    assert not entry.alive
    assert gone(space, ("a",))
    assert space.read_all(("a",)) == []
    assert len(space) == 0


def test_an_entry_can_be_renewed_while_it_lives(space: TupleSpace, clock: HandClock) -> None:
    """`renew` counts from now, for less or for more, and says False where it is too late."""
    entry = space.write(("a",), expires=5)
    clock.advance(4)
    assert entry.renew(5)
    clock.advance(4)
    assert entry.renew(None)
    clock.advance(10**9)
    assert entry.renew(1)
    clock.advance(1)
    assert not entry.renew(5)
    assert gone(space, ("a",))


def test_an_entry_can_be_cancelled_once(space: TupleSpace) -> None:
    """`cancel` removes the tuple, and says False where it is already gone."""
    entry = space.write(("a",))
    assert entry.cancel()
    assert not entry.cancel()
    assert not entry.alive
    assert gone(space, ("a",))


def test_a_held_tuple_that_was_cancelled_never_comes_back(space: TupleSpace) -> None:
    """Too late to withdraw it from its taker, but not to see to it that a failed take does not revive it."""
    entry = space.write(("a",))
    request = space.taking(("a",))
    assert not entry.cancel()
    request.cancel()
    assert gone(space, ("a",))
    assert len(space) == 0


def test_a_held_tuple_that_expires_is_gone_when_it_is_put_back(space: TupleSpace, clock: HandClock) -> None:
    """A take that was answered in time may be confirmed later; one that is given up then leaves nothing."""
    space.write(("a",), expires=5)
    space.write(("b",), expires=5)
    kept, dropped = space.taking(("a",)), space.taking(("b",))
    clock.advance(6)
    kept.confirm()
    dropped.cancel()
    assert kept.result() == ("a",)
    assert len(space) == 0


def test_an_expiry_of_zero_is_over_at_once(space: TupleSpace) -> None:
    """Zero seconds are zero seconds, not for ever."""
    waiting = space.taking(("a",))
    assert not space.write(("a",), expires=0).alive
    assert waiting.state == "waiting"


def test_entries_and_requests_show_what_they_are(space: TupleSpace) -> None:
    """Their repr says tuple, template, and what has become of them."""
    assert repr(space.write(("a",), expires=5)) == "<Entry ('a',), 5.0 s left>"
    assert repr(space.write(("b",))) == "<Entry ('b',), for ever>"
    assert repr(space.taking(("c",))) == "<Request to take ('c',), waiting>"
    assert repr(space) == "<TupleSpace of 2 tuples, 1 waiting, 0 listening>"


# renewers


def test_a_renewer_keeps_a_tuple_until_it_says_no(space: TupleSpace, clock: HandClock) -> None:
    """Asked when the tuple is written and before each time is up, its seconds add up without a gap."""
    renewer = Answers(2, 2, 2, False)
    space.write(("a",), expires=renewer)
    for _ in range(59):
        clock.advance(0.1)
        space.sweep()
        assert not gone(space, ("a",))
    clock.advance(0.1 + 1e-9)
    assert gone(space, ("a",))
    assert renewer.answers == []


def test_a_renewer_that_says_none_is_never_asked_again(space: TupleSpace, clock: HandClock) -> None:
    """None is for ever."""
    entry = space.write(("a",), expires=Answers(2, None))
    for _ in range(5):
        clock.advance(1.9)
        space.sweep()
    assert repr(entry) == "<Entry ('a',), for ever>"


@pytest.mark.parametrize("answer", [OSError("unreachable"), -1, "soon", True])
def test_a_renewer_that_fails_lets_the_tuple_expire(
    space: TupleSpace, clock: HandClock, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """Raising, or answering with no time, ends the tuple when its time is up, not before, and is logged."""
    entry = space.write(("a",), expires=Answers(2, answer))
    clock.advance(1.9)
    space.sweep()
    assert entry.alive
    assert "Answers" in caplog.text
    clock.advance(0.1)
    assert gone(space, ("a",))


def test_a_renewer_that_fails_at_once_is_the_writers_to_know(space: TupleSpace) -> None:
    """Its first answer is asked for on the writer's thread: nothing is written, and the writer gets the error."""
    with pytest.raises(OSError, match="unreachable"):
        space.write(("a",), expires=Answers(OSError("unreachable")))
    assert len(space) == 0


def test_a_renewer_may_see_its_tuple(space: TupleSpace, clock: HandClock) -> None:
    """A `renew` that takes an argument gets the tuple that it renews."""
    seen: list[object] = []

    class Looking:
        def renew(self, fields: object) -> float:
            seen.append(fields)
            return 2

    space.write(("a", 1), expires=Looking())
    clock.advance(1.9)
    space.sweep()
    assert seen == [("a", 1), ("a", 1)]


def test_a_tuple_whose_renewer_is_late_is_hidden_until_it_answers(space: TupleSpace, clock: HandClock) -> None:
    """After a suspension, say, nobody could ask in time: the tuple is unseen, then back in its old place."""
    space.write(("a", 1), expires=SimpleRenewer(2))
    space.write(("a", 2))
    clock.advance(100)
    assert space.read_all(("a", None)) == [("a", 2)]
    space.sweep()
    assert space.read_all(("a", None)) == [("a", 1), ("a", 2)]


def test_a_hidden_tuple_that_comes_back_goes_to_who_waits(space: TupleSpace, clock: HandClock) -> None:
    """A taker that came while the renewer was late is served when it has answered."""
    space.write(("a",), expires=SimpleRenewer(2))
    clock.advance(100)
    request = space.taking(("a",))
    space.sweep()
    assert request.state == "held"


def test_a_hidden_tuple_can_be_cancelled(space: TupleSpace, clock: HandClock) -> None:
    """What is cancelled while its renewer is late does not come back with the answer."""
    entry = space.write(("a",), expires=SimpleRenewer(2))
    clock.advance(100)
    assert gone(space, ("a",))
    assert entry.cancel()
    space.sweep()
    assert gone(space, ("a",))


def test_renewers_are_asked_in_the_background(busy: TupleSpace) -> None:
    """With nobody touching the space, a renewer is asked again and again, and one that hangs delays no other."""
    hanging, released = threading.Event(), threading.Event()

    class Hanging:
        def renew(self) -> float:
            if hanging.is_set():
                released.wait(SOON)
            hanging.set()
            return 0.01

    stuck = busy.write(("stuck",), expires=Hanging())
    stream = busy.notify("delete", (str,))
    renewer = Answers(0.02, 0.02, 0.02, False)
    busy.write(("renewed",), expires=renewer)
    assert all(renewer.asked.acquire(timeout=SOON) for _ in range(4))
    assert stream.get(SOON) == TupleEvent("delete", ("renewed",))
    assert not stuck.alive
    released.set()


# events


def test_a_listener_hears_what_happens_to_matching_tuples(space: TupleSpace, clock: HandClock) -> None:
    """Writes, takes, and deletes by expiry or cancellation, in order, of matching tuples only; at last one close."""
    stream = space.notify(None, ("a", None), expires=60)
    space.write(("b", 0))
    space.write(("a", 1), expires=30)
    space.take(("a", None))
    space.write(("a", 2)).cancel()
    space.write(("a", 3), expires=30)
    clock.advance(30)
    space.sweep()
    clock.advance(30)
    space.sweep()
    assert [event[:2] for event in stream] == [
        ("write", ("a", 1)),
        ("take", ("a", 1)),
        ("write", ("a", 2)),
        ("delete", ("a", 2)),
        ("write", ("a", 3)),
        ("delete", ("a", 3)),
        ("close", None),
    ]


@pytest.mark.parametrize("kind", ["write", "take", "delete", "close"])
def test_a_listener_hears_only_the_kind_it_asked_for(space: TupleSpace, kind: Any) -> None:
    """And the close that ends every stream."""
    stream = space.notify(kind, (None,))
    space.write(("a",))
    space.take(("a",))
    space.write(("a",)).cancel()
    assert stream.cancel()
    assert not stream.cancel()
    assert {event.kind for event in stream} == {kind, "close"}


def test_an_unknown_kind_is_refused_by_name(space: TupleSpace) -> None:
    """A misspelt event would otherwise never be heard."""
    with pytest.raises(ValueError, match="'wrote'"):
        space.notify("wrote", (None,))  # type: ignore[arg-type]


def test_a_take_that_is_put_back_is_no_event(space: TupleSpace) -> None:
    """`take` is told when it is confirmed, for only then has it happened."""
    space.write(("a",))
    stream = space.notify(None, ("a",))
    space.taking(("a",)).cancel()
    held = space.taking(("a",))
    with pytest.raises(RequestExpired):
        stream.get(timeout=0)
    held.confirm()
    assert stream.get() == TupleEvent("take", ("a",))


def test_a_listener_that_stops_reading_is_told_what_it_missed(space: TupleSpace) -> None:
    """Of ten events it gets the last three, and with the first of them the number that was dropped."""
    stream = space.notify("write", (int,), limit=3)
    for number in range(10):
        space.write((number,))
    assert stream.get() == TupleEvent("write", (7,), missed=7)
    assert stream.get() == TupleEvent("write", (8,))
    space.write((10,))
    stream.cancel()
    assert list(stream) == [TupleEvent("write", (9,)), TupleEvent("write", (10,)), TupleEvent("close", None)]
    with pytest.raises(RequestCanceled):
        stream.get()


def test_a_blocked_listener_is_woken(busy: TupleSpace) -> None:
    """By an event, and by the end of its time."""
    stream = busy.notify("write", ("a",), expires=0.05)
    heard: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=lambda: [heard.put(event.kind) for event in stream])
    thread.start()
    busy.write(("a",))
    assert [heard.get(timeout=SOON) for _ in range(2)] == ["write", "close"]
    thread.join()


# what is left behind


def test_nothing_is_left_of_what_was_taken_expired_or_given_up(space: TupleSpace, clock: HandClock) -> None:
    """Indexes and deadlines hold nothing once tuples and requests are gone, so a long life costs no memory."""
    wait: list[Callable[[], object]] = []
    for number in range(1000):
        space.write((number, "a"), expires=3600)
        space.take((number, "a"))
        wait.append(space.taking(("never", number), timeout=3600).cancel)
    for cancel in wait:
        cancel()
    assert len(space) == 0
    assert not space._state.items._tables
    assert not space._state.takers._tables
    assert len(space._state.deadlines._heap) <= 64

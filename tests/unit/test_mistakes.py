"""Mistakes that would lose a worker's work are named, with what to do, when the worker is made or started."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from politics import BadPolicy, Term, TokenWorker
from politics.worker.mistakes import METHODS
from tests.waiting import until

OPTIONS: dict[str, Any] = {"group": "mistaken", "store": "memory://mistaken", "announce": False}


async def coroutine(term: Term) -> None:
    """Work that is awaited."""


def generator(term: Term) -> Iterator[int]:
    """Work that is iterated."""
    yield 1


async def async_generator(term: Term) -> AsyncIterator[int]:
    """Work that is both."""
    yield 1


class Callee:
    """An object whose call is a generator."""

    def __call__(self, term: Term) -> Iterator[int]:
        """Work that is iterated."""
        yield 1


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (Callee(), "a generator"),
        (generator, "a generator"),
        (functools.partial(generator), "a generator"),
        (async_generator, "an async generator"),
    ],
)
@pytest.mark.parametrize("way", ["argument", "method"])
def test_work_that_a_call_would_not_run_is_refused(work: Any, what: str, way: str) -> None:
    """Whether it is passed or overridden; nothing has started."""
    kind = type("Mailer", (TokenWorker,), {"perform": staticmethod(work)}) if way == "method" else TokenWorker
    worker = kind(**OPTIONS)
    with pytest.raises(BadPolicy, match=rf"(perform|the work) of \w+ is {what}, and a call would run none of it"):
        worker.start(None if way == "method" else work)
    assert not worker.running


@pytest.mark.parametrize("method", [method for method in METHODS if method != "perform"])
def test_only_perform_may_be_async(method: str) -> None:
    """An async `eligible`, say, would always be true, and nobody would await an async `on_lost`."""
    worker = type("Mailer", (TokenWorker,), {"perform": lambda self, term: None, method: staticmethod(coroutine)})
    with pytest.raises(BadPolicy, match=f"{method} of Mailer is an async function, and nobody awaits it"):
        worker(**OPTIONS).process()


@pytest.mark.parametrize(("made", "what"), [(coroutine, "coroutine"), (generator, "generator")])
def test_work_that_returns_what_nobody_runs_ends_the_worker(
    made: Callable[[Term], Awaitable[None] | Iterator[int]], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A lambda does not show that its result must be awaited, so this is found at the first slot: it is not done."""
    events: list[str] = []
    worker = TokenWorker(**OPTIONS, on_event=lambda event: events.append(str(event.kind)))
    with pytest.raises(BadPolicy, match=f"returned a {what}"):
        worker.process(lambda term: made(term))
    assert "slot_started" in events
    assert "slot_done" not in events
    assert caplog.text.count("returned a") == 1


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"lease_tll": 30}, r"Mailer.lease_tll is no setting of a TokenWorker: did you mean lease_ttl\?"),
        ({"iteration_lenght": 3600}, "did you mean iteration_length"),
        ({"Sticky": True}, "did you mean sticky"),
        ({"server": ["10.0.0.5"]}, "did you mean servers"),
        ({"preform": lambda self, term: None}, "Mailer.preform is no method of a TokenWorker: did you mean perform"),
        ({"on_elect": lambda self, term: None}, "did you mean on_elected"),
    ],
)
def test_a_misspelt_attribute_is_named(attributes: dict[str, Any], sentence: str) -> None:
    """Also one that a class inherits; otherwise it would be ignored."""
    parent = type("Parent", (TokenWorker,), attributes)
    for bases in ((TokenWorker,), (parent,)):
        kind = type("Mailer", bases, attributes if bases == (TokenWorker,) else {})
        with pytest.raises(BadPolicy, match=sentence):
            kind(**OPTIONS)


@pytest.mark.parametrize(
    "wrong", [{"lease_tll": 30}, {"preform": lambda self, term: None}], ids=lambda wrong: next(iter(wrong))
)
def test_a_misspelt_attribute_is_named_although_a_parent_has_the_right_one(wrong: dict[str, Any]) -> None:
    """It would be ignored, and the parent's would be used. A parent's own is fine where a child sets the right one."""
    right = {"lease_ttl": 5.0, "perform": lambda self, term: None}
    with pytest.raises(BadPolicy, match="did you mean"):
        type("Child", (type("Parent", (TokenWorker,), right),), wrong)(**OPTIONS)
    assert type("Child", (type("Parent", (TokenWorker,), wrong),), right)(**OPTIONS).lease_ttl == 5.0


def test_attributes_of_your_own_are_in_nobodys_way() -> None:
    """One that is like no setting, or begins with an underscore, or is there beside the setting that it is like."""

    class Mailer(TokenWorker):
        group, groups = "mailer", ["mailer", "printer"]
        host, batch, _lease_tll = "10.0.0.5", 100, 30

        def deliver(self) -> None:
            """Something else."""

    assert Mailer(store="memory://", announce=False).lease_ttl == 10.0


class Forgetful(TokenWorker):
    """Does not make itself a worker."""

    def __init__(self) -> None:
        self.group = "forgetful"

    def perform(self, term: Term) -> None:
        """Nothing."""


def test_a_forgotten_constructor_is_named() -> None:
    """At the start; what can be asked before is answered."""
    worker = Forgetful()
    assert not worker.running
    assert worker.peers() == ()
    worker.stop()
    for start in (worker.start, worker.process):
        with pytest.raises(BadPolicy, match=r"Forgetful.__init__ must call super\(\).__init__\(\)"):
            start()


def test_process_does_not_freeze_an_event_loop() -> None:
    """In a coroutine it says at once what to do instead, and that works."""
    worked: list[Term] = []
    worker = TokenWorker(**OPTIONS, lease_ttl=0.5)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
            worker.process(worked.append)
        ended = asyncio.create_task(asyncio.to_thread(worker.process, worked.append))
        await asyncio.to_thread(until, lambda: worked, "the work")
        worker.stop()
        await ended

    asyncio.run(main(), debug=False)
    assert not worker.running


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"announce": "no"}, "announce must be True or False, not 'no'"),
        ({"sticky": "false"}, "sticky must be True or False, not 'false'"),
        ({"on_error": "again"}, "on_error must be 'done' or 'retry', not 'again'"),
        ({"on_error": "retry", "on_failover": "skip"}, "on_error='retry' runs a slot again, and on_failover='skip'"),
    ],
)
def test_what_cannot_be_wanted_together_is_refused(options: dict[str, Any], sentence: str) -> None:
    """And what does not exist is."""
    with pytest.raises(BadPolicy, match=sentence):
        TokenWorker(**OPTIONS | options)

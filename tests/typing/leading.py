"""Async work and leading in a program of one's own, as users write them. Only the type checkers read this file."""

from contextlib import asynccontextmanager
from typing import assert_type

from fastapi import FastAPI

from politics import LeadershipLost, Term, TokenWorker, lead, run_while_leading
from politics.integrations.asgi import leading
from politics.leading import AsyncTerm, WhileLeading, work_while_leading


class Mailer(TokenWorker):
    group = "mailer"

    async def perform(self, term: Term) -> None:
        term.check()


async def bill() -> None:
    try:
        async with lead("billing", store="sqlite:///leases.db", lease_ttl=5, on_event=print) as term:
            assert_type(term, AsyncTerm)
            assert_type(term.fence, int)
            assert_type(term.valid, bool)
            assert_type(term.lost.is_set(), bool)
            await term.wait_lost()
    except LeadershipLost:
        pass
    async with lead("billing", cancel=False, servers=["10.0.0.5:11211"]):
        pass


async def poll(term: AsyncTerm) -> None:
    await term.wait_lost()


@asynccontextmanager
async def lifespan(app: FastAPI):  # type: ignore[no-untyped-def]
    yield {"greeting": "hello"}


async def again() -> None:
    await work_while_leading("poller", poll, store=None)


app = FastAPI(lifespan=leading("poller", poll, lifespan=lifespan))
Mailer().process(bill)  # type: ignore[arg-type]  # it takes no term
with WhileLeading("files", lambda: 1, print, grace=3, store="memory://") as running:
    assert_type(running.leads, bool)
run_while_leading("files", print, print, stor="memory://")  # type: ignore[call-arg]

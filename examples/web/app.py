"""A web application with several worker processes, of which exactly one runs a background task.

    uvicorn --app-dir examples/web app:app --workers 4
    gunicorn --chdir examples/web app:app --workers 4 --worker-class asgi

Then look at http://127.0.0.1:8000/ a few times: the request is answered by any of the workers, the task runs in one.
Kill that one (`kill -9 PID`): within a lease another goes on, and the pages say so. No server is needed for this; the
workers elect the leader by a file. $POLITICS_STORE names another store, for workers on several machines.

It needs fastapi, and uvicorn or gunicorn.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from politics.integrations.asgi import AsyncTerm, leading

JOURNAL = Path(os.environ.get("WEB_JOURNAL", "journal.txt"))
LEASE = float(os.environ.get("WEB_LEASE", "10"))


def note(text: str) -> None:
    """Append a line to the journal, in one write."""
    with JOURNAL.open("a") as journal:
        journal.write(f"{os.getpid()} {text}\n")


async def poll(term: AsyncTerm) -> None:
    """The background task: poll something that must not be polled by two. It is cancelled when leadership is lost."""
    note(f"begins {term.fence}")
    try:
        while True:
            term.check()
            note(f"polls {term.fence}")
            await asyncio.sleep(0.1)
    finally:
        note(f"ends {term.fence}")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What this application opens for itself. It is open before the task begins, and until the task has ended."""
    app.state.greeting = "hello"
    yield


app = FastAPI(lifespan=leading("poller", poll, lifespan=lifespan, lease_ttl=LEASE))


@app.get("/")
async def home() -> dict[str, str | int]:
    """Say who answers, and what was polled last."""
    last = JOURNAL.read_text().splitlines()[-1] if JOURNAL.exists() else "nothing yet"
    return {"greeting": app.state.greeting, "answered_by": os.getpid(), "journal": last}

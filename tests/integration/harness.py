"""Real processes that race for a lease, and the diary in which all of them write what they claim and do."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from election import look, open_register
from election.record import Record
from election.testing import Claim, Verifier
from tests.integration.worker import Diarist, Diary, now
from tests.processes import ROOT, suspend
from tests.waiting import DEADLINE, SOON, until

SLACK = SOON
"""Seconds that a busy machine may take to run processes that could run."""

Event = dict[str, Any]


class Process:
    """A worker in a process of its own, which runs `program`."""

    def __init__(self, program: str, name: str, diary: Path, options: dict[str, Any]) -> None:
        command = [sys.executable, "-m", program, str(diary), name, json.dumps(options)]
        self.name = name
        self.popen = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        self.pid = self.popen.pid

    def send(self, number: signal.Signals) -> float:
        """Send it a signal, and say when."""
        at = now()
        if number == signal.SIGSTOP:
            suspend(self.popen)
        else:
            self.popen.send_signal(number)
        return at

    def wait(self) -> int:
        """Its exit status."""
        return self.popen.wait(DEADLINE)

    def end(self) -> None:
        """End it and its children, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()


class Stage:
    """The workers of one test and their diary."""

    def __init__(self, folder: Path, *, program: str = "tests.integration.worker", **options: Any) -> None:
        self.program = program
        self.folder, self.path, self.options = folder, folder / "diary", options
        self.diary = Diary(self.path)
        self.path.touch()
        self.processes: dict[str, Process] = {}
        self.threads: list[Diarist] = []
        self._events: list[Event] = []
        self._lines = self.path.open("rb")
        self._rest = b""
        self._names = (f"worker{number}" for number in itertools.count(1))

    def start(self, count: int = 1, **options: Any) -> list[Process]:
        """Start processes, and wait until each has begun to race."""
        begun = [Process(self.program, next(self._names), self.path, self.options | options) for _ in range(count)]
        self.processes |= {process.name: process for process in begun}
        for process in begun:
            self.log(process.name, "waiting to be elected")
        return begun

    def thread(self, start: bool = True, **options: Any) -> Diarist:
        """A worker in a thread of the test."""
        worker = Diarist(self.diary, next(self._names), **self.options | options)
        self.threads.append(worker)
        if start:
            worker.start()
        return worker

    def events(self, event: str = "", **fields: Any) -> list[Event]:
        """What the diary says so far, of these events with these fields."""
        *lines, self._rest = (self._rest + self._lines.read()).split(b"\n")
        self._events += map(json.loads, lines)
        wanted = fields | {"event": event} if event else fields
        return [entry for entry in self._events if wanted.items() <= entry.items()]

    def wait(self, event: str, seconds: float = DEADLINE, after: float = 0.0, **fields: Any) -> Event:
        """The first such event after that time."""
        found = until(
            lambda: [entry for entry in self.events(event, **fields) if entry["t"] > after],
            f"{event!r} with {fields} in the diary",
            seconds,
        )
        return found[0]

    def log(self, who: str, text: str, after: float = 0.0) -> Event:
        """The first line that `who` logs which contains `text`."""

        def found() -> list[Event]:
            return [e for e in self.events("log", who=who) if text in e["text"] and e["t"] > after]

        return until(found, f"the log line {text!r} of {who}")[0]

    def elected(self, after: float = 0.0, **fields: Any) -> tuple[Process, Event]:
        """Who was elected first after that time."""
        event = self.wait("elected", after=after, **fields)
        return self.processes[event["who"]], event

    def record(self) -> Record:
        """What is in the store now."""
        register = open_register(self.options["store"])
        record = look(register, self.options["group"])
        register.close()
        assert record is not None
        return record

    def verify(self) -> dict[str, list[Claim]]:
        """The terms of each group, after a check that none overlaps another and that fences grow."""
        claims = [event for event in self.events() if "until" in event]
        terms: dict[str, list[Claim]] = {}
        for group in {claim["group"] for claim in claims}:
            verifier = Verifier()
            for fence in {claim["fence"] for claim in claims if claim["group"] == group}:
                verifier.claim(self._term([c for c in claims if (c["group"], c["fence"]) == (group, fence)]))
            terms[group] = verifier.terms
        return terms

    def _term(self, claims: list[Event]) -> Claim:
        """From the first of these claims to the last moment that one of them reaches to."""
        who, fence, last = claims[0]["who"], claims[0]["fence"], max(claim["until"] for claim in claims)
        assert {claim["who"] for claim in claims} == {who}, f"one fence, several leaders: {claims}"
        ends = [e for e in self.events(who=who, fence=fence) if e["event"] in ("over", "lost")]
        # One that ended before what it had claimed has resigned: then its last line is all that is known.
        if any(end["t"] < last for end in ends + self.events("exit", who=who)):
            last = max(claim["t"] for claim in claims)
        return Claim(min(claim["t"] for claim in claims), last, fence, who)

    def end(self) -> None:
        """End every worker, dead or alive."""
        for worker in self.threads:
            worker.stop(grace=0.1)
        for process in self.processes.values():
            process.end()

    def close(self) -> None:
        """Let go of the diary."""
        self._lines.close()

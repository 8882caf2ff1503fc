"""The public API of `election` as its users write it. Only the type checkers read this file."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_type

from election import (
    Candidate,
    ElectionError,
    Event,
    FenceGuard,
    LeadershipLost,
    LeasePolicy,
    LeaseTerm,
    NotElected,
    Register,
    StaleFence,
    StoreUnavailable,
    ask_to_resign,
    look,
    open_register,
)
from election.candidate import Leader, Plan
from election.clock import Clock, SystemClock
from election.errors import BadRecord
from election.events import EventKind, OnEvent
from election.record import Record, State
from election.register import Cell
from election.rules import View
from election.term import Note
from election.testing import Claim, FakeClock, Fault, FaultyRegister, FaultyStore, Scenario, Verifier

register: Register = open_register("memcached://10.0.0.5:11211,10.0.0.6")
assert_type(register.read("name"), Cell | None)
assert_type(register.versions(["name"]), list[Any | None])
assert_type(register.remembers(1.5), bool)
assert_type(register.names(), Iterable[str] | None)

policy = LeasePolicy(ttl=2, drift=0.001, poll_every=None)
candidate = Candidate(register, "billing", policy, clock=SystemClock())
assert_type(candidate.attempt(), LeaseTerm | None)
assert_type(candidate.view, View)


def work(term: LeaseTerm) -> None:
    """A leader's work."""
    assert_type(term.fence, int)
    assert_type(term.valid, bool)
    assert_type(term.remaining(), float)
    assert_type(term.lost.wait(0.5), bool)
    assert_type(term.reason, str)
    term.check()
    term.proclaim({"done": 3})
    term.proclaim(lambda now: {"now": now})


def stand_by(view: View) -> Note | None:
    """A plan."""
    assert_type(view.record, Record | None)
    return None if view.record and view.record.state is State.VACANT else {"why": "it is free"}


plan: Plan = stand_by
try:
    with candidate.campaign(timeout=5, plan=plan, stop=threading.Event()) as leading:
        work(leading)
except (LeadershipLost, NotElected, StoreUnavailable, BadRecord) as exc:
    error: ElectionError = exc

assert_type(candidate.observe(), Iterator[Leader | None])
for leader in candidate.observe(stop=threading.Event()):
    if leader:
        note: Mapping[str, Any] = leader.note
assert_type(look(register, "billing"), Record | None)
assert_type(ask_to_resign(register, "billing"), Record | None)

clock: Clock = FakeClock().skewed(rate=1.001)
store = FaultyStore(FakeClock(on_advance=print), age=5)
link: FaultyRegister = store.link()
also: Register = link
link.fail(Fault.DELAYED, None)
Verifier().claim(Claim(0, 1, 1, "me"))
Scenario().run("candidates 3\ntick 1\nleader? 1")


def hear(event: Event) -> None:
    """A hook."""
    assert_type(event.kind, EventKind)
    assert_type(event.fence, int | None)


Candidate(register, "billing", on_event=hear)
hook: OnEvent = hear
guard = FenceGuard("billing", table="fences", paramstyle="qmark")
try:
    guard.check(sqlite3.connect(":memory:"), 7)
    with guard.locked("/srv", fence=7):
        pass
except StaleFence as stale:
    assert_type(stale.largest, int)

"""Mistakes in a worker's class that would lose its work without a word. They are named when it is made or started."""

import difflib
import inspect
import sys
from collections.abc import Iterable

from election import BadPolicy

METHODS = ("perform", "eligible", "on_elected", "on_lost", "on_event")

_GENERATORS = (
    (inspect.isasyncgenfunction, "an async generator"),
    (inspect.isgeneratorfunction, "a generator"),
)


def refuse_misspellings(base: type, kind: type) -> None:
    """Refuse a class with an attribute that is spelled almost like one that `base` reads, and would be ignored.

    An attribute is in nobody's way if its name begins with `_`, or if its class, or one derived from that, also sets
    the one that it resembles. What a parent has set is no excuse, since the attribute may be meant to replace it.

    Args:
        base: the class that has all settings, with annotations, and all methods.
        kind: a class derived from it.

    Raises:
        BadPolicy: the message names both attributes.
    """
    settings = [name for name in base.__annotations__ if not name.startswith("_")]
    set_so_far: set[str] = set()
    for part in kind.__mro__[: kind.__mro__.index(base)]:
        set_so_far |= vars(part).keys()
        for name, value in vars(part).items():
            if name.startswith("_") or hasattr(base, name):
                continue
            meant = _nearest(name, METHODS if callable(value) else settings)
            if meant and meant not in set_so_far:
                what = "method" if callable(value) else "setting"
                raise BadPolicy(
                    f"{kind.__name__}.{name} is no {what} of a {base.__name__}: did you mean {meant}? "
                    f"If it is something of your own, begin its name with an underscore"
                )


def is_async(function: object) -> bool:
    """Return whether a call of `function` makes a coroutine: a function, a method, a partial, or an object."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 (it may be async, too)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def refuse_what_a_call_does_not_run(owner: str, functions: Iterable[tuple[str, object]], work: str = "") -> None:
    """Refuse functions whose call returns at once and runs nothing.

    Args:
        owner: whose functions they are.
        functions: each with its name.
        work: the name of the one that may be async, because it is awaited; empty: none may.

    Raises:
        BadPolicy: the message names the function, and says what it is and what to do.
    """
    for name, function in functions:
        for asked in (function, getattr(type(function), "__call__", None)):  # noqa: B004 (an object's may be one, too)
            for is_so, what in _GENERATORS:
                if is_so(asked):
                    raise BadPolicy(f"{name} of {owner} is {what}, and a call would run none of it: leave out `yield`")
        if name != work and is_async(function):
            raise BadPolicy(f"{name} of {owner} is an async function, and nobody awaits it: write `def`")


def check_policies(on_failover: str, on_error: str, what: str) -> None:
    """Refuse what says nothing, or two things at once, about work that was interrupted or failed.

    Args:
        on_failover, on_error: the settings.
        what: what is run again, in the words of the message.

    Raises:
        BadPolicy: the message names the setting.
    """
    if on_failover not in ("rerun", "skip"):
        raise BadPolicy(f"on_failover must be 'rerun' or 'skip', not {on_failover!r}")
    if on_error not in ("done", "retry"):
        raise BadPolicy(f"on_error must be 'done' or 'retry', not {on_error!r}")
    if (on_error, on_failover) == ("retry", "skip"):
        raise BadPolicy(f"on_error='retry' runs a {what} again, and on_failover='skip' forbids that: change one")


def never_ran(result: object) -> str:
    """Return what is wrong with the result of the work: something that had to be awaited or iterated; else ""."""
    if inspect.iscoroutine(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()  # otherwise Python would warn of it, in the middle of something else
        return f"the work returned a {type(result).__name__}, which nobody runs: return after the work is done"
    return ""


def refuse_event_loop(what: str) -> None:
    """Refuse to wait where an event loop runs in this thread, since nothing else would run in it.

    Raises:
        RuntimeError: it does.
    """
    asyncio = sys.modules.get("asyncio.events")  # a loop that runs has imported it
    if asyncio and asyncio._get_running_loop():
        raise RuntimeError(
            f"{what} waits until the worker ends, and would freeze this thread's event loop: "
            f"use `await asyncio.to_thread(worker.process)`, or start() and stop()"
        )


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is meant to be, if it is only a slip away from one."""
    return next(iter(difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)), None)

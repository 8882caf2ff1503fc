"""Whether this process is a fork of the one that made an object."""

import os
from collections.abc import Callable

_generation = 0


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)


def fork_detector() -> Callable[[], bool]:
    """Return a function that says whether it is called in another process than the one that called this.

    A forked child inherits its parent's objects, but none of its threads, and must use neither its locks nor its
    sockets. So an object that owns such things asks this function first. It compares two numbers. Python counts for us
    in each child before `os.fork` returns there, and so does every library that forks and goes on with Python, since
    it must call `PyOS_AfterFork_Child`. Only a callback that was registered with `os.register_at_fork` before this
    module was imported runs earlier, and must not ask.
    """
    made = _generation
    return lambda: _generation != made

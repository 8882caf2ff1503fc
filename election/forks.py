"""Whether this process is a fork of the one that made an object."""

import os
from collections.abc import Callable


def fork_detector() -> Callable[[], bool]:
    """Return a function that says whether it is called in another process than the one that called this.

    A forked child inherits its parent's objects, but none of its threads, and must use neither its locks nor its
    sockets. Whoever owns such things asks this function first. It costs one system call.
    """
    pid = os.getpid()
    return lambda: os.getpid() != pid

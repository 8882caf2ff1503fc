"""Forked children: they get a copy of every object of their parent, and must not use its sockets and locks."""

import inspect
import os
import weakref
from collections.abc import Callable

__all__ = ["ForkGuard"]


class ForkGuard:
    """Remember which process made an object, and tell a forked child that it is another one.

    Args:
        in_child: Called without arguments in each forked child, before `os.fork` returns there. A bound method is held
            weakly, so that a guard does not keep its object alive.
    """

    def __init__(self, in_child: Callable[[], object] | None = None) -> None:
        self._pid = os.getpid()
        method = in_child if inspect.ismethod(in_child) else None
        self._in_child = weakref.WeakMethod(method) if method else lambda: in_child
        _guards.add(self)

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that made the object."""
        return os.getpid() != self._pid


def _in_child() -> None:
    for guard in list(_guards):
        action = guard._in_child()
        if action is not None:
            action()


_guards: weakref.WeakSet[ForkGuard] = weakref.WeakSet()
os.register_at_fork(after_in_child=_in_child)

"""A forked child is told that it is not its parent's process."""

import gc
import os

from discovery.fork import ForkGuard


class Owner:
    """Something that has a guard, and counts how often it was told."""

    def __init__(self) -> None:
        self.told = 0
        self.guard = ForkGuard(self.tell)

    def tell(self) -> None:
        self.told += 1


def in_child(question: str, owner: Owner) -> bytes:
    """Return what a forked child answers to a question about the owner."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, repr(eval(question)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as answer:
        return answer.read()


def test_a_child_knows_that_it_is_one() -> None:
    """It is told before `fork` returns, each child once; the parent never is."""
    owner = Owner()
    for _ in range(2):
        assert in_child("owner.guard.forked, owner.told", owner) == b"(True, 1)"
    assert (owner.guard.forked, owner.told) == (False, 0)


def test_a_function_is_told_too() -> None:
    """A guard of a whole module resets its globals."""
    owner = Owner()
    guard = ForkGuard(lambda: setattr(owner, "told", 7))
    assert in_child("owner.told in (7, 8)", owner) == b"True"
    assert not guard.forked


def test_a_guard_keeps_nothing_alive() -> None:
    """An object that is forgotten ends at once, guard and all."""
    gc.disable()
    try:
        ended = []
        owner = Owner()
        owner.__class__ = type("Ended", (Owner,), {"__del__": lambda self: ended.append(True)})
        del owner
        assert ended
    finally:
        gc.enable()

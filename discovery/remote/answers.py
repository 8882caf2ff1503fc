"""Answers that take their time: `Pending`, of which there is one, and `Stream`, of which there are many."""

import abc
from typing import Any

__all__ = ["Later", "Pending", "Stream"]


class Later:
    """What takes its time: a `Pending` or a `Stream`. It is not abstract, so that `isinstance` is quick."""


class Pending(Later, abc.ABC):
    """Return this from a served method whose answer is yet to come, when the caller may be gone by then.

    The server calls `wait` on the caller's own thread, and `cancel` from another thread when the caller goes away
    meanwhile. With `held`, the answer is only done with once the caller has it: the server then calls `confirm`, and
    otherwise `put_back`.
    """

    held = True
    ready = False  # True: `wait` will return at once

    @abc.abstractmethod
    def wait(self) -> Any:
        """Block until there is an answer, and return or raise it."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """End the wait with any error. Do nothing if it is too late. Must not block."""

    def confirm(self) -> None:
        """Do what is left to do once the caller has the answer."""

    def put_back(self) -> None:
        """Take the answer back, which the caller never confirmed, and may or may not have. Without one, do nothing."""


class Stream(Later, abc.ABC):
    """Return this from a served method that has many answers. The caller fetches them, batch by batch."""

    @abc.abstractmethod
    def next_batch(self) -> list[Any] | None:
        """Block until there is something, and return all that there is; None at the end."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """End it: `next_batch` returns None, resources are freed. Called from any thread, maybe twice; must not
        block."""

"""The errors of an election; `ElectionError` is the root of all."""


class ElectionError(Exception):
    """The root of all errors that `election` raises on purpose."""


class BadPolicy(ElectionError, ValueError):
    """A name or a timing cannot work; the message names it and says what can."""


class BadStoreURL(ElectionError, ValueError):
    """A store URL cannot be parsed; the message names it and shows URLs that can."""


class BadRecord(ElectionError):
    """A cell holds something that is not a lease. It is never taken for a free one; `politics forget` replaces it."""


class StoreUnavailable(ElectionError):
    """The store did not answer. Whether the write that was under way has landed is unknown.

    `permanent`: waiting alone will not mend it, as with a file that this user must not write.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class StoreUnusable(ElectionError):
    """At the start the store could not be used, and waiting would not have mended it; the message says why."""


class LeadershipLost(ElectionError):
    """Leadership can no longer be proven, or the holder was asked to stop; the message says which."""


class NotElected(ElectionError):
    """The campaign ended, by its timeout or because it was told to stop, before this candidate led."""


class StaleFence(ElectionError):
    """An effect was refused: its fence is smaller than the largest one seen, so there is a later leader."""

    def __init__(self, name: str, fence: int, largest: int) -> None:
        super().__init__(f"{name}: fence {fence} is refused, {largest} has been here")
        self.name, self.fence, self.largest = name, fence, largest

    def __reduce__(self) -> tuple[type["StaleFence"], tuple[str, int, int]]:
        return StaleFence, (self.name, self.fence, self.largest)

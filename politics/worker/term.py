"""What the work of one slot is given."""

from election import LeaseTerm
from politics.worker.slots import Turn


class Term:
    """What the work of one slot is given. All members may be used from any thread."""

    def __init__(self, lead: LeaseTerm, turn: Turn) -> None:
        self._lead = lead
        self.fence = lead.fence
        """A number that is larger than in every earlier leader's term. Where effects land, refuse a smaller one."""
        self.iteration = turn.slot.number
        """The number of the slot."""
        self.takeover = turn.takeover
        """Whether an earlier leader may have begun this slot's work. True if that leader was interrupted, and also if
        the store lost the record together with its leader, since then nobody knows. False proves that nobody has."""
        self.lost = lead.lost
        """An event, set when leadership is no longer proven or the worker is to stop. Look at it, or wait on it."""

    @property
    def valid(self) -> bool:
        """Whether leadership is proven now. Once it is false it stays so."""
        return self._lead.valid

    def remaining(self) -> float:
        """Return the seconds of proven leadership that are left if no renewal succeeds any more."""
        return self._lead.remaining()

    def check(self) -> None:
        """Return while this worker leads, raise when it does not.

        Raises:
            LeadershipLost: leadership can no longer be proven, or the worker was asked to stop. Do not catch it: the
                slot then counts as interrupted, and the next leader learns of it.
        """
        self._lead.check()

    def __repr__(self) -> str:
        return f"<Term iteration={self.iteration} takeover={self.takeover} of {self._lead!r}>"

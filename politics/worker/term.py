"""What the work of one slot is given."""

from election import LeaseTerm as Lead
from politics.worker.slots import Turn


class Term:
    """The leader's turn at one slot, handed to its work. All members may be used from any thread."""

    def __init__(self, lead: Lead, turn: Turn) -> None:
        self._lead = lead
        self.fence = lead.fence
        """Larger than in every earlier leader's term; where effects land, refuse a smaller number."""
        self.iteration = turn.slot.number
        """The number of the slot."""
        self.takeover = turn.takeover
        """Whether an earlier leader began this slot's work and was interrupted, or may have been: if the store forgot
        the record and its leader is gone too, nobody knows. False is a proof that nobody has begun it."""
        self.lost = lead.lost
        """An event to look at and wait on: set when leadership is no longer proven, or the worker is to stop."""

    @property
    def valid(self) -> bool:
        """Whether leadership is proven now. It never becomes true again."""
        return self._lead.valid

    def remaining(self) -> float:
        """Seconds of proven leadership that are left, if no renewal succeeds any more."""
        return self._lead.remaining()

    def check(self) -> None:
        """Do nothing while leading.

        Raises:
            LeadershipLost: leadership can no longer be proven, or the worker was asked to stop. Let it pass: the slot
                then counts as interrupted, and the next leader hears of it.
        """
        self._lead.check()

    def __repr__(self) -> str:
        return f"<Term iteration={self.iteration} takeover={self.takeover} of {self._lead!r}>"

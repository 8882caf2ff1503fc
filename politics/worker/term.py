"""What the work of one slot or tick is given."""

from election import LeaseTerm
from politics.worker.agenda import Assignment


class Term:
    """What the work of one slot or tick is given. All members may be used from any thread."""

    def __init__(self, lead: LeaseTerm, assignment: Assignment) -> None:
        self._lead = lead
        self.fence = lead.fence
        """A number that is larger than in every earlier leader's term. Where effects land, refuse a smaller one."""
        self.iteration = assignment.number
        """The number of the slot; with a schedule that of the tick, its milliseconds since 1970."""
        self.tick = assignment.tick
        """The scheduled instant, in UTC; None where no tick of a schedule is run."""
        self.about, self._label = assignment.about, assignment.label
        """The fields that name the slot or tick in an event."""
        self.takeover = assignment.takeover
        """Whether an earlier leader may have begun this work. True if that leader was interrupted, and also if
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
        return f"<Term {self._label} takeover={self.takeover} of {self._lead!r}>"

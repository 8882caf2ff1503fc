"""The quorum's rules in stories: one run each, whose order of events is written out."""

import pytest

from election.stores.quorum.cells import NEVER, Acceptor, Ballot, Moved, NoChoice, Sight, TooFew, decode, is_first
from election.stores.quorum.rules import Choice, judge
from tests.quorum.breakages import BY_HAND, PROMISE_MORE, REPAIRED_COUNTS, Breakage
from tests.quorum.world import CONFIGURATION, Broken, World

A, B, C = range(3)


class Story(World):
    """A world of three servers whose moves are told one by one."""

    def __init__(self, *scripts: tuple[str, ...]) -> None:
        super().__init__(3, list(enumerate(scripts)), eager=False)

    def begin(self, thread: int) -> "Story":
        self.start(thread)
        return self

    def at(self, thread: int, *servers: int, op: int | None = None) -> "Story":
        """The oldest requests of this thread to these servers land, one after the other."""
        for server in servers:
            self.land(
                next(
                    message
                    for message in self.messages
                    if message.place[0] == thread
                    and message.server == server
                    and (message.place[1] == op if op is not None else True)
                )
            )
        return self

    def lose(self, thread: int, *servers: int) -> "Story":
        """The newest requests of this thread to these servers are never received."""
        for server in servers:
            del self.messages[[m for m in self.messages if m.place[0] == thread and m.server == server][-1]]
        return self

    def on(self, thread: int) -> "Story":
        self.go(thread)
        return self


def create_late(story: Story) -> None:
    """A create's request to C is late by long: it lands when C has forgotten what it was given later."""
    # A and B begin the register; what is sent to C stays under way.
    story.begin(0).at(0, A, B, C)
    while story.threads[0].job:
        story.at(0, A, B)
        if story.threads[0].job:
            story.on(0)
    # C is repaired, and its new incarnation becomes known on A alone.
    story.begin(0).at(0, A, B, op=1)
    story.at(0, C, op=1).at(0, C, op=1)
    story.begin(0).at(0, A, B, op=2).at(0, A, op=2).lose(0, B).on(0)
    # Another one finds it there and on C, and finishes it on both.
    story.begin(1).at(1, A, C).on(1).begin(1).at(1, A, C)
    story.at(1, A, C)
    assert isinstance(story.state(), Choice)
    story.forget(C)
    story.at(0, C, op=0)
    # A is slow now: what do B and C say?
    story.begin(1).at(1, B, C, op=2)
    if story.is_enough(1):
        story.on(1)


def change_and_back(story: Story) -> None:
    """A server is taken by a create that fails, and then by the repair of a value that is not the newest."""
    story.run_alone(0, "create")
    # A repair reads A and B while they have the first value, and C much later.
    story.begin(1).at(1, A, B, C).begin(1).at(1, A, B)
    story.begin(0).at(0, A, C).lose(0, B).on(0)
    story.forget(A)
    # Somebody finds A empty and does not reach B: it holds both, but then takes C, and no more.
    story.begin(2).at(2, A, C).on(2).at(2, A, C)
    story.at(2, C).lose(2, A).on(2)
    # Only now does C answer the repair, which then gives it the first value.
    story.at(1, C)
    if any(message.server == C and message.place[0] == 1 for message in story.messages):
        story.at(1, C)
    story.begin(3).at(3, B, C)
    if story.is_enough(3):
        story.on(3)


def promise_more(story: Story) -> None:
    """A server forgets the newest value and is given the one before by a late repair; then another one promises."""
    story.run_alone(0, "create")
    # A repair reads A and C while they have the first value, and B much later.
    story.begin(1).at(1, A, B, C).begin(1).at(1, A, C)
    story.begin(0).at(0, A, B).lose(0, C).on(0)
    story.forget(B)
    story.at(1, B).at(1, B)
    # Somebody reads all three and would settle what A has. Only C receives the promise.
    story.begin(2).at(2, A, B, C).begin(2).at(2, C).lose(2, A).on(2)
    story.begin(3).at(3, B, C)
    if story.is_enough(3):
        story.on(3)


def know_more(story: Story) -> None:
    """A holder looks for what is to be repaired, is overtaken, and meets a server that forgot and was repaired."""
    story.run_alone(0, "create")
    # It and somebody else have read A and B, to repair C, while all have the first value.
    story.begin(0).at(0, A, B)
    story.begin(2).at(2, A, B, C).begin(2).at(2, A, B)
    # A newer value is chosen on A and C, and C forgets it.
    story.begin(1).at(1, A, B, C).begin(1).lose(1, B).at(1, A, C).on(1)
    story.at(1, A, C)
    story.forget(C)
    # The repair that was late gives C the first value. The holder then reads that, and renews: B alone accepts.
    story.at(2, C).at(2, C)
    story.at(0, C)
    story.begin(0).at(0, A, B)
    while story.threads[0].job and any(m.place[0] == 0 and m.server == B for m in story.messages):
        story.at(0, B)
    # A is slow now: what do B and C say?
    story.begin(3).at(3, B, C).on(3).begin(3)
    while story.threads[3].job and any(m.place[0] == 3 and m.server != A for m in story.messages):
        story.at(3, next(m.server for m in story.messages if m.place[0] == 3 and m.server != A))


STORIES = [
    (know_more, (("repair", "swap"), ("look", "swap"), ("look", "repair"), ("look", "settle")), REPAIRED_COUNTS),
    (know_more, (("repair", "swap"), ("look", "swap"), ("look", "repair"), ("look", "settle")), BY_HAND[0]),
    (create_late, (("create", "repair", "swap"), ("look", "settle", "look")), BY_HAND[2]),
    (promise_more, (("swap",), ("look", "repair"), ("look", "settle"), ("look",)), PROMISE_MORE),
    (change_and_back, (("swap",), ("look", "repair"), ("create",), ("look",)), BY_HAND[1]),
]


@pytest.mark.parametrize(("tell", "scripts", "breakage"), STORIES, ids=lambda x: getattr(x, "__name__", ""))
def test_what_was_forgotten_does_not_count(
    tell: object, scripts: tuple[tuple[str, ...], ...], breakage: Breakage
) -> None:
    """The run is harmless; with the broken rule it shows an old value after a new one."""
    assert callable(tell)
    tell(Story(*scripts))
    with breakage(), pytest.raises(Broken, match=r"shown after|which it had not seen"):
        tell(Story(*scripts))


def cell(number: int, ballot: int, *seen: str, lineage: str = "f1", configuration: str = CONFIGURATION) -> Sight:
    """A cell whose incarnation is its number's letter."""
    accepted = Ballot(ballot, "p")
    return Sight((0, ballot), Acceptor(configuration, lineage, "abc"[number], accepted, accepted, seen, b"%d" % ballot))


BLANK = Sight(None, None)
ALL = ("a", "b", "c")


def test_the_highest_ballot_is_the_state_and_is_settled_once_a_majority_has_it() -> None:
    """One server that has accepted more leaves open what was chosen."""
    two, one = cell(A, 2, *ALL), [cell(B, 1, *ALL), cell(C, 1, *ALL)]
    contended = judge([two, *one], CONFIGURATION)
    assert isinstance(contended, Choice)
    assert (contended.value, contended.settled) == (b"2", False)
    settled = judge([two, cell(B, 2, *ALL), one[1]], CONFIGURATION)
    assert isinstance(settled, Choice)
    assert (settled.value, settled.settled) == (b"2", True)


def test_a_server_counts_only_if_the_others_know_its_incarnation() -> None:
    """What was repaired alone, and what is blank, are no majority with one that remembers."""
    knows, repaired = cell(A, 2, "a", "b0", "c"), cell(B, 2, *ALL)
    assert isinstance(judge([knows, repaired, BLANK], CONFIGURATION), NoChoice)
    assert isinstance(judge([knows, repaired, cell(C, 1, "a", "b0", "c")], CONFIGURATION), Choice)


def test_too_few_answers_decide_nothing_and_another_configuration_is_named() -> None:
    """A majority of answers is needed even to say that nothing is there."""
    assert isinstance(judge([BLANK, BLANK, None], CONFIGURATION), NoChoice)
    assert isinstance(judge([cell(A, 1, *ALL), None, None], CONFIGURATION), TooFew)
    assert judge([BLANK, cell(B, 1, *ALL, configuration="other"), BLANK], CONFIGURATION) == Moved(B)


def test_a_cell_that_knows_another_number_of_servers_is_nothing_of_ours() -> None:
    """It counts as a cell that has forgotten."""
    odd = [cell(number, 1, "a", "b") for number in (A, B, C)]
    assert isinstance(judge(odd, CONFIGURATION), NoChoice)


def test_of_two_that_create_at_once_one_has_it_and_the_others_cell_is_left_alone() -> None:
    """The second finds what the first has accepted on A, and takes the two servers that have accepted nothing."""
    story = Story(("create",), ("create",))
    story.begin(0).at(0, A, B, C).at(0, A, B, C)
    story.at(0, A).begin(1).at(1, A, B, C)
    assert {message.server for message in story.messages if message.place[0] == 1} == {B, C}
    story.at(0, B)
    story.at(1, C, B)
    assert story.outcomes == {"create refused": 1}
    story.at(0, C) if story.threads[0].job else None
    assert isinstance(story.state(), Choice)


def test_a_lineage_says_whether_it_began_on_blank_servers() -> None:
    """A majority must have been without a cell."""
    story = Story(("create",), ("create", "look"))
    story.run_alone(0, "create")
    assert is_first(str(story.servers[A].sight.cell and story.servers[A].sight.cell.lineage))
    story.forget(A)
    story.servers[B] = story.servers[B]._replace(sight=Sight((0, 9), None))  # somebody wrote what nobody can read
    story.run_alone(1, "create")
    state = story.state()
    assert isinstance(state, Choice)
    assert not is_first(state.lineage)


@pytest.mark.parametrize("accepted", [NEVER, Ballot(7, "p1")])
def test_a_cell_is_read_as_it_was_written(accepted: Ballot) -> None:
    """Also one in which nothing is accepted yet, and whatever bytes the value has."""
    kept = Acceptor("c0", "f" + "0" * 32, "i" * 32, Ballot(8, "p1"), accepted, ("", "x", ""), b"a\nb\x00")
    assert decode(kept.encode()) == kept


@pytest.mark.parametrize("data", [b"", b"q1", b'{"v":1}', b"q1 c l i 1.p 1.p a,b", b"q2 c l i 1.p 1.p a,b\nx"])
def test_what_is_no_cell_is_nothing_of_ours(data: bytes) -> None:
    """Whoever can write to a server can write anything there."""
    assert decode(data) is None

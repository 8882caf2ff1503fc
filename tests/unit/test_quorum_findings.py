"""What the doctor says of a quorum, from what each server was seen to have."""

from dataclasses import replace

from election.stores.quorum.cells import SILENT, Acceptor, Answer, Ballot, Sight
from politics.doctor.findings import Level
from politics.doctor.quorums import Participation, Quorum, of_quorum, standings

SERVERS = ("a:1", "b:1", "c:1")
SEEN = ("ia", "ib", "ic")
BALLOT = Ballot(4, "me")
CELLS = [Acceptor("conf", "line", each, Ballot(5, "me"), BALLOT, SEEN, b"x") for each in SEEN]
SYNCED = [Sight((number, b"1"), cell) for number, cell in enumerate(CELLS)]
BLANK = Sight(None, None)
FORGOT = Sight((7, b"7"), replace(CELLS[2], incarnation="anew"))
BEHIND = Sight((7, b"7"), replace(CELLS[2], accepted=Ballot(3, "me")))


def told(*sights: Answer, hosts: tuple[frozenset[str], ...] = ()) -> list[tuple[Level, str, str]]:
    """What is said of a quorum in which one cell was seen so."""
    found = of_quorum(Quorum(SERVERS, "conf", hosts, {"pork": sights}))
    return [(each.level, each.subject, each.text) for each in found]


def test_standings() -> None:
    """A server is synced, behind, forgetful with or without a cell that does not count yet, or unreachable."""
    for third, standing in [
        (SYNCED[2], Participation.SYNCED),
        (BEHIND, Participation.BEHIND),
        (BLANK, Participation.FORGETFUL),
        (FORGOT, Participation.FORGETFUL),
        (Sight((7, b"7"), None), Participation.FORGETFUL),
        (SILENT, Participation.UNREACHABLE),
    ]:
        assert standings([*SYNCED[:2], third], "conf") == [Participation.SYNCED, Participation.SYNCED, standing]


def test_all_is_well() -> None:
    """Three servers that have each cell are complete."""
    assert {level for level, *_ in told(*SYNCED)} == {Level.FINE}
    assert sum("is complete" in text for *_, text in told(*SYNCED)) == 3


def test_one_is_missing() -> None:
    """One that is silent, or does not count yet, is advice: leaders go on. The others are still complete."""
    for third, words in ((SILENT, "does not answer"), (BLANK, "does not count yet"), (FORGOT, "does not count yet")):
        found = told(*SYNCED[:2], third)
        (said,) = [each for each in found if each[0] is not Level.FINE]
        assert said[:2] == (Level.ADVICE, "quorum server c:1")
        assert words in said[2]


def test_too_few_answer() -> None:
    """Without a majority nobody can lead, which is a danger."""
    assert (Level.DANGER, "quorum", "1 of 3 servers answer, and 2 must") in told(SYNCED[0], SILENT, SILENT)


def test_a_majority_has_forgotten() -> None:
    """If only one has anything left, the cell was lost; if none has, nobody has ever written it."""
    assert any("has forgotten 1 of 1 cells" in text for *_, text in told(SYNCED[0], BLANK, BLANK))
    assert not any("forgotten" in text for *_, text in told(BLANK, BLANK, BLANK))


def test_another_list() -> None:
    """A cell of another list is a danger that names the server."""
    other = Sight((7, b"7"), replace(CELLS[1], configuration="other"))
    ((level, subject, text),) = told(SYNCED[0], other, SYNCED[2])
    assert (level, subject) == (Level.DANGER, "quorum server b:1")
    assert "another list" in text


def test_two_on_one_host() -> None:
    """Two servers on one host fail together."""
    one, other = frozenset({"10.0.0.1"}), frozenset({"10.0.0.2"})
    (said,) = [each for each in told(*SYNCED, hosts=(one, other, one)) if each[0] is not Level.FINE]
    assert said == (Level.ADVICE, "quorum", "a:1 and c:1 are on one host (10.0.0.1), so they fail together")

"""The report sees what must never happen."""

from tests.hosts.report import Event, Injection, study


def claim(t: float, until: float, fence: int, who: str) -> Event:
    return {"t": t, "event": "claim", "until": until, "fence": fence, "who": who}


def slot(t: float, number: int, takeover: bool = False) -> Event:
    return {"t": t, "event": "slot", "slot": number, "takeover": takeover, "fence": 1, "who": "a"}


def test_an_overlap_is_seen() -> None:
    """A claim that begins before another's has ended breaks the promise."""
    assert study([claim(1.0, 2.0, 7, "a"), claim(2.1, 3.0, 8, "b")], []).broken == []
    assert len(study([claim(1.0, 2.0, 7, "a"), claim(1.9, 3.0, 8, "b")], []).overlaps) == 1


def test_a_fence_that_does_not_grow_is_seen() -> None:
    """A later term with a smaller fence, or with the same one, breaks the promise."""
    assert len(study([claim(1.0, 2.0, 8, "a"), claim(2.1, 3.0, 7, "b")], []).overlaps) == 1
    assert len(study([claim(1.0, 2.0, 8, "a"), claim(2.1, 3.0, 8, "b")], []).overlaps) == 1


def test_a_term_that_was_resigned_ends_then() -> None:
    """Who says that its term is over claims nothing any more; who has only died does."""
    claims = [claim(1.0, 2.0, 7, "a"), claim(1.2, 2.0, 8, "b")]
    assert study([*claims, {"t": 1.1, "event": "lost", "fence": 7, "who": "a"}], []).broken == []
    assert study(claims, []).broken


def test_a_lease_that_was_taken_before_its_end_is_seen() -> None:
    """The holder says so itself."""
    log = {"t": 1.0, "event": "log", "who": "a", "text": "leadership ended after 1.0 s: taken over by host3:77"}
    assert len(study([log], []).overlaps) == 1


def test_a_slot_that_is_begun_twice_is_seen_unless_it_is_a_takeover() -> None:
    """Its work must be told that another has begun it."""
    said = {"event": "log", "text": "pork 1: slots 2 to 2 have passed unused"}
    also = {"event": "log", "text": "pork 1: slot 4 may be unfinished, and is not run again"}
    report = study([slot(1.0, 1), slot(1.5, 1, takeover=True), slot(2.0, 5), said, also], [])
    assert (report.broken, report.slots) == ([], {"run": 2, "run again": 1, "skipped": 3, "unsaid": 1, "eras": 1})
    assert len(study([slot(1.0, 1), slot(1.5, 1)], []).repeated) == 1


def test_slots_may_begin_again_only_where_all_memory_of_them_was_lost() -> None:
    """After record and leader were lost together, the number 1 is a new beginning; elsewhere it is a repetition."""
    slots = [slot(1.0, 1), slot(2.0, 2), slot(3.0, 1), slot(4.0, 2)]
    for amnesia in (True, False):
        report = study(slots, [Injection("lost", 2.5, 2.6, amnesia=amnesia), Injection("cut", 3.5, 3.6)])
        assert (len(report.repeated), report.slots["eras"]) == ((0, 2) if amnesia else (2, 1))


def test_the_time_without_a_leader_is_counted_for_each_fault() -> None:
    """From one claim to the next, and from the end of the fault to the first claim after it."""
    times = [1.0, 1.1, 2.1, 2.2, 2.3, 2.8]
    faults = [Injection("killed", 1.05, 1.9), Injection("paused", 2.25, 2.6)]
    report = study([claim(t, t + 0.1, 7, "a") for t in times], faults)
    assert {kind: round(gap, 3) for kind, gap in report.after.items()} == {"killed": 1.0, "paused": 0.5}
    assert {kind: round(wait, 3) for kind, wait in report.recovery.items()} == {"killed": 0.2, "paused": 0.2}
    assert round(report.longest, 3) == 1.0
    assert report.late == []


def test_a_leader_that_comes_late_is_seen() -> None:
    """Counted from the fault, or from its end if nobody reached the store before."""
    claims = [claim(t, t + 0.1, 7, "a") for t in (1.0, 1.2, 4.0, 9.0)]
    assert len(study(claims, [Injection("killed", 1.1, 3.0)]).late) == 1
    assert study(claims[:3], [Injection("down", 1.1, 3.0, hides=True)]).late == []
    assert len(study(claims, [Injection("down", 3.9, 4.1, hides=True)]).late) == 1


def test_a_gap_where_the_leader_was_to_go_on_is_seen() -> None:
    """The loss of one server of several is no fault that a leader may notice, though it is sooner over than a lease."""
    claims = [claim(t, t + 1, 7, "a") for t in (1.0, 1.1, 1.9, 2.0)]
    for spares in (False, True):
        report = study(claims, [Injection("one memcached restarted", 1.05, 1.9, spares=spares)])
        assert len(report.noticed) == spares
        assert ("NOTICED" in str(report)) == spares
        assert report.late == []

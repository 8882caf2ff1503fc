"""The diary's verifier sees what must never happen."""

from pathlib import Path

import pytest

from tests.integration.harness import Stage


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([("a", 1.0, 2.0, 5), ("b", 2.1, 3.0, 6)], ""),
        ([("a", 1.0, 2.0, 5), ("b", 1.9, 3.0, 6)], "two leaders at one time"),
        ([("a", 1.0, 2.0, 6), ("b", 2.1, 3.0, 5)], "a fence that shrinks"),
        ([("a", 1.0, 2.0, 5), ("b", 2.1, 3.0, 5)], "one fence, several leaders"),
    ],
)
def test_claims_that_must_not_be(tmp_path: Path, lines: list[tuple[str, float, float, int]], fault: str) -> None:
    """Two at one time, a fence that shrinks, one fence for two; and nothing where all is well."""
    stage = Stage(tmp_path)
    for who, since, until, fence in lines:
        stage.diary.tell(who, "claim", t=since, until=until, fence=fence, group="pork")
    if fault:
        with pytest.raises(AssertionError, match=fault):
            stage.verify()
    else:
        assert [term.who for term in stage.verify()["pork"]] == ["a", "b"]
    stage.close()

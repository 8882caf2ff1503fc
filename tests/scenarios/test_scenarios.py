"""Each text file beside this one is a story that must come true."""

import re
from pathlib import Path

import pytest

from election.testing import Scenario, ScenarioFailed

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scenario(file: Path) -> None:
    """The story comes true, and never are there two leaders."""
    Scenario().run(file.read_text(), file.name)


def test_every_rule_has_a_story() -> None:
    """The rules that a scenario can show are each named by one."""
    text = "".join(file.read_text() for file in FILES)
    named = {int(number) for line in re.findall(r"Rules? ([\d, and]+):", text) for number in re.findall(r"\d+", line)}
    assert {2, 3, 4, 5, 6, 12} <= named


@pytest.mark.parametrize("line", ["tick", "tick soon", "kill 9", "dance", "leader? 1", "valid? 1 yes", "fence grew?"])
def test_a_line_that_is_not_true_or_not_valid(line: str) -> None:
    """A line that is not valid, or not true, is named by its number."""
    with pytest.raises(ScenarioFailed, match=f"story:2: {re.escape(line)}"):
        Scenario().run(f"candidates 2\n{line}  # comment", "story")

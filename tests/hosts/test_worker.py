"""The file that the workers append to."""

from pathlib import Path

from tests.hosts.worker import append


def test_the_file_refuses_an_outdated_fence(tmp_path: Path) -> None:
    """Once it has seen a larger one, and whatever else it holds."""
    sink = tmp_path / "effects"
    assert append(sink, 7, "first")
    assert append(sink, 7, "second")
    assert append(sink, 8, "x" * 100)
    assert not append(sink, 7, "late")
    assert sink.read_text() == f"7 first\n7 second\n8 {'x' * 100}\n"

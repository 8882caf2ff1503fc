"""Thousands of services, on a network that nobody else uses."""

import pytest

from tests.hosts.network import inside


@pytest.mark.parametrize("what", ["two thousand services", "flood"])
def test_everybody_hears_thousands_and_a_flood_of_names_harms_nobody(what: str) -> None:
    """Ten processes see two thousand services; among a stranger's two thousand names the known are still found."""
    inside("tests.hosts.many", what)

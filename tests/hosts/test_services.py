"""A service on one host, seen from another."""

import json

from tests.hosts.network import inside


def test_a_service_is_found_on_another_host_and_again_after_the_network_was_cut() -> None:
    """Found, called and borrowed; forgotten while the network is cut; there again when it has healed."""
    assert json.loads(inside("tests.hosts.services")).keys() == {"warm", "cold", "removed", "added"}

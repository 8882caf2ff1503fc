"""Who an access list admits."""

import pytest

from discovery.errors import BadAccessRule
from discovery.remote.security import TLS, Access

A, B, X = "10.0.0.1", "10.0.0.2", "192.168.1.7"


@pytest.mark.parametrize(
    ("rules", "admitted", "refused"),
    [
        ("", [A, X, "::1"], []),
        (f"deny all allow {A} allow {B}", [A, B], [X, "::1"]),
        (f"allow all deny {X}", [A, "::1"], [X]),
        (f"deny {X} allow all", [A, "::1"], [X]),
        (f"deny {X}", [A, "::1"], [X]),
        (f"allow {A}", [A], [B, X]),
        (f"allow {A} deny {A}", [], [A, B]),
        ("deny 10.0.0.0/8 allow 10.0.0.0/30", [A, B], ["10.9.9.9", X]),
        ("deny all", [], [A, "::1"]),
        ("deny all allow fe80::/10", ["fe80::1%eth0"], [A, "::1"]),
        (f"deny all allow {A}", [f"::ffff:{A}"], [f"::ffff:{X}"]),
        ("allow all allow 10.0.0.0/8 deny 10.0.0.1/32", [B, X], [A]),
    ],
)
def test_the_most_specific_rule_decides(rules: str, admitted: list[str], refused: list[str]) -> None:
    """A deny is never overridden by an allow for more than it names, in whatever order they stand."""
    words = rules.split()
    backwards = [f"{verb} {where}" for verb, where in zip(words[::2], words[1::2], strict=True)][::-1]
    for access in (Access(rules), Access(*backwards)):
        assert [host for host in [*admitted, *refused] if access.admits(host)] == admitted, access


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ("permit all", "permit"),
        ("allow", "allow"),
        ("allow example.org", "example.org"),
        ("deny 10.0.0.1/8", "10.0.0.1/8"),
        ("deny 10.0.0.*", r"10\.0\.0\.\*"),
    ],
)
def test_bad_rules_are_named(rules: str, named: str) -> None:
    """A list with a mistake in it is refused, rather than read as something else."""
    with pytest.raises(BadAccessRule, match=named):
        Access(rules)


def test_tls_says_what_it_lacks() -> None:
    """Settings that cannot work are refused when they are used, by name."""
    with pytest.raises(ValueError, match="certificate"):
        TLS().for_server()
    with pytest.raises(ValueError, match="authority"):
        TLS().for_client()
    with pytest.raises(ValueError, match=r"nowhere\.pem"):
        TLS("nowhere.pem").for_server()
    with pytest.raises(ValueError, match="test_access"):
        TLS(authority=__file__).for_client()

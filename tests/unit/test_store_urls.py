"""URLs of stores that make no sense, and what is said about them."""

import traceback

import pytest

from election.errors import BadStoreURL
from election.stores import open_register

SCHEMES = ["memcached", "quorum+memcached", "postgresql", "redis", "etcd", "zookeeper"]
PASSWORDS = [
    "hunter2℀",
    "or?hunter2",
    "or?hunter2=x",
    "or/hunter2?",
    "or#hunter2?a=b&hunter2",
    "or@hunter2:x?",
    "[hunter2",
]


def refused(url: str) -> str:
    """Return the whole traceback of the error, as a log would have it."""
    with pytest.raises(BadStoreURL) as caught:
        open_register(url)
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_password_that_is_not_escaped_is_not_shown(scheme: str, password: str) -> None:
    """Whatever a part of it is taken for, no error has it, and the error says how it is written."""
    said = refused(f"{scheme}://user:{password}@10.0.0.5/0?colour=blue")
    assert "hunter2" not in said
    assert "as % and its number" in said


@pytest.mark.parametrize("timeout", ["soon", "0", "-1", "nan", "61"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_timeout_that_makes_no_sense_is_named(scheme: str, timeout: str) -> None:
    """The error has what was written, and what can be."""
    hosts = "10.0.0.5,10.0.0.6,10.0.0.7" if scheme == "quorum+memcached" else "10.0.0.5"
    said = refused(f"{scheme}://{hosts}?timeout={timeout}")
    assert f"timeout={timeout} is not a number of seconds between 0 and 60" in said

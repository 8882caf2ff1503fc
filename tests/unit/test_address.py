"""The text form of an address: exactly what is written can be read, and nothing else is, at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import BadAddress
from discovery.remote import Address
from discovery.remote.address import MAX_ADDRESS, SCHEME

PRINTABLE = st.characters(exclude_categories=["C", "Z"])
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-._"), min_size=1, max_size=60)
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str) | st.just("fe80::1%eth0")
ADDRESSES = st.builds(Address, st.text(PRINTABLE, min_size=1, max_size=150), HOSTS, st.integers(1, 65535))


@given(ADDRESSES)
def test_what_is_written_can_be_read(address: Address) -> None:
    """An address survives the way through its text."""
    assert Address.parse(str(address)) == address


@given(
    st.text(max_size=40).map(lambda rest: SCHEME + rest)
    | st.text(st.sampled_from("[]:/@%019 aé٣"), max_size=30).map(lambda rest: SCHEME + rest)
    | st.tuples(ADDRESSES.map(str), st.integers(0, 320), st.text(max_size=3)).map(lambda t: t[0][: t[1]] + t[2])
)
def test_what_is_read_is_what_would_be_written(text: str) -> None:
    """There is one text for each address: what else is accepted would not be equal to itself when it comes back."""
    try:
        address = Address.parse(text)
    except BadAddress:
        return
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("remote://10.0.0.5:7647/ring", Address("ring", "10.0.0.5", 7647)),
        ("remote://[::1]:7001/x", Address("x", "::1", 7001)),
        ("remote://host.example:1/HW:notes/2@home", Address("HW:notes/2@home", "host.example", 1)),
    ],
)
def test_the_form(text: str, address: Address) -> None:
    """As the documentation shows it."""
    assert (Address.parse(text), str(address)) == (address, text)


@pytest.mark.parametrize(
    "rest",
    [
        *("", "h", "h:1", "h/x", "h:1/", ":1/x", "h:/x", "h:0/x", "h:65536/x", "h:99999/x", "h:01/x", "h:+1/x"),
        *("h:٣/x", "::1:1/x", "[h]:1/x", "[::1:1/x", "::1]:1/x", "[[::1]]:1/x", "[::1]1/x", "u@h:1/x", "h:1/x y"),
        *("h:1/x\n", " h:1/x"),
        *("h:1/\u2028", "h:1/\x00", "h:1:1/x", "h:" + "1" * 250 + "/x"),
    ],
)  # fmt: skip
def test_what_is_no_address(rest: str) -> None:
    """The error shows the text and the form."""
    with pytest.raises(BadAddress, match="remote://HOST:PORT/ID") as caught:
        Address.parse(SCHEME + rest)
    assert repr(SCHEME + rest)[1:60] in str(caught.value)


@pytest.mark.parametrize("text", ["", "PYRO:x@h:1", "REMOTE://h:1/x", "http://h:1/x", " remote://h:1/x", None, b"x"])
def test_another_form(text: object) -> None:
    """Nothing but the one scheme, in a text."""
    with pytest.raises(BadAddress):
        Address.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("character", "@:/[]%a0 é")
def test_what_is_too_long_is_refused_at_once(character: str) -> None:
    """Three hundred characters are enough, and many more cost no more: the message shows their beginning."""
    for size in (MAX_ADDRESS + 1 - len(SCHEME), 40_000, 10_000_000):
        with pytest.raises(BadAddress) as caught:
            Address.parse(SCHEME + character * size)
        assert len(str(caught.value)) < 300
    assert Address.parse(f"{SCHEME}h:1/{'x' * (MAX_ADDRESS - len(SCHEME) - 4)}")

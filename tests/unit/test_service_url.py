"""Names of services, what is announced of them, and what is believed."""

import pytest

from discovery.errors import BadURL
from discovery.registry import Service, ServiceURL
from discovery.registry.offer import SKEW, Offer, Refused, parse

SECRET = b"between us"
OFFER = Offer(
    "service-0123456789abcdef", Service("app", "User", "remote://10.0.0.1:99/x", "Users"), "remote://10.0.0.1:99/d"
)


def test_a_url_is_read_as_it_was_written() -> None:
    """App and service, and the same text again."""
    url = ServiceURL.parse("distributed://user_server_1/User")
    assert url == ("user_server_1", "User")
    assert str(url) == "distributed://user_server_1/User"


@pytest.mark.parametrize("bad", ["", "User", "http://app/User", "distributed://app", "distributed:///User",
                                 "distributed://app/", "distributed://app/a/b", "distributed://a b/User", None,
                                 "distributed://app/" + "x" * 65])  # fmt: skip
def test_what_is_no_url_is_shown_in_the_error(bad: str) -> None:
    """`BadURL`, with what was given."""
    with pytest.raises(BadURL) as caught:
        ServiceURL.parse(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("offer", [OFFER, OFFER.changed(True), OFFER.changed(True).changed(False)])
@pytest.mark.parametrize("secret", [b"", SECRET])
def test_an_offer_arrives_as_it_was_announced(offer: Offer, secret: bytes) -> None:
    """Signed or not, on loan or not."""
    assert parse(offer.name, offer.properties(secret, 1000), secret, 1000 + SKEW) == offer


@pytest.mark.parametrize("change", [{"url": "remote://10.6.6.6:99/x"}, {"at": "10.6.6.6"}, {"mac": "0" * 40},
                                    {"time": "2000"}, {"n": "7"}, {"mac": "\u00e4"}, {"loan": "1"}])  # fmt: skip
def test_whatever_is_changed_in_a_signed_offer_is_noticed(change: dict[str, str]) -> None:
    """Its address above all."""
    with pytest.raises(Refused, match="forged"):
        parse(OFFER.name, OFFER.properties(SECRET, 1000) | change, SECRET, 1000)


def test_a_signed_offer_is_believed_under_its_own_name_and_for_some_time() -> None:
    """Repeating it under another name, or much later, achieves nothing; nor does leaving the signature away."""
    signed = OFFER.properties(SECRET, 1000)
    with pytest.raises(Refused, match="forged"):
        parse("service-fedcba9876543210", signed, SECRET, 1000)
    with pytest.raises(Refused, match="clocks"):
        parse(OFFER.name, signed, SECRET, 1001 + SKEW)
    with pytest.raises(Refused, match="unsigned"):
        parse(OFFER.name, OFFER.properties(b"", 1000), SECRET, 1000)


@pytest.mark.parametrize(
    "wrong", [{"app": ""}, {"name": "a/b"}, {"n": "many"}, {"url": "remote://nowhere"}, {"lender": "remote://"}]
)
def test_a_malformed_offer_is_refused(wrong: dict[str, str]) -> None:
    """Names that cannot be, numbers that are none."""
    with pytest.raises(Refused, match="malformed"):
        parse(OFFER.name, OFFER.properties(b"", 0) | wrong, b"", 0)
    with pytest.raises(Refused, match="malformed"):
        parse(OFFER.name, {"app": "app"}, b"", 0)
    with pytest.raises(Refused, match="are texts"):
        parse(OFFER.name, {"app": 7}, b"", 0)  # type: ignore[dict-item]

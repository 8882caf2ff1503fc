"""How long a registry listens before it believes that a name is free: a network that is only heard of, no time."""

import threading
from typing import cast

import pytest

from discovery.errors import ServiceTaken
from discovery.registry.offer import Offer, Service
from discovery.registry.offering import LISTEN, MANY, Offering
from discovery.registry.transport import Transport
from discovery.registry.url import ServiceURL
from discovery.registry.view import ServiceView
from discovery.remote.server import Server


class Waits(threading.Event):
    """An event that is never set and never waited for; it keeps how long it should have been."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


@pytest.mark.parametrize(("others", "seconds"), [(0, [LISTEN]), (MANY - 2, [LISTEN]), (MANY, [LISTEN, 0.9])])
def test_where_many_are_heard_a_name_is_listened_for_until_all_have_answered(others: int, seconds: list[float]) -> None:
    """Their answers come spread over most of a second."""
    view, waits, where = ServiceView(), Waits(), ServiceURL("app", "Taken")
    for number in range(others):
        view.put(Offer(f"service-{number:016x}", Service("app", f"Other{number}", "http://x", ""), ""))
    view.put(Offer("service-ffffffffffffffff", Service(*where, "http://x", ""), ""))
    offering = Offering(view, Server("127.0.0.1"), cast(Transport, None), b"", waits)
    offering.begin()
    with pytest.raises(ServiceTaken):
        offering.add(where, None, "http://y", "", None, shared=False)
    assert waits.seconds == pytest.approx(seconds, abs=0.3)

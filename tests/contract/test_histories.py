"""What many clients of a store see at once, judged as a whole: one order of all their calls explains it."""

import uuid

import pytest

from tests.contract.conftest import SERVED, SPARED, Stores, with_a_server
from tests.contract.histories import Recorder
from tests.proxy import Proxy
from tests.waiting import until


@pytest.fixture
def recorder(stores: Stores) -> Recorder:
    """One for two cells that no other test uses."""
    return Recorder([f"history {uuid.uuid4().hex} {number}" for number in range(2)], stores.weak)


def test_what_clients_see_at_once_has_one_order(stores: Stores, recorder: Recorder) -> None:
    """Six threads, of which three share a register, read and swap two cells: all that they saw is linearizable."""
    shared = stores.client()
    recorder.run([stores.client(), stores.client(), stores.client(), shared, shared, shared], calls=50)
    assert recorder.flaws() == []


@pytest.mark.parametrize("stores", SERVED + SPARED, indirect=True)
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_server_that_is_struck_in_the_middle_of_swaps(stores: Stores, recorder: Recorder, fault: str) -> None:
    """It is killed and started again, or frozen and thawed, three times: what was seen, and what is unknown, fit."""
    server = stores.server
    assert server
    with recorder.clients(stores.through(), 3, shared=3):
        for _ in range(3):
            recorder.more()
            until(lambda: all(map(stores.whole, recorder.names)), "all servers to have the cells")
            with recorder.fault(loses=stores.forgets and fault == "killed"):
                strike, mend = (server.stop, server.start) if fault == "killed" else (server.freeze, server.thaw)
                strike()
                try:
                    (recorder.more if stores.spares else recorder.troubled)()
                finally:
                    mend()
        recorder.more()
    assert recorder.flaws() == []


@with_a_server
def test_answers_that_are_lost_on_their_way(stores: Stores, recorder: Recorder) -> None:
    """One answer in ten is lost with its connection. The swaps behind them landed, once, and the histories say so."""
    assert stores.server
    with Proxy(stores.server.port) as proxy, recorder.clients(stores.through(proxy.port), 3, shared=2):
        recorder.more()
        with recorder.fault(), proxy.losing(0.1):
            recorder.until_unknown(5)
        recorder.more()
    assert recorder.flaws() == []
    assert [data for data in recorder.written if proxy.sent(data) > 1] == []


@with_a_server
@pytest.mark.parametrize("way", ["requests", "answers"])
def test_what_is_delivered_late(stores: Stores, recorder: Recorder, way: str) -> None:
    """Swaps that arrive after their clients have given up may land then; late answers are taken for no other's."""
    assert stores.server
    with Proxy(stores.server.port) as proxy, recorder.clients(stores.through(proxy.port), 3, shared=2):
        for _ in range(4):
            recorder.more()
            with recorder.fault(), proxy.holding(getattr(proxy, way)):
                recorder.troubled()
        recorder.more()
    assert recorder.flaws() == []
    assert [data for data in recorder.written if proxy.sent(data) > 1] == []

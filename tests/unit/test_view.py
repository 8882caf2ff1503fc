"""What a registry's view knows, and what its watches hear of it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from discovery.errors import RequestCanceled, RequestExpired, ServiceNotFound
from discovery.registry import view as view_module
from discovery.registry.offer import Offer, Service
from discovery.registry.view import ServiceChange, ServiceView, Watch

SOON = 10.0  # seconds of real time within which a thread must have done what it is about to do
ANY = (None, None, None, None)


def offer(name: str, on_loan: bool = False) -> Offer:
    """An offer of a service of this name."""
    return Offer(name, Service("app", name, f"http://{name}", ""), "", on_loan)


@pytest.fixture
def view() -> ServiceView:
    return ServiceView()


def test_what_an_owner_tells_of_an_offer_that_is_not_heard_any_more_changes_nothing(view: ServiceView) -> None:
    """Nobody would notice its end. One that is known is corrected."""
    first = offer("a")
    view.put(first)
    view.correct(first.changed(on_loan=True))
    assert [known.on_loan for known in view.offers()] == [True]
    view.drop("a")
    view.correct(first.changed(on_loan=False))
    assert view.offers() == []


def test_a_watch_begins_with_what_is_known_and_tells_of_each_change(view: ServiceView) -> None:
    """Added, changed on a loan and on a return, removed; and of other services nothing."""
    first, lent = offer("a"), offer("a").changed(on_loan=True)
    view.put(first)
    watch = view.watch(("app", "a", None, None))
    view.put(offer("b"))
    view.put(lent, certain=True)
    view.put(first)  # older than what is known
    view.put(lent.changed(on_loan=False))
    view.drop("a")
    assert [watch.get(0) for _ in range(4)] == [
        ServiceChange("added", first.service, False),
        ServiceChange("changed", first.service, True),
        ServiceChange("changed", first.service, False),
        ServiceChange("removed", first.service, False),
    ]
    with pytest.raises(RequestExpired):
        watch.get(0)


def test_a_closed_watch_delivers_what_it_has_and_then_always_raises(view: ServiceView) -> None:
    """What came before `close` is delivered, what comes after it never, however often it is asked for."""
    watch = view.watch(ANY)
    view.put(offer("a"))
    watch.close()
    watch.close()
    view.put(offer("b"))
    assert watch.get(0).service.service == "a"
    for name in ("c", "d"):
        with pytest.raises(RequestCanceled):
            watch.get(0)
        view.put(offer(name))
    with pytest.raises(RequestCanceled):
        watch.get(0)
    assert list(watch) == []


def test_a_closed_watch_is_dropped_by_its_view(view: ServiceView) -> None:
    """Watches that come and go leave nothing behind, and the others stay."""
    kept, closed = view.watch(ANY), [view.watch(ANY) for _ in range(3)]
    for watch in closed:
        watch.close()
    assert view._watches == [kept]
    view.put(offer("a"))
    assert kept.get(0).kind == "added"


def test_a_watch_of_a_closed_view_has_ended(view: ServiceView) -> None:
    """Closing the view ends the watches that there are and those that come later."""
    early = view.watch(ANY)
    view.close()
    for watch in (early, view.watch(ANY)):
        with pytest.raises(RequestCanceled):
            watch.get(SOON)
    assert view._watches == []


def test_closing_wakes_who_waits(view: ServiceView) -> None:
    """A thread that waits in `get` gets RequestCanceled when another closes the watch, and iterating ends."""
    watch, ended = view.watch(ANY), threading.Semaphore(0)

    def wait() -> None:
        with pytest.raises(RequestCanceled):
            watch.get()
        ended.release()

    def iterate() -> None:
        assert list(watch) == []
        ended.release()

    threads = [threading.Thread(target=work) for work in (wait, iterate)]
    for thread in threads:
        thread.start()
    watch.close()
    assert all(ended.acquire(timeout=SOON) for _ in threads)
    for thread in threads:
        thread.join()


def test_a_slow_watcher_is_told_what_it_missed(view: ServiceView, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five changes it gets the last two, and with the first of them the number that was dropped."""
    monkeypatch.setattr(view_module, "PENDING", 2)
    watch = view.watch(ANY)
    for name in "abcde":
        view.put(offer(name))
    assert watch.get(0) == ServiceChange("added", offer("d").service, False, missed=3)
    assert watch.get(0) == ServiceChange("added", offer("e").service, False)


def test_a_watch_shows_what_it_is(view: ServiceView) -> None:
    """Its repr says what it watches, and whether it has ended."""
    watch = view.watch(("app", None, None, None))
    assert isinstance(watch, Watch)
    assert repr(watch) == "<Watch of ('app', None, None, None), open>"
    watch.close()
    assert repr(watch) == "<Watch of ('app', None, None, None), closed>"


def test_an_older_state_of_an_offer_is_ignored(view: ServiceView) -> None:
    """An announcement that is still under way does not undo what the owner has told us meanwhile."""
    new = replace(offer("a"), on_loan=True, revision=3)
    view.put(replace(new, on_loan=False, revision=2))
    view.put(new, certain=True)
    view.put(replace(new, on_loan=False, revision=2))
    assert view.offers(ANY) == [new]
    with pytest.raises(RequestExpired):
        view.pick(("app", "a"), 0)


def test_the_last_announcement_is_believed(view: ServiceView) -> None:
    """Whatever its number, so that a forged one is believed until the owner's next heartbeat, and no longer."""
    real = replace(offer("a"), revision=5)
    forged = replace(real, on_loan=True, revision=10**11)
    for state in (real, forged, real):
        view.put(state)
        assert view.offers(ANY) == [state]


def test_a_forged_offer_does_not_keep_what_its_lender_told(view: ServiceView) -> None:
    """Whoever borrows from a stranger may be told any number. The owner's announcements are believed all the same."""
    real = replace(offer("a"), revision=5)
    view.put(replace(real, lender="remote://127.0.0.1:1/x", revision=10**11), certain=True)
    view.put(real)
    assert view.offers(ANY) == [real]


@pytest.mark.parametrize(
    ("heard", "forged"),
    [
        ({}, False), ({"revision": 4}, False), ({"revision": 4, "on_loan": True}, False), ({"on_loan": True}, True),
        ({"revision": 6}, True), ({"lender": "remote://127.0.0.1:1/x", "revision": 4}, True),
        ({"service": offer("b").service, "revision": 4}, True),
    ],
)  # fmt: skip
def test_an_owner_knows_what_is_forged(heard: dict[str, Any], forged: bool) -> None:
    """What it has announced before is not, and comes back to it."""
    mine = replace(offer("a"), revision=5)
    assert replace(mine, **heard).forges(mine) == forged


class Moody:
    """A pattern whose own `matches` raises once it is told to."""

    raises = False

    def matches(self, value: object) -> bool:
        if self.raises:
            raise ValueError("moody")
        return True


def test_a_watch_whose_template_raises_harms_no_other(view: ServiceView, caplog: pytest.LogCaptureFixture) -> None:
    """It ends, with one line in the log; whoever feeds the view hears of nothing, and other watches miss nothing."""
    moody = Moody()
    bad, good = view.watch((moody, None, None, None)), view.watch(ANY)
    moody.raises = True
    view.put(offer("a"))
    view.put(offer("b"))
    assert [good.get(0).service.service for _ in range(2)] == ["a", "b"]
    with pytest.raises(RequestCanceled):
        bad.get(0)
    assert len([line for line in caplog.messages if "moody" in line]) == 1


class Curious:
    """A pattern that looks at the view itself."""

    def __init__(self, view: ServiceView) -> None:
        self.view = view

    def matches(self, value: object) -> bool:
        self.view.put(offer("found"))
        return self.view.pick((None, "found"), 0).service == "found" and bool(self.view.offers())


def test_a_pattern_may_use_the_view(view: ServiceView) -> None:
    """No lock is held while a user's `matches` runs: it may look things up, and even cause changes."""
    watch = view.watch((Curious(view), None, None, None))
    view.put(offer("a"))
    assert [watch.get(SOON).service.service for _ in range(2)] == ["a", "found"]


def test_changes_by_many_threads_are_heard_in_their_order(view: ServiceView) -> None:
    """What each watch hears of a service alternates between added and removed."""
    watch = view.watch(ANY)

    def work(name: str) -> None:
        for _ in range(200):
            view.put(offer(name))
            view.drop(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = [watch.get(SOON) for _ in range(1600)]
    for name in "abcd":
        assert [change.kind for change in heard if change.service.service == name] == ["added", "removed"] * 200


def test_processes_that_pick_once_do_not_all_pick_the_same() -> None:
    """Each process begins with another of the providers."""
    picked = set()
    for _ in range(100):
        view = ServiceView()
        for name in "ab":
            view.put(Offer(name, Service("app", "shared", f"http://{name}", ""), ""))
        picked.add(view.pick((None, "shared"), 0).url)
    assert picked == {"http://a", "http://b"}


def test_providers_are_picked_in_turn(view: ServiceView) -> None:
    """Each as often as the others; one that is on loan is passed over, and one that is dropped."""
    for name in "abcd":
        view.put(Offer(name, Service("app", "shared", f"http://{name}", ""), "", on_loan=name == "c"))
    view.drop("d")
    assert sorted(view.pick(("app", "shared"), 0).url for _ in range(10)) == ["http://a"] * 5 + ["http://b"] * 5


def test_ten_thousand_names_make_nothing_slow(view: ServiceView) -> None:
    """Nobody walks over all of them to find one, and a name that is not found is compared with few."""
    for number in range(10_000):
        view.put(offer(f"{number:x}-{hash(str(number)):x}"))
    view.put(offer("stock"))
    begun = time.process_time()
    for _ in range(1000):
        assert view.providers(("app", "stock")) == (offer("stock"),)
        assert view.pick((None, "stock"), 0).service == "stock"
    error = view.missing((None, "stokc"), "stokc", "the network")
    assert time.process_time() - begun < 0.3
    assert isinstance(error, ServiceNotFound)
    assert "did you mean stock?" in str(error)


def test_a_lookup_that_waits_gets_what_comes(view: ServiceView) -> None:
    """What is put, what comes back from a loan, and an error when the view is closed."""
    lent = offer("a", on_loan=True)
    view.put(lent)
    steps = [("b", lambda: view.put(offer("b"))), ("a", lambda: view.put(lent.changed(on_loan=False)))]
    for name, change in steps:
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(view.pick, ("app", name), None)
            change()
            assert waiting.result(SOON).service == name
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(view.pick, ("app", "c"), None)
        view.close()
        with pytest.raises(RequestCanceled):
            waiting.result(SOON)


def test_a_provider_is_heard_as_long_as_one_of_its_offers_is_known(view: ServiceView) -> None:
    """By its host and port, whatever happens to its other services."""
    server = ("127.0.0.1", 7001)
    offers = [Offer(name, Service("app", name, f"remote://127.0.0.1:7001/{name * 22}", ""), "") for name in "ab"]
    for one in (*offers, offers[0].changed(on_loan=True)):
        view.put(one)
    view.drop("a")
    assert view.hears(server)
    view.drop("b")
    assert not view.hears(server)

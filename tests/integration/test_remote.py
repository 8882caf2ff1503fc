"""Objects served to other threads and processes, called by value and by reference."""

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from discovery.errors import (
    BadAddress,
    CallTimeout,
    CannotTravel,
    ConnectionLost,
    NoSuchMethod,
    NoSuchObject,
    RemoteError,
    RequestCanceled,
)
from discovery.remote import (
    Address,
    Client,
    Pending,
    Proxy,
    Server,
    Stream,
    Unknown,
    address_of,
    by_reference,
    connect,
    serve,
)
from discovery.remote.client import Call
from tests.processes import free_port, python
from tests.waiting import DEADLINE, SOON, until


@by_reference
class User:
    def __init__(self, name: str) -> None:
        self.name = name

    def rename(self, name: str) -> None:
        self.name = name

    def get(self) -> str:
        return self.name

    @classmethod
    def count(cls) -> int:
        return 5

    @staticmethod
    def planet() -> str:
        return "Earth"


@dataclasses.dataclass
class Letter:
    text: str


class Odd(Exception):
    pass


class Hello:
    secret = "attribute"

    def __init__(self) -> None:
        self.user = User("bob")
        self.callback = print
        self.released = threading.Event()

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def find(self) -> User:
        return self.user

    def same(self, user: object) -> bool:
        return user is self.user

    def letter(self) -> Letter:
        return Letter("dear")

    def call(self, function: Any, value: Any) -> Any:
        return function(value)

    def twice(self, value: Any) -> Any:
        return value, value

    def fail(self) -> None:
        raise Odd("on purpose")

    def lose_another(self) -> None:
        raise ConnectionLost("to a third party", maybe_executed=False)

    def block(self) -> None:
        self.released.wait(DEADLINE)

    def unsendable(self) -> object:
        return object()

    @property
    def prop(self) -> str:
        raise AssertionError("a property ran")

    def _private(self) -> None:
        raise AssertionError("a private method ran")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("127.0.0.1", max_message=1_000_000) as server:
        yield server


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def hello(server: Server) -> Proxy:
    return connect(server.serve(Hello()))


def test_plain_data_goes_both_ways(hello: Proxy) -> None:
    """Arguments and results are what they were, keyword arguments included."""
    assert hello.echo(1, (b"\0", [None]), key={(1, 2): {3}}) == ((1, (b"\0", [None])), {"key": {(1, 2): {3}}})


@pytest.mark.parametrize("name", ["_private", "__init__", "__class__", "prop", "secret", "callback", "nothing", "user"])
def test_only_public_methods_exist(client: Client, hello: Proxy, name: str) -> None:
    """Neither attributes nor properties nor anything private can be reached, whatever the proxy lets through."""
    with pytest.raises(NoSuchMethod, match=f"Hello has no public method '{name}'"):
        client.call(address_of(hello), name)


def test_attributes_cannot_be_set(hello: Proxy) -> None:
    """A proxy has no attributes to set, and hides private names at once."""
    with pytest.raises(AttributeError):
        hello.secret = 1
    with pytest.raises(AttributeError, match="_private"):
        hello._private()


def test_errors_arrive(hello: Proxy) -> None:
    """Python's errors as themselves, others by name, each with where it was raised."""
    with pytest.raises(TypeError, match="missing") as caught:
        hello.call()
    with pytest.raises(RemoteError, match="Odd: on purpose") as other:
        hello.fail()
    assert other.value.type_name.endswith("Odd")
    assert 'raise Odd("on purpose")' in other.value.remote_traceback
    assert "_answer" not in other.value.remote_traceback
    assert not hasattr(caught.value, "remote_traceback")


def test_an_answer_that_cannot_travel_is_an_error_for_the_caller(hello: Proxy) -> None:
    """Results that cannot be sent, or are too large, are refused by name; the connection lives on."""
    with pytest.raises(CannotTravel, match="object"):
        hello.unsendable()
    with pytest.raises(CannotTravel, match="bytes"):
        hello.twice("x" * 600_000)
    with pytest.raises(CannotTravel, match="print"):
        hello.echo(print)
    assert hello.echo() == ((), {})


def test_by_reference_changes_happen_at_the_server(hello: Proxy) -> None:
    """The book's user server: a change through one reference shows through the next."""
    hello.find().rename("ann")
    assert hello.find().get() == "ann"
    assert hello.find() == hello.find()


def test_a_reference_that_comes_home_is_the_object_itself(server: Server) -> None:
    """The server gets its own object back, not a proxy for it. (A process of its own, since in one all is at home.)"""
    code = """
from discovery.remote import connect
import sys
hello = connect(sys.argv[1])
print(hello.same(hello.find()), type(hello.find()).__name__, type(hello.letter()).__name__, repr(hello.letter()))
"""
    with python(code, server.serve(Hello())) as caller:
        code_, output = caller.result()
    assert (code_, output) == (0, f"True Proxy Unknown <Unknown {__name__}.Letter text='dear'>")


def test_unmarked_dataclasses_go_by_value(hello: Proxy) -> None:
    """By value, of a class that this side has not named: its name and its fields."""
    assert hello.letter() == Unknown(f"{__name__}.Letter", {"text": "dear"})


def test_callbacks(server: Server) -> None:
    """A function that a client serves can be called by the server."""
    code = """
import sys
from discovery.remote import connect, serve
def double(n): return 2 * n
serve(double)
print(connect(sys.argv[1]).call(double, 21))
"""
    with python(code, server.serve(Hello())) as caller:
        assert caller.result() == (0, "42")


def test_a_class_is_served_with_its_instances(server: Server) -> None:
    """Calling the proxy of a class makes an instance at the server; class and static methods work, others do not."""
    users = connect(server.serve(User))
    assert users("eve").get() == "eve"
    assert (users.count(), users.planet()) == (5, "Earth")
    with pytest.raises(NoSuchMethod, match="User has no public method 'get'"):
        users.get()


def test_instances_of_an_unmarked_class_go_by_reference_when_made_remotely(server: Server) -> None:
    """Only the class is served, and an instance made through it still is a reference."""
    assert connect(server.serve(Hello))().echo(1) == ((1,), {})


def test_lent_objects_are_let_go_after_a_while(client: Client) -> None:
    """A reference lives for `keep` seconds after its last use; what was served by name stays."""
    now = [0.0]
    with Server("127.0.0.1", keep=10, clock=lambda: now[0]) as server:
        hello = connect(server.serve(Hello(), "hello"))
        code = "import sys; from discovery.remote import connect; print(repr(connect(sys.argv[1]).find())[7:-1])"
        with python(code, str(address_of(hello))) as caller:
            address = caller.line("remote://")
        user = client.proxy(address)
        now[0] = 9.0
        assert user.get() == "bob"
        now[0] = 18.0
        assert user.get() == "bob"
        now[0] = 28.0
        with pytest.raises(NoSuchObject, match="no longer"):
            user.get()
        assert hello.echo() == ((), {})


def test_served_objects_can_be_withdrawn(server: Server) -> None:
    """After `unserve` the address is refused."""
    target = Hello()
    proxy = connect(server.serve(target, "name"))
    with pytest.raises(ValueError, match="'name'"):
        server.serve(Hello(), "name")
    with pytest.raises(BadAddress, match="no spaces"):
        server.serve(Hello(), "two words")
    server.unserve(target)
    with pytest.raises(NoSuchObject, match="'name'"):
        proxy.echo()


def test_the_default_server() -> None:
    """`serve` and `connect` need no settings."""
    target = Hello()
    assert connect(serve(target)).echo(1) == ((1,), {})


@pytest.mark.parametrize("text", ["", "hello", "remote://h/x", "PYRO:x@h:1"])
def test_bad_addresses_are_named(text: str) -> None:
    """What is no address is refused before anything is sent."""
    with pytest.raises(BadAddress, match=repr(text)):
        connect(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "no..name", "n" * 70])
def test_a_server_that_is_not_there(host: str) -> None:
    """Nothing was executed, and the error says so; a host that cannot even be looked up is no other case."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionLost, match=str(port)) as caught:
        connect(f"remote://{host}:{port}/x").call()
    assert not caught.value.maybe_executed


SERVER = """
import threading
from discovery.remote import Server
class Blocker:
    def block(self):
        print("blocking", flush=True)
        threading.Event().wait()
    def ping(self): return "pong"
server = Server("127.0.0.1", PORT)
print(server.serve(Blocker(), "blocker"), flush=True)
threading.Event().wait()
"""


def test_a_server_that_dies_ends_the_call_at_once() -> None:
    """SIGKILL in the middle of a call: an error within a second that says that it may have been executed."""
    with python(SERVER.replace("PORT", "0")) as process:
        proxy = connect(process.line("remote://"))
        errors: list[ConnectionLost] = []

        def call() -> None:
            try:
                proxy.block()
            except ConnectionLost as exc:
                errors.append(exc)

        thread = threading.Thread(target=call)
        thread.start()
        process.line("blocking")
        process.kill()
        start = time.monotonic()
        thread.join(DEADLINE)
        assert time.monotonic() - start < SOON
        assert [error.maybe_executed for error in errors] == [True]


def test_a_server_that_comes_back_is_used_again() -> None:
    """Connections of the dead one are noticed before anything is sent on them."""
    with python(SERVER.replace("PORT", "0")) as process:
        address = process.line("remote://")
        proxy = connect(address)
        assert proxy.ping() == "pong"
    with python(SERVER.replace("PORT", str(Address.parse(address).port))) as process:
        process.line("remote://")
        assert proxy.ping() == "pong"


def test_a_server_that_hangs_is_given_up(server: Server) -> None:
    """With a timeout a call that is not answered ends, and may have been executed."""
    target = Hello()
    with Client(timeout=0.1) as client, pytest.raises(CallTimeout, match=r"in 0\.1 s") as caught:
        client.proxy(server.serve(target)).block()
    target.released.set()
    assert caught.value.maybe_executed


def test_a_call_that_outlasts_its_client_leaves_no_connection(server: Server) -> None:
    """Closed while it waits for the answer, a client keeps none of its connections; used again, it keeps them again."""
    begun, answer = threading.Event(), threading.Event()

    def slow() -> bool:
        begun.set()
        return answer.wait(DEADLINE)

    with Client() as client:
        proxy = client.proxy(server.serve(slow))
        thread = threading.Thread(target=proxy)
        thread.start()
        assert begun.wait(DEADLINE)
        client.close()
        answer.set()
        thread.join(DEADLINE)
        assert not any(client._pool._idle.values())
        assert proxy()
        assert any(client._pool._idle.values())


def test_a_connection_that_the_method_lost_is_not_ours(hello: Proxy) -> None:
    """The method was executed, even if it says of its own call that it was not."""
    with pytest.raises(ConnectionLost, match="third party") as caught:
        hello.lose_another()
    assert caught.value.maybe_executed


def test_closing_a_server_is_prompt() -> None:
    """Clients that wait get an error, and the port is free again."""
    server = Server("127.0.0.1", free_port()).start()
    target = Hello()
    proxy = connect(server.serve(target))
    failed: list[bool] = []

    def call() -> None:
        with pytest.raises(ConnectionLost):
            proxy.block()
        failed.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: server._connections)
    start = time.monotonic()
    server.close()
    thread.join(DEADLINE)
    assert failed
    assert time.monotonic() - start < SOON
    target.released.set()
    Server("127.0.0.1", server.port).start().close()
    with pytest.raises(RuntimeError, match="closed"):
        server.serve(target)


class Held(Pending):
    """An answer that comes when the test says so, and remembers what became of it."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.waiting = threading.Event()
        self.over = threading.Event()
        self.fate: list[str] = []

    def take(self) -> "Held":
        return self

    def wait(self) -> str:
        self.waiting.set()
        assert self.answer.wait(DEADLINE)
        if self.fate:
            raise RuntimeError("cancelled")
        return "the answer"

    def cancel(self) -> None:
        self.fate.append("cancelled")
        self.answer.set()

    def confirm(self) -> None:
        self.fate.append("confirmed")
        self.over.set()

    def put_back(self) -> None:
        self.fate.append("put back")
        self.over.set()


def test_a_held_answer_is_confirmed_when_it_has_arrived(server: Server) -> None:
    """By the time that the caller has the answer, the server knows."""
    held = Held()
    proxy = connect(server.serve(held))
    held.answer.set()
    assert proxy.take() == "the answer"
    assert held.fate == ["confirmed"]


def test_a_held_answer_that_is_given_back(client: Client, server: Server) -> None:
    """Who cancels after the answer has come gives it back."""
    held = Held()
    held.answer.set()
    call = Call(client, Address.parse(server.serve(held)), "take")
    assert (call.result(), call.held) == ("the answer", True)
    call.cancel()
    assert held.over.wait(DEADLINE)
    assert held.fate == ["put back"]


def test_a_call_that_is_over_cannot_be_cancelled(client: Client, server: Server) -> None:
    """Its connection is back in the pool, where another call may use it."""
    held = Held()
    held.answer.set()
    done = Call(client, Address.parse(server.serve(Hello())), "echo")
    done.result()
    confirmed = Call(client, Address.parse(server.serve(held)), "take")
    confirmed.result()
    confirmed.confirm()
    for call in (done, confirmed):
        call.cancel()
        assert not call.held
        assert not call._connection.readable
    assert held.fate == ["confirmed"]


def test_a_call_that_is_cancelled(client: Client, server: Server) -> None:
    """Another thread ends the wait; the server hears of it."""
    held = Held()
    call = Call(client, Address.parse(server.serve(held)), "take")
    assert held.waiting.wait(DEADLINE)
    threading.Timer(0.01, call.cancel).start()
    with pytest.raises(RequestCanceled):
        call.result()
    assert held.over.wait(DEADLINE)
    assert held.fate == ["cancelled", "put back"]


def test_a_caller_that_dies_while_it_waits_is_noticed(server: Server) -> None:
    """SIGKILL while a call waits: it is cancelled at once, without anybody polling."""
    held = Held()
    code = "import sys; from discovery.remote import connect; connect(sys.argv[1]).take()"
    with python(code, server.serve(held)) as caller:
        assert held.waiting.wait(DEADLINE)
        os.kill(caller.popen.pid, signal.SIGKILL)
        assert held.over.wait(DEADLINE)
    assert held.fate == ["cancelled", "put back"]


class Numbers(Stream):
    def __init__(self, *batches: Any) -> None:
        self.batches = list(batches)
        self.cancelled = threading.Event()

    def numbers(self) -> "Numbers":
        return self

    def next_batch(self) -> list[Any] | None:
        if not self.batches:
            self.cancelled.wait(DEADLINE)
            return None
        batch = self.batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch  # type: ignore[no-any-return]

    def cancel(self) -> None:
        self.cancelled.set()


def test_a_stream_is_fetched_batch_by_batch(client: Client, server: Server) -> None:
    """All that it holds arrives in order; a wait can be bounded and taken up again; closing ends both sides."""
    numbers = Numbers([1, 2], [3])
    address = Address.parse(server.serve(numbers))
    stream = client.stream(address, "numbers")
    assert (stream.next_batch(), stream.next_batch()) == ([1, 2], [3])
    for _ in range(2):
        with pytest.raises(TimeoutError):
            stream.next_batch(timeout=0.01)
    stream.close()
    assert numbers.cancelled.wait(DEADLINE)
    assert stream.next_batch() is None


def test_a_stream_ends_or_fails_for_its_reader(client: Client, server: Server) -> None:
    """The end is the end, an error is raised, and a method that has no stream is a clear error."""
    ending, failing = Numbers([1], None), Numbers([2], LookupError("no more"))
    assert list(client.stream(Address.parse(server.serve(ending)), "numbers")) == [1]
    with pytest.raises(LookupError, match="no more"):
        list(client.stream(Address.parse(server.serve(failing)), "numbers"))
    with pytest.raises(NoSuchMethod):
        client.stream(Address.parse(server.serve(Numbers())), "nothing")


def test_a_forked_child_neither_serves_nor_shares_connections(server: Server, hello: Proxy) -> None:
    """A child of `fork` calls on connections of its own, and does not keep its parent's port open."""
    assert hello.echo(1) == ((1,), {})
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert hello.echo(2) == ((2,), {})
            os.write(writing, b"closed" if server._listener._listener.fileno() == -1 else b"open")
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        assert answer.read() == b"closed"
    os.waitpid(child, 0)
    assert hello.echo(3) == ((3,), {})


def test_two_hundred_clients_at_once(server: Server, hello: Proxy) -> None:
    """Nobody is refused for want of a thread, and each gets its own answer."""
    start = threading.Barrier(200)
    wrong: list[int] = []

    def call(number: int) -> None:
        start.wait(DEADLINE)
        if hello.echo(number) != ((number,), {}):
            wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not wrong

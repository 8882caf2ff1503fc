"""What cannot work is refused, with a sentence that names it."""

import contextlib
import math
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from election import BadPolicy, BadStoreURL
from politics import TokenWorker
from tests.integration.conftest import MakeStage
from tests.integration.harness import Stage
from tests.integration.worker import now
from tests.memcached import Memcached
from tests.waiting import until

GOOD = {"group": "pork", "store": "memory://nonsense"}


def test_half_a_second_is_a_lease(make_stage: MakeStage, old_memcached: Memcached) -> None:
    """A lease of 0.5 s is renewed for as long as it takes, and ends when its holder does."""
    stage = make_stage(old_memcached.url, lease_ttl=0.5)
    stage.start(2)
    leader, election = stage.elected()
    stage.wait("effect", fence=election["fence"], after=election["t"] + 2)
    successor, _ = stage.elected(after=leader.popen.kill() or election["t"])
    assert successor is not leader


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, "10", True, 1e-9, 3601, 10**400, [10]])
def test_a_lease_that_cannot_be_is_refused(ttl: Any) -> None:
    """Zero, less, not a number, text, a bool, longer than sense: the message names the option and the value."""
    with pytest.raises(BadPolicy) as refused:
        TokenWorker(**GOOD, lease_ttl=ttl)
    assert "lease_ttl must be" in str(refused.value)
    assert repr(ttl) in str(refused.value)


@pytest.mark.parametrize("option", ["iteration_length", "grace"])
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "10", True, 1e300, 10**400])
def test_a_length_that_cannot_be_is_refused(option: str, seconds: Any) -> None:
    """The same for the slot's length and the grace period, which would be found out only much later."""
    with pytest.raises(BadPolicy) as refused:
        TokenWorker(**GOOD, **{option: seconds})
    assert f"{option} must be" in str(refused.value)
    assert repr(seconds) in str(refused.value)


@pytest.mark.parametrize("group", ["", " ", "a\nb", "x" * 81, "ü" * 41, 7])
def test_a_group_that_cannot_be_is_refused(group: Any) -> None:
    """Empty, unprintable or too long."""
    with pytest.raises(BadPolicy, match=r"group|name"):
        TokenWorker(store="memory://nonsense", group=group)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"store": "10.0.0.5:11211"}, "'10.0.0.5:11211' is no store URL"),
        ({"store": "mysql://10.0.0.5"}, "'mysql://10.0.0.5' is no store URL: nothing is known of mysql://"),
        ({"store": "memcached://10.0.0.5:port"}, "'10.0.0.5:port' is not host:port"),
        ({"store": "memcached://"}, "'' is not host:port"),
        ({"store": "memcached://a:1,"}, "'' is not host:port"),
        ({"store": "memcached://a:0"}, "'a:0' is not host:port"),
        ({"store": "memcached://a:1?timeout=never"}, "never"),
        ({"store": "memcached://a:1?ttl=3"}, "unknown option ttl"),
        ({"store": "sqlite://"}, "the path of a file is missing"),
        ({"store": ""}, "'' is no store URL"),
        ({"store": 11211}, "11211"),
        ({"store": Path("politics.db")}, "politics.db"),
        ({"store": "memory://", "servers": ["a:1"]}, "name one store, not both"),
        ({"servers": "10.0.0.5:11211"}, "servers must be a list such as ['10.0.0.5:11211'], not '10.0.0.5:11211'"),
        ({"servers": []}, "servers must be a list"),
        ({"servers": ["10.0.0.5:port"]}, "'10.0.0.5:port' is not host:port"),
        ({"servers": [11211]}, "servers must be a list"),
    ],
)
def test_a_store_that_cannot_be_is_refused(options: dict[str, Any], sentence: str) -> None:
    """The message shows what was given and what could have been."""
    with pytest.raises(BadStoreURL) as refused:
        TokenWorker(group="pork", **options)
    assert sentence in str(refused.value)


def test_other_options_that_cannot_be_are_refused() -> None:
    """What to do after a failover is one of two words, and a worker without work does not start."""
    with pytest.raises(BadPolicy, match="on_failover must be 'rerun' or 'skip', not 'retry'"):
        TokenWorker(**GOOD, on_failover="retry")
    with pytest.raises(BadPolicy, match="TokenWorker has no work: override perform"):
        TokenWorker(**GOOD).process()


def test_a_server_that_is_not_there_is_named(make_stage: MakeStage) -> None:
    """A worker that cannot reach its store says which one, and goes on trying."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    stage = make_stage(f"memcached://{address}")
    (process,) = stage.start()
    said = stage.log(process.name, "waiting for the store")
    assert address in said["text"]
    assert process.popen.poll() is None


BANNERS = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"VALUE\r\n",
    b"STAT uptime\r\nEND\r\n",
    b"\xff\0\r\n",
]


@pytest.mark.parametrize("banner", BANNERS)
def test_a_server_that_is_no_memcached_is_waited_for(make_stage: MakeStage, banner: bytes, caplog: Any) -> None:
    """Whatever answers on that port, it is a store that does not answer, and no reason to end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stage = make_stage(f"memcached://127.0.0.1:{server.getsockname()[1]}")
        worker = stage.thread()
        for _ in range(2):
            connection, _peer = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(banner)
        until(lambda: "waiting for the store" in caplog.text, "the complaint")
        assert worker._run is not None
        assert worker._run.thread.is_alive()


FOREIGN = [
    b"hello",
    b"7",
    b'{"v": 2}',
    b'{"v":1,"fence":1,"holder":"x","seq":1,"ttl_ms":1' + b"0" * 400 + b',"state":"held"}',
    b'{"v":1,"fence":1,"holder":"x","seq":1,"ttl_ms":1000,"state":"held","at_ms":1' + b"0" * 400 + b"}",
    b"[" * 900,
]


@pytest.mark.parametrize("data", FOREIGN)
def test_a_record_that_is_not_ours_stops_nobody_for_ever(
    stage: Stage, old_memcached: Memcached, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once whose cell it is, nobody leads while it is there, and the worker does once it is gone."""
    key = "politics:" + stage.options["group"].replace(" ", "%20")

    def complaints() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if "cannot take part in the election" in record.getMessage()
        ]

    # The second time, somebody overwrites the leader's own record while it works.
    for count in (1, 2):
        old_memcached.ask(f"ms {key} {len(data)}\r\n{data.decode()}")
        if not stage.threads:
            stage.thread(seconds=0.3, lease_ttl=0.5)
        until(lambda count=count: len(complaints()) == count, "the complaint")
        assert stage.options["group"] in complaints()[-1]
        assert len(stage.events("elected")) == count - 1
        gone = now()
        assert old_memcached.ask(f"md {key}") == "HD"
        stage.wait("elected", after=gone)
    assert len(complaints()) == 2


def test_text_in_an_sqlite_store_is_a_record_that_is_not_ours(
    make_stage: MakeStage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody's `UPDATE cells SET data = 'hello'` ends no worker."""
    stage = make_stage(f"sqlite:///{tmp_path}/store.db")
    stage.thread(seconds=0)
    stage.wait("elected")
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as db:
        db.execute("UPDATE cells SET data = 'hello', version = 'x'")
        until(lambda: "cannot take part in the election" in caplog.text, "the complaint")
        gone = now()
        db.execute("DELETE FROM cells")
    stage.wait("elected", after=gone)

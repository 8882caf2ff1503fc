"""Cells in ZooKeeper: persistent nodes, each with a child that names its last write. No session counts for anything."""

import math
import queue
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.register import Cell, Swap, identity_of, name_of
from election.stores.ensemble import EnsembleRegister
from election.stores.zookeeper.line import ZooKeeperLine, ZooKeeperSettings, is_missing, succeeded

MANY = 100
"""Requests that are under way at once."""
RANDOM = re.compile(r"[0-9a-f]{32}")

T = TypeVar("T")


class ZooKeeperVersion(NamedTuple):
    """The store's generation, and the random name of the write.

    ZooKeeper's own versions begin at 0 with each creation, and may come again in a restored ensemble. So each write
    gives the node a child with a random name, and deletes the child of the write before, in one transaction: it is
    done only if that write was the last one. Of a node that we did not write it is `#` and ZooKeeper's version.
    """

    generation: str
    write: str


class ZooKeeperRegister(EnsembleRegister[ZooKeeperLine]):
    """Cells under `prefix` in the ensemble that has servers at `endpoints`.

    A generation is the name of the one child of the node `generation`. Every swap checks it. Each connection begins
    with a look whether the servers have gone back behind what this process has seen, and then begins another one.
    """

    def __init__(self, endpoints: Sequence[tuple[str, int]], prefix: str, settings: ZooKeeperSettings) -> None:
        self.prefix, self.settings = prefix, settings
        self._cells, self._kept, self._identity = (f"{prefix}/{each}" for each in ("cells", "generation", "identity"))
        self._written: dict[str, int] = {}
        super().__init__(endpoints)

    def _new(self, host: str, port: int) -> ZooKeeperLine:
        return ZooKeeperLine(host, port, self.settings)

    def _do(self, work: Callable[[ZooKeeperLine], T], *, repeat: bool = True) -> T:
        """Return what `work` returns; if `repeat`, it may be done again with another server."""
        if self._forked():
            # The connection is our parent's, and so are its threads. Its lock may have been held.
            self._begin()
        with self._lock:
            if self._line and not self._line.client.connected:
                self._drop()
            for left in reversed(range(len(self.endpoints) if repeat else 1)):
                line = self._line or self._connect()
                try:
                    with line.errors():
                        done = work(line)
                    self._seen[line.generation] = max(self._seen[line.generation], line.client.last_zxid)
                    return done
                except BaseException as exc:
                    self._drop()
                    self._turn += 1
                    if not isinstance(exc, StoreUnavailable) or exc.permanent or not left:
                        raise
        raise AssertionError("there is no endpoint")

    def _prepare(self, line: ZooKeeperLine) -> None:
        line.open()
        with line.errors():
            self._look(line)

    def _look(self, line: ZooKeeperLine) -> None:
        """Find the generation, and begin another one where the servers may have gone back."""
        client = line.client
        while True:
            list(line.wait([client.sync_async(self.prefix)]))
            kept = line.found(client.get_children_async(self._kept, include_data=True))
            if kept is None:
                for path in [*_ancestors(self._kept), self._kept, self._cells]:
                    line.make(path)
                continue
            children, stat = kept
            name = children[0] if len(children) == 1 else ""
            if RANDOM.fullmatch(name) and not self._gone_back(line, name):
                break
            name = uuid.uuid4().hex
            change = client.transaction()
            # Of several that begin one, one succeeds.
            change.set_data(self._kept, b"", version=stat.version)
            for each in children:
                change.delete(f"{self._kept}/{each}")
            change.create(f"{self._kept}/{name}")
            if succeeded(*line.wait([change.commit_async()])):
                break
        if name not in self._seen:
            self._written.clear()
            self._seen = dict.fromkeys(self._seen, math.inf)  # one that comes again has been brought back
        self._seen.setdefault(name, client.last_zxid)
        line.generation, line.since = name, SystemClock().now()

    def _gone_back(self, line: ZooKeeperLine, generation: str) -> bool:
        """Return whether the servers are behind what this process has seen in this generation.

        Each new session moves their count of transactions on. So it also counts when the cells were written.
        """
        if generation not in self._seen:
            return False
        names = list(self._written)[-MANY:]
        stats = list(line.wait([line.client.exists_async(self._path(name)) for name in names]))
        older = (stat is None or stat.mzxid < self._written[name] for name, stat in zip(names, stats, strict=True))
        return line.client.last_zxid < self._seen[generation] or any(older)

    def _path(self, name: str) -> str:
        """Return the node of a cell: the name in one segment of a path, in which dots alone would mean something."""
        return f"{self._cells}/{quote(name, safe=' ').replace('.', '%2E')}"

    def identity(self) -> str:
        """Return a random name, kept in the ensemble under the prefix."""

        def work(line: ZooKeeperLine) -> bytes:
            line.make(self._identity, uuid.uuid4().hex.encode())
            ((data, _),) = line.wait([line.client.get_async(self._identity)])
            return bytes(data)

        return identity_of("zookeeper", self._do(work))

    def read(self, name: str) -> Cell | None:
        """Return the node's data, after the server has caught up with its leader."""
        return self._read([name])[0]

    def versions(self, names: Sequence[str]) -> list[ZooKeeperVersion | None]:
        """Send `MANY` questions at once."""
        return [cell.version if cell else None for cell in self._read(names)]

    def _read(self, names: Sequence[str]) -> list[Cell | None]:
        def cell(line: ZooKeeperLine, name: str, asked: Any) -> Cell | None:
            there = line.found(asked)
            if there is None:
                return None
            data, stat = there
            self._written[name] = max(self._written.pop(name, 0), stat.mzxid)
            write = data[:32].decode("latin-1")
            if RANDOM.fullmatch(write):
                return Cell(data[32:], ZooKeeperVersion(line.generation, write))
            return Cell(data, ZooKeeperVersion(line.generation, f"#{stat.version}"))

        def work(line: ZooKeeperLine) -> list[Cell | None]:
            synced = line.client.sync_async(self._cells)
            asked = [line.client.get_async(self._path(each)) for each in some]
            list(line.wait([synced]))
            return [cell(line, *each) for each in zip(some, asked, strict=True)]

        found: list[Cell | None] = []
        for begin in range(0, len(names), MANY):
            some = names[begin : begin + MANY]
            found += self._do(work)
        return found

    def swap_many(self, swaps: Sequence[Swap]) -> list[ZooKeeperVersion | StoreUnavailable | None]:
        """Send `MANY` transactions at once, none of them twice, and read all answers."""
        answers: list[ZooKeeperVersion | StoreUnavailable | None] = []
        for begin in range(0, len(swaps), MANY):
            known: list[ZooKeeperVersion | None] = []
            try:
                self._do(self._swaps(swaps[begin : begin + MANY], known), repeat=False)
                answers += known
            except StoreUnavailable as exc:
                answers += known
                return answers + [exc] * (len(swaps) - len(answers))
        return answers

    def _swaps(self, swaps: Sequence[Swap], known: list[ZooKeeperVersion | None]) -> Callable[[ZooKeeperLine], None]:
        def work(line: ZooKeeperLine) -> None:
            writes = [uuid.uuid4().hex for _ in swaps]
            sent = [self._send(line, swap, write) for swap, write in zip(swaps, writes, strict=True)]
            others = False
            for swap, write, results in zip(swaps, writes, line.wait(sent), strict=True):
                done = succeeded(results)
                known.append(ZooKeeperVersion(line.generation, write) if done else None)
                if done and swap.expected:
                    self._written.pop(swap.name, 0)
                    self._written[swap.name] = results[1].mzxid
                # The first of its operations checks the generation.
                others = others or is_missing(results[0])
            if others:
                self._drop()  # somebody has begun another generation, or the version is of an earlier one

        return work

    def _send(self, line: ZooKeeperLine, swap: Swap, write: str) -> Any:
        path, data, change = self._path(swap.name), write.encode() + swap.data, line.client.transaction()
        generation, old = swap.expected or ZooKeeperVersion(line.generation, "")
        change.check(f"{self._kept}/{generation}", -1)
        if not old:
            change.create(path, data)
        elif old.startswith("#"):
            change.set_data(path, data, version=int(old[1:]))
        else:
            change.set_data(path, data)
            change.delete(f"{path}/{old}")
        change.create(f"{path}/{write}")
        return change.commit_async()

    def remembers(self, seconds: float) -> bool:
        """Return whether this process has been connected for so long to servers that have not gone back."""
        now = SystemClock().now()

        def work(line: ZooKeeperLine) -> float:
            list(line.wait([line.client.sync_async(self._kept)]))
            return line.since

        return now - self._do(work) >= seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""

        def work(line: ZooKeeperLine) -> list[str]:
            _, children = line.wait([line.client.sync_async(self._cells), line.client.get_children_async(self._cells)])
            return sorted(map(unquote, children))

        return list(filter(None, (name_of(name.encode()) for name in self._do(work))))

    def _stream(self) -> "_Changes":
        line = self._next()
        try:
            line.open()
            return _Changes(line, self._path)
        except BaseException:
            line.close()
            raise


class _Changes:
    """The names of the cells that change, as watches of ZooKeeper tell them: each tells once, and is set again."""

    def __init__(self, line: ZooKeeperLine, path: Callable[[str], str]) -> None:
        self._line, self._path = line, path
        self._wanted = set[str]()
        self._told: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
        line.client.add_listener(lambda state: self._told.put(None))

    def want(self, name: str) -> None:
        """Have the watch of a cell set, by the thread that listens."""
        self._wanted.add(name)
        self._told.put((name, False))

    def forget(self, name: str) -> None:
        """Set its watch no more, once it has told."""
        self._wanted.discard(name)

    def __iter__(self) -> Iterator[set[str] | None]:
        yield None
        known = set[str]()
        while self._line.client.connected and (told := self._told.get()) is not None:
            name, changed = told
            if changed:
                known.discard(name)
            if name in self._wanted and name not in known:
                known.add(name)
                with self._line.errors():
                    list(self._line.wait([self._line.client.exists_async(self._path(name), self._teller(name))]))
                yield {name}

    def _teller(self, name: str) -> Callable[[object], None]:
        return lambda _: self._told.put((name, True))

    def close(self) -> None:
        """End it."""
        self._told.put(None)
        self._line.close()


def _ancestors(path: str) -> list[str]:
    """Return the nodes above a path, the topmost first."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]

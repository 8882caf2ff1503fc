"""Cells in etcd: transactions that compare the revision of a key."""

import math
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from election.clock import SystemClock
from election.errors import StoreUnavailable
from election.register import Cell, Swap, identity_of, name_of
from election.stores.ensemble import EnsembleRegister
from election.stores.etcd.generation import Generation, bound, parse_generation, restored
from election.stores.etcd.line import EtcdLine, EtcdSettings, NotDone
from election.stores.etcd.operations import Json, all_below, compare, found, key_range, put, revision, transaction

MANY = 100
"""Operations in one transaction at most; etcd refuses more than 128."""
NEVER = -1
"""A revision that no key has."""

Version = tuple[str, int]
T = TypeVar("T")


class EtcdRegister(EnsembleRegister[EtcdLine]):
    """Cells under `prefix` in the etcd cluster that has members at `endpoints`.

    A version is the generation's name and the key's `mod_revision`, which no two writes of one key share within a
    generation. Every transaction, a read too, compares the key `generation`, so that whoever begins another one
    begins it for all. Each connection begins with a look whether one has to begin. Since a cluster is stopped to be
    restored, and all connections with it, nobody reads or writes a restored one before that look.
    """

    def __init__(self, endpoints: Sequence[tuple[str, int]], prefix: str, settings: EtcdSettings) -> None:
        self.prefix, self.settings = prefix, settings
        self._cells, self._kept = f"{prefix}cells/", f"{prefix}generation"
        super().__init__(endpoints)

    def _new(self, host: str, port: int) -> EtcdLine:
        return EtcdLine(host, port, self.settings)

    def _do(
        self, operations: Callable[[str], Sequence[Json]], parse: Callable[[EtcdLine, Json], T], *, repeat: bool = True
    ) -> T:
        """Do a transaction in the generation that the store is in; return what `parse` makes of the answer.

        Args:
            operations: gets the generation's name, and returns what to do: operations of etcd's.
            parse: gets the connection, and the answer that came from it.
            repeat: whether it may be sent again, to another member, when it is not known whether it was done.
        """
        if self._forked():
            # The connection is our parent's, and its lock may have been held.
            self._begin()
        with self._lock:
            for left in reversed(range(len(self.endpoints) + 1)):
                line = self._line or self._connect()
                name, value = line.generation.name, line.generation.dump()
                try:
                    answer = line.transact([compare(self._kept, value=value)], operations(name))
                    with line.errors():
                        if answer.get("succeeded"):
                            self._seen[name] = max(self._seen[name], revision(answer))
                            return parse(line, answer)
                    self._drop()  # somebody has begun another generation, and nothing was done
                except StoreUnavailable as exc:
                    self._drop()
                    if not isinstance(exc, NotDone):
                        self._turn += 1
                    if not left or exc.permanent or not (repeat or isinstance(exc, NotDone)):
                        raise
                except BaseException:
                    # Ctrl-C included: an answer that is still on its way must never be taken for the next one's.
                    self._drop()
                    raise
        raise StoreUnavailable("etcd cannot be used: one generation follows the other")

    def _prepare(self, line: EtcdLine) -> None:
        """Find the generation, and begin another one where the cluster may have gone back."""
        line.sign_in()
        while True:
            answer = line.transact([], [key_range(self._kept)])
            with line.errors():
                value, mod = found(answer["responses"][0]["response_range"]) or (None, 0)
            kept, first, second = parse_generation(value), line.look(), line.look()
            if kept and not restored(kept, first, second, self._seen.get(kept.name, 0)):
                break
            kept = Generation(uuid.uuid4().hex, second.cluster, bound(first, second))
            if line.transact([compare(self._kept, mod=mod)], [put(self._kept, kept.dump())]).get("succeeded"):
                break
        if kept.name not in self._seen:
            self._seen = dict.fromkeys(self._seen, math.inf)  # one that comes again has been brought back
        self._seen.setdefault(kept.name, second.revision)
        line.generation, line.since = kept, SystemClock().now()

    def identity(self) -> str:
        """Return a random name, kept in the cluster under the prefix."""
        key, name = f"{self.prefix}identity", uuid.uuid4().hex.encode()
        make = transaction([compare(key, mod=0)], [put(key, name)], [key_range(key)])

        def parse(_: EtcdLine, answer: Json) -> bytes:
            done = answer["responses"][0]["response_txn"]
            there = None if done.get("succeeded") else found(done["responses"][0]["response_range"])
            return there[0] if there else name

        return identity_of("etcd", self._do(lambda _: [make], parse))

    def read(self, name: str) -> Cell | None:
        """Return the key's value, linearizably."""
        (there,), generation = self._ranges([name], keys_only=False)
        return Cell(there[0], (generation, there[1])) if there else None

    def versions(self, names: Sequence[str]) -> list[Version | None]:
        """Ask for the `mod_revision` of `MANY` keys in one transaction."""
        versions: list[Version | None] = []
        for begin in range(0, len(names), MANY):
            cells, generation = self._ranges(names[begin : begin + MANY], keys_only=True)
            versions += [(generation, each[1]) if each else None for each in cells]
        return versions

    def _ranges(self, names: Sequence[str], *, keys_only: bool) -> tuple[list[tuple[bytes, int] | None], str]:
        def parse(line: EtcdLine, answer: Json) -> tuple[list[tuple[bytes, int] | None], str]:
            return [found(each["response_range"]) for each in answer["responses"]], line.generation.name

        return self._do(lambda _: [key_range(self._cells + name, keys_only=keys_only) for name in names], parse)

    def swap_many(self, swaps: Sequence[Swap]) -> list[Version | StoreUnavailable | None]:
        """Do up to `MANY` swaps in one transaction, each as one within it: they are all sent, and answered, at once."""
        answers: list[Version | StoreUnavailable | None] = []
        while len(answers) < len(swaps):
            some: dict[str, Swap] = {}
            for swap in swaps[len(answers) : len(answers) + MANY]:
                if swap.name in some:
                    break  # a transaction may write a key only once
                some[swap.name] = swap
            try:
                answers += self._swap(list(some.values()))
            except StoreUnavailable as exc:
                return answers + [exc] * (len(swaps) - len(answers))
        return answers

    def _swap(self, swaps: Sequence[Swap]) -> list[Version | None]:
        def operation(generation: str, swap: Swap) -> Json:
            of, mod = swap.expected or (generation, 0)
            key = self._cells + swap.name
            return transaction([compare(key, mod=mod if of == generation else NEVER)], [put(key, swap.data)])

        def parse(line: EtcdLine, answer: Json) -> list[Version | None]:
            version = line.generation.name, revision(answer)
            done = [each["response_txn"].get("succeeded") for each in answer["responses"]]
            return [version if each else None for each in done]

        return self._do(lambda generation: [operation(generation, swap) for swap in swaps], parse, repeat=False)

    def remembers(self, seconds: float) -> bool:
        """Return whether this process has been connected for so long to a cluster that has not gone back."""
        now = SystemClock().now()
        return now - self._do(lambda _: [key_range(self._kept)], lambda line, _: line.since) >= seconds

    def names(self) -> Iterable[str]:
        """Return all names, sorted. What cannot name a lease was not written here, and is left out."""

        def parse(_: EtcdLine, answer: Json) -> list[bytes]:
            return [b64decode(each["key"]) for each in answer["responses"][0]["response_range"].get("kvs", ())]

        keys = self._do(lambda _: [key_range(self._cells, keys_only=True, below=True)], parse)
        return [name for key in keys if (name := name_of(key.removeprefix(self._cells.encode())))]

    def _stream(self) -> "_Changes":
        line = self._next()
        try:
            line.sign_in()
        except BaseException:
            line.close()
            raise
        return _Changes(line, self._cells)


class _Changes:
    """The names of the cells under `prefix` that change, as a watch of etcd tells them."""

    def __init__(self, line: EtcdLine, prefix: str) -> None:
        self._line, self._prefix = line, prefix

    def __iter__(self) -> Iterator[set[str] | None]:
        request = {"create_request": all_below(self._prefix)}
        for said in self._line.stream("/watch", request):
            with self._line.errors():
                result = said["result"]
                if result.get("canceled"):
                    return
                keys = [b64decode(event["kv"]["key"]) for event in result.get("events", ())]
            yield {key.decode(errors="replace").removeprefix(self._prefix) for key in keys} if keys else None

    def want(self, name: str) -> None:
        """Do nothing: all names are brought."""

    def forget(self, name: str) -> None:
        """Do nothing either."""

    def close(self) -> None:
        """End it."""
        self._line.cut()
        self._line.close()

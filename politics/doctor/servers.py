"""Findings of `politics doctor` about a store of any kind, by what its port tells. Pure."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from politics.doctor.findings import Finding, advice, danger, fine


@dataclass(frozen=True, slots=True)
class StoreServer:
    """What was measured of a store through `election.Register`.

    `kind`: postgresql, for instance. `error`: why it cannot be used. `reads` and `swaps`: seconds that each of several
    took; a swap is one that is refused, so that nothing changes. `generation`: the one of a cell, empty if unknown.
    `leases`: how many it keeps, None if it cannot list them. `hints`: whether hints of changes arrive, None if it has
    none.
    """

    kind: str
    error: str = ""
    identity: str = ""
    generation: str = ""
    reads: tuple[float, ...] = ()
    swaps: tuple[float, ...] = ()
    leases: int | None = None
    hints: bool | None = None


def of_any_server(server: StoreServer, ttl: float) -> Iterator[Finding]:
    """Yield the findings about a store, for leases of `ttl` seconds."""
    if server.error:
        yield danger(server.kind, server.error, "mend that, or correct the URL: nobody can lead")
        return
    for what, trips in (("a read", server.reads), ("a swap that is refused", server.swaps)):
        if trips:
            median = statistics.median(trips)
            text = f"answers {what} in {median * 1000:.2f} ms (median of {len(trips)})"
            if median > ttl / 30:
                slow = f"{text}, much for a lease of {ttl:g} s"
                yield advice(server.kind, slow, "use a nearer server or a longer lease")
            else:
                yield fine(server.kind, text)
    generation = f", generation {server.generation}" if server.generation else ""
    yield fine(server.kind, f"is the store {server.identity}{generation}")
    if server.hints:
        yield fine(server.kind, "sends hints of changes")
    elif server.hints is not None:
        missing = "its hints of changes do not arrive, so leases are polled for, and a handover takes longer"
        yield advice(server.kind, missing, "name the server itself, if there is a pooler or proxy before it")
    if server.leases is not None:
        yield fine(server.kind, f"keeps {'1 lease' if server.leases == 1 else f'{server.leases} leases'}")

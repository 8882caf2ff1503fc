"""What `politics doctor` says of a quorum of memcacheds. Pure: what each server has in its cells goes in."""

import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from election.stores.quorum.cells import Answer, Moved, NoChoice, Sight
from election.stores.quorum.rules import Choice, judge, majority
from politics.doctor.findings import Finding, advice, danger, fine


class Participation(enum.StrEnum):
    """How far one server takes part in one cell."""

    SYNCED = "synced"
    BEHIND = "behind"
    """It counts, but has not the latest value."""
    FORGETFUL = "forgetful"
    """It answers, but has lost the cell, or got it back and does not count yet."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Quorum:
    """What was measured of a quorum.

    `servers`: the address of each. `configuration`: names this list in the cells. `hosts`: the IP addresses of each, as
    far as they could be looked up. `cells`: for each name, what each server says of its cell.
    """

    servers: Sequence[str]
    configuration: str
    hosts: Sequence[frozenset[str]] = ()
    cells: Mapping[str, Sequence[Answer]] = field(default_factory=dict)


def standings(sights: Sequence[Answer], configuration: str) -> list[Participation]:
    """Return how each server stands to this cell, which is the majority's to decide."""
    state = judge(sights, configuration)
    return [_standing(state.cells if isinstance(state, Choice) else {}, state, *each) for each in enumerate(sights)]


def _standing(members: Mapping[int, Sight], state: object, number: int, sight: Answer) -> Participation:
    if not isinstance(sight, Sight):
        return Participation.UNREACHABLE
    cell = sight.cell
    if cell is None or number not in members:
        return Participation.FORGETFUL
    synced = isinstance(state, Choice) and cell.accepted == state.ballot
    return Participation.SYNCED if synced else Participation.BEHIND


def of_quorum(quorum: Quorum) -> Iterator[Finding]:
    """Yield the findings about the quorum as a whole, and how far each of its servers takes part."""
    needed, size = majority(len(quorum.servers)), len(quorum.servers)
    states = {name: judge(sights, quorum.configuration) for name, sights in quorum.cells.items()}
    for state in states.values():
        if isinstance(state, Moved):
            yield danger(
                f"quorum server {quorum.servers[state.server]}",
                "keeps a lease for another list of servers, so nobody is elected with this one",
                "name the same list everywhere; to change it, stop every worker, wait a lease, restart the memcacheds",
            )
            return
    # What nobody has written yet says nothing of anybody.
    chosen = {name: quorum.cells[name] for name, state in states.items() if isinstance(state, Choice)}
    each = {name: standings(sights, quorum.configuration) for name, sights in chosen.items()}
    silent = {n for sights in quorum.cells.values() for n, sight in enumerate(sights) if not isinstance(sight, Sight)}
    if size - len(silent) < needed:
        yield danger("quorum", f"{size - len(silent)} of {size} servers answer, and {needed} must", "start the others")
    else:
        yield fine("quorum", f"{size - len(silent)} of {size} servers answer, and {needed} must")
    for number, address in enumerate(quorum.servers):
        yield _of_member(address, number in silent, [standing[number] for standing in each.values()])
    lost = [name for name, state in states.items() if isinstance(state, NoChoice) and _has_remains(quorum.cells[name])]
    if lost:
        yield advice(
            "quorum",
            f"a majority has forgotten {len(lost)} of {len(states)} cells at once: their leaders put them back, "
            "and a new election waits one lease",
            "restart one server at a time, and wait until the doctor calls it complete",
        )
    yield from _of_hosts(quorum)


def _of_member(address: str, silent: bool, standing: Sequence[Participation]) -> Finding:
    subject, counts = f"quorum server {address}", Counter(standing)
    if silent:
        return advice(
            subject,
            "does not answer; leaders go on as long as a majority does",
            "start it, or put another host behind the same address",
        )
    if missing := counts[Participation.FORGETFUL]:
        return advice(
            subject,
            f"answers, but does not count yet for {missing} of {len(standing)} cells that were looked at",
            "wait for two or three renewals before you stop another server",
        )
    if behind := counts[Participation.BEHIND]:
        return fine(subject, f"takes part; {behind} of {len(standing)} cells are being written")
    if not standing:
        return fine(subject, "answers; no cell was found by which to see whether it takes part")
    return fine(subject, f"is complete: it has each of the {len(standing)} cells that were looked at")


def _has_remains(sights: Sequence[Answer]) -> bool:
    return any(isinstance(sight, Sight) and sight.version is not None for sight in sights)


def _of_hosts(quorum: Quorum) -> Iterator[Finding]:
    where: dict[str, list[str]] = {}
    for address, hosts in zip(quorum.servers, quorum.hosts, strict=False):
        for host in hosts:
            where.setdefault(host, []).append(address)
    for host, servers in sorted(where.items()):
        if len(servers) > 1:
            yield advice(
                "quorum",
                f"{' and '.join(servers)} are on one host ({host}), so they fail together",
                "give each server a host of its own",
            )

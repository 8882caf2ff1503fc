"""`politics forget`: replace a record that nobody can read."""

import sys
from typing import Annotated

import typer

from election.cell import forget as forget_record
from election.clock import wall_ms
from election.record import check_name, is_usable
from politics.cli.common import ServersOption, StoreOption, complain, out, register_of


def forget(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group whose record nobody can read.")],
    store: StoreOption = None,
    servers: ServersOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Replace a record of GROUP that nobody can read.

    While such a record is in the store nobody is elected. This command replaces it by a vacant one. A record that can
    be read is left alone, and so is a group without one: then the exit status is 1.

    Nobody loses anything. A leader that is still there writes its record again. Without one somebody is elected after
    a whole lease. If members of the group use a newer version, the record may be in order: then update this one.
    """
    with register_of(store, servers) as register:
        cell = register.shard(group).read(check_name(group))
        if cell is None:
            complain(f"there is no record of {group!r}, so there is nothing to forget")
            raise typer.Exit(1)
        if is_usable(group, cell.data):
            complain(f"the record of {group!r} can be read, and is left as it is")
            raise typer.Exit(1)
        out.print(f"the record of {group} cannot be used: {cell.data[:200]!r}")
        if not yes:
            _confirm(group)
        vacant = forget_record(register, group)
    if vacant is None:
        complain(f"somebody else has replaced the record of {group!r}")
        raise typer.Exit(1)
    out.print("replaced: a leader that is still there writes its record again, others wait a whole lease")
    if vacant.fence:
        out.print(f"the next fence is larger than that of the old record, {vacant.fence}")
    else:
        out.print(
            "no fence was found in it: the next one is larger than those that the next leader has seen, and than its "
            f"wall clock in milliseconds, now about {wall_ms()}",
        )


def _confirm(group: str) -> None:
    if not sys.stdin.isatty():
        complain("say --yes to replace it")
        raise typer.Exit(2)
    try:
        answer = input(f"Replace the record of {group} by a vacant one? [y/N]: ")
    except (EOFError, KeyboardInterrupt) as exc:
        out.print()
        raise typer.Exit(1 if isinstance(exc, EOFError) else 130) from exc
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Exit(1)

"""The `politics` command line: thin typer commands that parse, call and print.

Each command is a function in a module of this package. A module, and with it all that it needs, is imported when its
command runs. So `politics --help` and every command start quickly.
"""

import importlib
import sys
from typing import Annotated, Any

import typer

from politics.cli.usage import Command, Group, NumbersAreArguments, help_of

__all__ = ["COMMANDS", "app", "load", "main"]

COMMANDS = {
    "demo": ("demo", "Watch three workers elect a leader, lose it, and go on."),
    "run": ("run", "Run a TokenWorker or a Scheduler until SIGTERM or Ctrl-C."),
    "next": ("schedules", "Show the next ticks of a schedule."),
    "status": ("status", "Show who leads each group, and who stands by."),
    "resign": ("resign", "Ask the leader of GROUP to hand over."),
    "trigger": ("schedules", "Let the leader of GROUP run the work of its schedule now, once."),
    "pause": ("schedules", "Let GROUP skip its ticks or slots, until `politics resume`."),
    "resume": ("schedules", "Let GROUP go on after `politics pause`."),
    "forget": ("forget", "Replace a record of GROUP that nobody can read."),
    "lock": ("lock", "Run COMMAND while holding the lease NAME."),
    "doctor": ("doctor", "Check the store, the clocks, the network and the workers."),
    "services": ("services", "List the services on the network."),
    "lookup": ("services", "Print the address of a service."),
    "call": ("services", "Call a method of a service and print its answer."),
    "borrow": ("services", "Run COMMAND while a service is reserved for it."),
    "ring": ("ring", "Share a tuple space on the network, or list the services in rings."),
}
"""Each command with the module that defines it, and the first sentence of its help."""

SETTINGS: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}


class _Commands(Group):
    """Lists the commands without importing them, and imports the one that is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else command, rest


def load(name: str) -> Any:
    """Import a command and return it, as click knows it."""
    function = getattr(importlib.import_module(f"politics.cli.{COMMANDS[name][0]}"), name)
    alone = typer.Typer(add_completion=False, **SETTINGS)
    kind = NumbersAreArguments if name == "call" else Command
    alone.command(name, cls=kind, help=help_of(function.__doc__))(function)
    return typer.main.get_command(alone)


app = typer.Typer(name="politics", cls=_Commands, epilog="Start with: politics demo", no_args_is_help=True, **SETTINGS)
for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def _print_version(wanted: bool) -> None:
    if wanted:
        from politics import __version__

        print(f"politics {__version__}")
        raise typer.Exit


@app.callback()
def _politics(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Of many identical daemons, let one do the work: leader election and coordination for a cluster."""


def main() -> None:
    """Run the command line: exit 0 done, 1 failed, 2 wrong usage. `politics.__main__` is the console script."""
    try:
        app(prog_name="politics")
    except Exception as exc:
        # Imported here, so that --help needs none of it.
        from discovery.errors import BadAddress, BadAnnouncement, BadTime, BadURL, DiscoveryError
        from election import BadPolicy, BadStoreURL, ElectionError
        from politics.cli.common import complain

        if not isinstance(exc, DiscoveryError | ElectionError):
            raise
        complain(exc)
        usage = BadStoreURL | BadPolicy | BadAddress | BadAnnouncement | BadTime | BadURL
        sys.exit(2 if isinstance(exc, usage) else 1)

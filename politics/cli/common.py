"""What the commands share: the application, the options that name a store, and how to print."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from election import Register
from politics.settings import find_store

app = typer.Typer(
    name="politics",
    help="Of many identical daemons, let one do the work: leader election and cluster coordination.",
    epilog="Start with: politics demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _Console(Console):
    """Replaces control characters: names and descriptions come from strangers, and a terminal would obey them."""

    def render_str(self, text: str, **options: Any) -> Text:
        shown = "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
        return super().render_str(shown, **options)


# A table that is piped is not cut to a terminal's width.
out = _Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 240)
err = _Console(soft_wrap=True, highlight=False, stderr=True)

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where the leases are: memcached://host:port[,…], sqlite:///path or memory://. "
        "Default: $POLITICS_STORE, else a file of this user on this machine.",
        show_default=False,
    ),
]
ServersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--servers",
        metavar="HOST:PORT",
        help="A memcached server, instead of --store; again or with commas for several.",
        show_default=False,
    ),
]


@contextlib.contextmanager
def register_of(store: str | None, servers: list[str] | None) -> Iterator[Register]:
    """The store that the options name, until the command ends."""
    with contextlib.closing(find_store(store, split(servers))) as register:
        yield register


def split(servers: list[str] | None) -> list[str] | None:
    """The servers of a repeatable option that also takes commas."""
    return [server for text in servers for server in text.split(",")] if servers else None


def complain(trouble: object) -> None:
    """One line on standard error."""
    err.print(f"[red]politics:[/red] {str(trouble).replace('[', chr(92) + '[')}")

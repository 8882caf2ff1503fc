"""What the commands share: the options that name a store, how to wait, and how to print."""

import contextlib
import queue
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tenacity
import typer
from rich.console import Console
from rich.text import Text

from discovery.signals import SignalQueue
from election import Register, StoreUnavailable
from election.clock import SystemClock
from politics.settings import find_store


def printable(text: str) -> str:
    """Return a text as one line that a terminal does not obey: any white space is a space, any control sign is a �."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return a line of texts, each of which may have a style: `("danger", "red")`."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((printable(text), style) for text, style in pairs))


class _Console(Console):
    """Shows every text as it is: names come from strangers, and nothing in them is markup, an emoji or a command.

    This is the only place where that is done. What is printed is plain text, or made by `styled`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


# What is piped is not cut to a terminal's width. On a terminal messages are wrapped between words.
# Python has neither of the two where it was started without them, as some service managers do.
_on_terminal = [bool(stream and stream.isatty()) for stream in (sys.stdout, sys.stderr)]
out = _Console(soft_wrap=True, width=None if _on_terminal[0] else 240)
err = _Console(soft_wrap=not _on_terminal[1], stderr=True)

ALIGNED = 30
"""Columns that a cell may have for the others of its column to be aligned with it, where lines would be too long."""


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, with the cells of a column below each other. Nothing is cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > out.width:
        widths = [min(ALIGNED, width) for width in widths]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store of the leases: memcached://host:port[,…], quorum+memcached://a,b,c, sqlite:///path "
        "or memory://. Default: $POLITICS_STORE, else a file of this user on this machine.",
        show_default=False,
    ),
]
ServersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--servers",
        metavar="HOST:PORT",
        help="A memcached server, instead of --store. Repeat it, or use commas, for several.",
        show_default=False,
    ),
]


@contextlib.contextmanager
def register_of(store: str | None, servers: list[str] | None) -> Iterator[Register]:
    """Open the store that the options name, until the block ends."""
    with contextlib.closing(find_store(store, split(servers))) as register:
        yield register


def split(servers: list[str] | None) -> list[str] | None:
    """Return the servers of an option that may be repeated and may contain commas."""
    return [server for text in servers for server in text.split(",")] if servers else None


def pause(signals: SignalQueue, seconds: float) -> None:
    """Wait `seconds`, or until a 0 is put into the queue.

    Raises:
        typer.Exit: a signal arrived that ends this command, with 128 plus its number.
    """
    with contextlib.suppress(queue.Empty):
        number = signals.get(timeout=seconds)
        if number not in (0, signal.SIGCHLD, signal.SIGWINCH):
            raise typer.Exit(128 + number)


def when_the_store_answers(
    signals: SignalQueue, end: float, longest: float, say: Callable[[str], None]
) -> tenacity.Retrying:
    """Return a tenacity object: call it with a function that uses the store, which is then tried until it answers.

    The waits grow from a fortieth of `longest` and have jitter, so that many clients do not come back at one moment.
    The function is tried once more at `end`, and then its error is raised.

    Args:
        signals: a signal ends the waiting at once, as for `pause`.
        end: when to give up, in seconds on the system's clock.
        longest: seconds that one wait may take.
        say: called before each wait, with what is waited for.
    """
    now = SystemClock().now
    jitter = tenacity.wait_random_exponential(multiplier=longest / 20, min=longest / 40, max=longest)

    def wait(state: tenacity.RetryCallState) -> float:
        return max(0.0, min(jitter(state), end - now()))

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda exc: isinstance(exc, StoreUnavailable) and not exc.permanent),
        stop=lambda _: now() >= end,
        wait=wait,
        sleep=lambda seconds: pause(signals, seconds),
        before_sleep=lambda state: say(f"waiting for the store: {state.outcome.exception() if state.outcome else ''}"),
        reraise=True,
    )


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: 3 d 4 h, 5 min 20 s, 0.3 s."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(number for number, (_, size) in enumerate(units) if seconds >= size)
    (large, size), (small, part) = units[first : first + 2]
    whole, rest = divmod(seconds, size)
    return f"{whole:.0f} {large} {rest // part:.0f} {small}"


def complain(trouble: object) -> None:
    """Print one line on standard error."""
    err.print(styled(("politics:", "red"), f" {trouble}"))

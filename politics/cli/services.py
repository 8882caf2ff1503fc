"""`politics services`, `lookup`, `call` and `borrow`: the registry on the command line."""

import contextlib
import json
import threading
from typing import Annotated, Any

import typer
from rich.table import Table

from discovery import Registry
from discovery.errors import LoanLost, ServiceOnLoan
from discovery.registry import Service, ServiceURL
from discovery.remote import Proxy, address_of
from politics.cli.common import app, complain, out
from politics.cli.lock import LEASE_LOST, NOT_ACQUIRED, collected, run_while
from politics.settings import interfaces
from politics.signals import Inbox

LISTEN = 1.0
"""Seconds in which everybody on the network is heard."""

RingOption = Annotated[
    str | None,
    typer.Option("--ring", metavar="HOST:PORT", help="A ring to ask instead of multicast.", show_default=False),
]
SecretOption = Annotated[
    str,
    typer.Option(
        "--secret", envvar="POLITICS_SECRET", help="Believe only announcements that it signs.", show_default=False
    ),
]
InterfaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--interface", metavar="ADDRESS", help="An interface to use, again for several. Default: $POLITICS_INTERFACES.",
        show_default=False,
    ),
]  # fmt: skip
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to look for it.", min=0.0)]
UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="distributed://app/Service, or a service's name.")]


@app.command()
def services(
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and print what changes, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON array; with --watch an object a line.")
    ] = False,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """List the services on the network: app, name, where it is, description, and whether it is on loan."""
    with Registry(ring=ring, secret=secret, interfaces=interface or interfaces()) as registry:
        if watch:
            for change in registry.watch():
                row = {"change": change.kind, **described(change.service, change.on_loan)}
                out.print(json.dumps(row) if as_json else "  ".join(str(cell) for cell in row.values()), markup=False)
            return
        threading.Event().wait(LISTEN)
        rows = [described(service, registry.on_loan(service)) for service in registry.services()]
    out.print(json.dumps(rows) if as_json else table(rows) if rows else "no services", markup=False)


@app.command()
def lookup(
    url: UrlArgument,
    timeout: TimeoutOption = LISTEN,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """Print where a service is; exit status 1 when it is not there, or on loan."""
    with Registry(ring=ring, secret=secret, interfaces=interface or interfaces()) as registry:
        found = find(registry, url, timeout)
    out.print(str(address_of(found)) if isinstance(found, Proxy) else found, markup=False)


@app.command()
def call(
    url: UrlArgument,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A public method of it.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARG]...", help="JSON where it can be read so, else text.")
    ] = None,
    timeout: TimeoutOption = LISTEN,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """Call a method of a service, and print its answer: as JSON where that is possible.

    Example: politics call distributed://shop/Stock count '"apples"' 3
    """
    with Registry(ring=ring, secret=secret, interfaces=interface or interfaces()) as registry:
        found = find(registry, url, timeout)
        if not isinstance(found, Proxy):
            complain(f"{url} is {found}, which is not ours to call")
            raise typer.Exit(1)
        try:
            answer = getattr(found, method)(*map(parsed, arguments or []))
        except Exception as exc:  # whatever the method raises
            complain(f"{type(exc).__name__}: {exc}")
            raise typer.Exit(1) from exc
    out.print(json.dumps(answer, default=repr), markup=False)


@app.command()
def borrow(
    url: UrlArgument,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run meanwhile.")],
    ttl: Annotated[float, typer.Option(help="Seconds that the loan lasts without being renewed.", min=0.1)] = 10.0,
    wait: Annotated[
        float | None,
        typer.Option(
            help="Seconds to wait for it; 0: try once.", metavar="SECONDS", min=0.0, show_default="as long as it takes"
        ),
    ] = None,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """Run COMMAND while a service is ours alone, with its address in $POLITICS_SERVICE.

    When the loan is lost, COMMAND and all that it started gets SIGTERM, and SIGKILL before its time is over.

    The exit status is COMMAND's (128 + n after signal n), or: 75 it is on loan, 124 the loan was lost and COMMAND was
    stopped, 126 COMMAND cannot be run, 127 COMMAND not found, 1 there is no such service.
    """
    with Registry(ring=ring, secret=secret, interfaces=interface or interfaces()) as registry:
        loan, status = registry.borrow(url, ttl, wait), LEASE_LOST
        try:
            with contextlib.suppress(LoanLost), loan, Inbox(*collected()) as inbox:
                status = run_while(loan, ttl, command, {"POLITICS_SERVICE": loan.address}, inbox)
        except ServiceOnLoan as exc:
            complain(exc)
            status = NOT_ACQUIRED
    raise typer.Exit(status)


def find(registry: Registry, url: str, timeout: float) -> Any:
    """By url or by name."""
    return registry.lookup(url, timeout) if "://" in url else registry.find(url, timeout)


def parsed(text: str) -> Any:
    """An argument as JSON, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def described(service: Service, on_loan: bool) -> dict[str, Any]:
    """A service, as `--json` prints it."""
    url = str(ServiceURL(service.app, service.service))
    return {"url": url, "address": service.url, "description": service.description, "on_loan": on_loan}


def table(rows: list[dict[str, Any]]) -> Table:
    """The services for people."""
    shown = Table("service", "where it is", "description", "", box=None)
    for row in rows:
        shown.add_row(row["url"], row["address"], row["description"], "on loan" if row["on_loan"] else "")
    return shown

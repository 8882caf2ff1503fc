"""`politics services`, `lookup`, `call` and `borrow`: the registry on the command line."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from discovery import Registry
from discovery.errors import LoanLost, ServiceOnLoan
from discovery.registry import Service, ServiceURL, Watch
from discovery.remote import Client, Proxy, Unknown, address_of
from discovery.rings import RingFinger
from discovery.signals import SignalQueue
from politics.cli.common import complain, out
from politics.cli.lock import LEASE_LOST, NOT_ACQUIRED, collected, run_while
from politics.settings import interfaces

LISTEN = 1.0
"""Seconds in which every service on the network is heard."""

RingOption = Annotated[
    str | None,
    typer.Option("--ring", metavar="HOST:PORT", help="Ask this ring instead of multicast.", show_default=False),
]
SecretOption = Annotated[
    str,
    typer.Option(
        "--secret",
        envvar="POLITICS_SECRET",
        help="Ignore announcements that are not signed with it.",
        show_default=False,
    ),
]
InterfaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--interface",
        metavar="ADDRESS",
        help="The address of an interface to use; repeat it for several. Default: $POLITICS_INTERFACES.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="How long to look for the service.", min=0.0)
]
UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="distributed://app/Service, or only its name.")]


def services(
    watch: Annotated[bool, typer.Option("--watch", help="Print changes until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON array; with --watch one object per line.")
    ] = False,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """List the services on the network.

    For each service: its URL, its address, its description, and whether it is on loan.
    """
    with opened(ring, secret, interface) as registry:
        if watch:
            with SignalQueue(signal.SIGINT, signal.SIGTERM) as signals:
                reporting = (registry.watch(), as_json, signals)
                threading.Thread(target=report, args=reporting, name="report", daemon=True).start()
                number = signals.get()
            raise typer.Exit(128 + number if number else 1)
        threading.Event().wait(LISTEN)
        rows = [described(service, registry.on_loan(service)) for service in registry.services()]
    if as_json:
        out.print(json.dumps(rows))
    else:
        for row in rows:
            url, *rest = cells(row)
            out.print(url)
            out.print(f"  {'  '.join(rest)}")
        if not rows:
            out.print("no services")


def lookup(
    url: UrlArgument,
    timeout: TimeoutOption = LISTEN,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """Print the address of a service.

    Exit status 1 means that it was not found, or that it is on loan.
    """
    with opened(ring, secret, interface) as registry:
        found = find(registry, url, timeout)
    out.print(str(address_of(found)) if isinstance(found, Proxy) else found)


def call(
    url: UrlArgument,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A public method of the service.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARG", help="An argument: JSON if it is valid JSON, else text.")
    ] = None,
    timeout: TimeoutOption = LISTEN,
    within: Annotated[
        float | None,
        typer.Option(
            "--within",
            metavar="SECONDS",
            help="How long the call may take.",
            min=0.001,
            show_default="as long as its provider is there",
        ),
    ] = None,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """Call a method of a service and print its answer.

    The answer is printed as JSON where that is possible.

    Example: politics call distributed://shop/Stock count '"apples"' 3
    """
    with opened(ring, secret, interface, within) as registry:
        found = find(registry, url, timeout)
        if not isinstance(found, Proxy):
            complain(f"{url} is {found}, which is an address and not an object that can be called")
            raise typer.Exit(1)
        try:
            # Not `getattr`, which also finds what a proxy has of its own, such as `__class__`.
            answer = type(found).__getattr__(found, method)(*map(parsed, arguments or []))
        except Exception as exc:  # whatever the method raises
            complain(f"{type(exc).__name__}: {exc}")
            raise typer.Exit(1) from exc
    out.print(shown(answer))


def borrow(
    url: UrlArgument,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The command to run.")],
    ttl: Annotated[
        float, typer.Option(help="How long the loan lasts without a renewal.", metavar="SECONDS", min=0.1)
    ] = 10.0,
    wait: Annotated[
        float | None,
        typer.Option(
            help="How long to wait for the loan. 0 tries once.",
            metavar="SECONDS",
            min=0.0,
            show_default="as long as it takes",
        ),
    ] = None,
    ring: RingOption = None,
    secret: SecretOption = "",
    interface: InterfaceOption = None,
) -> None:
    """Run COMMAND while a service is reserved for it.

    COMMAND finds the address of the service in $POLITICS_SERVICE. Nobody else can call the service meanwhile.

    COMMAND never outlives the loan. If the loan is lost, COMMAND and all that it started get SIGTERM, and SIGKILL
    before the loan ends.

    The exit status is COMMAND's own, or 128 + n if signal n ended it. Other values: 75 the service is on loan; 124 the
    loan was lost, and COMMAND was stopped; 126 COMMAND cannot be run; 127 COMMAND was not found; 1 there is no such
    service.
    """
    with opened(ring, secret, interface) as registry:
        loan, status = registry.borrow(url, ttl, wait), LEASE_LOST
        try:
            with contextlib.suppress(LoanLost), loan, SignalQueue(*collected()) as signals:
                status = run_while(loan, ttl, command, {"POLITICS_SERVICE": loan.address}, signals)
        except ServiceOnLoan as exc:
            complain(exc)
            status = NOT_ACQUIRED
    raise typer.Exit(status)


@contextlib.contextmanager
def opened(
    ring: str | None, secret: str, interface: list[str] | None, timeout: float | None = None
) -> Iterator[Registry]:
    """Return a registry until the block ends. A command does not wait for a ring that is not there.

    Raises:
        RingNotFound: the ring does not answer.
    """
    if ring is not None:
        with Client() as client:
            RingFinger([ring], client=client).lookup_ring_any(2.0)
    with Registry(ring=ring, secret=secret, interfaces=interface or interfaces(), timeout=timeout) as registry:
        yield registry


def report(watch: Watch, as_json: bool, signals: SignalQueue) -> None:
    """Print each change of a service; put a 0 into the queue when nobody reads that any more."""
    with contextlib.suppress(BrokenPipeError):
        for change in watch:
            if change.missed:
                complain(f"({change.missed} changes before the next one were dropped)")
            row = {"change": change.kind, **described(change.service, change.on_loan)}
            out.print(json.dumps(row) if as_json else "  ".join([change.kind, *cells(row)]))
    signals.put(0)


def find(registry: Registry, url: str, timeout: float) -> Any:
    """Find a service by its URL or by its name."""
    return registry.lookup(url, timeout) if "://" in url else registry.find(url, timeout)


def parsed(text: str) -> Any:
    """Return an argument as JSON, or as text if it is not valid JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def shown(answer: Any) -> str:
    """Return an answer as JSON: a dataclass as an object with its fields, and what JSON cannot say as its `repr`."""
    try:
        return json.dumps(answer, default=lambda value: value.fields if isinstance(value, Unknown) else repr(value))
    except TypeError:  # keys that are no text
        return json.dumps(repr(answer))


def described(service: Service, on_loan: bool) -> dict[str, Any]:
    """Return a service as `--json` prints it."""
    url = str(ServiceURL(service.app, service.service))
    return {"url": url, "address": service.url, "description": service.description, "on_loan": on_loan}


def cells(row: dict[str, Any]) -> list[str]:
    """Return what people are told of a service; its description is the last, since it may be long."""
    return [row["url"], row["address"], *(["on loan"] if row["on_loan"] else []), row["description"]]

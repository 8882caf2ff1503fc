"""`politics ring`: share a tuple space, and list the services that rings hold."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from discovery.errors import BadAccessRule, DiscoveryError
from discovery.remote import TLS, Access, Client, Proxy, address_of
from discovery.rings import ANY_SERVICE, BROADCAST, PORT, RingFinger, RingServer, ServiceTuple, services
from discovery.tuples.requests import EventStream
from politics.cli.common import app, complain, out


def pem(text: str) -> Any:
    """An option that names a file of certificates or keys."""
    return typer.Option(help=text, metavar="FILE", exists=True, dir_okay=False, show_default=False)


@app.command()
def ring(
    port: Annotated[int, typer.Option(help="Where the ring is; 0 serves on any free port.")] = PORT,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="The interface to serve on, by default all; with --list the hosts to ask, again for several.",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print services as they come and go.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the services in the rings, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print one JSON object, by host.")] = False,
    access: Annotated[
        str,
        typer.Option(metavar="RULES", help='Who may connect: "deny all allow 10.0.0.0/8".', show_default="everybody"),
    ] = "",
    certificate: Annotated[Path | None, pem("Speak TLS, with this certificate; needs --key.")] = None,
    key: Annotated[Path | None, pem("The key of that certificate.")] = None,
    authority: Annotated[
        Path | None, pem("Admit only clients that this authority has signed for; with --list, the one to trust.")
    ] = None,
) -> None:
    """Run a ring, a tuple space that programs on this network find and share, until SIGTERM or Ctrl-C.

    With a certificate and its key it speaks TLS; with an authority too, it admits only clients that this authority has
    signed for. With --list, shows instead which services rings hold, by the host on which each lives.
    """
    if not 0 <= port <= 65535:
        raise typer.BadParameter(f"{port} is no port", param_hint="--port")
    tls = TLS(certificate, key, authority) if certificate or authority else None
    try:
        if listing:
            with Client(tls=tls) as client:
                show(services(RingFinger(host or [BROADCAST, "localhost"], port, client=client)), as_json)
        else:
            if len(host or []) > 1:
                raise typer.BadParameter("a ring serves on one interface, or on all of them", param_hint="--host")
            serve(RingServer(port=port, host=host[0] if host else "", access=Access(access), tls=tls), verbose)
    except (BadAccessRule, ValueError) as exc:
        raise typer.BadParameter(str(exc)) from exc
    except (DiscoveryError, OSError) as exc:
        complain(exc)
        raise typer.Exit(1) from exc


def serve(server: RingServer, verbose: bool) -> None:
    """Serve until a signal comes."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with server:
        out.print(f"ring on port {server.port}", markup=False)
        if verbose:
            events = server.space.notify(None, ANY_SERVICE)
            threading.Thread(target=report, args=(events,), name="report", daemon=True).start()
        stop.wait()
    out.print("ring closed", markup=False)


def report(events: EventStream) -> None:
    """Print one line for each service that comes or goes."""
    words = {"write": "registered", "take": "taken", "delete": "expired"}
    for event in events:
        if event.missed:
            out.print(f"({event.missed} more came and went)", markup=False)
        if event.kind in words:
            out.print(f"{words[event.kind]} {'  '.join(describe(event.tuple).values())}", markup=False)


def describe(service: ServiceTuple) -> dict[str, str]:
    """What there is to say about a service, as `--json` prints it."""
    _, name, target, description = service
    where = str(address_of(target)) if isinstance(target, Proxy) else repr(target)
    return {"name": str(name), "address": where, "description": str(description)}


def show(by_host: dict[str, list[ServiceTuple]], as_json: bool) -> None:
    """Print the services, grouped by host."""
    described = {host: [describe(service) for service in found] for host, found in sorted(by_host.items())}
    if as_json:
        out.print(json.dumps(described), markup=False)
        return
    for host, found in described.items():
        out.print(host, markup=False)
        for service in found:
            out.print(f"  {'  '.join(service.values())}", markup=False)
    if not described:
        out.print("no services", markup=False)

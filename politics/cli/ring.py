"""`politics ring`: share a tuple space, and list the services in rings."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from discovery.errors import BadAccessRule, DiscoveryError
from discovery.registry import ServiceURL
from discovery.registry.offer import remote_address
from discovery.registry.ring_transport import offers_in
from discovery.remote import TLS, Access, Client, Proxy, address_of
from discovery.rings import ANY_SERVICE, BROADCAST, PORT, RingFinger, RingServer, ServiceTuple
from discovery.rings.registration import services_in
from discovery.signals import SignalQueue
from discovery.tuples.requests import EventStream
from politics.cli.common import complain, out


def pem(text: str) -> Any:
    """Return an option that names a PEM file."""
    return typer.Option(help=text, metavar="FILE", exists=True, dir_okay=False, show_default=False)


def ring(
    port: Annotated[int, typer.Option(help="The port of the ring. 0 takes any free port.")] = PORT,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="The interface to serve on; default: all. With --list, a host to ask; repeat it for several.",
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
        Path | None, pem("Admit only clients with a certificate of this authority. With --list, the one to trust.")
    ] = None,
) -> None:
    """Share a tuple space on the network, or list the services in rings.

    Programs on this network find the ring by multicast. It runs until SIGTERM or Ctrl-C.

    With --certificate and --key it speaks TLS. With --authority too, it admits only clients with a certificate of that
    authority.

    With --list it prints the services in all rings, by the host on which each service runs: those of a Registration,
    and those of a Registry that uses the ring.
    """
    if not 0 <= port <= 65535:
        raise typer.BadParameter(f"{port} is not a port", param_hint="--port")
    if as_json and not listing:
        raise typer.BadParameter("prints what --list finds, so it needs --list", param_hint="--json")
    tls = TLS(certificate, key, authority) if certificate or authority else None
    try:
        if listing:
            with Client(tls=tls) as client:
                show(listed(RingFinger(host or [BROADCAST, "localhost"], port, client=client)), as_json)
        else:
            if len(host or []) > 1:
                raise typer.BadParameter("a ring serves on one interface, or on all of them", param_hint="--host")
            serve(RingServer(port=port, host=host[0] if host else "", access=Access(access), tls=tls), verbose)
    except (BadAccessRule, ValueError) as exc:
        raise typer.BadParameter(str(exc)) from exc
    except DiscoveryError as exc:
        complain(exc)
        raise typer.Exit(1) from exc
    except OSError as exc:
        why = str(exc.strerror or exc).partition(" (while attempting")[0]
        complain(f"port {port} of {host[0] if host else 'this machine'} cannot be used: {why}")
        raise typer.Exit(1) from exc


def serve(server: RingServer, verbose: bool) -> None:
    """Serve until a signal arrives."""
    with SignalQueue(signal.SIGTERM, signal.SIGINT) as signals, server:
        events = server.space.notify(None, ANY_SERVICE) if verbose else None
        out.print(f"ring on port {server.port}")
        if events:
            threading.Thread(target=report, args=(events,), name="report", daemon=True).start()
        signals.get()
    out.print("ring closed")


def report(events: EventStream) -> None:
    """Print one line for each service that comes or goes."""
    words = {"write": "registered", "take": "taken", "delete": "expired"}
    for event in events:
        if event.missed:
            out.print(f"({event.missed} more came and went)")
        if event.kind in words:
            out.print(f"{words[event.kind]} {'  '.join(describe(event.tuple).values())}")


def listed(finger: RingFinger) -> dict[str, list[dict[str, str]]]:
    """Return the services in all rings by the host on which each lives: those of registrations, and of registries."""
    by_host: dict[str, list[dict[str, str]]] = {}
    for ring in list(finger.rings()) or [finger.lookup_ring_any(2)]:
        for service in services_in(ring):
            host = address_of(service[2]).host if isinstance(service[2], Proxy) else ring.address.host
            by_host.setdefault(host, []).append(describe(service))
        for offer in offers_in(ring):
            app, name, url, description = offer.service
            address = remote_address(url)
            found = {"name": str(ServiceURL(app, name)), "address": url, "description": description}
            by_host.setdefault(address.host if address else ring.address.host, []).append(found)
    return dict(sorted(by_host.items()))


def describe(service: ServiceTuple) -> dict[str, str]:
    """Return a service as `--json` prints it."""
    _, name, target, description = service
    where = str(address_of(target)) if isinstance(target, Proxy) else repr(target)
    return {"name": str(name), "address": where, "description": str(description)}


def show(by_host: dict[str, list[dict[str, str]]], as_json: bool) -> None:
    """Print the services, grouped by host."""
    if as_json:
        out.print(json.dumps(by_host))
        return
    for host, found in by_host.items():
        out.print(host)
        for service in found:
            out.print(f"  {'  '.join(service.values())}")
    if not by_host:
        out.print("no services")

"""`politics run`: run workers, as a service manager or a container does."""

import contextlib
import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from election import ElectionError, Event
from election.events import OnEvent
from politics import Scheduler, TokenWorker
from politics.cli.common import ServersOption, StoreOption, complain, split
from politics.cli.logs import LogLevel, configure
from politics.worker import process_all

log = logging.getLogger("politics")

_NOT_THEIRS = {"politics", "importlib", "_frozen_importlib", "_frozen_importlib_external"}
"""Packages whose frames a traceback of a program that cannot be loaded does not begin with."""


def _instead(text: str, metavar: str | None = None, *names: str) -> Any:
    """An option that takes the place of an attribute of the worker's class."""
    return typer.Option(*names, help=text, metavar=metavar, show_default="the class's")


Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET",
        help="A worker: path/to/file.py:Class or package.module:Class; or a Scheduler: path/to/file.py:jobs. "
        "Several run in one process.",
    ),
]
LogLevelOption = Annotated[
    LogLevel,
    typer.Option(
        help="Log from this level on.",
        metavar="debug|info|warning|error",
        case_sensitive=False,
        show_default="info",
    ),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        help="Serve /metrics for Prometheus, /healthz and /leader on this port. 0 takes any free port.",
        metavar="PORT",
        min=0,
        max=65535,
        show_default="none",
    ),
]
MetricsHostOption = Annotated[
    str,
    typer.Option(
        help="Serve them on this address. 0.0.0.0 means every interface.",
        metavar="ADDRESS",
        show_default="127.0.0.1",
    ),
]


def run(
    targets: Targets,
    store: StoreOption = None,
    servers: ServersOption = None,
    group: Annotated[str | None, _instead("The group; its members elect one leader.", "NAME")] = None,
    iteration_length: Annotated[float | None, _instead("Seconds from one slot of work to the next.", "SECONDS")] = None,
    schedule: Annotated[
        str | None, _instead("When to work: a cron expression in quotes, or @daily and the like.", "CRON")
    ] = None,
    timezone: Annotated[str | None, _instead("The time zone of the schedule.", "NAME")] = None,
    lease_ttl: Annotated[float | None, _instead("A silent leader is replaced after this time.", "SECONDS")] = None,
    sticky: Annotated[
        bool | None,
        _instead("Keep a healthy leader from slot to slot, or elect anew for each.", None, "--sticky/--no-sticky"),
    ] = None,
    on_failover: Annotated[
        str | None, _instead("A slot that a leader left unfinished: rerun or skip it.", "rerun|skip")
    ] = None,
    on_error: Annotated[
        str | None,
        _instead("A slot whose work raises an error: it is done, or another worker retries it.", "done|retry"),
    ] = None,
    log_level: LogLevelOption = LogLevel.INFO,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log one JSON object per line.")] = False,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
) -> None:
    """Run a TokenWorker or a Scheduler until SIGTERM or Ctrl-C.

    Start the same command on as many machines as you like. One of them works, the others stand by.

    The log goes to standard error. It says who is elected, with fence and slot, and why leadership ended.

    The first signal asks the work to stop, waits for it, and hands the lease over. A second signal ends the wait.

    Example: politics run mailer.py:Mailer --servers 10.0.0.5:11211
    """
    configure(log_level, as_json=log_json)
    if group is not None and len(targets) > 1:
        raise typer.BadParameter("--group is for one worker; with several, name the group in each class")
    given = {
        "store": store,
        "servers": split(servers),
        "group": group,
        "iteration_length": iteration_length,
        "schedule": schedule,
        "timezone": timezone,
        "lease_ttl": lease_ttl,
        "sticky": sticky,
        "on_failover": on_failover,
        "on_error": on_error,
    }
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    made: dict[str, TokenWorker | Scheduler] = {}
    workers: list[TokenWorker | Scheduler] = []
    for target in targets:
        with saying_whose_error(target):
            found = load(target)
            worker = _configure(found, target, options) if isinstance(found, Scheduler) else found(**options)
        workers.append(worker)
        for name in leases_of(worker):
            if name in made:
                raise typer.BadParameter(f"two of the workers are of the group {name!r}; only one could ever lead")
            made[name] = worker
    with contextlib.nullcontext() if metrics_port is None else _serve(workers, metrics_host, metrics_port):
        process_all(workers)


def leases_of(worker: TokenWorker | Scheduler) -> list[str]:
    """Return the names of the leases that a worker campaigns for."""
    return list(worker.jobs) if isinstance(worker, Scheduler) else [worker.group]


def _configure(jobs: Scheduler, target: str, options: dict[str, Any]) -> Scheduler:
    """Return the scheduler with the options that are for schedulers.

    Raises:
        typer.BadParameter: one of them is not.
    """
    allowed = ("store", "servers", "lease_ttl")
    for name in options.keys() - allowed:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(
            f"{option} is for a TokenWorker, and {target} is a Scheduler: write it into the program"
        )
    jobs.configure(**options)
    return jobs


@contextlib.contextmanager
def _serve(workers: list[TokenWorker | Scheduler], host: str, port: int) -> Iterator[None]:
    """Serve metrics of the workers inside the block."""
    try:
        from politics.metrics import Families, Metrics, serve
    except ModuleNotFoundError as exc:
        raise typer.BadParameter(f"--metrics-port: {exc}") from exc
    families, by_lease = Families(), dict[str, Metrics]()
    for worker in workers:
        by_lease.update((name, Metrics(name, families)) for name in leases_of(worker))
        _add(lambda event: by_lease[event.group].see(event), worker)
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(
                serve(list(by_lease.values()), host, port, lambda: all(w.running for w in workers))
            )
        except OSError as exc:
            where = f"--metrics-port {port} of --metrics-host {host}"
            raise typer.BadParameter(f"{where} cannot be used: {exc.strerror}") from exc
        log.info("%s: metrics on port %d of %s", ", ".join(worker.group for worker in workers), found, host)
        yield


def _add(see: OnEvent, worker: TokenWorker | Scheduler) -> None:
    """Have a worker's events seen by one more."""
    own = worker.on_event

    def on_event(event: Event) -> None:
        see(event)
        own(event)

    worker.on_event = on_event  # type: ignore[method-assign]


@contextlib.contextmanager
def saying_whose_error(target: str) -> Iterator[None]:
    """End the command with one line if the code of a program raises, below a traceback of that code alone."""
    try:
        yield
    except (ElectionError, typer.BadParameter):
        raise
    except Exception as exc:
        frames = exc.__traceback__
        while frames and frames.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THEIRS:
            frames = frames.tb_next
        traceback.print_exception(exc.with_traceback(frames))
        complain(f"{target} cannot be loaded: {type(exc).__name__}: {exc}")
        raise typer.Exit(1) from exc


def load(target: str) -> type[TokenWorker] | Scheduler:
    """Import and return what `target` names: a class of workers, or a scheduler.

    Raises:
        typer.BadParameter: there is no such thing, or it is neither; the message names it.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise typer.BadParameter(
            f"{target!r} is not path/to/file.py:Class or package.module:Class, nor such a place of a Scheduler"
        )
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, name, None)
    if isinstance(found, Scheduler) or (isinstance(found, type) and issubclass(found, TokenWorker)):
        return found
    there = [
        other
        for other, value in vars(module).items()
        if isinstance(value, Scheduler)
        or (isinstance(value, type) and issubclass(value, TokenWorker) and other != "TokenWorker")
    ]
    what = "does not exist" if found is None else "is not a subclass of politics.TokenWorker, and no Scheduler"
    raise typer.BadParameter(f"{name} in {place} {what}; workers there: {', '.join(sorted(there)) or 'none'}")


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}")
    # As if the file had been started itself, so that it can import the modules beside it.
    sys.path.insert(0, str(path.parent.absolute()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise typer.BadParameter(f"{name} is a module of Python's standard library; rename yours")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        raise typer.BadParameter(f"there is no module {name} here or among the installed ones") from exc

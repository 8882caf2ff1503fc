"""Metrics of workers for Prometheus, and health checks over HTTP. Needs the extra `metrics`."""

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import unquote

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError("metrics need a library: pip install prometheus-client", name=exc.name) from exc

from election import Event
from election.clock import SystemClock
from election.events import EventKind

log = logging.getLogger("politics")

SLOT_RESULTS = {EventKind.SLOT_DONE: "done", EventKind.SLOT_FAILED: "failed", EventKind.SLOT_INTERRUPTED: "interrupted"}
LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
DURATIONS = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)

CONNECTIONS = 16
"""How many requests are answered at once. One more ends the oldest, so that silent clients keep nobody out."""
TIMEOUT = 5.0
"""Seconds for which a client may be silent."""


class Families:
    """The metrics of a process, each with the label `group`. `registry` has them all."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def of(kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(f"politics_{name}", text, ["group", *labels], registry=registry, **more)

        self.is_leader = of(Gauge, "is_leader", "1 while this process can prove that it leads")
        self.remaining = of(Gauge, "lease_remaining_seconds", "Proven leadership that is left")
        self.leaderless = of(Gauge, "leaderless_seconds", "How long this process has not known of any leader")
        self.fence = of(Gauge, "fence", "The largest fence that this process has seen")
        self.terms = of(Counter, "terms", "Elections that this process won")
        self.takeovers = of(Counter, "takeovers", "Those that it won from a leader that fell silent")
        self.failures = of(Counter, "renewals_failed", "Renewals that the store did not answer")
        self.latency = of(Histogram, "renewal_seconds", "Duration of renewals", buckets=LATENCIES)
        self.slots = of(Counter, "slots", "Slots by result", "result")
        self.length = of(
            Histogram, "slot_seconds", "Duration of the work of slots, by result", "result", buckets=DURATIONS
        )
        self.last_done = of(
            Gauge, "last_slot_done_timestamp_seconds", "When this process last finished a slot; 0 if it has not yet"
        )


class Metrics:
    """The metrics of one group. Pass each event to `see`, for example from `on_event`. Any thread may use it.

    Args:
        group: the label of every metric.
        families: share them to serve several groups from one port.
        now: the clock, in seconds; for tests.
        wall: the time of day, in seconds since 1970; for tests.
    """

    def __init__(
        self,
        group: str,
        families: Families | None = None,
        now: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.group = group
        self._now, self._wall = now or SystemClock().now, wall
        self._until = 0.0
        self._leaderless_since: float | None = self._now()
        all_groups = families or Families()
        self.registry = all_groups.registry
        all_groups.is_leader.labels(group).set_function(lambda: float(self.leads))
        all_groups.remaining.labels(group).set_function(self._remaining)
        all_groups.leaderless.labels(group).set_function(self._leaderless)
        self._fence, self._last_done = all_groups.fence.labels(group), all_groups.last_done.labels(group)
        self._terms, self._takeovers = all_groups.terms.labels(group), all_groups.takeovers.labels(group)
        self._failures, self._latency = all_groups.failures.labels(group), all_groups.latency.labels(group)
        results = SLOT_RESULTS.values()
        self._slots = {result: all_groups.slots.labels(group, result) for result in (*results, "skipped")}
        self._lengths = {result: all_groups.length.labels(group, result) for result in results}

    @property
    def leads(self) -> bool:
        """Whether the last event proves that this process leads now."""
        return self._now() < self._until

    def _remaining(self) -> float:
        return max(0.0, self._until - self._now())

    def _leaderless(self) -> float:
        since = self._leaderless_since
        if since is None and self._until and not self.leads:
            since = self._until  # our own term has run out, and no event has said so yet
        return 0.0 if since is None else self._now() - since

    def see(self, event: Event) -> None:
        """Update the metrics from one event."""
        match event.kind:
            case EventKind.ELECTED | EventKind.RENEWED:
                self._until, self._leaderless_since = event.until or 0.0, None
                if event.kind is EventKind.ELECTED:
                    self._terms.inc()
                    self._takeovers.inc(bool(event.takeover))
                else:
                    self._latency.observe(event.seconds or 0.0)
            case EventKind.RENEWAL_FAILED:
                self._failures.inc()
            case EventKind.LED:
                self._until, self._leaderless_since = 0.0, None
            case EventKind.ENDED | EventKind.LEADERLESS | EventKind.STORE_SILENT:
                self._leaderless_since = self._now() - self._leaderless()
                self._until = 0.0
            case EventKind.SLOTS_SKIPPED:
                self._slots["skipped"].inc(1 if event.count is None else event.count)
            case kind if kind in SLOT_RESULTS:
                self._slots[SLOT_RESULTS[kind]].inc()
                self._lengths[SLOT_RESULTS[kind]].observe(event.seconds or 0.0)
                if kind is EventKind.SLOT_DONE:
                    self._last_done.set(self._wall())
        if event.fence is not None:
            self._fence.set(event.fence)


class MetricsServer(socketserver.ThreadingMixIn, HTTPServer):
    """Answers a few requests at once, and spends a bounded number of threads and descriptors on it.

    A connection that is one too many ends the oldest, and one that is silent ends by itself.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: list[Any] = []
        self._lock = threading.Lock()
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind, without HTTPServer's question for the host's name, which may take long."""
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection, and end the oldest if there are too many. The caller swallows an `OSError`."""
        try:
            request, client = super().get_request()
        except OSError:  # out of descriptors: the selector would return at once, again and again
            self._end_oldest(keep=0)
            time.sleep(0.2)
            raise
        self._end_oldest(keep=CONNECTIONS - 1)
        with self._lock:
            self._open.append(request)
        return request, client

    def _end_oldest(self, keep: int) -> None:
        with self._lock:
            old, self._open = self._open[: len(self._open) - keep], self._open[-keep:] if keep else []
        for request in old:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it

    def shutdown_request(self, request: Any) -> None:
        """Close a connection whose request has been answered."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a connection ended with at DEBUG, since strangers decide how often."""
        log.debug("metrics: a connection failed", exc_info=True)


@contextlib.contextmanager
def serve(metrics: list[Metrics], host: str, port: int, healthy: Callable[[], bool]) -> Iterator[int]:
    """Serve `/metrics`, `/healthz`, `/leader` and `/leader/GROUP` inside the block. Yields the port.

    Args:
        metrics: what `/metrics` and `/leader` answer from; all of one `Families`.
        host: the address to listen on; an IPv6 address has colons, 0.0.0.0 means every interface.
        port: the port; 0 takes any free one.
        healthy: whether the workers run, for `/healthz`.

    Raises:
        OSError: the address or the port cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(metrics[0].registry), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                alive = healthy()
                self._answer(200 if alive else 503, b"the worker runs\n" if alive else b"the worker has ended\n")
            elif asked := [m for m in metrics if self.path == "/leader" or unquote(self.path) == f"/leader/{m.group}"]:
                leads = any(m.leads for m in asked)
                self._answer(200 if leads else 503, b"leading\n" if leads else b"standing by\n")
            else:
                self._answer(404, b"there are /metrics, /healthz, /leader and /leader/GROUP\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a line for each request would hide the other lines."""

    with MetricsServer(host, port, Handler) as server:
        threading.Thread(target=server.serve_forever, name="politics-metrics", daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()

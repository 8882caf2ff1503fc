"""Metrics of a worker for Prometheus, and health checks over HTTP. Needs the extra `metrics`."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError("metrics need a library: pip install 'politics[metrics]'", name=exc.name) from exc

from election import Event
from election.clock import SystemClock
from election.events import EventKind

log = logging.getLogger("politics")

SLOT_RESULTS = {EventKind.SLOT_DONE: "done", EventKind.SLOT_FAILED: "failed", EventKind.SLOT_INTERRUPTED: "interrupted"}
LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics of one group. Pass each event to `see`, for example from `on_event`. Any thread may use it.

    Args:
        group: the label of every metric.
        now: the clock, in seconds; for tests.
    """

    def __init__(self, group: str, now: Callable[[], float] | None = None) -> None:
        self._now = now or SystemClock().now
        self._until = 0.0
        self._leaderless_since: float | None = self._now()
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, read: Callable[[], float] | None = None) -> Gauge:
            made = Gauge(f"politics_{name}", text, ["group"], registry=self.registry).labels(group)
            if read:
                made.set_function(read)
            return made

        def counter(name: str, text: str) -> Counter:
            return Counter(f"politics_{name}", text, ["group"], registry=self.registry).labels(group)

        gauge("is_leader", "1 while this process can prove that it leads", lambda: float(self.leads))
        gauge("lease_remaining_seconds", "Proven leadership that is left", self._remaining)
        gauge("leaderless_seconds", "How long this process has not known of any leader", self._leaderless)
        self._fence = gauge("fence", "The largest fence that this process has seen")
        self._terms = counter("terms", "Elections that this process won")
        self._takeovers = counter("takeovers", "Those that it won from a leader that fell silent")
        self._failures = counter("renewals_failed", "Renewals that the store did not answer")
        self._latency = Histogram(
            "politics_renewal_seconds", "Duration of renewals", ["group"], registry=self.registry, buckets=LATENCIES
        ).labels(group)
        slots = Counter("politics_slots", "Slots by result", ["group", "result"], registry=self.registry)
        self._slots = {result: slots.labels(group, result) for result in (*SLOT_RESULTS.values(), "skipped")}

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
                self._slots["skipped"].inc(event.count or 0)
            case kind if kind in SLOT_RESULTS:
                self._slots[SLOT_RESULTS[kind]].inc()
        if event.fence is not None:
            self._fence.set(event.fence)


@contextlib.contextmanager
def serve(metrics: Metrics, port: int, healthy: Callable[[], bool]) -> Iterator[int]:
    """Serve `/metrics`, `/healthz` and `/leader` on all interfaces inside the block. Yields the port.

    Args:
        metrics: what `/metrics` and `/leader` answer from.
        port: the port; 0 takes any free one.
        healthy: whether the worker runs, for `/healthz`.

    Raises:
        OSError: the port cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                alive = healthy()
                self._answer(200 if alive else 503, b"the worker runs\n" if alive else b"the worker has ended\n")
            elif self.path == "/leader":
                leads = metrics.leads
                self._answer(200 if leads else 503, b"leading\n" if leads else b"standing by\n")
            else:
                self._answer(404, b"there are /metrics, /healthz and /leader\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a line for each request would hide the other lines."""

    with ThreadingHTTPServer(("", port), Handler) as server:
        threading.Thread(target=server.serve_forever, name="politics-metrics", daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()

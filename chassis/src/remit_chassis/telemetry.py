"""Metrics and traces of a service.

Metrics carry service, verb and outcome, never a tenant or user. Traces follow a request over the bus by W3C trace
context; they are exported when `OTEL_EXPORTER_OTLP_ENDPOINT` is set and the extra `otlp` is installed, and merely
passed on otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

_PROPAGATOR = TraceContextTextMapPropagator()


class Metrics:
    """One registry per service, so that several services in one test process stay apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "remit_requests_total", "Requests by outcome", ["kind", "verb", "outcome"], registry=self.registry
        )
        self.seconds = Histogram(
            "remit_request_seconds", "Time from arrival to answer", ["kind", "verb"], registry=self.registry
        )
        self.relay_lag = Gauge(
            "remit_relay_lag_events", "Events stored and not yet acknowledged by the stream", registry=self.registry
        )

        self._counts: dict[tuple[str, str, str], Counter] = {}
        self._timers: dict[tuple[str, str], Histogram] = {}

    def answered(self, kind: str, verb: str, outcome: str, seconds: float) -> None:
        """Count one request. The library's look-up by labels costs more than its counting, so its results are kept."""
        count = self._counts.get((kind, verb, outcome))
        if count is None:
            count = self._counts[kind, verb, outcome] = self.requests.labels(kind, verb, outcome)
        timer = self._timers.get((kind, verb))
        if timer is None:
            timer = self._timers[kind, verb] = self.seconds.labels(kind, verb)
        count.inc()
        timer.observe(seconds)

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def listen(self, port: int) -> None:
        """Serve the text format on loopback."""
        start_http_server(port, addr="127.0.0.1", registry=self.registry)


def configure_tracing(service: str) -> None:
    """Export spans when an OTLP endpoint is configured; the exporter is imported only then."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"remit-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def server_span(name: str, carrier: Mapping[str, str]) -> Iterator[None]:
    """A span for one request, child of the caller's when the carrier holds a valid `traceparent`."""
    with trace.get_tracer("remit").start_as_current_span(
        name, context=_PROPAGATOR.extract(carrier), kind=trace.SpanKind.SERVER
    ):
        yield


def outgoing_headers() -> dict[str, str] | None:
    """`traceparent` of the current span, or None when there is none: built anew, nothing inbound is copied."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier

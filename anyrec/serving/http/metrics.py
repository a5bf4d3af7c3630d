"""The figures at `/metrics`, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and histograms of one server. Several servers in one process do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("anyrec_requests", "Requests.", ["method", "route", "status"], registry=self.registry)
        self._seconds = Histogram(
            "anyrec_request_seconds", "Time of requests.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self._stages = Histogram(
            "anyrec_stage_seconds", "Time of stages.", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self._fallbacks = Counter("anyrec_fallbacks", "Lists that were not personal.", registry=self.registry)
        self._events = Counter("anyrec_events", "Events that were accepted.", registry=self.registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def listing(self, latency_ms: dict[str, float], fallback: bool) -> None:
        """Count a list, with the time of its stages."""
        for stage, value in latency_ms.items():
            self._stages.labels(stage).observe(value / 1000)
        if fallback:
            self._fallbacks.inc()

    def events(self, count: int) -> None:
        """Count accepted events."""
        self._events.inc(count)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a figure that is computed when it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return all figures."""
        return generate_latest(self.registry)


def age(since: Callable[[], float]) -> Callable[[], float]:
    """Return a function for the seconds since a time that a function returns."""
    return lambda: time.time() - since()

"""The figures at `/metrics`, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from anyrec.core.types import JsonObject
from anyrec.serving.http.activity import Activity

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
API = "/v1/"
OF_THE_PAGE = (
    "/v1/page",
    "/v1/live",
    "/v1/experiments",
    "/v1/runs",
    "/v1/items/{item_id}/image",
    "/v1/users/{user_id}/image",
)
"""Routes that only the page asks for: the requests per second that it shows are those of others."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and histograms of one server. Several servers in one process do not share them.

    Attributes:
        activity: What happened lately, for the page.
    """

    def __init__(self) -> None:
        self.activity = Activity()
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
        if route.startswith(API) and not route.startswith(OF_THE_PAGE):
            self.activity.request(status)

    def listing(self, latency_ms: dict[str, float], fallback: bool) -> None:
        """Count a list, with the time of its stages."""
        for stage, value in latency_ms.items():
            self._stages.labels(stage).observe(value / 1000)
        if fallback:
            self._fallbacks.inc()
        self.activity.listing(latency_ms, fallback)

    def events(self, received: Iterable[JsonObject], accepted: int) -> None:
        """Count events. accepted: how many of them are no duplicates."""
        self._events.inc(accepted)
        self.activity.events(received, accepted)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a figure that is computed when it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return all figures."""
        return generate_latest(self.registry)


def age(since: Callable[[], float]) -> Callable[[], float]:
    """Return a function for the seconds since a time that a function returns."""
    return lambda: time.time() - since()

"""What the server did lately: for the page, which shows it as it happens."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from anyrec.core.types import JsonObject

SECONDS = 120
"""Seconds whose requests are counted one by one."""
LISTS = 1000
"""Latest lists whose latencies are kept."""
EVENTS = 30
"""Latest events that are kept."""
PERCENTILES = (50, 90, 99)


@dataclass
class Activity:
    """Counts of the last seconds, latencies of the last lists, and the last events.

    It is changed by the loop of the server alone, and its size is bounded.

    Args:
        now: The time in seconds.

    Attributes:
        totals: Requests for lists, fallbacks, events and errors since the start.
    """

    now: Callable[[], float] = time.time
    totals: dict[str, int] = field(default_factory=lambda: {"lists": 0, "fallbacks": 0, "events": 0, "failures": 0})
    _seconds: deque[tuple[int, dict[str, int]]] = field(default_factory=lambda: deque(maxlen=SECONDS))
    _latencies: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=LISTS))
    _events: deque[JsonObject] = field(default_factory=lambda: deque(maxlen=EVENTS))

    def request(self, status: int) -> None:
        """Count a request of the API."""
        self._add("requests", 1)
        self.totals["failures"] += status >= 500

    def listing(self, latency_ms: dict[str, float], fallback: bool) -> None:
        """Count a list. latency_ms: milliseconds by stage."""
        self._latencies.append(latency_ms)
        self.totals["lists"] += 1
        self.totals["fallbacks"] += fallback

    def events(self, received: Iterable[JsonObject], accepted: int) -> None:
        """Count events. accepted: how many of them are no duplicates."""
        self._add("events", accepted)
        self.totals["events"] += accepted
        if accepted:
            moment = self.now()
            self._events.extend({"timestamp": moment, **event} for event in received)

    def summary(self) -> JsonObject:
        """Return the figures.

        Returns:
            `seconds`, `requests` and `events`: the last two minutes second by second, the present second left out;
            `stages`: p50, p90 and p99 of the milliseconds of each stage of the last lists; `totals`; `recent`: the last
            events, the newest first; `lists`: how many lists the percentiles are of.
        """
        last = math.floor(self.now()) - 1
        counts = dict(self._seconds)
        span = range(last - SECONDS + 1, last + 1)
        stages = dict.fromkeys(name for one in self._latencies for name in one)
        return {
            "seconds": [*span],
            "requests": [counts.get(second, {}).get("requests", 0) for second in span],
            "events": [counts.get(second, {}).get("events", 0) for second in span],
            "stages": {name: self._percentiles(name) for name in stages},
            "lists": len(self._latencies),
            "totals": dict(self.totals),
            "recent": [*self._events][::-1],
        }

    def _percentiles(self, stage: str) -> dict[str, float]:
        values = [one[stage] for one in self._latencies if stage in one]
        found = np.percentile(values, PERCENTILES)
        return {f"p{share}": round(float(value), 3) for share, value in zip(PERCENTILES, found, strict=True)}

    def _add(self, name: str, count: int) -> None:
        second = math.floor(self.now())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, {}))
        counts = self._seconds[-1][1]
        counts[name] = counts.get(name, 0) + count

"""The error that a conformance check raises."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """A component breaks its contract. The message has one sentence for each violation."""

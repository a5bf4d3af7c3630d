"""The error that a conformance check raises."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """What a component breaks, one sentence each."""

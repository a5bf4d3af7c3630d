"""Intervals, differences, p values and durations as text."""

from __future__ import annotations

from anyrec.evaluation.statistics import Comparison, Interval


def interval(value: Interval | None, digits: int = 4) -> str:
    """Return a mean with its 95% interval, as `0.1234 [0.1200, 0.1300]`; nothing for None."""
    return "" if value is None else f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def difference(value: Comparison) -> str:
    """Return a difference with its 95% interval, as `+0.0123 [+0.0100, +0.0200]`."""
    return f"{value.difference:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"


def p_value(p: float) -> str:
    """Return p with three digits, or `< 0.001`."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def comparison(value: Comparison) -> str:
    """Return a difference with its 95% interval and corrected p, for use in a sentence."""
    p = f"p = {p_value(value.corrected)}" if value.corrected >= 0.001 else f"p {p_value(value.corrected)}"
    return f"difference {value.difference:+.4f}, 95% interval {value.low:+.4f} to {value.high:+.4f}, {p}"


def duration(seconds: float) -> str:
    """Return seconds or, from 2 minutes on, minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

"""How sure a figure is: paired bootstrap over users, Holm's correction, Pearson correlation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
CELLS = 1 << 23
"""Drawn users held at once."""


class Interval(NamedTuple):
    """A mean over users, its 95% bootstrap interval, and the number of users."""

    mean: float
    low: float
    high: float
    users: int


class Comparison(NamedTuple):
    """The mean difference over the same users, its 95% interval, p (two-sided) and p after correction."""

    difference: float
    low: float
    high: float
    p: float
    corrected: float

    @property
    def sure(self) -> bool:
        """Whether chance is excluded at 5% after the correction."""
        return self.corrected < 1 - LEVEL


def bootstrap_means(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """values: (users, columns) -> (resamples, columns): means of users drawn with replacement, the same for all columns."""
    rng = np.random.default_rng(seed)
    users = len(values)
    block = max(1, CELLS // max(1, users))
    means = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, users, (count, users))
        drawn += np.arange(count)[:, None] * users
        times = np.bincount(drawn.ravel(), minlength=count * users).reshape(count, users)
        means.append(times @ values / users)
    return np.concatenate(means)


def intervals(values: dict[str, np.ndarray], seed: int = 0) -> dict[str, Interval]:
    """Percentile intervals of several per-user figures, (users,) each; users without a figure (nan) are left out."""
    found = {}
    whole = [name for name, value in values.items() if not np.isnan(value).any() and len(value)]
    if whole:
        columns = np.column_stack([values[name] for name in whole])
        low, high = _bounds(bootstrap_means(columns, seed))
        for place, name in enumerate(whole):
            found[name] = _interval(columns[:, place], low[place], high[place])
    for name, value in values.items():
        known = value[~np.isnan(value)]
        if name not in found and len(known):
            low, high = _bounds(bootstrap_means(known[:, None], seed))
            found[name] = _interval(known, low[0], high[0])
    return found


def _interval(values: np.ndarray, low: float, high: float) -> Interval:
    """The resampled means of equal values may be a rounding apart from their mean, which stays inside all the same."""
    mean = float(values.mean())
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(values))


def compare_paired(
    mine: np.ndarray, others: dict[str, np.ndarray], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Comparison]:
    """mine less each of the others, (users,) each and of the same users.

    p is twice the smaller share of resampled mean differences on either side of zero (those at zero count as both), at least
    2 / (resamples + 1), so that none is claimed to be impossible; the correction is Holm's over all the others.
    """
    if not others or not len(mine):
        return {}
    gaps = np.column_stack([mine - other for other in others.values()])
    means = bootstrap_means(gaps, seed, resamples)
    low, high = _bounds(means)
    sides = np.minimum((means <= 0).sum(0), (means >= 0).sum(0))
    p = np.minimum(1.0, 2 * (sides + 1) / (resamples + 1))
    return {
        name: Comparison(float(gaps[:, place].mean()), float(low[place]), float(high[place]), float(p[place]), float(c))
        for place, (name, c) in enumerate(zip(others, holm(p), strict=True))
    }


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979) of (tests,) p values: the i-th smallest times (tests - i + 1), made to rise."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, steps)
    return corrected


def pearson(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Correlation of x, y: (n,), and its two-sided p by Student's t; (0, 1) where either is constant or n < 3."""
    from scipy.stats import pearsonr

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 1.0
    found = pearsonr(x, y)
    return float(found.statistic), float(found.pvalue)


def _bounds(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(means, [edge, 1 - edge], axis=0)
    return low, high

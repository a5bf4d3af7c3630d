"""How sure a figure is: paired bootstrap over users, Holm's correction, Pearson correlation.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993 (chapters 13 and 15).
    S. Holm, A simple sequentially rejective multiple test procedure, 1979.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
FEWEST_BEYOND = 20
"""Resampled differences beyond zero from which their share is a p value: its relative error is then under 1 / sqrt(20), 22%.
With fewer the tail is that of Student's t, to which the paired bootstrap converges."""
CELLS = 1 << 23
"""Drawn users held at once."""


class Interval(NamedTuple):
    """A mean over users, its 95% bootstrap interval, and the number of users."""

    mean: float
    low: float
    high: float
    users: int


class Comparison(NamedTuple):
    """The mean difference over the same users, its 95% interval, p (two-sided) and p after correction.

    Everything is nan if no user has both figures.
    """

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
    """`mine` minus each of the others, paired by user.

    p (two-sided) is twice the smaller share of resampled mean differences on either side of zero; those at zero count as both.
    If fewer than FEWEST_BEYOND lie there, p is that of the paired t test: a count among 2,000 could not fall below 0.001, and
    with more than 50 comparisons nothing could be significant after the correction. No p is below 2^(1 - n), with n the
    users whose difference is not zero: the least of an exact test that flips signs. The correction is Holm's over all others.

    Args:
        mine, others: (users,) figures of the same users. A user without one of the two (nan) is left out of that comparison.
    """
    if not others or not len(mine):
        return {}
    gaps = np.column_stack([mine - other for other in others.values()])
    low, high, p = (np.full(gaps.shape[1], np.nan) for _ in range(3))
    known = ~np.isnan(gaps)
    whole = known.all(0)
    groups = [whole, *(np.arange(gaps.shape[1]) == place for place in np.flatnonzero(~whole & known.any(0)))]
    for columns in groups:
        if columns.any():
            here = gaps[:, columns][known[:, columns].all(1)]
            means = bootstrap_means(here, seed, resamples)
            low[columns], high[columns] = _bounds(means)
            p[columns] = _p_values(here, means)
    difference = np.where(known.any(0), np.nansum(gaps, 0) / np.maximum(known.sum(0), 1), np.nan)
    columns = zip(difference, low, high, p, holm(p), strict=True)
    return {name: Comparison(*map(float, one)) for name, one in zip(others, columns, strict=True)}


def _p_values(gaps: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(columns,) two-sided p of the mean of each column of gaps (users, columns). means: (resamples, columns)."""
    from scipy.stats import t

    users, resamples = len(gaps), len(means)
    sides = np.minimum((means <= 0).sum(0), (means >= 0).sum(0))
    p = np.minimum(1.0, 2 * (sides + 1) / (resamples + 1))
    error = gaps.std(0, ddof=1) / np.sqrt(users) if users > 1 else np.zeros(gaps.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = 2 * t.sf(np.abs(gaps.mean(0)) / error, max(1, users - 1))
    p = np.where(sides < FEWEST_BEYOND, np.fmin(tail, 2 * (FEWEST_BEYOND + 1) / (resamples + 1)), p)
    return np.maximum(p, 2.0 ** (1 - (gaps != 0).sum(0).clip(min=1)))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of (tests,) p values: the i-th smallest times (tests - i + 1), made non-decreasing.

    A p that is nan counts as no test and stays nan.
    """
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order))))
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

"""Statistical significance: paired bootstrap over users, Holm's correction, Pearson correlation.

References:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993 (chapters 13 and 15).
    S. Holm, A simple sequentially rejective multiple test procedure, 1979.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import pearsonr
from scipy.stats import t as student_t

RESAMPLES = 2000
LEVEL = 0.95
FEWEST_BEYOND = 20
"""Fewest resampled differences beyond zero that p is computed from: its relative error is then under 1 / sqrt(20), 22%.
With fewer, p is that of Student's t, to which the paired bootstrap converges."""
CELLS = 1 << 23
"""Drawn users in memory at once."""
Name = TypeVar("Name", bound=Hashable)
"""What names a metric: a text, or a pair of a model and a metric."""


@dataclass(frozen=True)
class Interval:
    """A mean over users, its 95% bootstrap interval, and the number of users."""

    mean: float
    low: float
    high: float
    users: int


@dataclass(frozen=True)
class Comparison:
    """Mean difference over the same users, its 95% interval, two-sided p, and p after the correction.

    All values are nan if no user has both figures.
    """

    difference: float
    low: float
    high: float
    p: float
    corrected: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5% level after the correction."""
        return self.corrected < 1 - LEVEL


def bootstrap_means(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Resample users with replacement, the same users for all columns.

    Args:
        values: (users, columns).
        seed: Seed of the draws.
        resamples: Number of resamples.

    Returns:
        (resamples, columns) means.
    """
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


def intervals(values: dict[Name, np.ndarray], seed: int = 0) -> dict[Name, Interval]:
    """Compute 95% percentile intervals of several metrics.

    Args:
        values: By name, (users,) each. Users without a value (nan) are omitted.
        seed: Seed of the bootstrap.

    Returns:
        By name; a metric without any value is omitted.
    """
    by_users: dict[bytes, list[Name]] = {}  # metrics that the same users have are resampled together
    for name, value in values.items():
        by_users.setdefault(np.isnan(value).tobytes(), []).append(name)
    found: dict[Name, Interval] = {}
    for names in by_users.values():
        columns = np.column_stack([values[name] for name in names])
        columns = columns[~np.isnan(columns[:, 0])]
        if len(columns):
            low, high = _bounds(bootstrap_means(columns, seed))
            found |= {name: _interval(columns[:, n], low[n], high[n]) for n, name in enumerate(names)}
    return {name: found[name] for name in values if name in found}


def _interval(values: np.ndarray, low: float, high: float) -> Interval:
    """Return the interval, widened to contain the mean, from which resampled means may differ by rounding."""
    mean = float(values.mean())
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(values))


def compare_paired(
    mine: np.ndarray, others: dict[str, np.ndarray], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Comparison]:
    """Compare `mine` with each of the others, paired by user; the difference is mine - other.

    p (two-sided) is twice the smaller fraction of resampled mean differences on either side of zero; those at zero
    count for both. If fewer than FEWEST_BEYOND are on that side, p is that of the paired t test: a count among 2,000
    could not be below 0.001, and with more than 50 comparisons nothing could be significant after the correction. p is
    at least 2^(1 - n), with n the users whose difference is not zero: the least p of an exact sign-flip test. The
    correction is Holm's over all others.

    Args:
        mine: (users,) values.
        others: By name, (users,) values of the same users. A user without one of the two values (nan) is omitted from
            that comparison.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
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
    return {name: Comparison(*map(float, column)) for name, column in zip(others, columns, strict=True)}


def _p_values(gaps: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return (columns,) two-sided p of the mean of each column of `gaps: (users, columns)`.

    means: (resamples, columns) resampled means.
    """
    users, resamples = len(gaps), len(means)
    sides = np.minimum((means <= 0).sum(0), (means >= 0).sum(0))
    p = np.minimum(1.0, 2 * (sides + 1) / (resamples + 1))
    error = gaps.std(0, ddof=1) / np.sqrt(users) if users > 1 else np.zeros(gaps.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = 2 * student_t.sf(np.abs(gaps.mean(0)) / error, max(1, users - 1))
    p = np.where(sides < FEWEST_BEYOND, np.fmin(tail, 2 * (FEWEST_BEYOND + 1) / (resamples + 1)), p)
    return np.maximum(p, 2.0 ** (1 - (gaps != 0).sum(0).clip(min=1)))


def holm(p: np.ndarray) -> np.ndarray:
    """Apply Holm's step-down correction to p values: the i-th smallest times (tests - i + 1), made non-decreasing.

    Args:
        p: (tests,) p values. nan does not count as a test and stays nan.

    Returns:
        (tests,) corrected p values.
    """
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order))))
    corrected[order] = np.minimum(1.0, steps)
    return corrected


def pearson(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the Pearson correlation of x, y: (n,), and its two-sided p by Student's t.

    It is (0, 1) if either is constant or n < 3.
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 1.0
    found = pearsonr(x, y)
    return float(found.statistic), float(found.pvalue)


def _bounds(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper bound, (columns,) each, of the 95% interval of `means: (resamples, columns)`."""
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(means, [edge, 1 - edge], axis=0)
    return low, high

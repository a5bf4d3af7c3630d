"""Rates of variants, their differences, and a test that may be looked at at any time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
FEWEST_USERS, FEWEST_EVENTS = 100, 10
"""Users of each variant, and users of both who did it and who did not, from which on a difference is judged: the test
assumes that means are nearly normal."""
MISMATCH = 0.001
"""Probability below which the numbers of users contradict the shares."""


@dataclass(frozen=True)
class Rate:
    """The share of a variant's users who did something. low, high: 95 % interval by Wilson (1927)."""

    users: int
    converted: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The rate of a variant minus that of the first one.

    Attributes:
        value: The difference.
        low: Lower end of the confidence sequence.
        high: Upper end. The interval contains the true difference at all times, and those of all variants
            theirs, with probability 95 %.
        p: Always-valid p-value: if the variants are equal, that of any of them is below 0.05 at any time with
            probability 5 % at most.
    """

    value: float
    low: float
    high: float
    p: float


def rate(users: int, converted: int) -> Rate:
    """Return a rate with its interval; nan for no users."""
    if not users:
        return Rate(0, 0, math.nan, math.nan, math.nan)
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    share, scale = converted / users, 1 + z**2 / users
    middle = (share + z**2 / (2 * users)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / users + z**2 / (4 * users**2))
    return Rate(users, converted, share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def difference(first: Rate, other: Rate, effect: float, comparisons: int = 1) -> Difference:
    """Compare two rates by the mixture sequential probability ratio test with a normal mixture.

    The likelihood ratio of the difference, averaged over effects that are normal with deviation `effect`, is a
    martingale if the rates are equal. So it exceeds 1 / 0.05 at any time with probability 5 % at most, however often it
    is looked at. The variance is estimated from the data, with half a user added to each count (so it is not 0).

    Args:
        first: The variant that the other one is compared with.
        other: The other one.
        effect: Difference that the test is most sensitive to, decided before the data are seen.
        comparisons: Variants that are compared with the first one. Each test has an equal part of the 5 % (Bonferroni),
            so that all of them together are wrong with probability 5 % at most, however they depend on each other.

    References:
        Johari, Koomen, Pekelis and Walsh, Always Valid Inference: Continuous Monitoring of A/B Tests, 2022.
        Dunn, Multiple Comparisons among Means, Journal of the American Statistical Association 56, 1961.
    """
    value = other.rate - first.rate
    variance = sum(_variance(one) for one in (first, other))
    mixture = effect**2
    ratio = 0.5 * math.log(variance / (variance + mixture)) + mixture * value**2 / (2 * variance * (variance + mixture))
    half = math.sqrt(
        (2 * math.log(comparisons / (1 - LEVEL)) + math.log((variance + mixture) / variance))
        * variance
        * (variance + mixture)
        / mixture
    )
    return Difference(value, value - half, value + half, min(1.0, comparisons * math.exp(-max(ratio, 0.0))))


def _variance(one: Rate) -> float:
    share = (one.converted + 0.5) / (one.users + 1)
    return share * (1 - share) / one.users


def mismatch(users: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """Return the probability of numbers of users as far from their shares as these, by the chi-squared test."""
    names = [name for name, share in shares.items() if share > 0]
    counts = np.array([users.get(name, 0) for name in names], float)
    if len(names) < 2 or not counts.sum():
        return 1.0
    expected = np.array([shares[name] for name in names])
    return float(stats.chisquare(counts, counts.sum() * expected / expected.sum()).pvalue)


def too_few(rates: Sequence[Rate]) -> str | None:
    """Return why two rates are not compared; None if there are enough data."""
    fewest = min(one.users for one in rates)
    if fewest < FEWEST_USERS:
        return f"a variant has {fewest:,} users; at least {FEWEST_USERS} are needed"
    done = sum(one.converted for one in rates)
    rare = min(done, sum(one.users for one in rates) - done)
    if rare < FEWEST_EVENTS:
        return f"only {rare:,} users differ from the others; at least {FEWEST_EVENTS} are needed"
    return None

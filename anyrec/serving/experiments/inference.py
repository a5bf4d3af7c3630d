"""Rates of variants, their differences, and a test that may be looked at at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
FEWEST_USERS, FEWEST_EVENTS = 100, 10
"""Users of each variant, and users of both who did it and who did not, from which on a difference is judged: the test
assumes that means are nearly normal."""
MISMATCH = 0.01
"""p-value below which the numbers of users contradict the shares: a correct experiment has one at any time with
probability 1 % at most."""
CONCENTRATION = 100.0
"""Sum of the parameters of the Dirichlet mixture of `mismatch`. The greater it is, the smaller are the differences that
the test is most sensitive to: a share of 50 % has a standard deviation of 5 percentage points by 100."""


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


def mismatch(variants: np.ndarray, shares: Sequence[float]) -> float:
    """Return the always-valid p-value of the numbers of users, by the sequential multinomial test.

    The likelihood ratio of the sequence of users, averaged over shares from a Dirichlet distribution around the
    expected ones, is a martingale if the expected ones are true. So its largest value so far exceeds 1 / MISMATCH at
    any time with probability MISMATCH at most, however often it is looked at.

    Args:
        variants: (users,) int, the variant of each user, in the order in which they came.
        shares: (variants,) The shares by which users are assigned; only their proportions count.

    References:
        Lindon and Malek, Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022.
    """
    expected = np.asarray(shares, np.float64) / np.sum(shares)
    if not expected[variants].all():
        return 0.0
    before = np.empty(len(variants))  # users of the same variant who came before
    for variant in range(len(expected)):
        own = variants == variant
        before[own] = np.arange(own.sum())
    predicted = (CONCENTRATION * expected[variants] + before) / (CONCENTRATION + np.arange(len(variants)))
    ratios = np.cumsum(np.log(predicted / expected[variants]))
    return math.exp(-ratios.max(initial=0.0))


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

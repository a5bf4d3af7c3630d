"""The value that another policy would have had, from what a randomising policy logged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from anyrec.core.errors import DataError, Fault

LEVEL = 0.95
FEWEST_EFFECTIVE = 30
"""Effective number of rows below which an estimate says nothing."""


@dataclass(frozen=True)
class Estimate:
    """An estimate of the mean reward of a policy. low, high: 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicy:
    """The value of a policy from logged data.

    Attributes:
        ips: Inverse propensity score: unbiased, and varies more the more the policies differ.
        snips: Self-normalised: slightly biased, and varies less.
        logged: Mean reward of the policy that logged the data.
        effective: (sum of weights)^2 / sum of squared weights: the number of rows that the estimate rests on.
        enough: Whether `effective` is at least FEWEST_EFFECTIVE.
    """

    ips: Estimate
    snips: Estimate
    logged: Estimate
    effective: float
    enough: bool


def off_policy(rewards: np.ndarray, logged: np.ndarray, target: np.ndarray) -> OffPolicy:
    """Estimate the mean reward of a target policy.

    Args:
        rewards: (rows,) What each shown item led to.
        logged: (rows,) Probability by which the logging policy showed the item; greater than 0.
        target: (rows,) Probability by which the target policy would have shown it.

    Returns:
        The estimates. Intervals are normal; for SNIPS by the delta method.

    Raises:
        DataError: If the arrays do not fit together, or a probability is outside its range.

    References:
        Horvitz and Thompson, A Generalization of Sampling Without Replacement, 1952. Swaminathan and Joachims, The
        Self-Normalized Estimator for Counterfactual Learning, 2015.
    """
    rewards, logged, target = (np.asarray(one, np.float64) for one in (rewards, logged, target))
    _check(rewards, logged, target)
    weights = target / logged
    total = weights.sum()
    normalised = float((weights * rewards).sum() / total) if total else float("nan")
    effective = float(total**2 / (weights**2).sum()) if total else 0.0
    deviations = weights * (rewards - normalised) / (total / len(weights)) if total else np.zeros(len(weights))
    return OffPolicy(
        _mean(weights * rewards),
        _around(normalised, float(np.sqrt((deviations**2).sum()) / len(weights))),
        _mean(rewards),
        effective,
        effective >= FEWEST_EFFECTIVE,
    )


def _check(rewards: np.ndarray, logged: np.ndarray, target: np.ndarray) -> None:
    if not len(rewards) == len(logged) == len(target) or not len(rewards):
        what = f"the columns have {len(rewards):,}, {len(logged):,} and {len(target):,} rows."
        raise DataError(Fault("rewards", what, "Give one row for each shown item."))
    faults = []
    for name, values, low in (("logged", logged, 0.0), ("target", target, -1e-12)):
        wrong = np.flatnonzero(~((values > low) & (values <= 1)))
        if len(wrong):
            what = f"a probability is from 0 to 1; found {values[wrong[0]]:g} in row {wrong[0]} ({len(wrong):,} rows)."
            hint = "A logged probability is greater than 0: the item was shown."
            faults.append(Fault(name, what, hint, "propensity"))
    if not np.isfinite(rewards).all():
        faults.append(Fault("rewards", "a reward is a finite number.", kind="reward"))
    if faults:
        raise DataError(faults)


def _mean(values: np.ndarray) -> Estimate:
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
    return _around(float(values.mean()), error)


def _around(value: float, error: float) -> Estimate:
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    return Estimate(value, value - half, value + half)

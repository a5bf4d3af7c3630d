"""The value that another policy would have had, from what a randomising policy logged."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject

LEVEL = 0.95
LEAST_SUPPORT = 0.8
"""Lower end of the interval of the mean weight below which too much of what the candidate shows may be unknown."""
SMALL_SHARE = 0.05
"""Share of the rows below which a position decides on too little to need data of its own."""
CONTRADICTION = 0.001
"""Probability of a mean weight this far above 1 below which the logged probabilities are taken to be wrong."""
FEWEST_EFFECTIVE = 30
"""Effective number of users below which an estimate says nothing."""
FEWEST_REWARDED = 10
"""Effective number of users with a reward, or expected with one at the logged rate, below which an interval is not
trusted: sums of few values are not normal."""


@dataclass(frozen=True)
class Estimate:
    """An estimate of a mean. low, high: 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicy:
    """The value of a candidate from logged data. A row is one shown item; all means are over rows.

    Attributes:
        rows: Number of rows.
        users: Number of users with rows.
        supported: Rows whose item the candidate could have shown.
        logged: Mean reward of the policy that logged the data.
        ips: Mean reward of the candidate by inverse propensity scores: the mean of weight times reward. Unbiased if all
            items that the candidate shows could have been drawn, and varies more the more the policies differ.
        snips: The same, self-normalised: divided by the mean weight. Slightly biased, and varies less.
        difference: `snips` minus `logged`.
        weight: Mean weight. Its expectation is 1 if all items that the candidate shows could have been drawn, and
            otherwise the share of those that could.
        effective: Number of equally weighted users (Kish) that the estimate of the least certain position rests on.
        enough: Whether the data carry a conclusion.
        conclusion: What follows, or why nothing does.
    """

    rows: int
    users: int
    supported: int
    logged: Estimate
    ips: Estimate
    snips: Estimate
    difference: Estimate
    weight: Estimate
    effective: float
    enough: bool
    conclusion: str

    def as_json(self) -> JsonObject:
        """Return the estimates as plain values, None for those that no data carry."""
        return _without_nan(asdict(self))


def off_policy(
    rewards: np.ndarray,
    logged: np.ndarray,
    target: np.ndarray,
    users: np.ndarray | None = None,
    positions: np.ndarray | None = None,
) -> OffPolicy:
    """Estimate the mean reward of a candidate.

    Rows of a user depend on each other, so variances are those of sums over users (cluster-robust, with the factor
    users / (users - 1)), of ratios by the delta method. Intervals are of Student's t with `effective` - 1 degrees of
    freedom: few large weights make them wider.

    Args:
        rewards: (rows,) What each shown item led to.
        logged: (rows,) Probability by which the logging policy showed the item; greater than 0.
        target: (rows,) Probability by which the candidate would have shown it.
        users: (rows,) Number of the user; by default each row is another user.
        positions: (rows,) Position of the item; by default all have the same. Later slots have larger weights, so that
            few rows decide on them: the data must carry each position (with 5 % of the rows) by itself.

    Raises:
        DataError: If the arrays do not fit together, or a probability is outside its range.

    References:
        Horvitz and Thompson, A Generalization of Sampling Without Replacement, 1952. Swaminathan and Joachims, The
        Self-Normalized Estimator for Counterfactual Learning, 2015. Kish, Survey Sampling, 1965. Cameron and Miller, A
        Practitioner's Guide to Cluster-Robust Inference, 2015.
    """
    rewards, logged, target = (np.asarray(one, np.float64) for one in (rewards, logged, target))
    users = np.arange(len(rewards)) if users is None else np.unique(users, return_inverse=True)[1]
    _check(rewards, logged, target, users)
    weights, ones = target / logged, np.ones(len(rewards))
    effective, rewarded = _carried(rewards, weights, users, positions)
    ips, weight = (_ratio(values, ones, users, effective) for values in (weights * rewards, weights))
    snips = _ratio(weights * rewards, weights, users, effective)
    shown = _ratio(rewards, ones, users, _effective(np.bincount(users)))
    reasons = {
        "rewarded": rewarded,
        "gain": _ratio(weights * rewards - rewards, ones, users, effective).low if rewards.min() >= 0 else -np.inf,
        "above": _ratio(weights, ones, users, effective, 1 - 2 * CONTRADICTION).low,
    }
    difference = _difference(rewards, weights, users, effective)
    enough, conclusion = _conclusion(difference, weight, effective, **reasons)
    return OffPolicy(
        len(rewards),
        int(users.max()) + 1,
        int((target > 0).sum()),
        shown,
        ips,
        snips,
        difference,
        weight,
        effective,
        enough,
        conclusion,
    )


def _conclusion(
    difference: Estimate, weight: Estimate, effective: float, rewarded: float, gain: float, above: float
) -> tuple[bool, str]:
    """Return whether the data carry a conclusion, and what follows.

    Args:
        difference: Candidate minus logged, self-normalised.
        weight: The mean weight.
        effective: Effective number of users.
        rewarded: Effective number of users with a reward of the candidate, or expected with one at the logged rate.
        gain: Lower end of the interval of `ips` minus logged if rewards are not negative. `ips` is then too low if some
            items that the candidate shows could not have been drawn.
        above: Lower end of the interval of the mean weight that it is below only with probability CONTRADICTION.
    """
    interval = f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    if not effective:
        return False, "No conclusion: the candidate would have shown none of the items that were drawn."
    if effective < FEWEST_EFFECTIVE:
        return False, (
            f"No conclusion: the estimate of a position rests on {effective:,.0f} effective users, and at least "
            f"{FEWEST_EFFECTIVE} are needed. The log is too short, or the candidate shows other items."
        )
    if above > 1:
        return False, (
            f"No conclusion: the mean weight is {weight.value:.3f}, and at most 1 for probabilities that are right. "
            "Those of the log, or of the candidate, are wrong."
        )
    if rewarded < FEWEST_REWARDED:
        return False, (
            f"No conclusion: the estimate of a position rests on rewards of {rewarded:,.0f} effective users; at least "
            f"{FEWEST_REWARDED} are needed."
        )
    if weight.high < 1 or weight.low < LEAST_SUPPORT:
        share = f"up to {1 - weight.low:.0%} of what the candidate shows"
        if gain > 0:
            return True, f"The candidate is better than what was shown, even if {share} had no reward (IPS)."
        return False, (
            f"No conclusion: {share} could not have been drawn, by the interval of the mean weight, and nothing is "
            "known of it. Log more lists, or draw from more items."
        )
    if difference.low > 0 or difference.high < 0:
        word = "better" if difference.value > 0 else "worse"
        return True, f"The candidate is {word} than what was shown: {interval}."
    return True, f"The candidate and what was shown do not differ clearly: {interval}."


def _check(rewards: np.ndarray, logged: np.ndarray, target: np.ndarray, users: np.ndarray) -> None:
    if not len(rewards) == len(logged) == len(target) == len(users) or not len(rewards):
        what = f"the columns have {len(rewards):,}, {len(logged):,}, {len(target):,} and {len(users):,} rows."
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


def _carried(
    rewards: np.ndarray, weights: np.ndarray, users: np.ndarray, positions: np.ndarray | None
) -> tuple[float, float]:
    """Return the effective number of users, and of those with a reward, of the position with the fewest.

    A reward counts if the candidate has it, or is expected to at the logged rate: a candidate without any is worse.

    Args:
        rewards: (rows,)
        weights: (rows,)
        users: (rows,) Number of the user, from 0.
        positions: As for `off_policy`.
    """
    groups = np.zeros(len(rewards), int) if positions is None else np.unique(positions, return_inverse=True)[1]
    found = []
    counts = np.bincount(groups)
    for group in np.flatnonzero(counts >= min(SMALL_SHARE * len(groups), counts.max())):
        own = groups == group
        reward, weight, (names, user) = rewards[own], weights[own], np.unique(users[own], return_inverse=True)
        effective = _effective(np.bincount(user, weight))
        expected = _effective(np.abs(np.bincount(user, reward))) * effective / len(names)
        found.append((effective, max(expected, _effective(np.abs(np.bincount(user, weight * reward))))))
    return min(one for one, _ in found), min(one for _, one in found)


def _effective(values: np.ndarray) -> float:
    """Return how many equal values vary as much as these: (sum)^2 / sum of squares; 0 if all are 0."""
    squares = float((values**2).sum())
    return float(values.sum() ** 2 / squares) if squares else 0.0


def _ratio(
    values: np.ndarray, sizes: np.ndarray, users: np.ndarray, effective: float, level: float = LEVEL
) -> Estimate:
    """Return sum of `values` / sum of `sizes`, both (rows,), with its interval; nan if the sizes are all 0."""
    total = sizes.sum()
    if not total:
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = float(values.sum() / total)
    return _around(value, _error(np.bincount(users, (values - value * sizes) / total)), effective, level)


def _difference(rewards: np.ndarray, weights: np.ndarray, users: np.ndarray, effective: float) -> Estimate:
    """Return the self-normalised mean of (rows,) rewards minus their mean; nan if the weights are all 0."""
    total, shown = weights.sum(), rewards.mean()
    if not total:
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = (weights * rewards).sum() / total
    deviations = weights * (rewards - value) / total - (rewards - shown) / len(rewards)
    return _around(float(value - shown), _error(np.bincount(users, deviations)), effective)


def _error(deviations: np.ndarray) -> float:
    """Return the standard error of a sum of (users,) independent deviations."""
    count = len(deviations)
    return float(np.sqrt((deviations**2).sum() * count / (count - 1))) if count > 1 else float("inf")


def _around(value: float, error: float, effective: float, level: float = LEVEL) -> Estimate:
    """Return an estimate with the interval of a standard error."""
    half = float(stats.t.ppf(0.5 + level / 2, max(1.0, effective - 1))) * error
    return Estimate(value, value - half, value + half)


def _without_nan(value: JsonObject) -> JsonObject:
    """Return an object with None instead of numbers that JSON does not have."""
    own = {key: _without_nan(one) if isinstance(one, dict) else one for key, one in value.items()}
    return {key: None if isinstance(one, float) and not np.isfinite(one) else one for key, one in own.items()}

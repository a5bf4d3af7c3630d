"""Which interactions train, which validate, which test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.config import SplitConfig
from anyrec.data.dataset import Dataset


@dataclass(frozen=True)
class Split:
    """Rows of the interactions table, each sorted: (train,), (validation,), (test,) int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    protocol: str

    def rows(self, name: str) -> np.ndarray:
        return getattr(self, name)


def split_interactions(
    dataset: Dataset, config: SplitConfig, seed: int, eligible: np.ndarray | None = None
) -> tuple[Split, list[str]]:
    """The split, and what the user should know of it.

    eligible: (interactions,) bool, those that may be held out (positives); the others stay in training.
    """
    eligible = np.ones(len(dataset.interactions), bool) if eligible is None else eligible
    protocol, notes = _protocol(dataset, config)
    if protocol == "leave_last_out":
        validation, test = _leave_last_out(dataset, eligible)
    elif protocol == "random":
        validation, test = _random(dataset, eligible, config.validation, config.test, seed)
    else:
        validation = test = np.empty(0, np.int64)
    held_out = np.zeros(len(dataset.interactions), bool)
    held_out[validation] = True
    held_out[test] = True
    return Split(np.flatnonzero(~held_out), validation, test, protocol), notes


def time_order(dataset: Dataset) -> np.ndarray:
    """(interactions,) rows by user, then time; ties keep file order; interactions without a time come first."""
    timestamps = dataset.column("timestamp")
    if timestamps is None:
        return np.argsort(dataset.user_rows, kind="stable")
    times = pc.fill_null(timestamps.cast(pa.int64()), np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
    return np.lexsort((times, dataset.user_rows))


def _protocol(dataset: Dataset, config: SplitConfig) -> tuple[str, list[str]]:
    timed = dataset.column("timestamp") is not None
    if config.protocol == "auto":
        chosen = "leave_last_out" if timed else "random"
        return chosen, [] if timed else ["No interaction has a timestamp: the split is random."]
    if config.protocol == "leave_last_out" and not timed:
        return "random", ["leave_last_out was skipped, since no interaction has a timestamp: the split is random."]
    return config.protocol, []


def _leave_last_out(dataset: Dataset, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each user's last interaction tests; the one before validates where at least one more is left to train."""
    order = time_order(dataset)
    order = order[eligible[order]]
    users = dataset.user_rows[order]
    from_end = position_from_end(users)
    count = np.bincount(users, minlength=len(dataset.users))[users]
    test = order[(from_end == 0) & (count >= 2)]
    validation = order[(from_end == 1) & (count >= 3)]
    return np.sort(validation), np.sort(test)


def _random(
    dataset: Dataset, eligible: np.ndarray, validation: float, test: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of all interactions at random; every user keeps at least one to train on.

    Drawn over interactions in the order of user, item and time, so that the file's order does not matter.
    """
    by_item = np.argsort(dataset.item_rows[(order := time_order(dataset))], kind="stable")
    order = order[by_item]
    order = order[np.argsort(dataset.user_rows[order], kind="stable")]
    order = order[eligible[order]]
    rng = np.random.default_rng(seed)
    shuffled = order[rng.permutation(len(order))]
    users = dataset.user_rows[shuffled]
    grouped = np.argsort(users, kind="stable")
    last = np.zeros(len(shuffled), bool)
    last[grouped[position_from_end(users[grouped]) == 0]] = True
    candidates = shuffled[~last]
    tests, validations = round(len(order) * test), round(len(order) * validation)
    return np.sort(candidates[tests : tests + validations]), np.sort(candidates[:tests])


def position_from_end(groups: np.ndarray) -> np.ndarray:
    """groups: (rows,) sorted; how many rows of the same group follow each."""
    if not len(groups):
        return np.empty(0, np.int64)
    last = np.flatnonzero(np.append(groups[1:] != groups[:-1], True))
    return last[np.searchsorted(last, np.arange(len(groups)))] - np.arange(len(groups))

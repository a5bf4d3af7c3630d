"""The interactions in order of time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.data.tables import Tables


def time_order(dataset: Tables, rows: np.ndarray | None = None) -> np.ndarray:
    """Sort interactions by user, then by time. File order breaks ties; interactions without a time come first.

    Args:
        dataset: The data.
        rows: (rows,) The interactions to sort; all of them by default.

    Returns:
        (rows,) int64, the rows of the interactions table in that order.
    """
    if rows is None:
        return np.lexsort((dataset.times, dataset.user_rows))
    rows = np.sort(rows)
    return rows[np.lexsort((dataset.times[rows], dataset.user_rows[rows]))]


def latest_of_pairs(dataset: Tables, rows: np.ndarray) -> np.ndarray:
    """Return the latest of the interactions `rows` of each user-item pair, in file order."""
    order = time_order(dataset, rows)[::-1]
    pairs = dataset.user_rows[order] * len(dataset.items) + dataset.item_rows[order]
    return np.sort(order[np.unique(pairs, return_index=True)[1]])


def position_from_end(groups: np.ndarray) -> np.ndarray:
    """Count how many rows of the same group follow each row.

    Args:
        groups: (rows,) Sorted group numbers, such as the users of interactions in `time_order`.

    Returns:
        (rows,) int64, 0 for the last row of a group.
    """
    if not len(groups):
        return np.empty(0, np.int64)
    last = np.flatnonzero(np.append(groups[1:] != groups[:-1], True))
    return last[np.searchsorted(last, np.arange(len(groups)))] - np.arange(len(groups))


def has_clock(dataset: Tables) -> bool:
    """Return whether timestamps compare between users, and are not each user's own count from one fixed date.

    If half of the users (of three or more) begin at the earliest time of all, the times are such counts.
    """
    timestamps = dataset.column("timestamp")
    if timestamps is None or timestamps.null_count == len(timestamps):
        return False
    order = time_order(dataset)
    order = order[timestamps.is_valid().to_numpy(zero_copy_only=False)[order]]
    times, users = timestamps.cast(pa.int64()).take(pa.array(order)).to_numpy(), dataset.user_rows[order]
    first = times[np.append(True, users[1:] != users[:-1])]
    return bool(times.min() < times.max() and (len(first) < 3 or (first == times.min()).mean() < 0.5))


SAMPLE = 200_000
"""The most interactions whose order is examined."""
LEAST_PAIRS = 40
"""The fewest coinciding pairs from which anything is concluded."""
ORDERED = 1.5
"""The order carries information if there are this many times as many coinciding pairs as after shuffling."""


def order_matters(dataset: Tables, seed: int = 0) -> bool:
    """Return whether the order of the users' interactions carries information.

    Counted are the pairs of steps that coincide: the same item after the same item, for different users or at different
    times. If order means nothing, shuffling each user's interactions leaves their number the same. Measured: 3.3 times
    as many as after shuffling for ML-100K, 6.4 for ML-1M, 11 for ml-latest-small, 7.3 for Amazon Beauty, 5.6 for 500
    users of it, 0.83 to 1.1 for synthetic data whose users draw items independently.

    Args:
        dataset: The data, with times.
        seed: Seed of the sample of users and of the shuffling.

    Returns:
        True also if there are too few coinciding pairs to tell.
    """
    rng = np.random.default_rng(seed)
    order = time_order(dataset)
    users, items = dataset.user_rows[order], dataset.item_rows[order]
    counts = np.bincount(users, minlength=len(dataset.users))
    drawn = rng.permutation(len(counts))
    chosen = np.zeros(len(counts), bool)
    chosen[drawn[np.cumsum(counts[drawn]) <= max(SAMPLE, int(counts.max(initial=0)))]] = True
    users, items = users[chosen[users]], items[chosen[users]]
    shuffled = items[np.lexsort((rng.random(len(users)), users))]
    found, expected = (_coinciding(users, one, len(dataset.items)) for one in (items, shuffled))
    return found + expected < 2 * LEAST_PAIRS or found > ORDERED * expected


def _coinciding(users: np.ndarray, items: np.ndarray, count: int) -> int:
    """Return how many pairs of steps have the same two items.

    Args:
        users: (interactions,) Ascending.
        items: (interactions,) Item rows.
        count: Number of items.
    """
    steps = (items[:-1] * count + items[1:])[users[1:] == users[:-1]]
    repeats = np.unique(steps, return_counts=True)[1]
    return int((repeats * (repeats - 1)).sum())

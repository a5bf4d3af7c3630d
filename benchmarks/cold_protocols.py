"""The two cold-start protocols: items, or users, that the model was not trained on.

`PROTOCOLS` maps a name to a function that draws a case from a dataset; `score` and `best_items` rank its candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from scipy import sparse

from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.order import time_order

HELD_OUT_FRACTION = 0.1
HISTORY_LENGTH = 5
"""Items in the history of each cold user."""
K = 10
LOWEST = float(np.finfo(np.float32).min)
"""Score of a candidate whose score is not a number: above the -inf of excluded candidates."""
Fold = Literal["validation", "test"]
Scorer = Callable[[np.ndarray], np.ndarray]
"""Maps (batch,) places in `ColdCase.users` to scores (batch, candidates)."""


@dataclass(frozen=True)
class ColdCase:
    """The training data of a fold, and for each of its users the history, the target and the candidates.

    Attributes:
        train: (rows,) int64 rows of `dataset.interactions`, ascending.
        users: (cases,) user rows.
        history: (events,) item rows in time order; those of case i are `history[offsets[i]:offsets[i + 1]]`.
        offsets: (cases + 1,) int64.
        targets: (cases,) item rows.
        candidates: (candidates,) item rows, ascending. Items in a case's history are not ranked in it.
    """

    train: np.ndarray
    users: np.ndarray
    history: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    candidates: np.ndarray


def cold_items(dataset: Dataset, seed: int, fold: Fold) -> ColdCase:
    """Hold out a tenth of the items that occur: they are in no training data and no history.

    A user's target is their latest interaction with a held-out item. The history is what came before it and may be
    empty. The candidates are all held-out items. The validation fold has another tenth; the items of the test fold are
    excluded from its training data and histories as well.
    """
    cold, absent = _draw(dataset, "item", seed, fold)
    order = time_order(dataset)
    users, items = dataset.user_rows[order], dataset.item_rows[order]
    targets = np.flatnonzero(cold[items])
    targets = targets[np.append(users[targets][1:] != users[targets][:-1], True)] if len(targets) else targets
    latest = np.full(len(dataset.users), -1)
    latest[users[targets]] = targets
    in_history = ~absent[items] & (np.arange(len(items)) < latest[users])
    train = np.flatnonzero(~absent[dataset.item_rows])
    return _case(train, users, items, in_history, targets, np.flatnonzero(cold))


def cold_users(dataset: Dataset, seed: int, fold: Fold) -> ColdCase:
    """Hold out a tenth of the users: they are in no training data.

    A user's history is their first five items and the target is the next item. The candidates are all items that occur,
    without the history. Users with five items or fewer are excluded. The validation fold has another tenth; the users
    of the test fold are excluded from its training data as well.
    """
    cold, absent = _draw(dataset, "user", seed, fold)
    order = time_order(dataset)
    users, items = dataset.user_rows[order], dataset.item_rows[order]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    targets = np.flatnonzero(cold[users] & (place == HISTORY_LENGTH))
    in_history = np.isin(users, users[targets]) & (place < HISTORY_LENGTH)
    train = np.flatnonzero(~absent[dataset.user_rows])
    return _case(train, users, items, in_history, targets, np.unique(items))


PROTOCOLS: dict[str, Callable[[Dataset, int, Fold], ColdCase]] = {"cold-items": cold_items, "cold-users": cold_users}


def score(case: ColdCase, scores_of: Scorer, k: int = K, batch_size: int = 256) -> dict[str, np.ndarray]:
    """Return `rank`, `ndcg@k` and `recall@k`, each (cases,).

    The rank is 1, plus the number of candidates with a higher score, plus half the number of other candidates with the
    same score. A score that is not a number counts as the lowest.
    """
    ranks = np.empty(len(case.users))
    for batch, scores, target in _blocks(case, scores_of, batch_size):
        ranks[batch] = 1 + (scores > target).sum(1) + ((scores == target).sum(1) - 1) / 2
    hit = ranks <= k
    return {"rank": ranks, f"ndcg@{k}": np.where(hit, 1 / np.log2(ranks + 1), 0.0), f"recall@{k}": hit.astype(float)}


def mean_metrics(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the means over cases of what `score` returns, without the rank."""
    return {name: float(values.mean()) for name, values in metrics.items() if "@" in name}


def best_items(case: ColdCase, scores_of: Scorer, length: int, batch_size: int = 256) -> np.ndarray:
    """Return (cases, length) item rows, best first, -1 past the end. Equal scores are ordered by row.

    Items in a case's history are not listed, unless one of them is the target.
    """
    lists = np.full((len(case.users), min(length, len(case.candidates))), -1)
    for batch, scores, _ in _blocks(case, scores_of, batch_size):
        order = np.argsort(-scores, 1, kind="stable")[:, :length]
        shown = np.take_along_axis(scores, order, 1) > -np.inf
        lists[batch] = np.where(shown, case.candidates[order], -1)
    return lists


def history_matrix(case: ColdCase, num_items: int, last: int | None = None) -> sparse.csr_matrix:
    """Return (cases, items) float32, 1 for each item in the history, or only for the last `last` of them."""
    lengths = np.diff(case.offsets)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    keep = np.ones(len(owners), bool) if last is None else case.offsets[1:][owners] - np.arange(len(owners)) <= last
    ones = np.ones(keep.sum(), np.float32)
    matrix = sparse.csr_matrix((ones, (owners[keep], case.history[keep])), shape=(len(lengths), num_items))
    matrix.data[:] = 1  # an item that occurs twice was summed to 2
    return matrix


def _blocks(case: ColdCase, scores_of: Scorer, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (batch,) cases, (batch, candidates) scores with the history at -inf, (batch, 1) target scores."""
    columns = np.full(1 + max(case.candidates.max(initial=0), case.history.max(initial=0)), -1)
    columns[case.candidates] = np.arange(len(case.candidates))
    owners = np.repeat(np.arange(len(case.users)), np.diff(case.offsets))
    for start in range(0, len(case.users), batch_size):
        batch = np.arange(start, min(start + batch_size, len(case.users)))
        scores = np.nan_to_num(np.array(scores_of(batch), np.float32), nan=LOWEST, neginf=LOWEST)
        target = scores[batch - start, columns[case.targets[batch]]].copy()
        events = slice(case.offsets[batch[0]], case.offsets[batch[-1] + 1])
        excluded = columns[case.history[events]]
        scores[owners[events][excluded >= 0] - start, excluded[excluded >= 0]] = -np.inf
        scores[batch - start, columns[case.targets[batch]]] = target
        yield batch, scores, target[:, None]


def _draw(dataset: Dataset, side: Side, seed: int, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Return two (rows,) bool masks: the rows that the fold holds out, and all rows excluded from its training data.

    The draw follows the order of ids, so that it does not depend on the order of the records.
    """
    rows = dataset.user_rows if side == "user" else dataset.item_rows
    order = pc.sort_indices(dataset.ids(side)).to_numpy()
    occurring = order[np.isin(order, rows)]
    shuffled = occurring[np.random.default_rng(seed).permutation(len(occurring))]
    size = round(len(occurring) * HELD_OUT_FRACTION)
    test, validation = np.zeros((2, len(order)), bool)
    test[shuffled[:size]] = True
    validation[shuffled[size : 2 * size]] = True
    return (test, test) if fold == "test" else (validation, test | validation)


def _case(
    train: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    in_history: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray,
) -> ColdCase:
    """Return a case.

    Args:
        train: (rows,) rows of the training data.
        users: (interactions,) user rows, in order of user and time.
        items: (interactions,) item rows, in the same order.
        in_history: (interactions,) bool.
        targets: (cases,) places in `users` and `items`, one for each user.
        candidates: (candidates,) item rows.
    """
    owners = users[in_history]
    ends = np.searchsorted(owners, users[targets], side="right")
    offsets = np.append(0, ends).astype(np.int64)
    return ColdCase(train, users[targets], items[in_history], offsets, items[targets], candidates)

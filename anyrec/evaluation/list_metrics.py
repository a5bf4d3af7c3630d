"""What the lists are like, apart from being right: coverage, novelty, diversity, serendipity, popularity, balance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from anyrec.data.pairs import Pairs
from anyrec.evaluation.ranking import Ranking

BLOCK = 4096
SMOOTHING = 0.01
"""Share of the user's own mix that is blended into the list's for calibration, as in Steck (2018)."""


class Catalogue(NamedTuple):
    """What is known of users and items from training.

    counts: (items,) how many users had each. num_users: users in training. rankable: (items,) bool.
    traits: (items, traits) csr_matrix of each item's categories, or None. history: each user's training items.
    """

    counts: np.ndarray
    num_users: int
    rankable: np.ndarray
    traits: sparse.csr_matrix | None
    history: Pairs


def list_metrics(ranking: Ranking, catalogue: Catalogue, ks: Sequence[int]) -> dict[str, np.ndarray | float]:
    """Of each user's k best items. Figures of users are (users,) arrays, those of the whole are floats.

    With n items in a user's list (k, or fewer where fewer could be ranked); an item nobody had counts as had by one:
    novelty@k: mean of -log2(users who had the item / users).
    popularity@k: mean number of users who had the item.
    serendipity@k: 1/k sum over hits of max(0, (N + 1 - place) / N - (N + 1 - popularity rank) / N), N the ranked items
        (after RecTools, which ranks equals alike and divides by the list's length); items equally popular are ranked by row.
    diversity@k: mean over pairs in the list of 1 - cosine of their categories; not a number with fewer than two items.
    calibration@k: Kullback-Leibler divergence of the user's mix of categories from the list's, the latter blended with 1% of
        the former (Steck, 2018), natural logarithm; 0 is perfect; not a number without a history or categories.
    coverage@k: share of the ranked items that stand in some list. gini@k: of how often each ranked item stands in a
        list, 0 all alike, 1 one item only: sum((2 i - N - 1) x_i) / (N sum(x)), x ascending.
    """
    found: dict[str, np.ndarray | float] = {}
    counts = np.maximum(catalogue.counts, 1)
    surprise = np.append(-np.log2(counts / max(1, catalogue.num_users)), 0.0)
    popular = np.append(catalogue.counts.astype(float), 0.0)
    unexpected = _unexpected(ranking, catalogue) * _hits(ranking)
    for k in ks:
        lists = ranking.lists[:, :k]
        length = np.maximum((lists >= 0).sum(1), 1)
        found[f"novelty@{k}"] = surprise[lists].sum(1) / length
        found[f"popularity@{k}"] = popular[lists].sum(1) / length
        found[f"serendipity@{k}"] = unexpected[:, :k].sum(1) / k
        if catalogue.traits is not None:
            found[f"diversity@{k}"] = _diversity(lists, catalogue.traits, len(counts))
            found[f"calibration@{k}"] = _calibration(ranking.users, lists, catalogue)
        shown = np.bincount(lists[lists >= 0], minlength=len(catalogue.rankable))[catalogue.rankable]
        found[f"coverage@{k}"] = float((shown > 0).mean()) if len(shown) else 0.0
        found[f"gini@{k}"] = gini(shown)
    return found


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of non-negative numbers; 0 where all are zero."""
    ordered = np.sort(counts.astype(float))
    total, n = ordered.sum(), len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * total)) if total else 0.0


def _hits(ranking: Ranking) -> np.ndarray:
    """(users, length) bool: whether each listed item was held out for that user."""
    lists = ranking.lists
    width = int(max(lists.max(initial=0), ranking.items.max(initial=0))) + 2
    wanted = np.searchsorted(ranking.users, ranking.targets) * width + ranking.items
    return np.isin(np.arange(len(lists))[:, None] * width + lists, wanted) & (lists >= 0)


def _unexpected(ranking: Ranking, catalogue: Catalogue) -> np.ndarray:
    """(users, length) how much higher each item stands in the list than popularity would have it."""
    number = max(1, int(catalogue.rankable.sum()))
    order = np.lexsort((np.arange(len(catalogue.counts)), -catalogue.counts, ~catalogue.rankable))
    rank = np.empty(len(order) + 1)
    rank[order] = np.arange(1, len(order) + 1)
    rank[-1] = 0
    mine = np.arange(1, ranking.lists.shape[1] + 1)
    return np.maximum(0.0, (rank[ranking.lists] - mine) / number)


def _diversity(lists: np.ndarray, traits: sparse.csr_matrix, items: int) -> np.ndarray:
    """(users,) mean of 1 - cosine over the pairs of each list, by |sum of unit vectors|^2 = n + 2 sum of cosines."""
    unit = _unit(traits)
    listed = lists >= 0
    count = listed.sum(1)
    squares = np.empty(len(lists))
    bare = np.asarray(unit.multiply(unit).sum(1)).ravel()  # 1, or 0 for an item without any category
    own = np.where(listed, np.append(bare, 0.0)[lists], 0.0).sum(1)
    for start in range(0, len(lists), BLOCK):
        total = _membership(lists[start : start + BLOCK], items) @ unit
        squares[start : start + BLOCK] = np.asarray(total.multiply(total).sum(1)).ravel()
    pairs = count * (count - 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pairs > 0, 1 - (squares - own) / 2 / pairs, np.nan)


def _calibration(users: np.ndarray, lists: np.ndarray, catalogue: Catalogue) -> np.ndarray:
    assert catalogue.traits is not None
    found = np.empty(len(users))
    shares, items = _shares(catalogue.traits), len(catalogue.counts)
    for start in range(0, len(users), BLOCK):
        part = slice(start, start + BLOCK)
        rows, had_items = catalogue.history.take(users[part])
        size = len(users[part])
        had = sparse.csr_matrix((np.ones(len(rows)), (rows, had_items)), (size, items)) @ shares
        got = _membership(lists[part], items) @ shares
        had, got = _mix(had.toarray()), _mix(got.toarray())
        blended = (1 - SMOOTHING) * got + SMOOTHING * had
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = np.where(had > 0, had * np.log(had / blended), 0.0).sum(1)
        found[part] = np.where((had.sum(1) > 0) & (got.sum(1) > 0), divergence, np.nan)
    return found


def _membership(lists: np.ndarray, items: int) -> sparse.csr_matrix:
    """(users, items) 1 where listed."""
    rows, places = np.nonzero(lists >= 0)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, lists[rows, places])), (len(lists), items))


def _unit(traits: sparse.csr_matrix) -> sparse.csr_matrix:
    norm = np.sqrt(np.asarray(traits.multiply(traits).sum(1)).ravel())
    return sparse.diags(1 / np.maximum(norm, 1e-12)) @ traits


def _shares(traits: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each item's one unit of attention, shared among its categories."""
    return sparse.diags(1 / np.maximum(np.asarray(traits.sum(1)).ravel(), 1e-12)) @ traits


def _mix(weights: np.ndarray) -> np.ndarray:
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)

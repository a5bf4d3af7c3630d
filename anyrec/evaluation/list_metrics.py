"""Metrics of the recommended lists other than accuracy: coverage, novelty, diversity, serendipity, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from anyrec.data.pairs import Pairs
from anyrec.evaluation.ranking import Ranking

BLOCK = 4096
"""Users computed at once."""
SMOOTHING = 0.01
"""Weight of the user's own category distribution in the smoothed distribution of the list (Steck, 2018)."""


@dataclass(frozen=True)
class CatalogueStatistics:
    """Statistics of the training interactions that list metrics are computed from.

    Attributes:
        counts: (items,) number of users who interacted with each item.
        num_users: Number of users with a training interaction.
        rankable: (items,) bool, the candidates.
        traits: (items, categories) csr_matrix, 1 where an item has a category; None without a category feature.
        history: Training items of each user.
    """

    counts: np.ndarray
    num_users: int
    rankable: np.ndarray
    traits: sparse.csr_matrix | None
    history: Pairs


def list_metrics(ranking: Ranking, catalogue: CatalogueStatistics, ks: Sequence[int]) -> dict[str, np.ndarray | float]:
    """Compute the list metrics of each user's k best items.

    n is the number of items in a user's list: k, or fewer if fewer items could be ranked. N is the number of rankable
    items. An item that no user interacted with counts as an item of one user.

    novelty@k: mean of -log2(users of the item / users).
    popularity@k: mean number of users of the item.
    serendipity@k: 1/k sum over hits of max(0, (N + 1 - place) / N - (N + 1 - popularity rank) / N). Equally popular
        items are ranked by row. RecTools gives them the same rank and divides by n.
    diversity@k: mean over pairs in the list of 1 - cosine of their categories; nan with fewer than two items.
    calibration@k: Kullback-Leibler divergence of the category distribution of the user's history from that of the
        list, with the latter smoothed with 1% of the former (Steck, 2018), natural logarithm. 0 is the same
        distribution; nan without a history or categories.
    coverage@k: number of rankable items in at least one list / N.
    gini@k: Gini coefficient of the number of lists that each rankable item is in: sum((2 i - N - 1) x_i) / (N sum(x)),
        x ascending. 0: all items equally often; towards 1: a single item.

    Args:
        ranking: The lists and the held-out items.
        catalogue: Statistics of the training interactions.
        ks: Cut-offs.

    Returns:
        By name, as `novelty@10`: (users,) float64 for metrics of each user, in the order of `ranking.users`; a float
        for coverage and gini.

    References:
        H. Steck, Calibrated recommendations, RecSys 2018.
    """
    found: dict[str, np.ndarray | float] = {}
    counts = np.maximum(catalogue.counts, 1)
    surprise = np.append(-np.log2(counts / max(1, catalogue.num_users)), 0.0)
    popular = np.append(catalogue.counts.astype(float), 0.0)
    for k in ks:
        lists = ranking.lists[:, :k]
        length = np.maximum((lists >= 0).sum(1), 1)
        # -1, past the end of a list, is the appended 0.0
        found[f"novelty@{k}"] = surprise[lists].sum(1) / length
        found[f"popularity@{k}"] = popular[lists].sum(1) / length
        if catalogue.traits is not None:
            found[f"diversity@{k}"] = _diversity(lists, catalogue.traits, len(counts))
            found[f"calibration@{k}"] = _calibration(
                ranking.users, lists, catalogue.history, catalogue.traits, len(counts)
            )
    return {**found, **serendipity(ranking, catalogue, ks), **exposure(ranking.lists, catalogue.rankable, ks)}


def serendipity(ranking: Ranking, catalogue: CatalogueStatistics, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Return serendipity@k of `list_metrics`: (users,) at each k."""
    unexpected = _unexpected(ranking, catalogue) * _hits(ranking)
    found = {}
    for k in ks:
        found[f"serendipity@{k}"] = unexpected[:, :k].sum(1) / k
    return found


def exposure(lists: np.ndarray, items: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Return coverage@k and gini@k of `list_metrics`.

    Args:
        lists: (users, length) rows of items, -1 past the end.
        items: (items,) bool, the rankable items that are counted.
        ks: Cut-offs.
    """
    found = {}
    for k in ks:
        listed = lists[:, :k]
        shown = np.bincount(listed[listed >= 0], minlength=len(items))[items]
        found[f"coverage@{k}"] = float((shown > 0).mean()) if len(shown) else 0.0
        found[f"gini@{k}"] = gini(shown)
    return found


def gini(counts: np.ndarray) -> float:
    """Return the Gini coefficient of non-negative numbers, (n,); 0 if all are zero."""
    ordered = np.sort(counts.astype(float))
    total, n = ordered.sum(), len(ordered)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * total)) if total else 0.0


def _hits(ranking: Ranking) -> np.ndarray:
    """(users, length) bool: whether each listed item is a held-out item of that user."""
    lists = ranking.lists
    width = int(max(lists.max(initial=0), ranking.items.max(initial=0))) + 2
    wanted = np.searchsorted(ranking.users, ranking.targets) * width + ranking.items
    return np.isin(np.arange(len(lists))[:, None] * width + lists, wanted) & (lists >= 0)


def _unexpected(ranking: Ranking, catalogue: CatalogueStatistics) -> np.ndarray:
    """(users, length) max(0, popularity rank - place in the list) / N of each listed item."""
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


def _calibration(
    users: np.ndarray, lists: np.ndarray, history: Pairs, traits: sparse.csr_matrix, items: int
) -> np.ndarray:
    """(users,) sum over categories of p ln(p / (0.99 q + 0.01 p)), p of the history and q of the list."""
    found = np.empty(len(users))
    shares = _shares(traits)
    for start in range(0, len(users), BLOCK):
        block = slice(start, start + BLOCK)
        rows, columns = history.take(users[block])
        size = len(users[block])
        own = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (size, items)) @ shares
        listed = _membership(lists[block], items) @ shares
        p, q = _mix(own.toarray()), _mix(listed.toarray())
        smoothed = (1 - SMOOTHING) * q + SMOOTHING * p
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = np.where(p > 0, p * np.log(p / smoothed), 0.0).sum(1)
        found[block] = np.where((p.sum(1) > 0) & (q.sum(1) > 0), divergence, np.nan)
    return found


def _membership(lists: np.ndarray, items: int) -> sparse.csr_matrix:
    """(users, items) csr_matrix, 1 where an item is in the user's list."""
    rows, places = np.nonzero(lists >= 0)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, lists[rows, places])), (len(lists), items))


def _unit(traits: sparse.csr_matrix) -> sparse.csr_matrix:
    """Scale each row to norm 1; a row of zeros stays zero."""
    norm = np.sqrt(np.asarray(traits.multiply(traits).sum(1)).ravel())
    return sparse.diags(1 / np.maximum(norm, 1e-12)) @ traits


def _shares(traits: sparse.csr_matrix) -> sparse.csr_matrix:
    """Divide each item's weight of 1 equally among its categories."""
    return sparse.diags(1 / np.maximum(np.asarray(traits.sum(1)).ravel(), 1e-12)) @ traits


def _mix(weights: np.ndarray) -> np.ndarray:
    """Scale each row to sum 1; a row of zeros stays zero."""
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)

"""Ranking metrics of user-item pairs that happened after everything that a model knows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.data.ids import rows_of
from anyrec.data.pairs import Pairs
from anyrec.evaluation.held_out import HeldOut, apply_repeats, rank_state, rankable_items
from anyrec.evaluation.ranking import Ranking, ranking_metrics
from anyrec.model.fitted import FittedModel


def metrics_of_pairs(model: FittedModel, users: pa.Array, items: pa.Array) -> dict[str, float]:
    """Rank the item of each pair among the full catalogue, without what its user had in the data of the model.

    A pair whose user or item the model does not know is a miss, since no list can contain it. Repeated pairs count
    once, and pairs that the model knows as `evaluation.repeats` says.

    Args:
        model: The model, scored with all that it knows.
        users: (pairs,) ids.
        items: (pairs,) ids.

    Returns:
        The means over users of the metrics of `evaluation.k`, and `pairs` and `missed` with their numbers.
    """
    user_rows, item_rows = rows_of(users, model.dataset.ids("user")), rows_of(items, model.dataset.ids("item"))
    known = (user_rows >= 0) & (item_rows >= 0)
    targets = Pairs.of(user_rows[known], item_rows[known], len(model.dataset.users))
    held = apply_repeats(HeldOut(targets, model.seen, rankable_items(model)), model.config.evaluation.repeats)
    ranking = rank_state(model, held)
    codes = users.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    owners = np.where(user_rows >= 0, user_rows, len(model.dataset.users) + codes)
    missed = np.unique(
        np.stack([owners, items.dictionary_encode().indices.to_numpy(zero_copy_only=False)])[:, ~known], axis=1
    )
    found = ranking_metrics(_with_misses(ranking, missed[0]), model.config.evaluation.k)
    return {**found, "pairs": float(len(ranking.targets) + missed.shape[1]), "missed": float(missed.shape[1])}


def _with_misses(ranking: Ranking, owners: np.ndarray) -> Ranking:
    """Add held-out items that no list contains. owners: (misses,) their users, also beyond the rows of the model."""
    targets = np.concatenate([ranking.targets, owners])
    order = np.argsort(targets, kind="stable")
    items = np.concatenate([ranking.items, np.full(len(owners), -1)])[order]
    ranks = np.concatenate([ranking.ranks, np.full(len(owners), np.inf)])[order]
    users = np.unique(targets)
    lists, candidates = np.full((len(users), ranking.lists.shape[1]), -1), np.zeros(len(users), np.int64)
    places = np.searchsorted(users, ranking.users)
    lists[places], candidates[places] = ranking.lists, ranking.candidates
    return Ranking(targets[order], items, ranks, users, lists, candidates)

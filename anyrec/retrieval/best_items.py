"""The best items of users by a model's score: through its index, or by scoring all items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.model.blended import BlendedModel
from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records
from anyrec.model.result_tables import with_index
from anyrec.model.scoring import Ranked, rank_rows
from anyrec.retrieval.blend_candidates import best_of_blend
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.model_index import item_index, used_index


@torch.inference_mode()
def best_items(
    model: FittedModel, users: Tensor, k: int, exclude: Pairs | None = None, allowed: np.ndarray | None = None
) -> Ranked:
    """Find the k best items of each user, by the index of the model if it has one.

    Args:
        model: The model.
        users: (users, ...) representations.
        k: Items for each user.
        exclude: Rows of users, ascending, and item rows (pairs,) of the pairs to leave out.
        allowed: (items,) or (users, items) bool, the items that may be listed; None for all.

    Returns:
        The lists as `rank_rows` returns them. A user with fewer than k eligible items gets all of them.
    """
    index = item_index(model)
    if index is None:
        return rank_rows(model.scorer, users, model.representations("item"), k, exclude, allowed)
    if isinstance(model, BlendedModel):
        return best_of_blend(model, index, users, k, exclude, allowed)
    queries = model.vectors("user", users).float().cpu().numpy()
    found = index.search(queries, k, allowed, exclude)
    rows, places = np.nonzero(found.keys >= 0)
    return rows, found.keys[rows, places], found.scores[rows, places], places + 1


def ranked_table(
    model: FittedModel, records: Records, k: int, *, exclude_seen: bool, allowed: np.ndarray | None
) -> pa.Table:
    """List the k best items of each user.

    Args:
        model: The model.
        records: The users.
        k: Items for each user.
        exclude_seen: Leave out items that the user interacted with.
        allowed: (items,) bool, the items that may be listed; None for all.

    Returns:
        user_id, item_id, score, rank (from 1); its metadata name the index.
    """
    exclude = model.seen_of(records) if exclude_seen else None
    rows, places, scores, ranks = best_items(model, model.represent(records), k, exclude, allowed)
    table = pa.table(
        {
            "user_id": records.ids.take(pa.array(rows)),
            "item_id": model.dataset.ids("item").take(pa.array(places)),
            "score": pa.array(scores),
            "rank": pa.array(ranks),
        }
    )
    return with_index(table, used_index(model))

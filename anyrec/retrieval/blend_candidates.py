"""The best items of a blend through an index: candidates of the towers and of the members, scored by the blend.

The score of a blend is no dot product. It is the sum of the towers' part, whose best items an index finds, and of the
classical members' part, which is computed for all items anyway, because it is standardised over them. An item of the
blend's k best is nearly always among the best of one of the two parts: docs/blend.md has the recall.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anyrec.model.blended import TOWERS, BlendedModel
from anyrec.model.scoring import CELLS_AT_A_TIME, Ranked, top_k
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.item_index import ItemIndex

DEPTH, LEAST = 10, 100
"""Candidates of each part: this many times k, and at least this number."""


@torch.inference_mode()
def best_of_blend(
    model: BlendedModel,
    index: ItemIndex,
    users: Tensor,
    k: int,
    exclude: Pairs | None = None,
    allowed: np.ndarray | None = None,
) -> Ranked:
    """Find the k best items of each user among the candidates.

    Args:
        model: The blend.
        index: The index of its towers' item vectors, without items that were added later.
        users: (users, ...) representations.
        k: Items for each user.
        exclude: Rows of users, ascending, and item rows (pairs,) of the pairs to leave out.
        allowed: (items,) or (users, items) bool, the items that may be listed; None for all.

    Returns:
        The lists as `rank_rows` returns them. A user with fewer than k eligible items gets all of them.
    """
    size = max(1, CELLS_AT_A_TIME // len(model.dataset.items))
    blocks = []
    for start in range(0, len(users), size):
        part = users[start : start + size]
        masked = allowed if allowed is None or allowed.ndim == 1 else allowed[start : start + size]
        pairs = None if exclude is None else _within(exclude, start, start + size)
        rows, *others = _block(model, index, part, k, pairs, masked)
        blocks.append((rows + start, *others))
    if not blocks:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    rows, items, scores, places = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return rows, items, scores, places


def _block(
    model: BlendedModel, index: ItemIndex, users: Tensor, k: int, exclude: Pairs | None, allowed: np.ndarray | None
) -> Ranked:
    """Find the best items of some users; arguments and result as of `best_of_blend`."""
    known, items = len(index.ids), len(model.dataset.items)
    depth = min(max(LEAST, DEPTH * k), items)
    queries = model.vectors("user", users).float().cpu().numpy()
    found = torch.from_numpy(index.search(queries, depth, allowed, exclude).keys)  # (users, depth)
    rows = users[:, model.towers.representations("item").shape[-1] :].long()
    groups = model.scorer.groups_of(rows)
    members = model.scorer.members_score(rows, groups).cpu()  # (users, items)
    eligible = members.clone()
    if allowed is not None:
        eligible.masked_fill_(torch.from_numpy(~allowed), -torch.inf)
    if exclude is not None:
        eligible[torch.from_numpy(exclude[0]), torch.from_numpy(exclude[1])] = -torch.inf
    best = eligible.topk(depth, 1)
    added = torch.arange(known, items).expand(len(users), -1)  # not in the index, so all of them are candidates
    added = added.masked_fill(eligible[:, known:] == -torch.inf, -1)
    of_members = best.indices.masked_fill(best.values == -torch.inf, -1)
    candidates = torch.cat([found, of_members, added], 1).sort(1).values
    repeated = torch.zeros_like(candidates, dtype=torch.bool)
    repeated[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
    places = candidates.clamp(min=0)
    scores = members.gather(1, places) + _towers_part(model, users, groups, places)
    scores = scores.masked_fill(repeated | (candidates < 0), -torch.inf)
    values, columns = top_k(scores, min(k, scores.shape[1]))  # candidates ascend, so equal scores are in item order
    chosen, kept = candidates.gather(1, columns).numpy(), values.numpy()
    lists, ranks = np.nonzero(kept > -np.inf)
    return lists, chosen[lists, ranks], kept[lists, ranks], ranks + 1


def _towers_part(model: BlendedModel, users: Tensor, groups: Tensor, places: Tensor) -> Tensor:
    """Return the part of the score (users, n) that the towers add for items (users, n) of each user."""
    scorer, known = model.scorer, model.towers.representations("item")
    dim = known.shape[-1]
    scores = scorer.towers_score(users[:, :dim], known[places.to(known.device)])
    return (scorer.weight_of(TOWERS, groups) * scores).cpu().float()


def _within(pairs: Pairs, low: int, high: int) -> Pairs:
    """Return the pairs of the users `low` to `high`, counted from `low`."""
    start, end = np.searchsorted(pairs[0], [low, high])
    return pairs[0][start:end] - low, pairs[1][start:end]

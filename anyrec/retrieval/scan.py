"""Exact search: the k best of all rows, block by block, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

QUERIES, ROWS = 512, 8192
"""Scores of one block: 16 MB of float32."""
GROUP = 64
"""Neighbouring rows of which only the best score is looked at first."""


def best_rows(vectors: Tensor, queries: Tensor, k: int, allowed: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """The min(k, rows) largest dot products of each query, largest first, equal ones by row; on the device of `vectors`.

    vectors: (rows, dim), queries: (queries, dim) float32. allowed: (queries, rows) bool.
    Returns rows (queries, min(k, rows)) int64, -1 past the end, and scores (same shape), -inf there.
    """
    k = min(k, len(vectors))
    found = [_best_of_block(vectors, part, k, None if allowed is None else allowed[start : start + QUERIES])
             for start, part in zip(range(0, len(queries), QUERIES), queries.split(QUERIES), strict=True)]  # fmt: skip
    if not found or k == 0:
        return (
            torch.empty(len(queries), k, dtype=torch.int64, device=vectors.device),
            torch.empty(len(queries), k, device=vectors.device),
        )
    rows, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    return rows, scores


def _best_of_block(vectors: Tensor, queries: Tensor, k: int, allowed: np.ndarray | None) -> tuple[Tensor, Tensor]:
    rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=vectors.device)
    scores = torch.full((len(queries), k), -torch.inf, device=vectors.device)
    for start in range(0, len(vectors), ROWS):
        block = queries @ vectors[start : start + ROWS].T
        if allowed is not None:
            block.masked_fill_(torch.from_numpy(~allowed[:, start : start + ROWS]).to(block.device), -torch.inf)
        which, where = passing(block, scores[:, -1], k)
        rows, scores = merge(rows, scores, which, where + start, block[which, where])
    return rows, scores


def passing(block: Tensor, bound: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Every place of `block: (queries, rows)` that may be among the k best: (n,) queries, ascending, and (n,) rows, ascending in each.

    bound: (queries,) a score to exceed. The k-th best of the groups' best scores is one to reach, for as many places do.
    """
    groups = block.shape[1] // GROUP
    if groups < k:
        which, where = torch.nonzero(block > bound[:, None], as_tuple=True)
        return which, where
    tops = block[:, : groups * GROUP].unflatten(1, (groups, GROUP)).amax(2)
    reach = tops.topk(k, 1).values[:, -1]
    which, group = torch.nonzero((tops >= reach[:, None]) & (tops > bound[:, None]), as_tuple=True)
    where = group[:, None] * GROUP + torch.arange(GROUP, device=block.device)
    values = block[which[:, None], where]
    kept = (values >= reach[which, None]) & (values > bound[which, None])
    place, column = torch.nonzero(kept, as_tuple=True)
    which, where = which[place], where[place, column]
    if groups * GROUP < block.shape[1]:
        rest = block[:, groups * GROUP :]
        more, column = torch.nonzero((rest >= reach[:, None]) & (rest > bound[:, None]), as_tuple=True)
        which, where = torch.cat([which, more]), torch.cat([where, column + groups * GROUP])
        order = torch.argsort(which, stable=True)
        which, where = which[order], where[order]
    return which, where


def merge(rows: Tensor, scores: Tensor, which: Tensor, more: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The k best of lists `rows, scores: (queries, k)` and of further places: (n,) query, ascending, row, and score."""
    if not len(which):
        return rows, scores
    counts = torch.bincount(which, minlength=len(rows))
    width = int(counts.max())
    column = torch.arange(len(which), device=which.device) - (counts.cumsum(0) - counts)[which]
    wide_rows = torch.full((len(rows), width), -1, dtype=torch.int64, device=rows.device)
    wide_scores = torch.full((len(rows), width), -torch.inf, device=rows.device)
    wide_rows[which, column], wide_scores[which, column] = more, values
    wide_rows, wide_scores = torch.cat([rows, wide_rows], 1), torch.cat([scores, wide_scores], 1)
    order = wide_scores.sort(dim=1, descending=True, stable=True).indices[:, : rows.shape[1]]
    return wide_rows.gather(1, order), wide_scores.gather(1, order)

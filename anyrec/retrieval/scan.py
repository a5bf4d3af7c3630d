"""Exact search: the k best of all rows, block by block, in bounded memory."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anyrec.core.time_limit import check_time

QUERIES, ROWS = 1024, 1024
CELLS = QUERIES * ROWS
"""Scores of one block: 4 MB of float32, so that the best are chosen while the scores are in the processor's cache. Rows
come first, as the products are then a quarter faster. A million vectors of 128 dimensions, two cores: 444 queries a
second, where faiss's flat index answers 394, blocks of 65,536 rows 234 and one matrix product with top-k 162
(benchmarks/RESULTS.md, `--only exact`)."""
ROWS_ON_GPU = 1 << 17
"""Rows of one block on a GPU, which has no such cache to hit but a cost for each call."""
SAMPLE = 2048
"""Rows that give the first bound of the k-th best score."""
GROUP = 64
"""Neighbouring rows whose largest score is compared with the bound first; most groups need no closer look."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 1e-1}
"""More than the fraction by which a product differs between blocks of different shape, which add in different order."""


class Vectors(Protocol):
    """Rows of vectors: a tensor, or compressed vectors that are decompressed slice by slice."""

    @property
    def device(self) -> torch.device:
        """Where the tensors of slices are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of the tensors of slices."""
        ...

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """The vectors of these rows: (n, dim)."""
        ...


def best_rows(vectors: Vectors, queries: Tensor, k: int, allowed: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows with the largest dot products with each query.

    Args:
        vectors: (rows, dim) float32 or bfloat16.
        queries: (queries, dim) of the same type.
        k: The number of rows for each query.
        allowed: (queries, rows) bool; None allows all.

    Returns:
        rows: (queries, min(k, rows)) int64, largest product first and equal ones by row; -1 past the end.
        scores: The products, same shape, float32; -inf past the end. Both on the device of `vectors`.
    """
    k = min(k, len(vectors))
    if not len(queries) or not k:
        empty = torch.empty(len(queries), k, device=vectors.device)
        return empty.long(), empty.float()
    found = []
    for start in range(0, len(queries), QUERIES):
        mask = None if allowed is None else allowed[start : start + QUERIES]
        found.append(_Scan(queries[start : start + QUERIES], k, vectors, mask).run())
    rows, scores = zip(*found, strict=True)
    return torch.cat(rows), torch.cat(scores)


class _Scan:
    """The scan of all rows for at most QUERIES queries.

    Most scores are far below the best k. So each query has a bound, the k-th best score so far; scores above it wait in
    a list, which is merged into the best k when it has grown to four for each query. A look at the largest score of
    each group comes first, so that little is done with most scores but to read them once.
    """

    def __init__(self, queries: Tensor, k: int, vectors: Vectors, allowed: np.ndarray | None):
        shape, device = (len(queries), k), vectors.device
        self.queries, self.vectors, self.allowed = queries, vectors, allowed
        self.rows = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.scores = torch.full(shape, -torch.inf, device=device)
        self.bound = torch.full(shape[:1], -torch.inf, device=device)  # (queries,)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._waiting_count = 0

    def run(self) -> tuple[Tensor, Tensor]:
        """Return rows and scores: (queries, k)."""
        if self.allowed is None:
            self._bound_by_sample()
        step = max(ROWS, CELLS // len(self.queries)) if self.vectors.device.type == "cpu" else ROWS_ON_GPU
        step = -(-min(step, len(self.vectors)) // GROUP) * GROUP
        block = torch.empty(step, len(self.queries), dtype=self.vectors.dtype, device=self.vectors.device)
        queries = self.queries.T.contiguous()  # (dim, queries)
        for start in range(0, len(self.vectors), step):
            check_time()
            part = self.vectors[start : start + step]  # (rows, dim)
            torch.mm(part, queries, out=block[: len(part)])  # (rows, queries)
            block[len(part) :] = -torch.inf
            if self.allowed is not None:
                excluded = torch.from_numpy(~self.allowed[:, start : start + step].T).to(block.device)
                block[: len(part)].masked_fill_(excluded, -torch.inf)
            self._add(block, start)
        self._merge()
        return self.rows, self.scores

    def _bound_by_sample(self) -> None:
        """Set the bound to the k-th best score of a sample of the rows. That of all rows is not lower.

        Without it, rows in ascending order of their scores would all be added and merged.
        """
        k = self.rows.shape[1]
        sample = self.vectors[:: max(1, len(self.vectors) // max(SAMPLE, 8 * k))]
        if len(sample) < len(self.vectors):
            kth = (self.queries @ sample.T).float().topk(k, 1).values[:, -1]
            # Lower it by more than rounding: the same row may score a little less in its block than in the sample.
            self.bound = kth - ROUNDING[self.vectors.dtype] * kth.abs() - 1e-30

    def _add(self, block: Tensor, start: int) -> None:
        """Let the scores above the bounds wait.

        Args:
            block: (rows, queries) scores, the number of rows a multiple of GROUP.
            start: The first of the rows.
        """
        groups = block.unflatten(0, (-1, GROUP))  # (groups, GROUP, queries)
        group, query = torch.nonzero(groups.amax(1) > self.bound, as_tuple=True)
        if not len(query):
            return
        values = groups[group, :, query].float()  # (n, GROUP)
        line, column = torch.nonzero(values > self.bound[query, None], as_tuple=True)
        self._waiting.append((query[line], start + group[line] * GROUP + column, values[line, column]))
        self._waiting_count += len(line)
        if self._waiting_count > 4 * len(self.queries):
            self._merge()

    def _merge(self) -> None:
        """Merge the waiting scores into the best k, and raise the bounds.

        The waiting rows ascend for each query, and all sorts are stable, so that equal scores stay in the order of
        rows.
        """
        if not self._waiting:
            return
        query, rows, values = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))  # (n,) each
        self._waiting, self._waiting_count = [], 0
        # Put what waits for each query into a row of its own: (queries, most for one query), padded with -inf.
        query, order = query.sort(stable=True)
        counts = torch.bincount(query, minlength=len(self.rows))
        column = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
        shape = len(self.rows), int(counts.max())
        new_rows = torch.full(shape, -1, dtype=torch.int64, device=query.device)
        new_scores = torch.full(shape, -torch.inf, device=query.device)
        new_rows[query, column], new_scores[query, column] = rows[order], values[order]
        rows, scores = torch.cat([self.rows, new_rows], 1), torch.cat([self.scores, new_scores], 1)
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.rows.shape[1]]
        self.rows, self.scores = rows.gather(1, best), scores.gather(1, best)
        self.bound = torch.maximum(self.bound, self.scores[:, -1])

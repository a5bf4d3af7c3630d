"""item-kNN: items that share users with the items of a history."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field
from scipy import sparse

from anyrec.core.contracts import Classical, Params, Step, TrainingMatrix
from anyrec.core.types import JsonObject, SparseMatrix

BLOCK = 16_000_000
"""Most multiplications for one block of the similarity matrix: at most 16 million entries of 12 bytes."""


class ItemKNN(Classical):
    """Items that share users with the user's items: co-occurrences, normalised by the numbers of users and items.

    The similarity of an item h of the history to an item j is the sum over their common users u of |u|^-a, multiplied
    by |h|^-b and |j|^-c, where |u| is the number of items of a user and |h| and |j| the numbers of users of the
    items. With a = 0 and b = c = 0.5, the defaults, it is the cosine of the items' sets of users. Larger a, b and c
    give less weight to users with many items, to popular items in the history, and to popular items in the list.

    References:
        Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms, 2001.
        Christoffel et al., Blockbusters and Wallflowers: Accurate, Diverse, and Scalable Recommendations with Random
        Walks, 2015: the exponent of the listed item.
    """

    type = "item_knn"
    by_history = True
    scoring = "neighbours"
    search = {
        "target_exponent": Step(0.125),
        "user_exponent": Step(0.25),
        "history_exponent": Step(0.125),
        "neighbours": 2.0,
    }

    class Params(Params):
        neighbours: int = Field(100, ge=1, le=10**6, description="Most similar items that are kept for each item.")
        user_exponent: float = Field(
            0.0,
            ge=-2,
            le=4,
            description="A common user counts the number of the user's items to the power of minus this.",
        )
        history_exponent: float = Field(
            0.5,
            ge=-2,
            le=4,
            description="An item of the history counts its number of users to the power of minus this.",
        )
        target_exponent: float = Field(
            0.5,
            ge=-2,
            le=4,
            description="The score of an item is multiplied by its number of users to the power of minus this; less "
            "lists more popular items.",
        )

    def fit(self, training: TrainingMatrix) -> None:
        p = self.params
        self._keep(
            similarities(training.matrix, p.neighbours, (p.user_exponent, p.history_exponent, p.target_exponent))
        )

    def score(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return (matrix @ self.by_history_item).toarray()

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return self.similarity[rows].toarray()

    def state(self) -> dict[str, np.ndarray]:
        matrix = self.similarity
        shape = np.array(matrix.shape, np.int64)
        return {"values": matrix.data, "columns": matrix.indices, "offsets": matrix.indptr, "shape": shape}

    def exported_state(self, users: bool) -> JsonObject:
        matrix = self.by_history_item
        return {"values": matrix.data, "columns": matrix.indices, "offsets": matrix.indptr}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        matrix = sparse.csr_matrix((state["values"], state["columns"], state["offsets"]), shape=tuple(state["shape"]))
        matrix.check_format(full_check=True)  # scipy does not check indices when it multiplies
        self._keep(matrix)

    def _keep(self, similarity: Any) -> None:
        """Keep the similarity, (listed items, items of the history), and its transpose, which scores multiply by."""
        self.similarity = similarity
        self.by_history_item = similarity.T.tocsr()


def similarities(matrix: SparseMatrix, neighbours: int, exponents: tuple[float, float, float]) -> Any:
    """Return the similarity of the nearest items.

    Computed in blocks of listed items, whose size is bounded by the number of multiplications.

    Args:
        matrix: (users, items) CSR of float32, 1 for each pair.
        neighbours: Most entries of a row of the result.
        exponents: Of the users, the items of a history and the listed items.

    Returns:
        (items, items) CSR of float32: row j has the items h whose users had j, without j itself.
    """
    of_users, of_history, of_targets = exponents
    lengths, popularity = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])
    history_weights, target_weights = powers(popularity, of_history), powers(popularity, of_targets)
    weighted = matrix
    if of_users:
        weighted = matrix.copy()
        weighted.data = np.repeat(powers(lengths, of_users), lengths)
    by_item = matrix.T.tocsr()
    multiplications = np.cumsum(by_item @ lengths)
    parts, start = [], 0
    while start < matrix.shape[1]:
        done = multiplications[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(multiplications, done + BLOCK, side="right")))
        block = by_item[start:stop] @ weighted
        block.data *= history_weights[block.indices]
        rows = np.repeat(np.arange(stop - start), np.diff(block.indptr))
        block.data[block.indices == rows + start] = 0.0  # the item itself
        keep_greatest(block, neighbours)
        block.sort_indices()
        block.data *= np.repeat(target_weights[start:stop], np.diff(block.indptr))
        parts.append(block)
        start = stop
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def powers(counts: np.ndarray, exponent: float) -> np.ndarray:
    """Return counts^-exponent as float32; 0 counts as 1."""
    return (np.maximum(counts, 1.0) ** -exponent).astype(np.float32)


def keep_greatest(block: Any, most: int) -> None:
    """Keep only the `most` greatest positive entries of each row, in place; of equal ones the first stay.

    The values of all rows are sorted at once, as 64-bit keys of the row and the descending value: non-negative floats
    have the order of their bits. The key at the end of the kept part of each row is a threshold for the row.

    Args:
        block: (rows, columns) CSR of non-negative float32.
        most: Greatest number of entries of a row.
    """
    counts = np.diff(block.indptr).astype(np.int64)
    rows = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    keys = rows << np.uint64(32) | (np.uint64(0xFFFFFFFF) - block.data.view(np.uint32))
    ordered = np.sort(keys)
    full = np.flatnonzero(counts > most)
    thresholds = np.full(len(counts), np.iinfo(np.uint64).max)
    thresholds[full] = ordered[block.indptr[full] + most - 1]
    limits = np.repeat(thresholds, counts)
    kept = keys < limits
    # of the entries at the threshold, a row keeps as many as the greater ones leave places for
    left = most - (np.searchsorted(ordered, thresholds) - block.indptr[:-1])
    equal = np.flatnonzero(keys == limits)
    row = rows[equal].astype(np.int64)
    nth = np.arange(len(equal)) - np.searchsorted(row, row)
    kept[equal[nth < left[row]]] = True
    block.data[~kept] = 0.0
    block.eliminate_zeros()

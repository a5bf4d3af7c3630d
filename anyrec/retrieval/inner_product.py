"""Norm augmentation: one more dimension that makes a graph or a tree find the largest dot products.

Structures for nearest neighbours are built for distances. For dot products, vectors y with |y| <= M and queries q get
one more coordinate:

    y' = (y, w * e(y))  with  e(y) = sqrt(M^2 - |y|^2),      q' = (q, 0)

Then q'·y' = q·y for any weight w, so scores and their order stay as they are. What changes is which vectors are
neighbours of each other in the structure:

- w = 1: all |y'| = M, and |q' - y'|^2 = |q|^2 + M^2 - 2 q·y. The nearest vector by distance or cosine is the one with
  the largest dot product, so a structure for distances becomes exact for dot products (Bachrach et al., 2014).
- w = 0: neighbours are those with the largest dot products. A graph gives low-norm vectors few edges, since few vectors
  have them among their largest products, and a search never reaches them.
- 0 < w < 1: a graph joins x to those y with the largest x·y + w^2 e(x) e(y). On 100,000 clustered vectors w = 0.5 finds
  0.993 of the 10 nearest at search width 256, w = 0 finds 0.900 and w = 1 finds 0.958 (docs/indexes.md).
  `anyrec.retrieval.tuning` searches for w.

References:
    Bachrach et al., Speeding Up the Xbox Recommender System Using a Euclidean Transformation for Inner-Product Spaces,
    RecSys 2014.
"""

from __future__ import annotations

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.retrieval.inputs import Metric

EQUAL_WITHIN = 1e-5
"""Norms that differ by at most this fraction of the largest are equal: rounding in float32 changes a norm by about
1e-7."""


class NormAugmentation:
    """The largest norm of the vectors of an index, and the weight of their additional coordinate.

    Attributes:
        max_norm: M, the largest norm; 1 for an empty index and if all vectors are zero.
        equal_norms: Whether all vectors have the norm `max_norm`. They then need no additional coordinate.
        weight: w, from 0 (no additional coordinate) to 1 (all vectors have the norm M).
        weight_rows: The number of rows for which the weight was chosen.
    """

    def __init__(self, metric: Metric):
        self.metric: Metric = metric
        self.max_norm, self.equal_norms = 1.0, False
        self.weight, self.weight_rows = 0.0, 0

    @property
    def extra_dims(self) -> int:
        """How many coordinates are added: 0 or 1."""
        return int(self.weight > 0)

    def measure(self, vectors: np.ndarray) -> None:
        """Set `max_norm` and `equal_norms` from all vectors: (rows, dim)."""
        norms = self._norms(vectors)
        self.max_norm = float(norms.max(initial=0)) or 1.0
        self.equal_norms = bool(len(norms)) and self._all_max(norms)

    def fits(self, vectors: np.ndarray) -> bool:
        """Return whether vectors can be added without new coordinates for those already in the index.

        Args:
            vectors: (rows, dim), at least one.

        Returns:
            False if all vectors had one norm and a new one has another, or if a new norm is larger than `max_norm`.
        """
        norms = self._norms(vectors)
        return self._all_max(norms) if self.equal_norms else not bool(norms.max() > self.max_norm)

    def augment(self, vectors: np.ndarray) -> np.ndarray:
        """Add the coordinate to vectors of the index: (rows, dim) -> (rows, dim + extra_dims) float32."""
        if not self.extra_dims:
            return vectors
        augmented = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
        augmented[:, :-1] = vectors
        missing = self.max_norm**2 - np.einsum("nd,nd->n", vectors, vectors)
        augmented[:, -1] = self.weight * np.sqrt(np.maximum(missing, 0))  # rounding may make it negative
        return augmented

    def pad(self, queries: np.ndarray) -> np.ndarray:
        """Add a zero to queries: (queries, dim) -> (queries, dim + extra_dims) float32."""
        return np.pad(queries, ((0, 0), (0, 1))) if self.extra_dims else queries

    def state(self) -> JsonObject:
        """Return what a saved index needs, as JSON values."""
        return {
            "max_norm": self.max_norm,
            "equal_norms": self.equal_norms,
            "norm_weight": self.weight,
            "norm_weight_rows": self.weight_rows,
        }

    def restore(self, state: JsonObject) -> None:
        """Set the attributes from `state`, or from that of an index of format 2, which had other names.

        Raises:
            KeyError: If a value is missing.
            ValueError: If a value is not of its type, or not finite.
        """
        former = {"longest": "max_norm", "even": "equal_norms", "lift": "norm_weight", "lifted": "norm_weight_rows"}
        state = {former.get(name, name): value for name, value in state.items()}
        self.max_norm, self.equal_norms = float(state["max_norm"]), bool(state["equal_norms"])
        self.weight, self.weight_rows = float(state["norm_weight"]), int(state["norm_weight_rows"])
        if not (0 <= self.max_norm < np.inf and 0 <= self.weight < np.inf):
            raise ValueError(f"max_norm {self.max_norm}, norm_weight {self.weight}")

    def _norms(self, vectors: np.ndarray) -> np.ndarray:
        """(rows,) norms. With the metric cosine all vectors have the norm 1, except zeros, which have no direction."""
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        return np.where(norms > 0, 1.0, 0.0) if self.metric == "cosine" else norms

    def _all_max(self, norms: np.ndarray) -> bool:
        return bool(np.abs(norms - self.max_norm).max() <= EQUAL_WITHIN * self.max_norm)

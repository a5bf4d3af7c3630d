"""The contract of a vector index: `build`, `add`, `remove`, `search`, `save`, `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel

from anyrec.contracts import Params as Options

Metric = Literal["dot", "cosine"]


class Found(NamedTuple):
    """keys: (queries, k) int64, best first, equal scores by key, -1 past the end; scores: (queries, k) float32, -inf there."""

    keys: np.ndarray
    scores: np.ndarray


class Index:
    """Finds the vectors with the largest dot product with, or cosine to, a query.

    A key is a small non-negative integer of the caller's (a row of its table). A backend implements what begins with an underscore; this
    class keeps the float32 vectors, and the promise that min(k, eligible) keys come back at any selectivity.
    """

    type: ClassVar[str]

    class Params(Options):
        pass

    def __init__(self, dim: int, metric: Metric = "dot", params: BaseModel | None = None):
        """metric: cosine scores are those of unit vectors; a zero vector scores 0 with everything."""
        self.dim, self.metric = dim, metric
        self.params: Any = params if params is not None else type(self).Params()

    def build(self, vectors: np.ndarray, keys: np.ndarray | None = None) -> None:
        """vectors: (rows, dim) float32; keys: (rows,) int64, distinct, by default 0, 1, ... Replaces what was there."""
        raise NotImplementedError

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """keys: (rows,), vectors: (rows, dim). A key that is there gets the new vector."""
        raise NotImplementedError

    def remove(self, keys: np.ndarray) -> None:
        """keys: (rows,); those not there are passed over."""
        raise NotImplementedError

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Found:
        """queries: (queries, dim) float32.

        allowed: (keys,) or (queries, keys) bool, what may be found; keys past its end may not. exclude: (pairs,) query rows, ascending,
        and (pairs,) keys that this query must not find.
        """
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote."""
        raise NotImplementedError

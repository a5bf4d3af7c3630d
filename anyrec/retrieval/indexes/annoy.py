"""Random trees by annoy: one small file that many processes may share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import Fault, MissingDependency, ModelError
from anyrec.retrieval.index import Index, SearchResult
from anyrec.retrieval.scan import best_rows

FILE = "trees.annoy"
JOBS = 4
"""Threads of a build, whatever the machine has: each seeds its own trees."""
BLOCK = 65_536
TAIL = 5_000
"""So many vectors added after the build are compared one by one, in less time than the trees take; or a tenth of all."""


class Annoy(Index):
    """Split the vectors by random planes into many trees (annoy).

    The forest is for good once it is built. Vectors added later are compared one by one, until they are more than a tenth of all: then
    all trees are built anew. Removed ones are passed over. Dot products are looked for among vectors of equal length.
    """

    type = "annoy"
    metrics = ("cosine",)

    class Params(Options):
        trees: int | None = Field(
            default=None,
            ge=1,
            le=10_000,
            description="More find more, and take memory; by default from size and recall.",
        )
        search_k: int | None = Field(
            default=None,
            ge=1,
            le=2**31 - 1,
            description="Vectors looked at in a search for 10; by default from size and recall.",
        )
        recall: float = Field(default=0.95, ge=0.01, le=0.999, description="What the two above are chosen for.")
        seed: int = Field(default=0, ge=0, le=2**31 - 1)

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        self._forest, self._built = self._new(), len(vectors)
        self._forest.set_seed(self.params.seed)
        for start in range(0, len(vectors), BLOCK):  # annoy takes one vector at a time
            for row, vector in enumerate(vectors[start : start + BLOCK].tolist(), start):
                self._forest.add_item(row, vector)
        self._forest.build(self.params.trees or self._trees(len(vectors)), JOBS)

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        if len(self.store) - self._built > max(TAIL, self._built // 10):
            self._rebuild()

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        wanted = min(k, self._built)
        look = self._look(wanted)
        found = [self._forest.get_nns_by_vector(query, wanted, look) for query in queries.tolist()]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        keys = np.full((len(queries), max(int(lengths.max(initial=0)), 1)), -1)
        keys[np.arange(keys.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(row, np.int64) for row in found])
        if len(self.store) > self._built:
            tail = torch.from_numpy(self.store.vectors[self._built :])
            rows, _ = best_rows(tail, torch.from_numpy(np.ascontiguousarray(queries[:, : self.dim])), k)
            keys = np.concatenate([keys, rows.numpy() + self._built], axis=1)
        return SearchResult(keys, np.zeros(keys.shape, np.float32))

    def _save(self, folder: Path) -> None:
        self._forest.save(str(folder / FILE))

    def _load(self, folder: Path) -> None:
        path = folder / FILE
        self._forest = self._new()
        try:
            self._forest.load(str(path))
        except OSError as error:
            raise ModelError(Fault(str(path), f"annoy cannot read it: {error}.", "Build the index anew.")) from None
        self._built = self._forest.get_n_items()
        if not 0 < self._built <= len(self.store):
            what = f"it holds {self._built} vectors, of {len(self.store)}."
            raise ModelError(Fault(str(path), what, "Build the index anew."))

    def _bytes(self) -> int:
        """About: annoy does not tell. Leaves are filled by two thirds, and every node takes as much as a vector."""
        nodes = self._built + 3 * self._built / (self.inner_dim + 2) * self._forest.get_n_trees()
        return int(nodes * (self.inner_dim * 4 + 12))

    def _trees(self, rows: int) -> int:
        return math.ceil(4 * math.log2(rows + 2) * self._effort())

    def _look(self, k: int) -> int:
        """Fitted on clustered vectors of 64 dimensions, 5,000 to 100,000 of them, k from 10 to 1000."""
        at_ten = self.params.search_k or 110 * self._built**0.41 * self._effort() ** 2
        return math.ceil(max(at_ten * (max(k, 10) / 10) ** 0.2, 15 * k * self._effort() ** 2))

    def _effort(self) -> float:
        """1 for a recall of 0.95: misses fall off exponentially."""
        return math.log(1 - self.params.recall) / math.log(0.05)

    def _new(self) -> Any:
        try:
            from annoy import AnnoyIndex
        except ImportError:
            raise MissingDependency("annoy", "annoy", "The index 'annoy'") from None
        return AnnoyIndex(self.inner_dim, "angular")

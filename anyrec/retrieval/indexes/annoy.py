"""Forests of random trees by annoy: one small file that many processes can map."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import Fault, MissingDependency, ModelError
from anyrec.retrieval.index import Index
from anyrec.retrieval.results import SearchResult
from anyrec.retrieval.scan import best_rows

FILE = "trees.annoy"
JOBS = 4
"""Threads of a build. The number is fixed because each thread seeds its own trees: another number would give other
trees. Builds of many vectors still differ a little, since the threads number their nodes in the order in which they get
to it."""
BLOCK = 65_536
"""Vectors turned into lists of Python at once."""
TAIL = 5_000
"""Up to this many vectors added after the build are scanned, which takes less time than the trees; or a tenth of all,
if more."""


class Annoy(Index):
    """Split the vectors by random planes into many trees (annoy).

    A built forest cannot be changed. Vectors added later are scanned until they are more than a tenth of all; then all
    trees are built again. Removed vectors are dropped from the results. Dot products are searched among vectors of
    equal norm (`anyrec.retrieval.inner_product`, weight 1).

    References:
        github.com/spotify/annoy
    """

    type = "annoy"
    metrics = ("cosine",)

    class Params(Options):
        """Options of the index `annoy`."""

        trees: int | None = Field(
            default=None,
            ge=1,
            le=10_000,
            description="More trees find more and take more memory; null chooses the number by size and recall.",
        )
        search_k: int | None = Field(
            default=None,
            ge=1,
            le=2**31 - 1,
            description="Vectors compared in a search for 10; null chooses the number by size and recall.",
        )
        recall: float = Field(
            default=0.95, ge=0.01, le=0.999, description="The recall@10 that `trees` and `search_k` are chosen for."
        )
        seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the random planes.")

    params: Params
    _forest: Any  # annoy has no types
    _built: int
    """The number of rows in the trees; later ones are scanned."""

    def check(self) -> None:
        self._new()

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._forest, self._built = self._new(), len(vectors)
        self._forest.set_seed(self.params.seed)
        for start in range(0, len(vectors), BLOCK):  # annoy takes one vector at a time
            for row, vector in enumerate(vectors[start : start + BLOCK].tolist(), start):
                self._forest.add_item(row, vector)
        self._forest.build(self.params.trees or self._trees(len(vectors)), JOBS)

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if len(self.store) - self._built > max(TAIL, self._built // 10):
            self._rebuild()

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        wanted = min(k, self._built)
        compared = self._compared(wanted)
        found = [self._forest.get_nns_by_vector(query, wanted, compared) for query in queries.tolist()]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        rows = np.full((len(queries), max(int(lengths.max(initial=0)), 1)), -1)
        rows[np.arange(rows.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(row, np.int64) for row in found])
        if len(self.store) > self._built:
            tail = torch.from_numpy(self.store.vectors[self._built :])
            ready = torch.from_numpy(np.ascontiguousarray(queries[:, : self.dim]))
            rows = np.concatenate([rows, best_rows(tail, ready, k)[0].numpy() + self._built], axis=1)
        return SearchResult(rows, np.zeros(rows.shape, np.float32))

    def _save(self, folder: Path) -> None:
        self._forest.save(str(folder / FILE))

    @property
    def requested_recall(self) -> float | None:
        return self.params.recall

    def _load(self, folder: Path) -> None:
        path = folder / FILE
        self._forest = self._new()
        try:
            self._forest.load(str(path))
        except OSError as error:
            raise ModelError(Fault(str(path), f"annoy cannot read it: {error}.", "Build the index again.")) from None
        self._built = self._forest.get_n_items()
        if not 0 < self._built <= len(self.store):
            what = f"it holds {self._built} vectors, of {len(self.store)}."
            raise ModelError(Fault(str(path), what, "Build the index again."))

    def _bytes(self) -> int:
        """An estimate, as annoy does not report its size.

        Leaves are two thirds full, and each node takes as much memory as a vector.
        """
        nodes = self._built + 3 * self._built / (self.inner_dim + 2) * self._forest.get_n_trees()
        return int(nodes * (self.inner_dim * 4 + 12))

    def _trees(self, rows: int) -> int:
        return math.ceil(4 * math.log2(rows + 2) * self._effort())

    def _compared(self, k: int) -> int:
        """How many vectors to compare in a search for k.

        The exponents are fitted on 5,000 to 100,000 clustered vectors of 64 dimensions, for k from 10 to 1000.
        """
        at_ten = self.params.search_k or 110 * self._built**0.41 * self._effort() ** 2
        return math.ceil(max(at_ten * (max(k, 10) / 10) ** 0.2, 15 * k * self._effort() ** 2))

    def _effort(self) -> float:
        """The effort relative to a recall of 0.95: misses fall exponentially with it."""
        return math.log(1 - self.params.recall) / math.log(0.05)

    def _new(self) -> Any:
        try:
            from annoy import AnnoyIndex
        except ImportError:
            raise MissingDependency("annoy", "annoy", "The index 'annoy'") from None
        return AnnoyIndex(self.inner_dim, "angular")

"""A graph of neighbours (HNSW) by usearch: removal in place, and a half or a quarter of the memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import Fault, MissingDependency, ModelError
from anyrec.retrieval.index import Index
from anyrec.retrieval.inputs import Metric
from anyrec.retrieval.results import SearchResult
from anyrec.retrieval.tuning import NormWeight, best_norm_weight, tune_search_width

FILE, STATE = "graph.usearch", "usearch.json"
MIN_WIDTH, MAX_WIDTH = 10, 2048
"""Search widths tried: recall is measured for the 10 nearest."""
HEADROOM = 1.1
"""Numbers of added vectors are clipped to the scale of the 8-bit graph if they exceed it by at most this factor; if
they exceed it by more, the graph is built again with a larger scale."""


class Usearch(Index):
    """Walk a graph of near neighbours, from vectors of 1, 2 or 4 bytes a number (usearch).

    usearch's own int8 brings every vector to one norm, which changes dot products. Here all vectors share one scale, so
    that their products keep their order, and each query has its own.

    References:
        Malkov and Yashunin, Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable Small
        World Graphs, TPAMI 2020.
    """

    type = "usearch"
    can_remove = True

    class Params(Options):
        """Options of the index `usearch`."""

        renamed = {"lift": "norm_weight"}
        dtype: Literal["f32", "f16", "bf16", "i8"] = Field(
            default="i8", description="How the graph stores a number; what it finds is scored again in float32."
        )
        connectivity: int = Field(default=16, ge=2, le=512, description="Neighbours of each vector in the graph (M).")
        expansion_add: int = Field(
            default=100, ge=1, le=10_000, description="Candidates kept while a vector is added (ef_construction)."
        )
        expansion_search: int | None = Field(
            default=None,
            ge=1,
            le=100_000,
            description="Candidates kept in a search (ef_search): more find more and take longer; null chooses the "
            "number by trying, for the recall.",
        )
        norm_weight: NormWeight = None
        recall: float = Field(
            default=0.95, ge=0.01, le=1, description="The recall@10 that `expansion_search` is chosen for."
        )
        build_threads: int = Field(
            default=1, ge=0, le=4096, description="0 uses all cores; only 1 builds the same graph every time."
        )

    params: Params
    _graph: Any  # usearch.index.Index, which is imported only when it is used
    _scale: float

    def __init__(self, dim: int, metric: Metric = "dot", params: BaseModel | None = None):
        super().__init__(dim, metric, params)
        self.tunes_norm_weight = self.metric == "dot" and self.params.norm_weight is None

    def _choose_norm_weight(self) -> float:
        if self.tunes_norm_weight:
            return best_norm_weight(self, "expansion_search")
        return self.params.norm_weight or 0.0

    def check(self) -> None:
        self._new()

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._graph, self._scale = self._new(), float(np.abs(vectors).max()) or 1.0
        self._insert(rows, vectors)

    def _tune(self) -> None:
        if self.params.expansion_search:
            self.search_width = self.params.expansion_search
        else:
            tune_search_width(self, MIN_WIDTH, MAX_WIDTH, self.params.recall)

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if self.params.dtype == "i8" and float(np.abs(vectors).max()) > HEADROOM * self._scale:
            # Clipped to the old scale, the new vectors would rank below shorter ones.
            self._rebuild()
            return
        self._insert(rows, vectors)

    def _insert(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        stored = self._quantised(vectors, self._scale)
        self._graph.add(rows.astype(np.uint64), stored, threads=self.params.build_threads)

    def _remove(self, rows: np.ndarray) -> None:
        self._graph.remove(rows.astype(np.uint64))

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        if self.params.dtype == "i8":
            # 8 bits lose the order of nearly equal products, so more are found, and the float32 scores choose among
            # them.
            k = min(max(k + k // 2, self.search_width), len(self._graph))
            queries = self._quantised(queries, np.abs(queries).max(1, keepdims=True))
        self._graph.expansion_search = max(self.search_width, k + k // 2)
        if len(queries) == 1:
            one = self._graph.search(queries[0], k, threads=1)
            return SearchResult(one.keys.astype(np.int64)[None], one.distances[None])
        found = self._graph.search(queries, k, threads=torch.get_num_threads())
        past = np.arange(found.keys.shape[1]) >= found.counts[:, None]
        return SearchResult(np.where(past, -1, found.keys.astype(np.int64)), found.distances)

    def _save(self, folder: Path) -> None:
        self._graph.save(str(folder / FILE))
        state = {"scale": self._scale, "search_width": self.search_width}
        (folder / STATE).write_text(json.dumps(state) + "\n")

    @property
    def requested_recall(self) -> float | None:
        return self.params.recall

    def _load(self, folder: Path) -> None:
        self._graph = self._new()
        path = folder / FILE
        try:
            state = json.loads((folder / STATE).read_text())
            width = state["search_width"] if "search_width" in state else state["width"]  # its name in format 2
            self._scale, self.search_width = float(state["scale"]), int(width)
            self._graph.load(str(path))
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise ModelError(Fault(str(path), f"usearch cannot read it: {error}.", "Build the index again.")) from None
        if self._graph.ndim != self.inner_dim or len(self._graph) != self.store.count:
            found, wanted = f"{len(self._graph)} x {self._graph.ndim}", f"{self.store.count} x {self.inner_dim}"
            raise ModelError(Fault(str(path), f"it holds {found} vectors, not {wanted}.", "Build the index again."))
        self._graph.expansion_add = self.params.expansion_add

    def _bytes(self) -> int:
        return int(self._graph.memory_usage)

    def _quantised(self, vectors: np.ndarray, scale: float | np.ndarray) -> np.ndarray:
        """Return vectors as usearch gets them: float32, or int8 with 127 for `scale` and for larger numbers."""
        if self.params.dtype != "i8":
            return vectors
        steps = vectors * (127 / np.maximum(scale, 1e-30))
        return np.rint(steps).clip(-127, 127).astype(np.int8)

    def _new(self) -> Any:
        try:
            from usearch.index import Index as Graph
        except ImportError:
            raise MissingDependency("usearch", "usearch", "The index 'usearch'") from None
        return Graph(
            ndim=self.inner_dim,
            metric="ip",
            dtype=self.params.dtype,
            connectivity=self.params.connectivity,
            expansion_add=self.params.expansion_add,
        )

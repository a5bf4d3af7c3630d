"""A graph of neighbours (HNSW) by usearch: removal in place, vectors kept in half or a quarter of the memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import Fault, MissingDependency, ModelError
from anyrec.retrieval.index import Index, SearchResult
from anyrec.retrieval.tuning import Lift, best_lift, tune_width

FILE, STATE = "graph.usearch", "usearch.json"
NARROWEST, WIDEST = 10, 2048
HEADROOM = 1.1
"""An added value is clipped to the scale of the 8-bit graph up to this factor; beyond it, the graph is built again with a larger scale."""


class Usearch(Index):
    """Walk a graph of near neighbours, from vectors of 1, 2 or 4 bytes a number (usearch).

    HNSW of Malkov and Yashunin (TPAMI 2020), by the dot product. usearch's own int8 brings every vector to one length, which loses
    dot products: here all vectors share one scale, and each query has its own.
    """

    type = "usearch"
    can_remove = True

    class Params(Options):
        dtype: Literal["f32", "f16", "bf16", "i8"] = Field(
            default="i8", description="How the graph keeps a number; what it finds is scored again in float32."
        )
        connectivity: int = Field(default=16, ge=2, le=512, description="Neighbours of each vector in the graph (M).")
        expansion_add: int = Field(
            default=100, ge=1, le=10_000, description="Candidates kept while a vector is put in (efConstruction)."
        )
        expansion_search: int | None = Field(
            default=None,
            ge=1,
            le=100_000,
            description="Candidates kept in a search (ef): more find more, slower; by default found by trying, for the recall.",
        )
        lift: Lift = None
        recall: float = Field(
            default=0.95, ge=0.01, le=1, description="Share of the true 10 nearest to find, by trying."
        )
        build_threads: int = Field(
            default=1, ge=0, le=4096, description="0 takes all cores; only 1 builds the same graph every time."
        )

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lifts = self.metric == "dot" and self.params.lift is None

    def _lift(self) -> float:
        return best_lift(self, "expansion_search") if self.lifts else self.params.lift or 0.0

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        self._graph, self._scale = self._new(), float(np.abs(vectors).max()) or 1.0
        self._insert(keys, vectors)

    def _tune(self) -> None:
        if self.params.expansion_search:
            self.width = self.params.expansion_search
        else:
            tune_width(self, NARROWEST, WIDEST, self.params.recall)

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        if self.params.dtype == "i8" and float(np.abs(vectors).max()) > HEADROOM * self._scale:
            # Clipped to the old scale, the new vectors would rank below shorter ones.
            self._rebuild()
            return
        self._insert(keys, vectors)

    def _insert(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        self._graph.add(keys.astype(np.uint64), self._kept(vectors, self._scale), threads=self.params.build_threads)

    def _remove(self, keys: np.ndarray) -> None:
        self._graph.remove(keys.astype(np.uint64))

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        if self.params.dtype == "i8":  # order among near equals is lost in 8 bits: the float32 scores choose
            k = min(max(k + k // 2, self.width), len(self._graph))
            queries = self._kept(queries, np.abs(queries).max(1, keepdims=True))
        self._graph.expansion_search = max(self.width, k + k // 2)
        if len(queries) == 1:
            one = self._graph.search(queries[0], k, threads=1)
            return SearchResult(one.keys.astype(np.int64)[None], one.distances[None])
        found = self._graph.search(queries, k, threads=torch.get_num_threads())
        past = np.arange(found.keys.shape[1]) >= found.counts[:, None]
        return SearchResult(np.where(past, -1, found.keys.astype(np.int64)), found.distances)

    def _save(self, folder: Path) -> None:
        self._graph.save(str(folder / FILE))
        (folder / STATE).write_text(json.dumps({"scale": self._scale, "width": self.width}) + "\n")

    def _load(self, folder: Path) -> None:
        self._graph = self._new()
        path = folder / FILE
        try:
            state = json.loads((folder / STATE).read_text())
            self._scale, self.width = float(state["scale"]), int(state["width"])
            self._graph.load(str(path))
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise ModelError(Fault(str(path), f"usearch cannot read it: {error}.", "Build the index anew.")) from None
        if self._graph.ndim != self.inner_dim or len(self._graph) != self.store.count:
            found, wanted = f"{len(self._graph)} x {self._graph.ndim}", f"{self.store.count} x {self.inner_dim}"
            raise ModelError(Fault(str(path), f"it holds {found} vectors, not {wanted}.", "Build the index anew."))
        self._graph.expansion_add = self.params.expansion_add

    def _bytes(self) -> int:
        return int(self._graph.memory_usage)

    def _kept(self, vectors: np.ndarray, scale: Any) -> np.ndarray:
        """What usearch is given: float32, or int8 of which 127 stands for `scale`; larger ones, added later, are cut to it."""
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

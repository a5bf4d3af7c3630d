"""faiss: flat, graph (HNSW), cells (IVF), cells with product quantisation, scalar 8-bit.

What is not given is chosen from the number of vectors; how widely to search is found by trying, for the recall asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from anyrec.core.contracts import Params as Options
from anyrec.retrieval.index import Index, SearchResult
from anyrec.retrieval.tuning import TRIED, Lift, best_lift, reaches, tune_width
from anyrec.retrieval.vector_order import proximity_order

FILE, WIDTHS = "faiss.index", "width"
SCALAR, CELLS, GRAPH = "sq8", ("ivf", "ivf_pq"), "hnsw"
NARROWEST = 10
"""The least width that a graph is searched with: recall is of the best 10."""
TO_LEARN_FROM = 39
"""Vectors a centroid, below which faiss warns."""
OVERSAMPLE = 4, 64
"""Candidates of the compressed kinds, times k: at first, and at most."""
ON_GPU = 2048
"""The most that faiss finds on a GPU."""


class Faiss(Index):
    """faiss: flat, HNSW, IVF, IVF-PQ or scalar 8-bit, tuned to an asked recall."""

    type = "faiss"
    trials = tuple({"kind": kind} for kind in ("flat", "hnsw", "ivf", "ivf_pq", "sq8"))

    class Params(Options):
        kind: Literal["flat", "hnsw", "ivf", "ivf_pq", "sq8"] = Field(
            default="hnsw",
            description="flat: all, exactly; hnsw: a graph; ivf: cells; ivf_pq: cells, compressed; sq8: all, in 8 bits.",
        )
        recall: float = Field(
            default=0.95,
            ge=0.01,
            le=1,
            description="Share of the true 10 nearest to reach where the width is not given.",
        )
        m: int | None = Field(
            default=None,
            ge=2,
            le=256,
            description="hnsw: links of a vector, by default 16, or 32 for a recall over 0.97. "
            "ivf_pq: bytes of a vector, which divide its length; by default about half of it.",
        )
        ef_construction: int = Field(default=100, ge=4, le=4096, description="hnsw: width of the search at build.")
        ef_search: int | None = Field(default=None, ge=1, le=65536, description="hnsw: width of search.")
        lift: Lift = None
        nlist: int | None = Field(
            default=None,
            ge=1,
            le=1 << 20,
            description="ivf: cells, by default 4 times the root of the number of vectors.",
        )
        nprobe: int | None = Field(default=None, ge=1, le=1 << 20, description="ivf: cells looked at.")
        oversample: int | None = Field(
            default=None,
            ge=1,
            le=100,
            description="Compressed kinds: candidates scored again in float32, times k; by default 4, or as many up to 64 as the recall takes.",
        )
        device: Literal["auto", "cpu"] = Field(default="auto", description="auto: a GPU where this faiss has one.")

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        kind = self.params.kind
        self.filters = (
            kind != "flat"
        )  # a filtered flat search does without the fast products: asking for more is quicker
        self.can_remove = kind in CELLS
        self.lifts = kind == GRAPH and self.metric == "dot" and self.params.lift is None
        self.exact_scores = kind not in (SCALAR, "ivf_pq")
        self._index: Any = None
        self._usual: tuple[Any, Any] = (None, None)

    def _lift(self) -> float:
        return best_lift(self, "ef_search") if self.lifts else self.params.lift or 0.0

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        self._index = self._made(vectors)
        if self.params.kind == GRAPH:
            order = proximity_order(vectors)
            self._index.add_with_ids(vectors[order], order)
        else:
            self._index.add(vectors)
        self._to_gpu()

    def _tune(self) -> None:
        """Find how many candidates are scored again, and the width, which is efSearch or nprobe."""
        self.width = self._widest() if self._given is None else min(self._given, self._widest())
        least, most = OVERSAMPLE
        self.oversample = self.params.oversample or least
        if self.params.oversample is None and not self.exact_scores:
            held_out = self.held_out(TRIED)
            while self.oversample < most and not reaches(self, held_out, self.params.recall):
                self.oversample *= 2
        if self._given is None and self._widest() > 1:
            tune_width(self, NARROWEST if self.params.kind == GRAPH else 1, self._widest(), self.params.recall)

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        if self.params.kind in (*CELLS, GRAPH):
            self._index.add_with_ids(vectors, keys)
        else:
            self._index.add(vectors)

    def _remove(self, keys: np.ndarray) -> None:
        import faiss

        self._index.remove_ids(faiss.IDSelectorBatch(keys))

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        import faiss

        wide = k if self.exact_scores else min(len(self.store), k * self.oversample)
        if self._on_gpu:
            wide = min(wide, ON_GPU)
        params = self._search_params(wide, allowed) if allowed is not None else self._usual_params(wide)
        scores, keys = np.empty((len(queries), wide), np.float32), np.empty((len(queries), wide), np.int64)
        # What `search` of faiss calls when it has checked its arguments, which for one query takes a tenth of the time.
        self._index.search_c(
            len(queries), faiss.swig_ptr(queries), wide, faiss.swig_ptr(scores), faiss.swig_ptr(keys), params
        )
        return SearchResult(keys, scores)

    def _save(self, folder: Path) -> None:
        import faiss

        index = faiss.index_gpu_to_cpu(self._index) if self._on_gpu else self._index
        if self.params.kind == "flat":  # its vectors are those of the store
            return
        faiss.write_index(index, str(folder / FILE))
        (folder / WIDTHS).write_text(f"{self.width} {self.oversample}\n")

    def _load(self, folder: Path) -> None:
        import faiss

        if self.params.kind == "flat":
            self._index = faiss.IndexFlatIP(self.dim)
            self._index.add(self.store.vectors)
        else:
            self._index = faiss.read_index(str(folder / FILE))
            self.width, self.oversample = map(int, (folder / WIDTHS).read_text().split())
        self._to_gpu()

    def _bytes(self) -> int:
        import faiss

        index, rows = self._index, self._index.ntotal
        if self.params.kind in CELLS:
            return rows * (index.code_size + 8) + index.nlist * self.dim * 4
        if self.params.kind == GRAPH:
            graph = faiss.downcast_index(index.index).hnsw
            return (
                rows * (self.inner_dim * 4 + 8)
                + graph.neighbors.size() * 4
                + graph.offsets.size() * 8
                + graph.levels.size() * 4
            )
        return rows * (self.dim if self.params.kind == SCALAR else self.dim * 4)

    def _made(self, vectors: np.ndarray) -> Any:
        """The empty index, what it learns learned."""
        import faiss

        kind, rows, dot = self.params.kind, len(vectors), faiss.METRIC_INNER_PRODUCT
        if kind == "flat":
            return faiss.IndexFlatIP(self.dim)
        if kind == GRAPH:
            index = faiss.IndexHNSWFlat(
                self.inner_dim, self.params.m or (16 if self.params.recall <= 0.97 else 32), dot
            )
            index.hnsw.efConstruction = self.params.ef_construction
            mapped = faiss.IndexIDMap(index)
            mapped.own_fields = True
            index.this.disown()
            return mapped
        if kind == SCALAR:
            index = faiss.IndexScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_8bit, dot)
        else:
            cells = min(self.params.nlist or round(4 * rows**0.5), max(1, rows // TO_LEARN_FROM))
            quantiser = faiss.IndexFlatIP(self.dim)
            if kind == "ivf" or rows < 256 * TO_LEARN_FROM:  # too few to learn 256 centroids from
                index = faiss.IndexIVFFlat(quantiser, self.dim, cells, dot)
            else:
                index = faiss.IndexIVFPQ(quantiser, self.dim, cells, self._pieces(), 8, dot)
            index.own_fields = True
            quantiser.this.disown()
        if kind != SCALAR:
            index.cp.min_points_per_centroid = 1  # or it warns on standard error
        index.train(vectors)
        return index

    def _pieces(self) -> int:
        """Bytes of a compressed vector: the nearest number to what is asked for that divides the dimension."""
        wanted = self.params.m or max(1, self.dim // 2)
        return min((n for n in range(1, self.dim + 1) if self.dim % n == 0), key=lambda n: abs(n - wanted))

    @property
    def _given(self) -> int | None:
        return self.params.ef_search if self.params.kind == GRAPH else self.params.nprobe

    def _widest(self) -> int:
        kind = self.params.kind
        return self._index.nlist if kind in CELLS else 2048 if kind == GRAPH else 1

    def _usual_params(self, k: int) -> Any:
        """Those of a search that is not filtered, kept: they take a tenth of a short search's time to make."""
        asked = k, self.width, self._index.ntotal
        usual = self._usual
        if usual[0] != asked:
            usual = self._usual = asked, self._search_params(k, None)
        return usual[1]

    def _search_params(self, k: int, allowed: np.ndarray | None) -> Any:
        """A filtered search looks as much wider as fewer are eligible."""
        import faiss

        make: Any = faiss  # its stubs know nothing of its keyword arguments
        kind, options = self.params.kind, {}
        share = 1.0
        if allowed is not None:
            options["sel"] = make.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = max(float(allowed.mean()), 1e-6)
        if kind == GRAPH:
            width = min(self.width / share, max(self.width, 8192))
            # The unbounded queue takes the same steps in a tenth less time, but knows no selector.
            return make.SearchParametersHNSW(efSearch=max(int(width), k), bounded_queue=allowed is not None, **options)
        if kind in CELLS:
            cells = max(self.width, 4 * k * self._index.nlist / self._index.ntotal) / share
            return make.SearchParametersIVF(nprobe=min(self._index.nlist, int(np.ceil(cells))), **options)
        return make.SearchParameters(**options) if options else None

    def _to_gpu(self) -> None:
        import faiss

        there = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        self._on_gpu = there and self.params.device == "auto" and self.params.kind != GRAPH
        if self._on_gpu:
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)

    _on_gpu = False

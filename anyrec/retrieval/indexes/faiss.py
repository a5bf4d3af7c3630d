"""Indexes of faiss: flat, graph (HNSW), cells (IVF), compressed cells (IVF-PQ), 8-bit scalar quantisation.

Options that are not set are chosen by the number of vectors; how widely to search is chosen by trying, for the recall
requested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, Field

from anyrec.core.contracts import Params as Options
from anyrec.retrieval.index import Index
from anyrec.retrieval.inputs import Metric
from anyrec.retrieval.results import SearchResult
from anyrec.retrieval.tuning import NormWeight, best_norm_weight, recall_test, tune_search_width
from anyrec.retrieval.vector_order import proximity_order

FILE, STATE, FORMER_STATE = "faiss.index", "faiss.json", "width"
"""Files of a saved index. Format 2 had the search width and `oversample` as two numbers in the last one."""
SQ8, CELLS, GRAPH = "sq8", ("ivf", "ivf_pq"), "hnsw"
MIN_GRAPH_WIDTH, MAX_GRAPH_WIDTH = 10, 2048
"""Search widths tried for a graph: recall is measured for the 10 nearest."""
MAX_FILTERED_WIDTH = 8192
"""The widest search of a graph with a filter."""
ROWS_PER_CENTROID = 39
"""Vectors that k-means needs for each centroid; faiss warns below."""
OVERSAMPLE = 4, 64
"""Candidates of the compressed kinds that are scored again, as a multiple of k: the first tried, and the most."""
MAX_ON_GPU = 2048
"""The most results that faiss returns on a GPU."""


FaissObject: TypeAlias = Any
"""An object of faiss, which has stubs for few of its generated classes."""


class Faiss(Index):
    """faiss: flat, HNSW, IVF, IVF-PQ or 8-bit scalar quantisation, tuned to reach a recall.

    References:
        Douze et al., The Faiss library, 2024. Malkov and Yashunin, Efficient and Robust Approximate Nearest Neighbor
        Search Using Hierarchical Navigable Small World Graphs, TPAMI 2020. Jegou et al., Product Quantization for
        Nearest Neighbor Search, TPAMI 2011.
    """

    type = "faiss"
    trials = tuple({"kind": kind} for kind in ("flat", "hnsw", "ivf", "ivf_pq", "sq8"))

    class Params(Options):
        """Options of the index `faiss`."""

        renamed = {"lift": "norm_weight"}
        kind: Literal["flat", "hnsw", "ivf", "ivf_pq", "sq8"] = Field(
            default="hnsw",
            description="flat: compares all vectors, exactly; hnsw: a graph; ivf: cells; ivf_pq: cells, compressed; "
            "sq8: compares all, in 8 bits.",
        )
        recall: float = Field(
            default=0.95,
            ge=0.01,
            le=1,
            description="The recall@10 that the search width is chosen for if it is not set.",
        )
        m: int | None = Field(
            default=None,
            ge=2,
            le=256,
            description="hnsw: links of a vector, by default 16, or 32 for a recall over 0.97. ivf_pq: bytes of a "
            "compressed vector, a divisor of the dimension; by default about half of it.",
        )
        ef_construction: int = Field(
            default=100, ge=4, le=4096, description="hnsw: candidates kept while a vector is added."
        )
        ef_search: int | None = Field(
            default=None,
            ge=1,
            le=65536,
            description="hnsw: candidates kept in a search; null chooses the number for the recall.",
        )
        norm_weight: NormWeight = None
        nlist: int | None = Field(
            default=None,
            ge=1,
            le=1 << 20,
            description="ivf: number of cells, by default 4 times the root of the number of vectors.",
        )
        nprobe: int | None = Field(
            default=None,
            ge=1,
            le=1 << 20,
            description="ivf: cells compared in a search; null chooses the number for the recall.",
        )
        oversample: int | None = Field(
            default=None,
            ge=1,
            le=100,
            description="Compressed kinds: candidates scored again in float32, as a multiple of k; by default 4, or up "
            "to 64 if the recall needs it.",
        )
        device: Literal["auto", "cpu"] = Field(
            default="auto", description="auto: a GPU if this build of faiss supports one."
        )

    params: Params
    oversample: int = OVERSAMPLE[0]
    """Candidates scored again, as a multiple of k."""
    _index: FaissObject
    _on_gpu: bool = False

    def __init__(self, dim: int, metric: Metric = "dot", params: BaseModel | None = None):
        super().__init__(dim, metric, params)
        kind = self.params.kind
        # With a filter faiss's flat search cannot use matrix products, so asking for more results is faster.
        self.filters = kind != "flat"
        self.can_remove = kind in CELLS
        self.tunes_norm_weight = kind == GRAPH and self.metric == "dot" and self.params.norm_weight is None
        self.exact_scores = kind not in (SQ8, "ivf_pq")
        self._usual: tuple[tuple[int, int, int] | None, FaissObject] = (None, None)

    def _choose_norm_weight(self) -> float:
        return best_norm_weight(self, "ef_search") if self.tunes_norm_weight else self.params.norm_weight or 0.0

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._index = self._trained(vectors)
        if self.params.kind == GRAPH:
            # Vectors near each other get near addresses: twice as many searches a second (`proximity_order`).
            order = proximity_order(vectors)
            self._index.add_with_ids(vectors[order], order)
        else:
            self._index.add(vectors)
        self._move_to_gpu()

    def _tune(self) -> None:
        """Choose how many candidates are scored again, and the search width, which is ef_search or nprobe."""
        given, widest = self._given_width, self._max_width()
        self.search_width = widest if given is None else min(given, widest)
        self.oversample, most = OVERSAMPLE
        if self.params.oversample is not None:
            self.oversample = self.params.oversample
        elif not self.exact_scores:
            reaches = recall_test(self, self.params.recall)
            while self.oversample < most and not reaches():
                self.oversample *= 2
        if given is None and widest > 1:
            tune_search_width(self, MIN_GRAPH_WIDTH if self.params.kind == GRAPH else 1, widest, self.params.recall)

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if self.params.kind in (*CELLS, GRAPH):
            self._index.add_with_ids(vectors, rows)
        else:
            self._index.add(vectors)

    def _remove(self, rows: np.ndarray) -> None:
        import faiss

        self._index.remove_ids(faiss.IDSelectorBatch(rows))

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        import faiss

        count = k if self.exact_scores else min(len(self.store), k * self.oversample)
        if self._on_gpu:
            count = min(count, MAX_ON_GPU)
        params = self._usual_params(count) if allowed is None else self._search_params(count, allowed)
        scores, rows = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        # `search` of faiss calls this after checks of its arguments that take a tenth of the time of a search for one
        # query.
        self._index.search_c(
            len(queries), faiss.swig_ptr(queries), count, faiss.swig_ptr(scores), faiss.swig_ptr(rows), params
        )
        return SearchResult(rows, scores)

    def _save(self, folder: Path) -> None:
        import faiss

        if self.params.kind == "flat":  # its vectors are those of the store
            return
        index = faiss.index_gpu_to_cpu(self._index) if self._on_gpu else self._index
        faiss.write_index(index, str(folder / FILE))
        state = {"search_width": self.search_width, "oversample": self.oversample}
        (folder / STATE).write_text(json.dumps(state) + "\n")

    @property
    def requested_recall(self) -> float | None:
        return self.params.recall

    def _load(self, folder: Path) -> None:
        import faiss

        if self.params.kind == "flat":
            self._index = faiss.IndexFlatIP(self.dim)
            self._index.add(self.store.vectors)
        else:
            self._index = faiss.read_index(str(folder / FILE))
            self.search_width, self.oversample = _read_state(folder)
        self._move_to_gpu()

    def _bytes(self) -> int:
        import faiss

        index, rows = self._index, self._index.ntotal
        if self.params.kind in CELLS:
            return rows * (index.code_size + 8) + index.nlist * self.dim * 4
        if self.params.kind == GRAPH:
            graph = faiss.downcast_index(index.index).hnsw
            links = graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
            return rows * (self.inner_dim * 4 + 8) + links
        return rows * (self.dim if self.params.kind == SQ8 else self.dim * 4)

    def _trained(self, vectors: np.ndarray) -> FaissObject:
        """Return the empty index, with centroids and codebooks learned from the vectors."""
        import faiss

        kind, dot = self.params.kind, faiss.METRIC_INNER_PRODUCT
        if kind == "flat":
            return faiss.IndexFlatIP(self.dim)
        if kind == GRAPH:
            links = self.params.m or (16 if self.params.recall <= 0.97 else 32)
            index = faiss.IndexHNSWFlat(self.inner_dim, links, dot)
            index.hnsw.efConstruction = self.params.ef_construction
            mapped = faiss.IndexIDMap(index)  # the graph numbers vectors as they are added, in `proximity_order`
            mapped.own_fields = True
            index.this.disown()
            return mapped
        if kind == SQ8:
            index = faiss.IndexScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_8bit, dot)
        else:
            index = self._empty_cells(len(vectors))
            index.cp.min_points_per_centroid = 1  # otherwise faiss warns on standard error
        index.train(vectors)
        return index

    def _empty_cells(self, rows: int) -> FaissObject:
        """Return an untrained index of cells, compressed if there are enough vectors to learn 256 centroids."""
        import faiss

        cells = min(self.params.nlist or round(4 * rows**0.5), max(1, rows // ROWS_PER_CENTROID))
        quantiser, dot = faiss.IndexFlatIP(self.dim), faiss.METRIC_INNER_PRODUCT
        if self.params.kind == "ivf" or rows < 256 * ROWS_PER_CENTROID:
            index = faiss.IndexIVFFlat(quantiser, self.dim, cells, dot)
        else:
            index = faiss.IndexIVFPQ(quantiser, self.dim, cells, self._code_bytes(), 8, dot)
        index.own_fields = True
        quantiser.this.disown()
        return index

    def _code_bytes(self) -> int:
        """Bytes of a compressed vector: the divisor of the dimension that is nearest to the number wanted."""
        wanted = self.params.m or max(1, self.dim // 2)
        return min((n for n in range(1, self.dim + 1) if self.dim % n == 0), key=lambda n: abs(n - wanted))

    @property
    def _given_width(self) -> int | None:
        return self.params.ef_search if self.params.kind == GRAPH else self.params.nprobe

    def _max_width(self) -> int:
        kind = self.params.kind
        return self._index.nlist if kind in CELLS else MAX_GRAPH_WIDTH if kind == GRAPH else 1

    def _usual_params(self, count: int) -> FaissObject:
        """The parameters of a search without a filter, kept because creating them takes a tenth of a short search."""
        wanted = count, self.search_width, self._index.ntotal
        usual = self._usual
        if usual[0] != wanted:
            usual = self._usual = wanted, self._search_params(count, None)
        return usual[1]

    def _search_params(self, count: int, allowed: np.ndarray | None) -> FaissObject:
        """The parameters of a search for `count` rows. The fewer rows are allowed, the more widely it searches."""
        import faiss

        make: FaissObject = faiss  # its stubs lack the keyword arguments
        kind, options = self.params.kind, {}
        share = 1.0
        if allowed is not None:
            options["sel"] = make.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = max(float(allowed.mean()), 1e-6)
        if kind == GRAPH:
            width = min(self.search_width / share, max(self.search_width, MAX_FILTERED_WIDTH))
            # The unbounded queue computes the same distances with 4 to 14% more searches a second, but ignores a
            # selector.
            bounded = allowed is not None
            return make.SearchParametersHNSW(efSearch=max(int(width), count), bounded_queue=bounded, **options)
        if kind in CELLS:
            cells = max(self.search_width, 4 * count * self._index.nlist / self._index.ntotal) / share
            return make.SearchParametersIVF(nprobe=min(self._index.nlist, int(np.ceil(cells))), **options)
        return make.SearchParameters(**options) if options else None

    def _move_to_gpu(self) -> None:
        import faiss

        there = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        self._on_gpu = there and self.params.device == "auto" and self.params.kind != GRAPH
        if self._on_gpu:
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)


def _read_state(folder: Path) -> tuple[int, int]:
    """The search width and `oversample` of a saved index."""
    if (folder / STATE).exists():
        state = json.loads((folder / STATE).read_text())
        return int(state["search_width"]), int(state["oversample"])
    width, oversample = map(int, (folder / FORMER_STATE).read_text().split())
    return width, oversample

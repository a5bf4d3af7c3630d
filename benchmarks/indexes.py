"""Compare the indexes with other libraries in one run: exact search, faiss, HNSW, 8 bits, filters.

    python benchmarks/indexes.py [--rows 1000000] [--queries 1000] [--vectors clustered,uniform]
        [--only exact,through,hnsw,norm_weight,memory,filter] [--graphs faiss,usearch] [--hnswlib PYTHON]

128 dimensions, k 10, dot products. Kinds of vectors:

- clustered: a thousand centres of unequal size and spread, and directions of unequal weight, as trained vectors have;
- unit: the same, all of norm 1;
- uniform: each component at random, the worst case;
- clustered-lognormal, uniform-lognormal: each vector multiplied by a log-normal number.

Each time is the best of three. The ways that are compared take turns, so that other load on the machine affects all of
them.

--hnswlib: a Python that has hnswlib and numpy, to compare HNSW with.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from common import argument_parser

from anyrec.core.discovery import discover
from anyrec.retrieval.index import Index
from anyrec.retrieval.recall import TrueNearest, recall, true_nearest

DIM, K = 128, 10
WIDTHS = np.unique(np.geomspace(10, 2048, 90).round().astype(int)).tolist()
"""Search widths that graphs are compared at: for each the smallest that reaches the recall, to 6%, or the last if none
does."""
HNSWLIB = """
import bisect, json, sys, time
import hnswlib, numpy as np
folder, threads = sys.argv[1], int(sys.argv[2])
vectors, queries, kth = (np.load(f"{folder}/{name}.npy") for name in ("vectors", "queries", "kth"))
index = hnswlib.Index("ip", vectors.shape[1])
index.init_index(len(vectors), M=16, ef_construction=100, random_seed=0)
index.set_num_threads(threads)
start = time.perf_counter()
index.add_items(vectors)
build = time.perf_counter() - start
index.set_num_threads(1)
def recall_at(ef):
    index.set_ef(ef)
    keys, _ = index.knn_query(queries, 10)
    scores = np.einsum("qd,qkd->qk", queries, vectors[keys.astype(int)])
    return (scores >= kth[:, None] - 1e-5 * abs(kth[:, None])).mean()
widths = json.loads(sys.argv[4])
ef = widths[bisect.bisect_left(widths[:-1], float(sys.argv[3]), key=recall_at)]
recall = recall_at(ef)
best = 1e9
for _ in range(3):
    start = time.perf_counter()
    for query in queries:
        index.knn_query(query, 10)
    best = min(best, time.perf_counter() - start)
print(json.dumps({"build": build, "rate": len(queries) / best, "recall": float(recall), "ef": ef}))
"""


def make(kind: str, rows: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (rows, DIM) and queries (queries, DIM) of a kind."""
    rng = np.random.default_rng(0)
    if kind.endswith("-lognormal"):
        vectors, asked = make(kind.removesuffix("-lognormal"), rows, queries)
        return vectors * np.random.default_rng(1).lognormal(0, 0.5, (rows, 1)).astype(np.float32), asked
    if kind == "uniform":
        return rng.random((rows, DIM), np.float32) - 0.5, rng.random((queries, DIM), np.float32) - 0.5
    if kind == "unit":
        vectors, asked = make("clustered", rows, queries)
        return tuple(array / np.linalg.norm(array, axis=1, keepdims=True) for array in (vectors, asked))
    weight = (np.arange(1, DIM + 1) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((1000, DIM), np.float32) * weight
    spread = rng.uniform(0.3, 0.9, 1000).astype(np.float32)
    share = rng.dirichlet(np.full(1000, 0.5))

    def draw(count: int) -> np.ndarray:
        which = rng.choice(1000, count, p=share)
        return centres[which] + rng.standard_normal((count, DIM), np.float32) * weight * spread[which, None]

    return draw(rows), draw(queries)


def in_turn(ways: dict[str, Callable[[], Any]], times: int = 3) -> dict[str, float]:
    """The shortest time of each way, in seconds."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(times):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def built(name: str, vectors: np.ndarray, queries: np.ndarray | None = None, **params: Any) -> tuple[Index, float]:
    """An index of the vectors, and the seconds that its build took."""
    registry = discover()
    index = registry.get("index", name)(vectors.shape[1], "dot", registry.params("index", name, params))
    start = time.perf_counter()
    index.build(vectors, queries=queries)
    return index, time.perf_counter() - start


def alone(index: Index, queries: np.ndarray) -> None:
    """Search for the queries one at a time."""
    for row in range(len(queries)):
        index.search(queries[row : row + 1], K)


def exact(vectors: np.ndarray, queries: np.ndarray) -> None:
    """Exact search by NumPy, torch, faiss and the index `exact`, all queries at once."""
    table, asked = torch.from_numpy(vectors), torch.from_numpy(queries)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)

    def numpy_argpartition() -> None:
        for part in np.array_split(queries, -(-len(queries) // 100)):
            scores = part @ vectors.T
            best = np.argpartition(-scores, K, 1)[:, :K]
            np.argsort(-np.take_along_axis(scores, best, 1), 1)

    def torch_whole() -> None:
        for part in asked.split(100):
            (part @ table.T).topk(K, 1)

    def torch_blocks() -> None:
        found = [(asked @ part.T).topk(K, 1) for part in table.split(65536)]
        torch.cat([one.values for one in found], 1).topk(K, 1)

    ours = {f"exact {name}": built("exact", vectors, precision=name)[0] for name in ("float32", "int8")}
    ways: dict[str, Callable[[], Any]] = {
        "numpy argpartition": numpy_argpartition,
        "torch, whole": torch_whole,
        "torch, blocks of 65,536": torch_blocks,
        "faiss flat": lambda: flat.search(queries, K),
        **{name: (lambda index=index: index.search(queries, K)) for name, index in ours.items()},
    }
    seconds = in_turn(ways)
    best = min(value for name, value in seconds.items() if not name.startswith("exact"))
    for name, value in seconds.items():
        print(f"  {name:26} {len(queries) / value:10,.0f} a second   {best / value:6.2f} of the best of the others")


def through(vectors: np.ndarray, queries: np.ndarray) -> None:
    """faiss called by the index against faiss called directly, with the same structure and parameters."""
    for kind in ("flat", "hnsw", "ivf", "ivf_pq", "sq8"):
        index: Any = built("faiss", vectors, queries[::2], kind=kind)[0]
        count = K if index.exact_scores else K * index.oversample
        library, params = by_faiss(index, kind, vectors, count)
        padded = index.norms.pad(queries)
        ways = {
            "alone": lambda lib=library, own=padded, n=count, p=params: lib.search(own, n, params=p),
            "ours": lambda index=index: index.search(queries, K),
        }
        seconds = in_turn(ways, 7)
        ratio = seconds["ours"] / seconds["alone"]
        print(
            f"  faiss {kind:8} alone {len(queries) / seconds['alone']:10,.0f} a second, "
            f"through the index {ratio:6.3f} of its time"
        )


def by_faiss(index: Any, kind: str, vectors: np.ndarray, count: int) -> tuple[Any, Any]:
    """The structure of an index as faiss itself reads it, and the parameters of a search for `count`."""
    make: Any = faiss  # its stubs lack the keyword arguments
    if kind == "flat":
        library = faiss.IndexFlatIP(DIM)
        library.add(vectors)
        return library, None
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        library: Any = faiss.read_index(f"{folder}/faiss.index")
    if kind == "hnsw":
        return library, make.SearchParametersHNSW(efSearch=max(index.search_width, count), bounded_queue=False)
    if kind == "sq8":
        return library, None
    cells = max(index.search_width, -(-4 * count * library.nlist // library.ntotal))
    return library, make.SearchParametersIVF(nprobe=min(library.nlist, cells))


def hnsw(vectors: np.ndarray, queries: np.ndarray, graphs: list[str], python: str | None) -> None:
    """Graphs at recall 0.95, one query at a time; and the time to build them."""
    whole = built("exact", vectors)[0]
    test = queries[1::2]
    truth = true_nearest(whole, test)
    rate = len(test[:50]) / in_turn({"exact": lambda: alone(whole, test[:50])})["exact"]
    print(f"  exact, one at a time {rate:,.0f} a second")
    options = {"faiss": {"kind": "hnsw", "m": 16, "ef_construction": 100}, "usearch": {}}
    for name in graphs:
        index, seconds = built(name, vectors, queries[::2], recall=0.95, **options[name])
        found = index.search_width
        wide = WIDTHS[bisect_left(WIDTHS[:-1], 0.95, key=lambda width, index=index: recall_at(index, width, truth))]
        for width, how in ((found, "found at build"), (wide, "by the rule of hnswlib's")):
            reached = recall_at(index, width, truth)
            one = len(test) / in_turn({name: lambda index=index: alone(index, test)})[name]
            print(
                f"  {name:8} {one:10,.0f} a second, {one / rate:6.1f} times exact, recall {reached:.3f} "
                f"(width {width}, {how}), built in {seconds:,.1f} s"
            )
    if python:
        by_hnswlib(python, vectors, truth, rate)


def by_hnswlib(python: str, vectors: np.ndarray, truth: TrueNearest, rate: float) -> None:
    """The same by hnswlib in another Python. rate: exact searches a second."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("vectors", vectors), ("queries", truth.queries), ("kth", truth.kth_scores)):
            np.save(Path(folder) / name, array)
        command = [python, "-c", HNSWLIB, folder, str(torch.get_num_threads()), "0.95", json.dumps(WIDTHS)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"  hnswlib  {found['rate']:10,.0f} a second, {found['rate'] / rate:6.1f} times exact, "
        f"recall {found['recall']:.3f} (ef {found['ef']}), built in {found['build']:,.1f} s"
    )


def norm_weight(vectors: np.ndarray, queries: np.ndarray) -> None:
    """What a graph finds with each norm weight; the last is the one found by trying."""
    truth = true_nearest(built("exact", vectors)[0], queries[1::2])
    for weight in (0, 0.25, 0.5, 1, None):
        index, seconds = built("faiss", vectors, queries[::2], kind="hnsw", norm_weight=weight, ef_search=64)
        found = " / ".join(f"{recall_at(index, width, truth):.3f}" for width in (64, 256, 1024))
        print(
            f"  norm weight {index.norm_weight:.3f}: recall {found} at widths 64 / 256 / 1,024, "
            f"built in {seconds:,.1f} s",
            flush=True,
        )


def recall_at(index: Index, width: int, truth: TrueNearest) -> float:
    """The recall at a search width, which the index keeps."""
    index.search_width = width
    return recall(index, truth)


def memory(vectors: np.ndarray, queries: np.ndarray) -> None:
    """Size and recall of the compressed kinds."""
    whole = built("exact", vectors, precision="float32")[0]
    truth = true_nearest(whole, queries)
    for name, params in (("exact", {"precision": "int8"}), ("faiss", {"kind": "sq8"}), ("faiss", {"kind": "ivf_pq"})):
        index, seconds = built(name, vectors, queries[::2], **params)
        share, found = index.bytes / whole.bytes, recall(index, truth)
        print(
            f"  {name} {params}: {share:.3f} of float32's memory, recall@10 {found:.4f} after rescoring, "
            f"built in {seconds:,.1f} s"
        )


def filtered(vectors: np.ndarray, queries: np.ndarray) -> None:
    """Recall and speed if 10%, 1% and 0.01% of the vectors are eligible."""
    rng = np.random.default_rng(1)
    whole = built("exact", vectors)[0]
    kinds = [("exact", {}), *(("faiss", {"kind": kind}) for kind in ("flat", "hnsw", "ivf", "ivf_pq", "sq8"))]
    kinds += [(name, {}) for name in ("usearch", "annoy")]
    for name, params in kinds:
        index = built(name, vectors, queries[::2], **params)[0]
        for share in (0.1, 0.01, 0.0001):
            allowed = rng.random(len(vectors)) < share
            best = whole.search(queries, K, allowed)
            start = time.perf_counter()
            found = index.search(queries, K, allowed)
            rate = len(queries) / (time.perf_counter() - start)
            there = best.keys >= 0
            reached = (found.scores >= best.scores[:, -1:] - 1e-4)[there].mean()
            complete = ((found.keys >= 0) == there).all()
            text = " ".join([name, *params.values()])
            print(
                f"  {text:12} {share:7.2%} eligible: recall@10 {reached:.4f}, k always there: {complete}, "
                f"{rate:,.0f} a second"
            )


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--vectors", default="clustered,uniform")
    parser.add_argument("--only", default="exact,through,hnsw,memory,filter")
    parser.add_argument("--graphs", default="faiss,usearch")
    parser.add_argument("--hnswlib")
    options = parser.parse_args()
    parts = {"exact": exact, "through": through, "norm_weight": norm_weight, "memory": memory, "filter": filtered}
    for kind in options.vectors.split(","):
        vectors, queries = make(kind, options.rows, options.queries)
        for part in options.only.split(","):
            print(f"{kind}, {part}", flush=True)
            if part == "hnsw":
                hnsw(vectors, queries, options.graphs.split(","), options.hnswlib)
            else:
                parts[part](vectors, queries)


if __name__ == "__main__":
    main()

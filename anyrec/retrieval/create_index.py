"""An index of vectors that a program has, without a model and a config."""

from __future__ import annotations

from collections.abc import Mapping

from anyrec.core.config.keys import MAX_DIM
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.registry import Registry
from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.retrieval.index import Index
from anyrec.retrieval.inputs import METRICS, Metric


def create_index(
    backend: str = "exact",
    dim: int = 64,
    metric: Metric = "cosine",
    index_type: str | None = None,
    *,
    options: Mapping[str, Json] | None = None,
    registry: Registry | None = None,
) -> Index:
    """Create an empty index.

    Args:
        backend: The type of the index: `exact`, `faiss`, `annoy`, `usearch`, `qdrant`, or that of a plugin.
        dim: The dimension of the vectors.
        metric: "cosine" or "dot".
        index_type: The `kind` of an index that has several, such as `flat`, `hnsw`, `ivf` and `ivf_pq` of faiss.
        options: Further options of the index, as in a config (docs/indexes.md).
        registry: The components to choose from; by default the built-in and the installed ones.

    Returns:
        The index. `build` or `add` fills it, `search` finds the nearest keys, and `save` and `load` write and read a
        folder.

    Raises:
        ConfigError: With every option that is invalid.
        MissingDependency: If the library of the index is not installed.

    Example:
        >>> index = create_index("faiss", dim=16, metric="cosine", index_type="hnsw")
        >>> vectors = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
        >>> index.build(vectors)  # keys 0, 1, ...
        >>> index.add(np.array([5000]), -vectors[:1])
        >>> keys, scores = index.search(vectors[:2], k=3)
        >>> keys[:, 0].tolist()
        [0, 1]
    """
    registry = registry or discover()
    faults = []
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= MAX_DIM:
        faults.append(Fault("dim", f"expected an integer from 1 to {MAX_DIM}; found {show(dim)}.", kind="bad value"))
    if metric not in METRICS:
        hint = "Divide the vectors by their length and use 'cosine': it orders like the euclidean distance then."
        hint = hint if metric in ("euclidean", "l2") else did_you_mean(str(metric), METRICS)
        faults.append(Fault("metric", f"there is no metric {show(metric)}.", hint, "bad value"))
    chosen = dict(options or {})
    if backend not in registry.names("index"):
        faults += registry.unknown("index", str(backend), "backend")
    elif index_type is not None and not registry.has_options("index", backend, ["kind"]):
        faults.append(Fault("index_type", f"the index '{backend}' has only one kind.", "Leave it out.", "unknown key"))
    elif index_type is not None:
        chosen["kind"] = index_type
    if faults:
        raise ConfigError(faults)
    params = registry.params("index", backend, chosen, "options")
    index: Index = registry.get("index", backend).of(dim, metric, params, registry)
    index.check()
    return index

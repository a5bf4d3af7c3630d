"""Picks the index that reaches an asked recall most cheaply, by building and measuring each that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.core.config import Component
from anyrec.core.discovery import Registry
from anyrec.core.errors import ConfigError, Fault, MissingDependency
from anyrec.core.progress import progress_bar
from anyrec.retrieval.index import Metric
from anyrec.retrieval.item_index import ItemIndex

AS_FAST = 0.9
"""Of those that answer at least so fast as the fastest, the smallest is taken."""


def candidates(registry: Registry, recall: float) -> list[Component]:
    """Every index with each of the options it wishes to be tried with, and the recall where it takes one."""
    found = []
    for name in registry.names("index"):
        cls = registry.get("index", name)
        asked: dict[str, Any] = {"recall": recall} if "recall" in cls.Params.model_fields else {}
        found += [Component(type=name, **{**asked, **options}) for options in cls.trials]
    return found


def choose(
    registry: Registry,
    ids: pa.Array,
    vectors: np.ndarray,
    recall: float,
    *,
    metric: Metric = "dot",
    model: str = "",
    queries: np.ndarray | None = None,
    shown: bool = True,
) -> tuple[ItemIndex, list[tuple[Component, dict[str, float]]]]:
    """The chosen one, and every one with its figures. Fast is measured by queries one at a time; what is not installed is passed over.

    Raises ConfigError where none reaches the recall.
    """
    tried: list[tuple[Component, dict[str, float]]] = []
    best: ItemIndex | None = None
    components = candidates(registry, recall)
    with progress_bar("trying indexes", len(components), shown) as bar:
        for component in components:
            bar.advance(0, f"trying {component.type} {component.options().get('kind', '')}")
            try:
                found = ItemIndex.build(component, registry, ids, vectors, metric=metric, model=model, queries=queries)
            except MissingDependency:
                continue
            finally:
                bar.advance()
            tried.append((component, found.figures))
            if found.figures.get("recall@10", 1.0) >= recall and (
                best is None or _cheaper(found.figures, best.figures)
            ):
                best = found
    if best is None:
        reached = max((figures["recall@10"] for _, figures in tried), default=0.0)
        raise ConfigError(Fault("--recall", f"no index reaches {recall}; the best reaches {reached}.", kind="recall"))
    return best, tried


def _cheaper(one: dict[str, float], other: dict[str, float]) -> bool:
    fast, known = one.get("queries_per_second", 0.0), other.get("queries_per_second", 0.0)
    if min(fast, known) >= AS_FAST * max(fast, known):
        return one["bytes"] < other["bytes"]
    return fast > known

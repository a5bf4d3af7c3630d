"""Choice of the cheapest index that reaches a recall, by building and measuring every kind that is installed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from anyrec.core.config import Component
from anyrec.core.errors import ConfigError, Fault, MissingDependency
from anyrec.core.progress import progress_bar
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.retrieval.inputs import Metric
from anyrec.retrieval.item_index import ItemIndex

AS_FAST = 0.9
"""An index with at least this fraction of the queries per second of another is as fast; the smaller one is then
cheaper."""


class Trial(NamedTuple):
    """An index that was tried, and its figures (`anyrec.retrieval.benchmark.measure`)."""

    component: Component
    figures: dict[str, float]


def candidates(registry: Registry, recall: float) -> list[Component]:
    """Return every index with each of its options to try (`Index.trials`), and the recall if it has such an option."""
    found = []
    for name in registry.names("index"):
        cls = registry.get("index", name)
        asked: JsonObject = {"recall": recall} if "recall" in cls.Params.model_fields else {}
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
) -> tuple[ItemIndex, list[Trial]]:
    """Build and measure every index that is installed, and return the cheapest that reaches the recall.

    The cheapest is the fastest for queries one at a time, or the smallest of those that are as fast.

    Args:
        registry: The components to choose from.
        ids: (items,) distinct ids.
        vectors: (items, dim) float32, kept.
        recall: The recall@10 to reach.
        metric: What the score of an item is.
        model: The hash of the model that the vectors belong to.
        queries: (users, dim) vectors of users; by default vectors of items.
        shown: Whether to show a progress bar.

    Returns:
        The chosen index, and all that were tried.

    Raises:
        ConfigError: If no index reaches the recall.
    """
    tried: list[Trial] = []
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
            tried.append(Trial(component, found.figures))
            reached = found.figures.get("recall@10", 1.0) >= recall
            if reached and (best is None or _cheaper(found.figures, best.figures)):
                best = found
    if best is None:
        most = max((trial.figures["recall@10"] for trial in tried), default=0.0)
        raise ConfigError(Fault("--recall", f"no index reaches {recall}; the best reaches {most}.", kind="recall"))
    return best, tried


def _cheaper(one: dict[str, float], other: dict[str, float]) -> bool:
    fast, known = one.get("queries_per_second", 0.0), other.get("queries_per_second", 0.0)
    if min(fast, known) >= AS_FAST * max(fast, known):
        return one["bytes"] < other["bytes"]
    return fast > known

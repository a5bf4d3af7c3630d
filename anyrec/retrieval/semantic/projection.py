"""From what describes an item into the space of the item tower, so that a query finds what the same people like."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from anyrec.model.fitted import FittedModel
from anyrec.model.represent import represent_rows
from anyrec.model.towers import IDENTITY
from anyrec.model.two_tower import towers_of
from anyrec.retrieval.semantic.spaces import Kind, Space

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Penalties that are tried, in multiples of the mean variance of a feature times the number of items."""
HELD_OUT, FEWEST, MOST, FOUND_AT = 0.1, 20, 1000, 10
LEARNED = 100_000
"""Items that the regression learns from at most."""
CELLS = 1 << 24


class Projection(NamedTuple):
    """way: "ridge", or "tower" where all features of an item but those of the query's kind are masked.

    items: (items, dim) float32, of unit length about their mean. offset, weights: (width,) and (width, dim) of the ridge regression.
    recall: by way, the share of held-out items that are among the first 10 found by their own description.
    """

    way: str
    items: np.ndarray
    mean: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    recall: dict[str, float]

    def query(self, model: FittedModel, kind: Kind, value: str, features: np.ndarray) -> np.ndarray:
        """features: (1, width) of the query -> (1, dim)."""
        if self.way == "ridge":
            return ((features - self.offset) @ self.weights).astype(np.float32)
        columns = {name: pa.array([value]) for name in _names(model, kind)}
        return _alone(model, pa.table(columns)) - self.mean


def project(model: FittedModel, space: Space, features: np.ndarray) -> Projection:
    """The better way into the tower's space for queries of a kind, by recall of held-out items from their own description.

    features: (items, width) of the items, as `space` gives them. The tower has seen the held-out items, the regression has not.
    """
    vectors = model.embeddings("item")
    mean = vectors.mean(0)
    centred = vectors - mean
    items = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    told = np.flatnonzero(features.any(1))
    shuffled = told[np.random.default_rng(model.config.seed).permutation(len(told))]
    held = np.sort(shuffled[: np.clip(int(len(told) * HELD_OUT), FEWEST, MOST)])
    rest = shuffled[len(held) : len(held) + LEARNED] if len(told) > 2 * FEWEST else told
    recall, ridge = {}, RIDGES[0]
    for penalty in RIDGES:
        offset, weights = _ridge(features[rest], items[rest], penalty)
        found = _recall((features[held] - offset) @ weights, items, held)
        if found > recall.get("ridge", -1.0):
            recall["ridge"], ridge = found, penalty
    names = _names(model, space.kind)
    if names:
        table = model.dataset.items.select(names).take(pa.array(held))
        recall["tower"] = _recall(_alone(model, table) - mean, items, held)
    offset, weights = _ridge(features[shuffled[:LEARNED]], items[shuffled[:LEARNED]], ridge)
    way = max(recall, key=lambda name: recall[name])
    return Projection(way, items.astype(np.float32), mean, offset, weights, recall)


def _ridge(features: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression in closed form, about the means: (width,) the features' mean and (width, dim) weights."""
    offset = features.mean(0)
    centred = (features - offset).astype(np.float64)
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += penalty * max(np.trace(gram) / len(gram), 1e-12)
    return offset, np.linalg.solve(gram, centred.T @ targets)


def _recall(queries: np.ndarray, items: np.ndarray, rows: np.ndarray) -> float:
    """Share of queries whose own item is among the first found by cosine; a tie counts half a place."""
    ranks = np.empty(len(rows))
    step = max(1, CELLS // len(items))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scores = queries[part] @ items.T
        own = scores[np.arange(len(scores)), rows[part]][:, None]
        ranks[part] = 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return float((ranks <= FOUND_AT).mean())


def _names(model: FittedModel, kind: Kind) -> list[str]:
    """The features of a kind that the item tower reads."""
    known = model.dataset.items.column_names
    return [name for name in towers_of(model).scorer.item.features if name.split(".")[0] == kind and name in known]


def _alone(model: FittedModel, table: pa.Table) -> np.ndarray:
    """(rows, dim) what the item tower makes of records with these features and no other, not even an id."""
    assert IDENTITY not in table.column_names
    towers = towers_of(model)
    with torch.inference_mode():
        made = represent_rows(towers.scorer, "item", towers.prepare("item", table), len(table))
        return model.vectors("item", made).float().cpu().numpy()

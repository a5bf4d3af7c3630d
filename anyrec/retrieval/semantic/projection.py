"""Projection of queries into the space of the item tower, where items that the same users like are near each other."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.ranks import ranks_of
from anyrec.core.unit_vectors import unit_rows
from anyrec.model.blended import towers_of
from anyrec.model.fitted import FittedModel
from anyrec.model.represent import represent_rows
from anyrec.model.towers import IDENTITY
from anyrec.retrieval.semantic.queries import Kind

Method = Literal["ridge", "tower"]
PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Ridge penalties that are tried, as multiples of the mean variance of a feature times the number of items."""
HOLDOUT_FRACTION, MIN_HELD_OUT, MAX_HELD_OUT = 0.1, 20, 1000
"""Items held out to choose the method and the penalty."""
FOUND_AT = 10
"""An item counts as found if its rank is at most this."""
TRAIN_ITEMS = 100_000
"""The most items that the regression is fitted on."""
SCORES_AT_A_TIME = 1 << 24


class Projection(NamedTuple):
    """A map from the vectors of a space to those of the item tower, both centred.

    Attributes:
        method: "ridge": linear regression. "tower": the item tower with all features masked but those of the query's
            kind.
        items: (items, dim) float32, the tower's vectors less their mean, of norm 1.
        mean: (dim,) the mean of the tower's vectors.
        offset: (width,) the mean of the features.
        weights: (width, dim) the coefficients of the regression.
        recall: For each method the fraction of held-out items with a rank up to FOUND_AT, if searched by their own
            description.
    """

    method: Method
    items: np.ndarray
    mean: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    recall: dict[Method, float]

    def project(self, model: FittedModel, kind: Kind, value: str, features: np.ndarray) -> np.ndarray:
        """Project a query.

        Args:
            model: The model.
            kind: What the query is.
            value: The query.
            features: (1, width) its vector in the space.

        Returns:
            (1, dim) float32.
        """
        if self.method == "ridge":
            return ((features - self.offset) @ self.weights).astype(np.float32)
        columns = {name: pa.array([value]) for name in _features_read(model, kind)}
        return _masked_tower(model, pa.table(columns)) - self.mean


def fit_projection(model: FittedModel, kind: Kind, features: np.ndarray) -> Projection:
    """Choose the better method by the recall of held-out items, and fit it on all items.

    The regression has not seen the held-out items, the tower has.

    Args:
        model: The model.
        kind: What queries are.
        features: (items, width) float32, the items' vectors in the space; zeros for items that it does not describe.
    """
    vectors = model.embeddings("item")
    mean = vectors.mean(0)
    items = unit_rows(vectors - mean)
    described = np.flatnonzero(features.any(1))
    shuffled = described[np.random.default_rng(model.config.seed).permutation(len(described))]
    held_out = np.sort(shuffled[: np.clip(int(len(described) * HOLDOUT_FRACTION), MIN_HELD_OUT, MAX_HELD_OUT)])
    # With very few items nothing is left to learn from, and the regression sees the held-out ones as well.
    rest = shuffled[len(held_out) : len(held_out) + TRAIN_ITEMS] if len(described) > 2 * MIN_HELD_OUT else described
    recall: dict[Method, float] = {}
    penalty = PENALTIES[0]
    for tried in PENALTIES:
        offset, weights = ridge_regression(features[rest], items[rest], tried)
        found = _recall((features[held_out] - offset) @ weights, items, held_out)
        if found > recall.get("ridge", -1.0):
            recall["ridge"], penalty = found, tried
    names = _features_read(model, kind)
    if names:
        table = model.dataset.items.select(names).take(pa.array(held_out))
        recall["tower"] = _recall(_masked_tower(model, table) - mean, items, held_out)
    every = shuffled[:TRAIN_ITEMS]
    offset, weights = ridge_regression(features[every], items[every], penalty)
    method = max(recall, key=lambda name: recall[name])
    return Projection(method, items.astype(np.float32), mean, offset, weights, recall)


def ridge_regression(features: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear map in closed form, without an intercept for the targets, which are centred.

    Args:
        features: (rows, width).
        targets: (rows, dim).
        penalty: As a multiple of the mean variance of a feature times the number of rows, so that it suits any scale of
            the features.

    Returns:
        (width,) the mean of the features, and (width, dim) the coefficients of the features less their mean, float64.
    """
    offset = features.mean(0)
    centred = (features - offset).astype(np.float64)
    gram = centred.T @ centred  # (width, width)
    gram[np.diag_indices_from(gram)] += penalty * max(np.trace(gram) / len(gram), 1e-12)
    return offset, np.linalg.solve(gram, centred.T @ targets)


def _recall(queries: np.ndarray, items: np.ndarray, rows: np.ndarray) -> float:
    """Return the fraction of queries whose own item has a rank of at most FOUND_AT among all items, by dot product.

    Args:
        queries: (queries, dim); their norms do not matter.
        items: (items, dim) of norm 1.
        rows: (queries,) the item of each query.
    """
    ranks = []
    step = max(1, SCORES_AT_A_TIME // len(items))
    for start in range(0, len(rows), step):
        scores = torch.from_numpy(queries[start : start + step] @ items.T)
        lines = torch.arange(len(scores))
        ranks.append(ranks_of(scores, lines, scores[lines, torch.from_numpy(rows[start : start + step])]))
    return float((torch.cat(ranks) <= FOUND_AT).double().mean())


def _features_read(model: FittedModel, kind: Kind) -> list[str]:
    """The features of a kind that the item tower reads."""
    known = model.dataset.items.column_names
    return [name for name in towers_of(model).scorer.item.features if name.split(".")[0] == kind and name in known]


def _masked_tower(model: FittedModel, table: pa.Table) -> np.ndarray:
    """Return the item tower's vectors (rows, dim) of records with all other features masked, the id included."""
    assert IDENTITY not in table.column_names
    towers = towers_of(model)
    with torch.inference_mode():
        represented = represent_rows(towers.scorer, "item", towers.prepare("item", table), len(table))
        return model.vectors("item", represented).float().cpu().numpy()

"""What the vectors are like, and which features go with the scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from anyrec.data.dataset import Dataset
from anyrec.data.ids import SIDES, Side
from anyrec.data.item_facts import FEWEST, MOST, indicators
from anyrec.evaluation.list_metrics import CatalogueStatistics
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.statistics import holm, pearson
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import score_blocks

NEIGHBOURS = 10
MOST_ROWS = 20_000
"""Rows of either side that are looked at; of more, a sample."""
SCORED_USERS = 500
VALUES = 20
"""Commonest values of a categorical feature whose correlation with the scores is tested."""


class Embeddings(NamedTuple):
    """rows: the row numbers looked at. vectors: (rows, dim) float32."""

    rows: np.ndarray
    vectors: np.ndarray


class Alignment(NamedTuple):
    """Mean cosine between two that share a value of the feature, and between any two."""

    feature: str
    same: float
    any: float


class Correlation(NamedTuple):
    """Pearson r between a feature and the scores over n rows; p, and p after Holm's correction."""

    feature: str
    r: float
    p: float
    corrected: float
    n: int


def embeddings(model: FittedModel) -> dict[Side, Embeddings]:
    """Both sides' vectors; none where the model has none."""
    if not model.has_vectors:
        return {}
    found: dict[Side, Embeddings] = {}
    rng = np.random.default_rng(model.config.seed)
    with torch.inference_mode():
        for side in SIDES:
            count = len(model.dataset.table(side))
            rows = np.arange(count) if count <= MOST_ROWS else np.sort(rng.choice(count, MOST_ROWS, replace=False))
            known = model.representations(side)[torch.from_numpy(rows).to(model.device)]
            found[side] = Embeddings(rows, model.vectors(side, known).float().cpu().numpy())
    return found


def norms(found: Embeddings) -> dict[str, float]:
    length = np.linalg.norm(found.vectors, axis=1)
    low, high = np.quantile(length, [0.05, 0.95])
    return {"mean": float(length.mean()), "5%": float(low), "95%": float(high)}


def cohesion(dataset: Dataset, items: Embeddings, name: str) -> tuple[float, float]:
    """Share of items' nearest neighbours (10, by cosine) that share a category with them, and of any two items."""
    traits = indicators(dataset, "item", name)[0][items.rows]
    unit = torch.from_numpy(_unit(items.vectors))
    k = min(NEIGHBOURS, len(unit) - 1)
    if k < 1:
        return float("nan"), float("nan")
    shared = []
    for start in range(0, len(unit), 1024):
        nearness = unit[start : start + 1024] @ unit.T
        own = torch.arange(len(nearness))
        nearness[own, own + start] = -torch.inf
        near = nearness.topk(k, dim=1).indices.numpy()
        left = traits[np.repeat(np.arange(start, start + len(near)), k)]
        shared.append(np.asarray(left.multiply(traits[near.ravel()]).sum(1)).ravel() > 0)
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, len(unit), (2, 20_000))
    distinct = one != two
    pairs = traits[one[distinct]].multiply(traits[two[distinct]])
    return float(np.concatenate(shared).mean()), float((np.asarray(pairs.sum(1)).ravel() > 0).mean())


def alignment(dataset: Dataset, side: Side, found: Embeddings) -> list[Alignment]:
    """For every categorical feature of a side with 2 to 200 values, how much nearer those are who share one.

    The mean cosine within a group of n unit vectors is (|their sum|^2 - n) / (n (n - 1)); pairs weigh alike over groups.
    """
    unit = _unit(found.vectors).astype(np.float64)
    anyone = _mean_cosine(np.ones((1, len(unit))) @ unit, np.array([len(unit)]))
    results = []
    for name in dataset.features(side):
        if not name.startswith("categorical."):
            continue
        groups, values = indicators(dataset, side, name)
        if FEWEST <= len(values) <= MOST:
            groups = groups[found.rows]
            same = _mean_cosine(groups.T @ unit, np.asarray(groups.sum(0)).ravel())
            results.append(Alignment(f"{side} {name}", same, anyone))
    return sorted(results, key=lambda one: one.any - one.same)


def correlations(model: FittedModel, whole: EvaluationResult, catalogue: CatalogueStatistics) -> list[Correlation]:
    """Features that go with the scores, the strongest first, Holm-corrected over all that were tested.

    Of an item: its mean score over a sample of the tested users, each user's scores standardised. Of a user: the mean number of
    users who had what the top of their list holds, which tells whom the model gives the beaten track.
    """
    dataset = model.dataset
    if not len(whole.ranking.users):
        return []
    rng = np.random.default_rng(model.config.seed)
    users = np.sort(rng.permutation(whole.ranking.users)[:SCORED_USERS])
    total = np.zeros(len(dataset.items))
    with torch.inference_mode():
        items = model.representations("item")
        for part in np.array_split(users, max(1, len(users) * len(dataset.items) >> 24)):
            scores = score_blocks(model.scorer, model.user_representations(part), items).float()
            spread = scores.std(1, keepdim=True).clamp(min=1e-9)
            total += ((scores - scores.mean(1, keepdim=True)) / spread).sum(0).double().cpu().numpy()
    trained = np.flatnonzero(catalogue.rankable)
    tests = _tests(dataset, "item", trained, total[trained] / len(users))
    metric = next((name for name in whole.by_user if name.startswith("popularity@")), None)
    if metric is not None:
        tests += _tests(dataset, "user", whole.ranking.users, whole.by_user[metric])
    corrected = holm(np.array([p for _, _, p, _ in tests])) if tests else []
    found = [Correlation(name, r, p, float(c), n) for (name, r, p, n), c in zip(tests, corrected, strict=True)]
    return sorted(found, key=lambda one: -abs(one.r))


def _tests(dataset: Dataset, side: Side, rows: np.ndarray, target: np.ndarray) -> list[tuple[str, float, float, int]]:
    """Name, r, p, n of every number, and of every common category as 0 or 1."""
    found = []
    for name in dataset.features(side):
        column = dataset.table(side).column(name)
        if name.startswith("continuous.") and str(column.type) == "double":
            values = column.to_numpy()[rows]
            known = np.isfinite(values)
            found.append((f"{side} {name}", *pearson(values[known], target[known]), int(known.sum())))
        elif name.startswith("categorical."):
            matrix, values = indicators(dataset, side, name)
            if len(values) >= FEWEST:
                dense = sparse.csr_matrix(matrix[rows][:, :VALUES]).toarray()
                found += [
                    (f"{side} {name} = {values[place]}", *pearson(dense[:, place], target), len(rows))
                    for place in range(dense.shape[1])
                ]
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _mean_cosine(sums: np.ndarray, sizes: np.ndarray) -> float:
    pairs = (sizes * (sizes - 1)).sum()
    return float(((sums**2).sum() - sizes.sum()) / pairs) if pairs else float("nan")

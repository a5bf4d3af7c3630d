"""Properties of the embeddings, and features that correlate with the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from anyrec.core.config import DiagnosticsConfig
from anyrec.data.dataset import Dataset
from anyrec.data.ids import SIDES, Side
from anyrec.data.item_facts import FEWEST, MOST, indicators
from anyrec.data.split import Part
from anyrec.evaluation.list_metrics import CatalogueStatistics
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.statistics import holm, pearson
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import score_blocks


@dataclass(frozen=True)
class Embeddings:
    """rows: (rows,) the row numbers examined. vectors: (rows, dim) float32."""

    rows: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Alignment:
    """Mean cosine of two rows that share a value of the feature (`same`), and of any two rows (`any`)."""

    feature: str
    same: float
    any: float


@dataclass(frozen=True)
class Correlation:
    """Pearson r between a feature and the scores over n rows; p, and p after Holm's correction."""

    feature: str
    r: float
    p: float
    corrected: float
    n: int


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of one model.

    Attributes:
        embeddings: By side; empty for a model without embeddings.
        alignment: Of the categorical features, as `alignment` returns them.
        cohesion: As `cohesion` returns it; None without embeddings or a category feature.
        correlations: As `correlations` returns them.
    """

    embeddings: dict[Side, Embeddings]
    alignment: list[Alignment]
    cohesion: tuple[float, float] | None
    correlations: list[Correlation]


def diagnose(
    model: FittedModel, part: Part, whole: EvaluationResult, catalogue: CatalogueStatistics, category: str | None
) -> Diagnostics:
    """Compute the diagnostics of a model.

    Args:
        model: A model with its data.
        part: The split part of `whole`.
        whole: Result of the model.
        catalogue: Statistics of the training interactions.
        category: Categorical feature of items that groups them.
    """
    vectors, sizes = embeddings(model), model.config.evaluation.diagnostics
    return Diagnostics(
        embeddings=vectors,
        alignment=[one for side, found in vectors.items() for one in alignment(model.dataset, side, found)],
        cohesion=cohesion(model.dataset, vectors["item"], category, sizes) if vectors and category else None,
        correlations=correlations(model.before(part), whole, catalogue),
    )


def embeddings(model: FittedModel) -> dict[Side, Embeddings]:
    """Return the embeddings of both sides, or of a sample; none for a model without embeddings."""
    if not model.has_vectors:
        return {}
    found: dict[Side, Embeddings] = {}
    most = model.config.evaluation.diagnostics.embeddings
    rng = np.random.default_rng(model.config.seed)
    with torch.inference_mode():
        for side in SIDES:
            count = len(model.dataset.table(side))
            rows = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
            chosen = model.representations(side)[torch.from_numpy(rows).to(model.device)]
            found[side] = Embeddings(rows, model.vectors(side, chosen).float().cpu().numpy())
    return found


def norms(found: Embeddings) -> dict[str, float]:
    """Return the mean and the 5% and 95% quantiles of the Euclidean norms."""
    length = np.linalg.norm(found.vectors, axis=1)
    low, high = np.quantile(length, [0.05, 0.95])
    return {"mean": float(length.mean()), "5%": float(low), "95%": float(high)}


def cohesion(dataset: Dataset, items: Embeddings, name: str, sizes: DiagnosticsConfig) -> tuple[float, float]:
    """Return the fraction of nearest neighbours, and of random pairs, that share a category.

    Args:
        dataset: The data of the model.
        items: Embeddings of items; their nearest neighbours are by cosine.
        name: Categorical feature of items.
        sizes: Numbers of neighbours of an item, and of random pairs.

    Returns:
        The fraction of (item, neighbour) pairs, and of random pairs of items, that share a category; nan with fewer
        than two items.
    """
    traits = indicators(dataset, "item", name)[0][items.rows]
    unit = torch.from_numpy(_unit(items.vectors))
    k = min(sizes.neighbours, len(unit) - 1)
    if k < 1:
        return float("nan"), float("nan")
    shared = []
    for start in range(0, len(unit), 1024):
        cosine = unit[start : start + 1024] @ unit.T  # (block, items)
        own = torch.arange(len(cosine))
        cosine[own, own + start] = -torch.inf
        near = cosine.topk(k, dim=1).indices.numpy()
        left = traits[np.repeat(np.arange(start, start + len(near)), k)]
        shared.append(np.asarray(left.multiply(traits[near.ravel()]).sum(1)).ravel() > 0)
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, len(unit), (2, sizes.pairs))
    distinct = one != two
    pairs = traits[one[distinct]].multiply(traits[two[distinct]])
    return float(np.concatenate(shared).mean()), float((np.asarray(pairs.sum(1)).ravel() > 0).mean())


def alignment(dataset: Dataset, side: Side, found: Embeddings) -> list[Alignment]:
    """Compare the mean cosine of rows that share a value with that of any two rows, for each categorical feature.

    The mean cosine within a group of n unit vectors is (|their sum|^2 - n) / (n (n - 1)). All pairs have the same
    weight, whatever their group.

    Args:
        dataset: The data of the model.
        side: Users or items.
        found: Embeddings of that side.

    Returns:
        One entry for each feature with 2 to 200 values, in descending order of same - any.
    """
    unit = _unit(found.vectors).astype(np.float64)
    overall = _mean_cosine(np.ones((1, len(unit))) @ unit, np.array([len(unit)]))
    results = []
    for name in dataset.features(side):
        if not name.startswith("categorical."):
            continue
        groups, values = indicators(dataset, side, name)
        if FEWEST <= len(values) <= MOST:
            groups = groups[found.rows]
            same = _mean_cosine(groups.T @ unit, np.asarray(groups.sum(0)).ravel())
            results.append(Alignment(f"{side} {name}", same, overall))
    return sorted(results, key=lambda one: one.any - one.same)


def correlations(model: FittedModel, whole: EvaluationResult, catalogue: CatalogueStatistics) -> list[Correlation]:
    """Test which features correlate with the scores, with Holm's correction over all tests.

    The target of an item is its mean score over a sample of the evaluated users, with each user's scores standardised.
    The target of a user is the mean popularity of the items in the user's list: it shows which users get mostly popular
    items.

    Args:
        model: A model as `FittedModel.before` returns it.
        whole: Result of the model.
        catalogue: Statistics of the training interactions.

    Returns:
        In descending order of |r|.
    """
    dataset = model.dataset
    if not len(whole.ranking.users):
        return []
    rng, sizes = np.random.default_rng(model.config.seed), model.config.evaluation.diagnostics
    users = np.sort(rng.permutation(whole.ranking.users)[: sizes.scored_users])
    total = np.zeros(len(dataset.items))
    with torch.inference_mode():
        items = model.representations("item")
        for part in np.array_split(users, max(1, len(users) * len(dataset.items) >> 24)):
            scores = score_blocks(model.scorer, model.user_representations(part), items).float()
            spread = scores.std(1, keepdim=True).clamp(min=1e-9)
            total += ((scores - scores.mean(1, keepdim=True)) / spread).sum(0).double().cpu().numpy()
    trained = np.flatnonzero(catalogue.rankable)
    tests = _tests(dataset, "item", trained, total[trained] / len(users), sizes.values)
    metric = next((name for name in whole.by_user if name.startswith("popularity@")), None)
    if metric is not None:
        tests += _tests(dataset, "user", whole.ranking.users, whole.by_user[metric], sizes.values)
    corrected = holm(np.array([test.p for test in tests])) if tests else []
    found = [
        Correlation(test.feature, test.r, test.p, float(p), test.n) for test, p in zip(tests, corrected, strict=True)
    ]
    return sorted(found, key=lambda one: -abs(one.r))


@dataclass(frozen=True)
class _Test:
    """One correlation before the correction."""

    feature: str
    r: float
    p: float
    n: int


def _tests(dataset: Dataset, side: Side, rows: np.ndarray, target: np.ndarray, most: int) -> list[_Test]:
    """Correlate each numeric feature, and its `most` frequent categories as 0 or 1, with `target: (rows,)`."""
    found = []
    for name in dataset.features(side):
        column = dataset.table(side).column(name)
        if name.startswith("continuous.") and str(column.type) == "double":
            values = column.to_numpy()[rows]
            present = np.isfinite(values)
            r, p = pearson(values[present], target[present])
            found.append(_Test(f"{side} {name}", r, p, int(present.sum())))
        elif name.startswith("categorical."):
            matrix, values = indicators(dataset, side, name)
            if len(values) >= FEWEST:
                dense = sparse.csr_matrix(matrix[rows][:, :most]).toarray()
                found += [
                    _Test(f"{side} {name} = {values[place]}", *pearson(dense[:, place], target), len(rows))
                    for place in range(dense.shape[1])
                ]
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to norm 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _mean_cosine(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Return the mean cosine over all pairs within groups; nan without any pair.

    sums: (groups, dim) sums of the unit vectors. sizes: (groups,) numbers of vectors.
    """
    pairs = (sizes * (sizes - 1)).sum()
    return float(((sums**2).sum() - sizes.sum()) / pairs) if pairs else float("nan")

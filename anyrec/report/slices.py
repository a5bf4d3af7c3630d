"""The same figures for parts of the users and of the held-out items: who is served well, and who is not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyrec.data.dataset import Dataset
from anyrec.data.item_facts import FEWEST, indicators
from anyrec.evaluation.list_metrics import CatalogueStatistics
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.evaluation.statistics import Interval, intervals

WARM, HOT = 1, 20
"""Training interactions from which a user or item is warm, and from which hot; below, it is cold."""
LENGTHS = ((0, 0), (1, 4), (5, 19), (20, 49), (50, 199), (200, None))
MOST_VALUES, SHOWN = 60, 8
"""Features with more values make no slices; of the others the commonest are shown."""


class Slice(NamedTuple):
    """kind: what the slices divide by ("users by history", "items by genre"). figures: by model name."""

    kind: str
    name: str
    users: int
    targets: int
    figures: dict[str, Interval]


def slices(
    dataset: Dataset, catalogue: CatalogueStatistics, models: list[EvaluationResult], metric: str
) -> list[Slice]:
    """`metric` (as ndcg@10) of each model in each slice.

    A slice of users has their whole figures; a slice of items counts only the held-out items in it, ranked among all.
    """
    found = []
    ranking = models[0].ranking
    for kind, name, chosen in _user_slices(dataset, catalogue, ranking):
        if chosen.any():
            figures = {model.name: intervals({"": model.by_user[metric][chosen]}).get("") for model in models}
            targets = int(np.isin(ranking.targets, ranking.users[chosen]).sum())
            known = {name: figure for name, figure in figures.items() if figure}
            found.append(Slice(kind, name, int(chosen.sum()), targets, known))
    k = int(metric.split("@")[1])
    for kind, name, items in _item_slices(dataset, catalogue):
        inside = items[ranking.items]
        if inside.any():
            figures = {}
            for model in models:
                values = metrics_by_user(model.ranking.only(items[model.ranking.items]), [k])[metric]
                figures[model.name] = intervals({"": values})[""]
            found.append(Slice(kind, name, len(np.unique(ranking.targets[inside])), int(inside.sum()), figures))
    return found


def heat(counts: np.ndarray) -> np.ndarray:
    """0 cold, 1 warm, 2 hot."""
    return (counts >= WARM).astype(int) + (counts >= HOT)


def _user_slices(
    dataset: Dataset, catalogue: CatalogueStatistics, ranking: Ranking
) -> list[tuple[str, str, np.ndarray]]:
    counts = catalogue.history.counts()[ranking.users]
    found = [
        ("users by training interactions", name, heat(counts) == place) for place, name in enumerate(_heat_names())
    ]
    for low, high in LENGTHS:
        name = f"{low}+" if high is None else f"{low}" if low == high else f"{low} to {high}"
        found.append(
            ("users by length of history", name, (counts >= low) & (counts <= (np.inf if high is None else high)))
        )
    for name in dataset.features("user"):
        found += [(f"users by {name}", value, rows[ranking.users]) for value, rows in _values(dataset, "user", name)]
    return found


def _item_slices(dataset: Dataset, catalogue: CatalogueStatistics) -> list[tuple[str, str, np.ndarray]]:
    warmth = heat(catalogue.counts)
    found = [("items by training interactions", name, warmth == place) for place, name in enumerate(_heat_names())]
    for name in dataset.features("item"):
        found += [(f"items by {name}", value, rows) for value, rows in _values(dataset, "item", name)]
    return found


def _heat_names() -> tuple[str, str, str]:
    return "cold (none)", f"warm ({WARM} to {HOT - 1})", f"hot ({HOT}+)"


def _values(dataset: Dataset, side: str, name: str) -> list[tuple[str, np.ndarray]]:
    """The commonest values of a categorical feature and the rows that have each; none where it has too many or too few."""
    if not name.startswith("categorical."):
        return []
    matrix, values = indicators(dataset, side, name)  # type: ignore[arg-type]
    if not FEWEST <= len(values) <= MOST_VALUES:
        return []
    return [(value, matrix[:, place].toarray().ravel() > 0) for place, value in enumerate(values[:SHOWN])]

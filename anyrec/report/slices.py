"""Metrics of groups of users and of held-out items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.item_facts import FEWEST, indicators
from anyrec.evaluation.list_metrics import CatalogueStatistics
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.evaluation.statistics import Interval, intervals

FREQUENT = 20
"""Training interactions from which a user or item is in the highest frequency bucket."""
BUCKETS = ("unseen", f"1-{FREQUENT - 1}", f"{FREQUENT}+")
"""Frequency buckets, by the number of training interactions: 0, 1 to 19, 20 or more."""
LENGTHS = ((0, 0), (1, 4), (5, 19), (20, 49), (50, 199), (200, None))
"""Ranges of the number of training items of a user."""
MOST_VALUES, SHOWN = 60, 8
"""Most values of a feature that is divided into slices, and the number of its most frequent values that are shown."""


@dataclass(frozen=True)
class Slice:
    """A metric of one group.

    Attributes:
        kind: What divides the groups, as `users by length of history` or `items by categorical.genre`.
        name: Name of the group.
        users: Number of users with a held-out item in the group.
        targets: Number of held-out items in the group.
        figures: Interval of the metric, by model.
    """

    kind: str
    name: str
    users: int
    targets: int
    figures: dict[str, Interval]


class _Group(NamedTuple):
    """A group of users or items. rows: (tested users,) or (items,) bool."""

    kind: str
    name: str
    rows: np.ndarray


def slices(
    dataset: Dataset, catalogue: CatalogueStatistics, models: list[EvaluationResult], metric: str
) -> list[Slice]:
    """Compute a metric of each model in each group of users and of items; empty groups are omitted.

    A group of users has the metric over all of their held-out items. A group of items has the metric over the held-out
    items in the group only; they are ranked among all candidates.

    Args:
        dataset: The data of the models.
        catalogue: Statistics of the training interactions.
        models: Results on the same targets.
        metric: As `ndcg@10`.
    """
    found = []
    ranking = models[0].ranking
    for kind, name, chosen in _user_groups(dataset, catalogue, ranking):
        if chosen.any():
            figures = {model.name: intervals({"": model.by_user[metric][chosen]}).get("") for model in models}
            targets = int(np.isin(ranking.targets, ranking.users[chosen]).sum())
            defined = {name: figure for name, figure in figures.items() if figure}
            found.append(Slice(kind, name, int(chosen.sum()), targets, defined))
    k = int(metric.split("@")[1])
    for kind, name, items in _item_groups(dataset, catalogue):
        inside = items[ranking.items]
        if inside.any():
            figures = {}
            for model in models:
                values = metrics_by_user(model.ranking.only(items[model.ranking.items]), [k])[metric]
                figures[model.name] = intervals({"": values})[""]
            found.append(Slice(kind, name, len(np.unique(ranking.targets[inside])), int(inside.sum()), figures))
    return found


def frequency_bucket(counts: np.ndarray) -> np.ndarray:
    """Return the place in BUCKETS of each number of training interactions. counts: (n,)."""
    return (counts >= 1).astype(int) + (counts >= FREQUENT)


def _user_groups(dataset: Dataset, catalogue: CatalogueStatistics, ranking: Ranking) -> list[_Group]:
    counts = catalogue.history.counts()[ranking.users]
    buckets = frequency_bucket(counts)
    found = [_Group("users by training interactions", name, buckets == place) for place, name in enumerate(BUCKETS)]
    for low, high in LENGTHS:
        name = f"{low}+" if high is None else f"{low}" if low == high else f"{low}-{high}"
        inside = (counts >= low) & (counts <= (np.inf if high is None else high))
        found.append(_Group("users by length of history", name, inside))
    for name in dataset.features("user"):
        values = _values(dataset, "user", name)
        found += [_Group(f"users by {name}", value, rows[ranking.users]) for value, rows in values]
    return found


def _item_groups(dataset: Dataset, catalogue: CatalogueStatistics) -> list[_Group]:
    buckets = frequency_bucket(catalogue.counts)
    found = [_Group("items by training interactions", name, buckets == place) for place, name in enumerate(BUCKETS)]
    for name in dataset.features("item"):
        found += [_Group(f"items by {name}", value, rows) for value, rows in _values(dataset, "item", name)]
    return found


def _values(dataset: Dataset, side: Side, name: str) -> list[tuple[str, np.ndarray]]:
    """Return the most frequent values of a categorical feature with the (rows,) bool that have each.

    Features of another kind, and features with too many or too few values, have none.
    """
    if not name.startswith("categorical."):
        return []
    matrix, values = indicators(dataset, side, name)
    if not FEWEST <= len(values) <= MOST_VALUES:
        return []
    return [(value, matrix[:, place].toarray().ravel() > 0) for place, value in enumerate(values[:SHOWN])]

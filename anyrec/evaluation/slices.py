"""Metrics of groups of users and of held-out items, for example of users without training interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.item_facts import FEWEST, indicators
from anyrec.data.split import Part
from anyrec.evaluation.held_out import refuse_refitted
from anyrec.evaluation.list_metrics import CatalogueStatistics, exposure, serendipity
from anyrec.evaluation.measure import EvaluationResult, catalogue_statistics, measure
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.evaluation.statistics import Interval, intervals
from anyrec.model.fitted import FittedModel

FREQUENT = 20
"""Training interactions from which a user or item is in the highest frequency bucket."""
BUCKETS = ("unseen", f"1-{FREQUENT - 1}", f"{FREQUENT}+")
"""Frequency buckets, by the number of training interactions: 0 (cold), 1 to 19 (warm), 20 or more (hot)."""
BY_FREQUENCY = ("users by training interactions", "items by training interactions")
"""The groups by frequency bucket."""
LENGTHS = ((0, 0), (1, 4), (5, 19), (20, 49), (50, 199), (200, None))
"""Ranges of the number of training items of a user."""
MOST_VALUES, SHOWN = 60, 8
"""Most values of a feature that is divided into slices, and the number of its most frequent values that are shown."""


@dataclass(frozen=True)
class Slice:
    """The metrics of one group.

    Attributes:
        kind: What divides the groups, as `users by length of history` or `items by categorical.genre`.
        name: Name of the group.
        users: Number of users with a held-out item in the group.
        targets: Number of held-out items in the group.
        figures: By model, the interval of each metric that at least one user has.
        overall: By model, coverage and gini at each k, which single users do not have.
    """

    kind: str
    name: str
    users: int
    targets: int
    figures: dict[str, dict[str, Interval]]
    overall: dict[str, dict[str, float]]

    def __repr__(self) -> str:
        return f"Slice({self.kind}: {self.name}, {self.users:,} users, {self.targets:,} held-out items)"

    def as_dict(self) -> JsonObject:
        """Return the slice as JSON: `metrics` by model and by name, with `low`, `high` and `users` if it has them."""
        found = {
            model: {name: asdict(one) for name, one in figures.items()}
            | {name: {"mean": value} for name, value in self.overall[model].items()}
            for model, figures in self.figures.items()
        }
        return {
            "kind": self.kind,
            "name": self.name,
            "users": self.users,
            "held_out_items": self.targets,
            "metrics": found,
        }


class _Group(NamedTuple):
    """A group of users or items. rows: (tested users,) or (items,) bool."""

    kind: str
    name: str
    rows: np.ndarray


def measure_slices(model: FittedModel, part: Part = "test") -> list[Slice]:
    """Return the metrics of a model in each group, as `slices` does.

    Args:
        model: A model with its data.
        part: The split part.

    Raises:
        ModelError: For a model without its data, or for the validation part of a model that was refitted on it.
    """
    refuse_refitted(model, part)
    catalogue = catalogue_statistics(model)
    measured = measure(model, part, catalogue, "model")
    return slices(model.dataset, catalogue, [measured], model.config.evaluation.k)


def slices(
    dataset: Dataset, catalogue: CatalogueStatistics, models: list[EvaluationResult], ks: Sequence[int]
) -> list[Slice]:
    """Compute the metrics of each model in each group of users and of items; empty groups are omitted.

    A group of users has all metrics, of the users' held-out items and lists. A group of items has the metrics that
    single items decide: the accuracy and serendipity of the held-out items in the group, which are ranked among all
    candidates, and the coverage and gini of the group's items in the lists of all users.

    Args:
        dataset: The data of the models.
        catalogue: Statistics of the training interactions.
        models: Results on the same targets.
        ks: Cut-offs of the metrics.
    """
    ranking = models[0].ranking
    found = []
    for kind, name, chosen in _user_groups(dataset, catalogue, ranking):
        if chosen.any():
            values = {one.name: {metric: every[chosen] for metric, every in one.by_user.items()} for one in models}
            overall = {one.name: exposure(one.ranking.lists[chosen], catalogue.rankable, ks) for one in models}
            targets = int(np.isin(ranking.targets, ranking.users[chosen]).sum())
            found.append(Slice(kind, name, int(chosen.sum()), targets, _intervals(values), overall))
    for kind, name, items in _item_groups(dataset, catalogue):
        inside = items[ranking.items]
        if inside.any():
            values = {one.name: _of_items(one.ranking, items, catalogue, ks) for one in models}
            overall = {one.name: exposure(one.ranking.lists, catalogue.rankable & items, ks) for one in models}
            users = len(np.unique(ranking.targets[inside]))
            found.append(Slice(kind, name, users, int(inside.sum()), _intervals(values), overall))
    return found


def _of_items(
    ranking: Ranking, items: np.ndarray, catalogue: CatalogueStatistics, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return the metrics of the held-out items among `items: (items,) bool`, (users with such an item,) each."""
    inside = ranking.only(items[ranking.items])
    return {**metrics_by_user(inside, ks), **serendipity(inside, catalogue, ks)}


def _intervals(values: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Interval]]:
    """Return the intervals of all models' metrics; metrics of the same users are resampled together."""
    flat = {(model, metric): own for model, metrics in values.items() for metric, own in metrics.items()}
    found: dict[str, dict[str, Interval]] = {model: {} for model in values}
    for (model, metric), interval in intervals(flat).items():
        found[model][metric] = interval
    return found


def frequency_bucket(counts: np.ndarray) -> np.ndarray:
    """Return the place in BUCKETS of each number of training interactions. counts: (n,)."""
    return (counts >= 1).astype(int) + (counts >= FREQUENT)


def _user_groups(dataset: Dataset, catalogue: CatalogueStatistics, ranking: Ranking) -> list[_Group]:
    counts = catalogue.history.counts()[ranking.users]
    buckets = frequency_bucket(counts)
    found = [_Group(BY_FREQUENCY[0], name, buckets == place) for place, name in enumerate(BUCKETS)]
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
    found = [_Group(BY_FREQUENCY[1], name, buckets == place) for place, name in enumerate(BUCKETS)]
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

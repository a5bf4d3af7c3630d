"""Everything measured of one model on one part of the split, a figure a user."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from anyrec.data.item_facts import category_feature, indicators
from anyrec.data.pairs import Pairs
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, rank_held_out, rankable_items
from anyrec.evaluation.list_metrics import Catalogue, list_metrics
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.model.fitted import FittedModel


@dataclass
class Measured:
    """by_user: (users,) figures by metric, in the order of `ranking.users`; overall: figures that no single user has.

    seconds: to score and rank.
    """

    name: str
    ranking: Ranking
    by_user: dict[str, np.ndarray]
    overall: dict[str, float]
    seconds: float

    def mean(self, metric: str) -> float:
        if metric in self.overall:
            return self.overall[metric]
        known = self.by_user[metric][~np.isnan(self.by_user[metric])]
        return float(known.mean()) if len(known) else float("nan")

    def means(self) -> dict[str, float]:
        return {metric: self.mean(metric) for metric in [*self.by_user, *self.overall]}


def measure(model: FittedModel, part: Part, catalogue: Catalogue, name: str, held: HeldOut | None = None) -> Measured:
    """Rank, and reckon every metric of ranking.py and lists.py at the config's ks. held: the part, where it is at hand."""
    started = time.perf_counter()
    ranking = rank_held_out(model, part, held=held)
    return measure_ranking(ranking, catalogue, model.config.evaluation.k, name, time.perf_counter() - started)


def measure_ranking(ranking: Ranking, catalogue: Catalogue, ks: list[int], name: str, seconds: float) -> Measured:
    by_user, overall = metrics_by_user(ranking, ks), {}
    for metric, value in list_metrics(ranking, catalogue, ks).items():
        if not isinstance(value, np.ndarray):
            overall[metric] = value
        elif not np.isnan(value).all():
            by_user[metric] = value
    return Measured(name, ranking, by_user, overall, seconds)


def catalogue_of(model: FittedModel) -> Catalogue:
    """What the model learned from."""
    dataset, config = model.dataset, model.config
    rows = model.required_learning().positives_learned(config)
    history = Pairs.of(dataset.user_rows[rows], dataset.item_rows[rows], len(dataset.users))
    counts = np.bincount(history.items, minlength=len(dataset.items))
    name = category_feature(dataset, config.evaluation.category)
    traits = None if name is None else indicators(dataset, "item", name)[0]
    return Catalogue(counts, int((history.counts() > 0).sum()), rankable_items(model), traits, history)

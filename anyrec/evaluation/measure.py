"""All metrics of one model on one split part, per user."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from anyrec.data.item_facts import category_feature, indicators
from anyrec.data.pairs import Pairs
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, rank_held_out, rankable_items
from anyrec.evaluation.list_metrics import CatalogueStatistics, list_metrics
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.model.fitted import FittedModel


@dataclass
class EvaluationResult:
    """The metrics of one model.

    Attributes:
        name: Name of the model in the report.
        ranking: Ranks of the held-out items, and the lists.
        by_user: (users,) values by metric, in the order of `ranking.users`; nan if a user has no value.
        overall: Metrics that are defined for all users together only.
        seconds: Duration of scoring and ranking.
    """

    name: str
    ranking: Ranking
    by_user: dict[str, np.ndarray]
    overall: dict[str, float]
    seconds: float

    def mean(self, metric: str) -> float:
        """Return the mean over the users with a value (nan without any), or the overall value."""
        if metric in self.overall:
            return self.overall[metric]
        values = self.by_user[metric][~np.isnan(self.by_user[metric])]
        return float(values.mean()) if len(values) else float("nan")

    def means(self) -> dict[str, float]:
        """Return `mean` of every metric, by name."""
        return {metric: self.mean(metric) for metric in [*self.by_user, *self.overall]}


def measure(
    model: FittedModel, part: Part, catalogue: CatalogueStatistics, name: str, held: HeldOut | None = None
) -> EvaluationResult:
    """Rank the targets of a split part and compute all metrics at the k of `evaluation.k`.

    Args:
        model: A model with its data.
        part: The split part.
        catalogue: Statistics of the training interactions.
        name: Name of the model in the report.
        held: The targets, if the caller computed them already.
    """
    started = time.perf_counter()
    ranking = rank_held_out(model, part, held=held)
    return measure_ranking(ranking, catalogue, model.config.evaluation.k, name, time.perf_counter() - started)


def measure_ranking(
    ranking: Ranking, catalogue: CatalogueStatistics, ks: list[int], name: str, seconds: float
) -> EvaluationResult:
    """Compute all metrics of a ranking at each k; a metric that is nan for every user is omitted."""
    by_user, overall = metrics_by_user(ranking, ks), {}
    for metric, value in list_metrics(ranking, catalogue, ks).items():
        if not isinstance(value, np.ndarray):
            overall[metric] = value
        elif not np.isnan(value).all():
            by_user[metric] = value
    return EvaluationResult(name, ranking, by_user, overall, seconds)


def catalogue_statistics(model: FittedModel) -> CatalogueStatistics:
    """Return the statistics of the positives that the model was trained on."""
    dataset, config = model.dataset, model.config
    rows = model.required_learning().positives_learned(config)
    history = Pairs.of(dataset.user_rows[rows], dataset.item_rows[rows], len(dataset.users))
    counts = np.bincount(history.items, minlength=len(dataset.items))
    name = category_feature(dataset, config.evaluation.category)
    traits = None if name is None else indicators(dataset, "item", name)[0]
    return CatalogueStatistics(counts, int((history.counts() > 0).sum()), rankable_items(model), traits, history)

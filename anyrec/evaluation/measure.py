"""Everything measured of one model on one part of the split, a figure a user."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from anyrec.data.dataset import Dataset, Side
from anyrec.data.list_columns import flat
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, rank_held_out, rankable_items
from anyrec.evaluation.list_metrics import Catalogue, list_metrics
from anyrec.evaluation.ranking import Pairs, Ranking, metrics_by_user

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

FEWEST, MOST = 2, 200
"""Values of a feature that can tell groups of items apart."""


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


def measure(
    recommender: Recommender, part: Part, catalogue: Catalogue, name: str, held: HeldOut | None = None
) -> Measured:
    """Rank, and reckon every metric of ranking.py and lists.py at the config's ks. held: the part, where it is at hand."""
    started = time.perf_counter()
    ranking = rank_held_out(recommender, part, held=held)
    return measure_ranking(ranking, catalogue, recommender.config.evaluation.k, name, time.perf_counter() - started)


def measure_ranking(ranking: Ranking, catalogue: Catalogue, ks: list[int], name: str, seconds: float) -> Measured:
    by_user, overall = metrics_by_user(ranking, ks), {}
    for metric, value in list_metrics(ranking, catalogue, ks).items():
        if not isinstance(value, np.ndarray):
            overall[metric] = value
        elif not np.isnan(value).all():
            by_user[metric] = value
    return Measured(name, ranking, by_user, overall, seconds)


def catalogue_of(recommender: Recommender) -> Catalogue:
    """What the model learned from."""
    dataset, config = recommender.dataset, recommender.config
    rows = recommender.positives_learned()
    history = Pairs.of(dataset.user_rows[rows], dataset.item_rows[rows], len(dataset.users))
    counts = np.bincount(history.items, minlength=len(dataset.items))
    name = category_feature(dataset, config.evaluation.category)
    traits = None if name is None else indicators(dataset, "item", name)[0]
    return Catalogue(counts, int((history.counts() > 0).sum()), rankable_items(recommender), traits, history)


def category_feature(dataset: Dataset, wanted: str | None = None) -> str | None:
    """The categorical feature of items that tells their kinds apart: `wanted`, or one with 2 to 200 values, of those that
    most items have the one named category or genre, else with the fewest values."""
    if wanted is not None:
        return wanted if wanted in dataset.items.column_names else None
    best: tuple[bool, int, str] | None = None
    for name in dataset.features("item"):
        column = dataset.items.column(name).combine_chunks()
        if not name.startswith("categorical.") or column.null_count > len(column) / 2:
            continue
        values = len(pc.unique(flat(column)[0]))
        named = any(word in name.split(".")[1].lower() for word in ("categor", "genre", "type", "class"))
        rank = (not named, values, name)
        if FEWEST <= values <= MOST and (best is None or rank < best):
            best = rank
    return None if best is None else best[2]


def indicators(dataset: Dataset, side: Side, name: str) -> tuple[sparse.csr_matrix, list[str]]:
    """(rows, values) 1 where a record has the value of a categorical feature, and the values, the commonest first."""
    column = dataset.table(side).column(name).combine_chunks()
    had, owners = flat(column)
    counts = pc.value_counts(had)
    order = np.lexsort((np.arange(len(counts)), -counts.field("counts").to_numpy()))
    values = counts.field("values").take(pa.array(order))
    place = pc.index_in(had, value_set=values).to_numpy(zero_copy_only=False)
    matrix = sparse.csr_matrix((np.ones(len(place)), (owners, place)), (len(column), len(values)))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix, [str(value) for value in values.to_pylist()]

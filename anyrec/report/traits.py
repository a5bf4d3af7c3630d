"""Hit ratios of traits: how many recommended items share a category, an author or the like with a user's items."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import sparse

from anyrec.core.types import JsonObject
from anyrec.data.item_facts import indicators
from anyrec.data.pairs import Pairs
from anyrec.data.split import PARTS, Part
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.statistics import Interval, intervals
from anyrec.model.fitted import FittedModel

BLOCK = 1024
"""Users computed at once."""


@dataclass(frozen=True)
class TraitRatios:
    """Hit ratios of one trait.

    Attributes:
        feature: Categorical feature of items.
        history: By model, the fraction of a user's recommended items that share a value with an item of the history.
        held_out: By model, the fraction that share a value with a held-out item of the user.
        by_chance: The two fractions for an item drawn at random from those that can be ranked; nan if no user has a
            value.
    """

    feature: str
    history: dict[str, Interval]
    held_out: dict[str, Interval]
    by_chance: tuple[float, float]

    def as_dict(self) -> JsonObject:
        """Return the ratios as JSON."""
        chance = [None if np.isnan(value) else value for value in self.by_chance]
        return {
            "history": {name: asdict(one) for name, one in self.history.items()},
            "held_out": {name: asdict(one) for name, one in self.held_out.items()},
            "by_chance": dict(zip(("history", "held_out"), chance, strict=True)),
        }


def trait_ratios(
    model: FittedModel, part: Part, models: list[EvaluationResult], rankable: np.ndarray, features: list[str], k: int
) -> list[TraitRatios]:
    """Return the hit ratios of each feature in the k best items of each user.

    Args:
        model: A model with its data.
        part: The split part of `models`.
        models: Results on the same targets.
        rankable: (items,) bool, the candidates.
        features: Categorical features of items.
        k: Length of the lists.
    """
    ranking, dataset = models[0].ranking, model.dataset
    if not len(ranking.users):
        return []
    held_out = Pairs.of(ranking.targets, ranking.items, len(dataset.users))
    references = (history_before(model, part), held_out)
    rng, draws = np.random.default_rng(model.config.seed), model.config.evaluation.diagnostics.pairs
    users = np.sort(rng.choice(ranking.users, draws))
    items = rng.choice(np.flatnonzero(rankable), (draws, 1))
    found = []
    for name in features:
        traits = indicators(dataset, "item", name)[0]
        values = [
            {one.name: shared(ranking.users, one.ranking.lists[:, :k], traits, reference) for one in models}
            for reference in references
        ]
        drawn = [shared(users, items, traits, reference) for reference in references]
        chance = [float(np.nanmean(one)) if not np.isnan(one).all() else float("nan") for one in drawn]
        history, of_held_out = map(intervals, values)
        found.append(TraitRatios(name, history, of_held_out, (chance[0], chance[1])))
    return found


def history_before(model: FittedModel, part: Part) -> Pairs:
    """Return the positives of each user before a part of the split."""
    learning = model.required_learning()
    rows = np.flatnonzero(learning.labels.positive & (learning.parts < PARTS.index(part)))
    return Pairs.of(learning.dataset.user_rows[rows], learning.dataset.item_rows[rows], len(learning.dataset.users))


def shared(users: np.ndarray, lists: np.ndarray, traits: sparse.csr_matrix, reference: Pairs) -> np.ndarray:
    """Return the fraction of each list's items that share a trait with the user's items.

    Args:
        users: (users,) user rows.
        lists: (users, length) item rows, -1 past the end.
        traits: (items, values) 1 where an item has a value.
        reference: Items of each user that the listed ones are compared with.

    Returns:
        (users,) float64; nan for an empty list, and for a user whose items have no value.
    """
    found, number = np.empty(len(users)), int(traits.get_shape()[0])
    for start in range(0, len(users), BLOCK):
        block = slice(start, start + BLOCK)
        rows, items = reference.take(users[block])
        size = len(users[block])
        mine = sparse.csr_matrix((np.ones(len(rows)), (rows, items)), (size, number))
        own = mine @ traits  # (users, values)
        places, columns = np.nonzero(lists[block] >= 0)
        common = np.asarray(own[places].multiply(traits[lists[block][places, columns]]).sum(1)).ravel() > 0
        length = np.bincount(places, minlength=size)
        known = (np.asarray(own.sum(1)).ravel() > 0) & (length > 0)
        hits = np.bincount(places, weights=common, minlength=size)
        found[block] = np.where(known, hits / np.maximum(length, 1), np.nan)
    return found

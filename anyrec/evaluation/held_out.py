"""A fitted recommender on the part of its data that was held out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from anyrec.data.dataset import Dataset, Side
from anyrec.data.labels import label_interactions
from anyrec.data.leaks import drop_leaks
from anyrec.data.split import Split, split_interactions
from anyrec.errors import DataError, Fault, ModelError
from anyrec.evaluation.ranking import Pairs, Ranking, rank_targets
from anyrec.model import SIDES, Model, move_columns
from anyrec.scoring import represent_rows, score_blocks

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


def rank_held_out(
    recommender: Recommender,
    part: Literal["validation", "test"],
    *,
    length: int | None = None,
    users: np.ndarray | None = None,
    vectors: dict[Side, Tensor] | None = None,
) -> Ranking:
    """Where the model ranks one part of the split; lists are as long as the greatest k of the config, or `length`.

    users: (n,) the only user rows to rank for, ascending. vectors: what the interaction reads of those users and of all
    items, instead of what the model makes of them. Raises ModelError for a model that was loaded without its data.
    """
    split, dataset, config = recommender.split, recommender.dataset, recommender.config
    if split is None:
        fault = Fault(
            "split", "this model was loaded without its data.", "Use with_data(dataset), or `anyrec evaluate --data`."
        )
        raise ModelError(fault)
    wanted = split.rows(part)
    known = known_rows(split, part, label_interactions(dataset, config.data).positive)
    if users is not None:
        wanted = wanted[np.isin(dataset.user_rows[wanted], users)]
    rankable = None
    if config.evaluation.candidates == "interacted":
        rankable = np.bincount(dataset.item_rows, minlength=len(dataset.items)) > 0
    model = recommender.model
    with recommender._inference():
        columns = recommender.columns
        if vectors is None:
            items = represent_rows(model, "item", columns["item"], len(dataset.items))
        else:
            items = vectors["item"]

        def score(rows: np.ndarray) -> Tensor:
            if vectors is not None:
                assert users is not None
                return score_blocks(model, vectors["user"][np.searchsorted(users, rows)], items)
            return score_blocks(model, represent_rows(model, "user", columns["user"], 0, rows), items)

        return rank_targets(
            score,
            Pairs.of(dataset.user_rows[wanted], dataset.item_rows[wanted], len(dataset.users)),
            Pairs.of(dataset.user_rows[known], dataset.item_rows[known], len(dataset.users)),
            rankable,
            length=length or max(config.evaluation.k),
            batch_size=config.evaluation.batch_size,
            sample=config.evaluation.candidate_samples,
            seed=config.seed,
        )


def known_rows(split: Split, part: str, positive: np.ndarray) -> np.ndarray:
    """The positives that are no longer to be recommended when `part` is ranked: at test time those of validation too."""
    known = split.train if part == "validation" else np.concatenate([split.train, split.validation])
    return known[positive[known]]


def with_data(recommender: Recommender, dataset: Dataset) -> Recommender:
    """The recommender beside the data it was trained on, split again as it was."""
    fresh = copy.copy(recommender)
    config = recommender.config
    dataset = dataset.sorted()
    labels = label_interactions(dataset, config.data)
    fresh.split, notes = split_interactions(dataset, config.split, config.seed, labels.positive)
    fresh.dataset, leaks = drop_leaks(dataset, fresh.split, config.data)
    fresh.notes = [*recommender.notes, *dataset.notes, *notes, *leaks]
    if recommender.fingerprint is not None and fresh.dataset.fingerprint() != recommender.fingerprint:
        fault = Fault(
            "data",
            "this is not the data that the model was trained on.",
            "Give that, or measure with lists of your own (`anyrec evaluate --truth`).",
            "other data",
        )
        raise DataError(fault)
    recommender.context.root = Path(config.data.image_root) if config.data.image_root else dataset.root
    if not isinstance(recommender.model, Model):
        fresh.columns = {"user": {}, "item": {}}
        return fresh
    fresh.columns = {
        side: move_columns(recommender.model.tower(side).prepare(fresh.dataset.table(side), side), recommender.device)
        for side in SIDES
    }
    return fresh

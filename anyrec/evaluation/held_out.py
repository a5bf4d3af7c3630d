"""A fitted recommender on the part of its data that was held out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.leaks import drop_leaks
from anyrec.data.split import split_interactions
from anyrec.errors import Fault, ModelError
from anyrec.evaluation.ranking import Pairs, Ranking, rank_targets
from anyrec.model import SIDES, Model, move_columns
from anyrec.scoring import represent_rows, score_blocks

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


def rank_held_out(
    recommender: Recommender, part: Literal["validation", "test"], *, length: int | None = None
) -> Ranking:
    """Where the model ranks one part of the split; lists are as long as the greatest k of the config, or `length`.

    Raises ModelError for a model that was loaded without its data.
    """
    split, dataset, config = recommender.split, recommender.dataset, recommender.config
    if split is None:
        raise ModelError(
            Fault(
                "split",
                "this model was loaded without its data.",
                "Use with_data(dataset), or `anyrec evaluate --data`.",
            )
        )
    labels = label_interactions(dataset, config.data)
    wanted = split.rows(part)
    known = split.train if part == "validation" else np.concatenate([split.train, split.validation])
    known = known[labels.positive[known]]
    rankable = None
    if config.evaluation.candidates == "interacted":
        rankable = np.bincount(dataset.item_rows, minlength=len(dataset.items)) > 0
    model, columns = recommender.model, recommender.columns
    training = model.training
    model.eval()
    with torch.inference_mode():
        items = represent_rows(model, "item", columns["item"], len(dataset.items))

        def score(users: np.ndarray) -> Tensor:
            return score_blocks(model, represent_rows(model, "user", columns["user"], 0, users), items)

        ranking = rank_targets(
            score,
            Pairs.of(dataset.user_rows[wanted], dataset.item_rows[wanted], len(dataset.users)),
            Pairs.of(dataset.user_rows[known], dataset.item_rows[known], len(dataset.users)),
            rankable,
            length=length or max(config.evaluation.k),
            batch_size=config.evaluation.batch_size,
            sample=config.evaluation.candidate_samples,
            seed=config.seed,
        )
    model.train(training)
    return ranking


def with_data(recommender: Recommender, dataset: Dataset) -> Recommender:
    """The recommender beside the data it was trained on, split again as it was."""
    fresh = copy.copy(recommender)
    config = recommender.config
    dataset = dataset.sorted()
    labels = label_interactions(dataset, config.data)
    fresh.split, _ = split_interactions(dataset, config.split, config.seed, labels.positive)
    fresh.dataset, _ = drop_leaks(dataset, fresh.split, config.data)
    recommender.context.root = Path(config.data.image_root) if config.data.image_root else dataset.root
    if not isinstance(recommender.model, Model):
        fresh.columns = {"user": {}, "item": {}}
        return fresh
    fresh.columns = {
        side: move_columns(recommender.model.tower(side).prepare(fresh.dataset.table(side), side), recommender.device)
        for side in SIDES
    }
    return fresh

"""A fitted recommender on the part of its data that was held out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from torch import Tensor

from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.leaks import drop_leaks
from anyrec.data.split import Split, make_split
from anyrec.errors import DataError, Fault, ModelError
from anyrec.evaluation.ranking import Pairs, Ranking, rank_targets
from anyrec.model import SIDES, Model, move_columns
from anyrec.scoring import represent_rows, score_blocks, vectors_for_histories

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


class HeldOut(NamedTuple):
    """What a part of the split asks of any model. targets: what each user is tested on; known: what they are not shown again
    (None: nothing); rankable: (items,) bool."""

    targets: Pairs
    known: Pairs | None
    rankable: np.ndarray


def held_out(recommender: Recommender, part: Literal["validation", "test"], users: np.ndarray | None = None) -> HeldOut:
    """One part of the recommender's split; the same for every model beside it. users: the only user rows to test.

    Raises ModelError for a model that was loaded without its data.
    """
    split, dataset = recommender.split, recommender.dataset
    if split is None:
        fault = Fault(
            "split", "this model was loaded without its data.", "Use with_data(dataset), or `anyrec evaluate --data`."
        )
        raise ModelError(fault)
    wanted = split.rows(part)
    if users is not None:
        wanted = wanted[np.isin(dataset.user_rows[wanted], users)]
    known = known_rows(split, part, label_interactions(dataset, recommender.config.data).positive)
    targets, barred = (
        Pairs.of(dataset.user_rows[r], dataset.item_rows[r], len(dataset.users)) for r in (wanted, known)
    )
    return HeldOut(targets, barred, rankable_items(recommender))


def rankable_items(recommender: Recommender) -> np.ndarray:
    """(items,) bool, by `evaluation.candidates`: all, or those that occur in an interaction."""
    number = len(recommender.dataset.items)
    if recommender.config.evaluation.candidates == "all":
        return np.ones(number, bool)
    return np.bincount(recommender.seen.items, minlength=number) > 0


def rank_held_out(
    recommender: Recommender,
    part: Literal["validation", "test"],
    *,
    length: int | None = None,
    held: HeldOut | None = None,
) -> Ranking:
    """Where the model ranks one part of the split. held: that part, where it is at hand; length: as for `rank_pairs`."""
    held = held or held_out(recommender, part)
    model, columns, users = recommender.model, recommender.columns["item"], recommender.users_before(part)
    with recommender._inference():
        items = represent_rows(model, "item", columns, len(recommender.dataset.items))
        vectors = vectors_for_histories(model, columns, items)

        def score(rows: np.ndarray) -> Tensor:
            return score_blocks(model, represent_rows(model, "user", users, 0, rows, vectors), items)

        return rank_pairs(recommender, held, score, length)


def rank_pairs(
    recommender: Recommender, held: HeldOut, score: Callable[[np.ndarray], Tensor], length: int | None = None
) -> Ranking:
    """`rank_targets` as the config would have it; lists are as long as its greatest k, or `length`."""
    config = recommender.config
    return rank_targets(
        score,
        *held,
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
    fresh.split, notes = make_split(dataset, config, labels.positive)
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

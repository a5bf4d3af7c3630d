"""A fitted recommender on the part of its data that was held out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from torch import Tensor

from anyrec.core.errors import DataError, Fault, ModelError
from anyrec.core.outside import ALLOW
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.leaks import drop_leaks
from anyrec.data.split import Part, make_split
from anyrec.evaluation.ranking import Pairs, Ranking, rank_targets
from anyrec.model.scoring import score_blocks
from anyrec.model.towers import SIDES, Model, move_columns

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


Repeats = Literal["miss", "drop", "include_seen"]


class HeldOut(NamedTuple):
    """What a part of the split asks of any model.

    targets: what each user is tested on. known: what each user had before. rankable: (items,) bool.
    exclude_seen: whether lists leave out `known`, so that a target among it cannot be listed.
    """

    targets: Pairs
    known: Pairs
    rankable: np.ndarray
    exclude_seen: bool = True

    @property
    def repeated(self) -> np.ndarray:
        """(targets,) bool: targets that their user had before."""
        return self.known.contains(self.targets.owners(), self.targets.items)

    @property
    def listable(self) -> np.ndarray:
        """(targets,) bool: targets that a list can contain."""
        repeated = self.repeated
        return ~repeated if self.exclude_seen else np.ones_like(repeated)


def held_out(
    recommender: Recommender, part: Part, users: np.ndarray | None = None, repeats: Repeats | None = None
) -> HeldOut:
    """One part of the recommender's split; the same for every model that is measured on it.

    Args:
        users: the only user rows to test.
        repeats: what becomes of targets that their user had before; by default `evaluation.repeats`.

    Raises:
        ModelError: if the model was loaded without its data.
    """
    split, dataset = recommender.split, recommender.dataset
    if split is None:
        fault = Fault(
            "split", "this model was loaded without its data.", "Use with_data(dataset), or `anyrec evaluate --data`."
        )
        raise ModelError(fault)
    wanted = split.rows(part)
    wanted = wanted[label_interactions(dataset, recommender.config.data).positive[wanted]]
    if users is not None:
        wanted = wanted[np.isin(dataset.user_rows[wanted], users)]
    targets = Pairs.of(dataset.user_rows[wanted], dataset.item_rows[wanted], len(dataset.users))
    known = recommender.seen_before(part)
    return apply_repeats(
        HeldOut(targets, known, rankable_items(recommender)), repeats or recommender.config.evaluation.repeats
    )


def apply_repeats(held: HeldOut, repeats: Repeats) -> HeldOut:
    """`miss`: lists leave out what was had before. `drop`: so do the targets. `include_seen`: neither."""
    if repeats == "drop":
        held = held._replace(targets=held.targets.where(~held.repeated))
    return held._replace(exclude_seen=repeats != "include_seen")


def rankable_items(recommender: Recommender) -> np.ndarray:
    """(items,) bool, by `evaluation.candidates`: all, or those that occur in an interaction."""
    number = len(recommender.dataset.items)
    if recommender.config.evaluation.candidates == "all":
        return np.ones(number, bool)
    return np.bincount(recommender.seen.items, minlength=number) > 0


def rank_held_out(
    recommender: Recommender, part: Part, *, length: int | None = None, held: HeldOut | None = None
) -> Ranking:
    """Where the model ranks one part of the split. held: that part, where it is at hand; length: as for `rank_pairs`."""
    held = held or held_out(recommender, part)
    return rank_state(recommender.before(part), held, length)


def rank_state(state: Recommender, held: HeldOut, length: int | None = None) -> Ranking:
    """Where a recommender ranks the targets as it stands. state: as `Recommender.before` returns it."""
    with state._inference():
        items = state._known_rows("item")
        return rank_pairs(state, held, lambda rows: score_blocks(state.model, state._users(rows), items), length)


def rank_pairs(
    recommender: Recommender, held: HeldOut, score: Callable[[np.ndarray], Tensor], length: int | None = None
) -> Ranking:
    """`rank_targets` as the config would have it; lists are as long as its greatest k, or `length`."""
    config = recommender.config
    return rank_targets(
        score,
        held.targets,
        held.known if held.exclude_seen else None,
        held.rankable,
        length=length or max(config.evaluation.k),
        batch_size=config.evaluation.batch_size,
        sample=config.evaluation.candidate_samples,
        seed=config.seed,
    )


def refuse_refitted(recommender: Recommender, part: Part) -> None:
    """Raises ModelError for the validation part of a model that has learned from it."""
    if part != "validation" or not recommender.refitted:
        return
    before = recommender.metrics.get("validation", {})
    name = recommender.config.training.metric
    measured = f" Before the refit, validation {name} was {before[name]:.4f}." if name in before else ""
    fault = Fault(
        "validation",
        f"the refitted model (training.refit) has learned from the validation part.{measured}",
        "Measure on the test part, or train with training.refit=false.",
        "refitted",
    )
    raise ModelError(fault)


def with_data(recommender: Recommender, dataset: Dataset) -> Recommender:
    """The recommender beside the data it was trained on, split again as it was."""
    fresh = copy.copy(recommender)
    config = recommender.config
    dataset = dataset.sorted()
    labels = label_interactions(dataset, config.data)
    if config.split.file is not None and not recommender.context.trusted:
        what = f"the model names the file of its split, outside its folder: {config.split.file!r}."
        raise ModelError(Fault("/split/file", what, ALLOW, "untrusted"))
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
    fresh._remember(labels, events=recommender.history is not None)
    fresh.context = fresh.request_context(Path(config.data.image_root) if config.data.image_root else dataset.root)
    fresh.context.open_files = True  # the records are now the caller's
    model = recommender.model
    if not isinstance(model, Model):
        fresh.columns = {"user": {}, "item": {}}
        return fresh
    fresh.columns = {
        side: move_columns(
            model.tower(side).prepare(fresh.dataset.table(side), side, fresh.context), recommender.device
        )
        for side in SIDES
    }
    return fresh

"""A fitted model on the part of its data that was held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anyrec.core.errors import Fault, ModelError
from anyrec.data.pairs import Pairs
from anyrec.data.split import Part
from anyrec.evaluation.ranking import Ranking, rank_targets
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import score_blocks

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
    model: FittedModel, part: Part, users: np.ndarray | None = None, repeats: Repeats | None = None
) -> HeldOut:
    """Return one part of the model's split; the same for every model that is measured on it.

    Args:
        model: A model with its data.
        part: The part.
        users: The only user rows to test; by default all.
        repeats: How targets that their user had before are counted; by default `evaluation.repeats`.

    Raises:
        ModelError: If the model was loaded without its data.
    """
    learning = model.required_learning()
    dataset, wanted = learning.dataset, learning.held_out(part)
    if users is not None:
        wanted = wanted[np.isin(dataset.user_rows[wanted], users)]
    targets = Pairs.of(dataset.user_rows[wanted], dataset.item_rows[wanted], len(dataset.users))
    held = HeldOut(targets, model.seen_before(part), rankable_items(model))
    return apply_repeats(held, repeats or model.config.evaluation.repeats)


def apply_repeats(held: HeldOut, repeats: Repeats) -> HeldOut:
    """`miss`: lists leave out what was had before. `drop`: so do the targets. `include_seen`: neither."""
    if repeats == "drop":
        held = held._replace(targets=held.targets.where(~held.repeated))
    return held._replace(exclude_seen=repeats != "include_seen")


def rankable_items(model: FittedModel) -> np.ndarray:
    """(items,) bool, by `evaluation.candidates`: all, or those that occur in an interaction."""
    number = len(model.dataset.items)
    if model.config.evaluation.candidates == "all":
        return np.ones(number, bool)
    return np.bincount(model.seen.items, minlength=number) > 0


def rank_held_out(model: FittedModel, part: Part, *, length: int | None = None, held: HeldOut | None = None) -> Ranking:
    """Where the model ranks one part of the split. held: that part, where it is at hand; length: as for `rank_pairs`."""
    held = held or held_out(model, part)
    return rank_state(model.before(part), held, length)


def rank_state(state: FittedModel, held: HeldOut, length: int | None = None) -> Ranking:
    """Rank the targets with a model as it is. state: as `FittedModel.before` returns it; length: as for `rank_pairs`."""
    with torch.inference_mode():
        items = state.representations("item")
        return rank_pairs(
            state, held, lambda rows: score_blocks(state.scorer, state.user_representations(rows), items), length
        )


def rank_pairs(
    model: FittedModel, held: HeldOut, score: Callable[[np.ndarray], Tensor], length: int | None = None
) -> Ranking:
    """`rank_targets` as the config would have it; lists are as long as its greatest k, or `length`."""
    config = model.config
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


def refuse_refitted(model: FittedModel, part: Part) -> None:
    """Raises ModelError for the validation part of a model that has learned from it."""
    if part != "validation" or not model.refitted:
        return
    before = model.before_refit or {}
    name = model.config.training.metric
    measured = f" Before the refit, validation {name} was {before[name]:.4f}." if name in before else ""
    fault = Fault(
        "validation",
        f"the refitted model (training.refit) has learned from the validation part.{measured}",
        "Measure on the test part, or train with training.refit=false.",
        "refitted",
    )
    raise ModelError(fault)

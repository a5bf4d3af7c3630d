"""The held-out targets of a split part, and their ranking by a fitted model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

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


@dataclass(frozen=True)
class HeldOut:
    """The targets of a split part. They do not depend on the model that is evaluated.

    Attributes:
        targets: The held-out items of each user.
        seen: The items that each user interacted with before the part.
        rankable: (items,) bool, the candidates.
        exclude_seen: Whether lists exclude `seen`. If so, a target among them cannot be listed.
    """

    targets: Pairs
    seen: Pairs
    rankable: np.ndarray
    exclude_seen: bool = True

    @property
    def repeated(self) -> np.ndarray:
        """(targets,) bool: targets that their user interacted with before the part."""
        return self.seen.contains(self.targets.owners(), self.targets.items)

    @property
    def listable(self) -> np.ndarray:
        """(targets,) bool: targets that a list can contain."""
        repeated = self.repeated
        return ~repeated if self.exclude_seen else np.ones_like(repeated)


def held_out(
    model: FittedModel, part: Part, users: np.ndarray | None = None, repeats: Repeats | None = None
) -> HeldOut:
    """Return the targets of one part of the model's split.

    Args:
        model: A model with its data.
        part: The split part.
        users: Rows of the users to evaluate; by default all.
        repeats: How repeated targets are counted; by default `evaluation.repeats`.

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
    """Apply the rule for repeated targets.

    `miss`: lists exclude seen items, so repeated targets are misses. `drop`: lists exclude seen items, and repeated
    targets are removed. `include_seen`: lists contain seen items, and repeated targets are ranked.
    """
    if repeats == "drop":
        held = replace(held, targets=held.targets.where(~held.repeated))
    return replace(held, exclude_seen=repeats != "include_seen")


def rankable_items(model: FittedModel) -> np.ndarray:
    """Return (items,) bool, the candidates by `evaluation.candidates`: all items, or those with an interaction."""
    if model.config.evaluation.candidates == "all":
        return np.ones(len(model.dataset.items), bool)
    return model.item_users > 0


def rank_held_out(model: FittedModel, part: Part, *, length: int | None = None, held: HeldOut | None = None) -> Ranking:
    """Rank the targets of a split part with the model as it was before that part.

    Args:
        model: A model with its data.
        part: The split part.
        length: Length of the lists, as in `rank_pairs`.
        held: The targets, if the caller computed them already.
    """
    held = held or held_out(model, part)
    return rank_state(model.before(part), held, length)


def rank_state(state: FittedModel, held: HeldOut, length: int | None = None) -> Ranking:
    """Rank the targets with a model as it is.

    Args:
        state: A model as `FittedModel.before` returns it.
        held: The targets.
        length: Length of the lists, as in `rank_pairs`.
    """
    with torch.inference_mode():
        items = state.representations("item")
        return rank_pairs(
            state, held, lambda rows: score_blocks(state.scorer, state.user_representations(rows), items), length
        )


def rank_pairs(
    model: FittedModel, held: HeldOut, score: Callable[[np.ndarray], Tensor], length: int | None = None
) -> Ranking:
    """Call `rank_targets` with the options of the config.

    Args:
        model: The model whose config is used.
        held: The targets.
        score: As for `rank_targets`.
        length: Length of the lists; by default the greatest k of `evaluation.k`.
    """
    config = model.config
    return rank_targets(
        score,
        held.targets,
        held.seen if held.exclude_seen else None,
        held.rankable,
        length=length or max(config.evaluation.k),
        batch_size=config.evaluation.batch_size,
        sample=config.evaluation.candidate_samples,
        seed=config.seed,
    )


def refuse_refitted(model: FittedModel, part: Part) -> None:
    """Raise an error for the validation part of a model that was refitted on it.

    Raises:
        ModelError: If the model was trained on the validation part (`training.refit`).
    """
    if part != "validation" or not model.refitted:
        return
    before = model.before_refit or {}
    name = model.config.training.metric
    measured = f" Before the refit, validation {name} was {before[name]:.4f}." if name in before else ""
    fault = Fault(
        "validation",
        f"a part of this model (training.refit, or blend.refit) has learned from the validation part.{measured}",
        "Measure on the test part, or train with training.refit=false.",
        "refitted",
    )
    raise ModelError(fault)

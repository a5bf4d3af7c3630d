"""What training optimises: losses, samplers of negatives, and heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, Protocol

import pyarrow as pa
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from anyrec.core.params import Params as Options
from anyrec.core.processes import Processes
from anyrec.core.ragged import Prepared
from anyrec.core.registry import Registry
from anyrec.core.types import ComponentParams, JsonObject

MASK_VALUE = 1e30
"""Subtracted from the score of an item that must not count as a negative."""

FillMask = Callable[[int, int, Tensor], object]
"""(low, high, scores): sets `scores: (high - low, items)` to -MASK_VALUE for items that must not count in the rows
`low` to `high` of a batch, and to 0 elsewhere."""


class Head(nn.Module):
    """Predicts something else than the match score (the interaction type, a rating) for a user-item pair.

    Args:
        dim: Last dimension of the input, the `pair_dim` of the interaction.
        params: The options; by default those of `Params()`. `weight` is the weight of the head's loss.

    Attributes:
        type: Name of the head in a config.
        target: Column of the interactions that it learns: `interaction_type`, `rating`, `label`, ...
        task: What `answer` returns, which decides how the head is measured: "classes", probabilities (batch, classes)
            of `class_names`; "binary", the probability (batch,) of a target of 1; "number", the target itself (batch,).
            Empty: the head is not measured.

    Example:
        class Liked(Head):
            type = "liked"
            target = "label"
            task = "binary"

            def build(self):
                self.layer = nn.Linear(self.dim, 1)

            def targets(self, column):
                present = torch.tensor(column.is_valid().to_pylist())
                return Prepared(torch.tensor(column.fill_null(0).to_pylist()).float(), present)

            def forward(self, pair):
                return self.layer(pair).squeeze(-1)

            def loss(self, prediction, target):
                return functional.binary_cross_entropy_with_logits(prediction, target, reduction="none")

            def answer(self, prediction):
                return prediction.sigmoid()
    """

    type: ClassVar[str]  # pyright: ignore[reportIncompatibleMethodOverride]  nothing calls Module.type(dtype)
    target: ClassVar[str] = ""
    task: ClassVar[Literal["classes", "binary", "number", ""]] = ""

    class Params(Options):
        weight: float = Field(default=1.0, ge=0, le=1e6)

    def __init__(self, dim: int, params: BaseModel | None = None):
        super().__init__()
        self.dim = dim
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def fit(self, column: pa.Array) -> None:
        """Learn the classes or the scale.

        Args:
            column: (rows,) the target of the training interactions, nulls included.
        """

    def build(self) -> None:
        """Create all layers. Called once, after `fit` or `restore`."""

    def targets(self, column: pa.Array) -> Prepared:
        """Convert the target column to a tensor, with a mask of the interactions that have a target.

        Args:
            column: (rows,) the target of the interactions.
        """
        raise NotImplementedError(f"head '{self.type}' has no targets()")

    def forward(self, pair: Tensor) -> Tensor:
        """Predict.

        Args:
            pair: (batch, dim), what `Interaction.pair` returned.

        Returns:
            (batch, ...).
        """
        raise NotImplementedError(f"head '{self.type}' has no forward()")

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each pair.

        Args:
            prediction: (batch, ...), what `forward` returned.
            target: (batch,).

        Returns:
            (batch,).
        """
        raise NotImplementedError(f"head '{self.type}' has no loss()")

    def answer(self, prediction: Tensor) -> Tensor:
        """Return what users get: probabilities instead of their logarithms, for example.

        Args:
            prediction: (batch, ...), what `forward` returned.

        Returns:
            (batch, ...), as `task` says; by default the prediction itself.
        """
        return prediction

    def class_names(self) -> list[str]:
        """Return the names of the columns of `answer`; empty if it is one number."""
        return []

    def state(self) -> JsonObject:
        """Return what `fit` learned: JSON values, and Arrow arrays, NumPy arrays and tensors of any rank."""
        return {}

    def restore(self, state: JsonObject) -> None:
        """Take back what `state` returned."""


class Loss(nn.Module):
    """Compares the scores of positives with those of their negatives.

    Args:
        params: The options; by default those of `Params()`.

    Attributes:
        type: Name of the loss in a config.
        corrected: True if the negatives' scores need the logQ correction: the log of how often each item is expected to
            be drawn is subtracted from its score.
        all_items: True if the negatives are all other items (full softmax) instead of a sample.
        blockwise: True if the loss implements `over_catalogue`.
        shares_users: True if `over_catalogue` accepts `owners`.
        slices_items: True if the loss implements `over_slice`, for training on several processes.
        temperature: Scores are divided by it, before the correction.
        num_items: Number of items; the frame sets it before training.

    Example:
        class Hinge(Loss):
            type = "hinge"

            def forward(self, positive, negative, valid, weight):
                gaps = (1 - positive.unsqueeze(1) + negative).relu()
                losses = (gaps if valid is None else gaps * valid).sum(1)
                return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()
    """

    type: ClassVar[str]  # pyright: ignore[reportIncompatibleMethodOverride]  nothing calls Module.type(dtype)
    corrected: ClassVar[bool] = False
    all_items: bool = False
    blockwise: ClassVar[bool] = False
    shares_users: ClassVar[bool] = False
    slices_items: ClassVar[bool] = False
    temperature: float = 1.0
    num_items: int = 0

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a component declares its own as a nested class `Params`."""

    def __init__(self, params: BaseModel | None = None):
        super().__init__()
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def build(self, registry: Registry) -> None:
        """Create the losses that this one consists of. Called once, before training."""

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        """Compute the weighted mean loss: sum(weight * loss) / sum(weight).

        Args:
            positive: (batch,) scores.
            negative: (batch, negatives) scores.
            valid: (batch, negatives) bool, False for a negative that must not count. None: all count.
            weight: (batch,) weight of each positive. None: all 1.

        Returns:
            A scalar. A row without a valid negative adds zero (ranking losses) or its positive term only (pointwise
            losses).
        """
        raise NotImplementedError(f"loss '{self.type}' has no forward()")

    def over_catalogue(
        self,
        users: Tensor,
        items: Tensor,
        target: Tensor,
        fill_mask: FillMask,
        weight: Tensor | None,
        owners: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss over all items in blocks, so that the (batch, items) scores are never stored.

        Called instead of `forward` if `all_items` and `blockwise` are true and the scores are dot products.

        Args:
            users: (batch, dim).
            items: (items, dim), all items.
            target: (batch,) rows of the positives in `items`; with `owners` (positives,).
            fill_mask: Masks the items that are no negatives. It may mask the target, which counts all the same.
            weight: (batch,) or (positives,) weight of each positive. None: all 1.
            owners: (positives,) int64, ascending, the row of `users` that predicts each positive; None if each has its
                own row. Given only if `shares_users` is true.

        Returns:
            A scalar, as of `forward`.
        """
        raise NotImplementedError(f"loss '{self.type}' has no over_catalogue()")

    def over_slice(
        self,
        users: Tensor,
        items: Tensor,
        first: int,
        target: Tensor,
        owners: Tensor,
        fill_mask: FillMask,
        weight: Tensor | None,
        processes: Processes,
    ) -> Tensor:
        """Compute the loss over all items together with other processes, each of which has a slice of the items.

        Called in each process instead of `over_catalogue` if several processes train and `slices_items` is true.

        Args:
            users: (batch, dim) of this process.
            items: (slice, dim) of this process; the slices of all processes are the catalogue.
            first: Row of the first of `items` in the catalogue.
            target: (positives,) rows of this process's positives in the catalogue.
            owners: (positives,) int64, ascending, the row of `users` that predicts each positive.
            fill_mask: Masks the items of the slice that are no negatives, for rows of the users of all processes, in
                the order of the processes. It may mask targets.
            weight: (positives,) weight of each positive. None: all 1.
            processes: The processes.

        Returns:
            A scalar. The sum over the processes is the loss, and the gradients are those of this sum.
        """
        raise NotImplementedError(f"loss '{self.type}' has no over_slice()")


class Negatives(NamedTuple):
    """The negatives of a batch.

    Attributes:
        items: (groups, negatives) int64 item rows. The batch is cut into `groups` equal runs, and each run shares its
            negatives. With 1 group all positives share them; with as many groups as positives each has its own.
        valid: (batch, negatives) bool; False if that user has the item (`TrainingPositives`). None: all are valid.
        log_q: (groups or batch, negatives), or 1 for either dimension: log of the expected number of times that an item
            is drawn. Subtracting it from the score makes the sum of exponentials over the negatives an unbiased
            estimate of the sum over all items. The positive needs no correction, since it is always present
            (Khrylchenko et al., Correcting the LogQ Correction, 2025).

    Example:
        Negatives(rows.unsqueeze(0), ~positives.contains(users, rows), None)  # rows: (negatives,), shared by the batch
    """

    items: Tensor
    valid: Tensor | None
    log_q: Tensor | None


class TrainingPositives(Protocol):
    """The items that each user has, as a sampler sees them (`anyrec.data.positives.Positives`).

    A user has the items of the training positives and, with `negatives.exclude: interacted`, those of all other
    training interactions. None of them is a negative of the user.

    Attributes:
        num_users: Number of users.
        num_items: Number of items.
        items: (pairs,) int64 distinct item rows of each user, ascending, users one after another.
        offsets: (users + 1,) int64; the items of user u are `items[offsets[u]:offsets[u + 1]]`.
        counts: (users,) int64 number of distinct items of each user.
        popularity: (items,) int64 number of users that have a positive with each item.
        repeats: (items,) int64 number of training positives with each item.
    """

    num_users: int
    num_items: int
    items: Tensor
    offsets: Tensor
    counts: Tensor
    popularity: Tensor
    repeats: Tensor

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each user has each item.

        Args:
            users: (batch,).
            items: (n,) for all users, (batch, n), or (groups, n), each group for an equal run of the users.

        Returns:
            (batch, n) bool.
        """
        ...

    def draw_outside(self, users: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw items that the users do not have, uniformly and with replacement.

        Args:
            users: (batch,).
            count: Items for each user.
            generator: Source of the random numbers.

        Returns:
            (batch, count) item rows, and (batch, 1) bool, False for a user who has all items.
        """
        ...


class Sampler:
    """Draws negatives for a whole batch at once, on the device, with `sample` or `sample_top`.

    Args:
        positives: The items that each user has, which are no negatives of the user.
        params: The options; by default those of `Params()`.

    Attributes:
        type: Name of the sampler in a config (`negatives.type`).
        group_size: Batches come in multiples of it.
        reads_ratio: False if the number of negatives does not depend on `negative_ratio`.
        from_batch: True if nothing is drawn: the negatives of a group of positives are the items of the group, in their
            order. Several processes then sample their own groups only.
        top: The sampler draws from this many items with the highest present scores: training calls `sample_top`. 0: it
            calls `sample`.
        refresh: With `top`, the number of steps for which the vectors of the items are kept.
        labelled: True if no negatives are drawn, because interactions with a label of 0 are learned as samples of their
            own.
        losses: Names of the losses that the sampler can be combined with; None for all.

    Example:
        class Newest(Sampler):
            type = "newest"

            def sample(self, users, items, ratio, generator):
                drawn = torch.arange(self.positives.num_items - ratio, self.positives.num_items, device=users.device)
                return Negatives(drawn.unsqueeze(0), ~self.positives.contains(users, drawn), None)
    """

    type: ClassVar[str]  # pyright: ignore[reportIncompatibleMethodOverride]  nothing calls Module.type(dtype)
    group_size: int = 1
    reads_ratio: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    top: int = 0
    refresh: int = 1
    labelled: ClassVar[bool] = False
    losses: ClassVar[tuple[str, ...] | None] = None

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a component declares its own as a nested class `Params`."""

    def __init__(self, positives: TrainingPositives, params: BaseModel | None = None):
        self.positives = positives
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        """Draw the negatives of a batch.

        Args:
            users: (batch,) user rows of the positives.
            items: (batch,) item rows of the positives.
            ratio: Requested number of negatives for each positive.
            generator: Source of the random numbers, on the device of `users`.
        """
        raise NotImplementedError(f"sampler '{self.type}' has no sample()")

    def sample_top(self, best: Tensor, there: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        """Draw the negatives of a batch from the items that the model scores highest for the user of each positive.

        Args:
            best: (batch, top) item rows, without the items that the user has, in descending order of score.
            there: (batch, top) bool, False past the end of a shorter list.
            ratio: Requested number of negatives for each positive.
            generator: Source of the random numbers, on the device of `best`.
        """
        raise NotImplementedError(f"sampler '{self.type}' has no sample_top()")

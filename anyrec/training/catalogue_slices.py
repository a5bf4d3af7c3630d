"""The catalogue in a training on several processes: each encodes a slice of the items and scores all users with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anyrec.core.contracts import MASK_VALUE, FillMask, Loss
from anyrec.core.precision import at_least_float32
from anyrec.core.processes import Processes
from anyrec.core.row_masks import part_of
from anyrec.core.sharded_tables import ShardedTable, lookup
from anyrec.data.positives import Positives
from anyrec.model.towers import IDENTITY
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.samples import TrainingData

TABLE_CELLS = 1 << 22
"""If the distinct users of a step times the items are at most this (16 MB), the mask is computed once for each user and
copied to the rows of their positives. With histories, the positives of a batch come user by user."""


class CatalogueSlices:
    """The slices of the item vectors in a step, one for each process.

    Args:
        model: The model that is trained.
        data: The training data on the device.
        processes: The processes that share each step.

    Attributes:
        processes: The processes.
        bounds: (processes + 1,) the first item row of each slice, and the end.
        divided: Whether the table of the items' ids is divided over the processes.
    """

    def __init__(self, model: TwoTower, data: TrainingData, processes: Processes):
        self.model, self.data, self.processes = model, data, processes
        encoders = dict(zip(model.item.features, model.item.encoders, strict=True))
        table = _table(encoders.get(IDENTITY))
        self.divided = table is not None
        self.bounds = slice_bounds(table, data, processes)
        self.first, self.end = self.bounds[processes.rank : processes.rank + 2]

    def vectors(self) -> Tensor:
        """Return (slice, dim), what the interaction reads of the items of this process."""
        rows = torch.arange(self.first, self.end, device=self.data.samples.items.device)
        with part_of(slice(self.first, self.end), self.data.num_items):
            return self.model.represent("item", self.data.items, rows)

    def of(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Return the vectors (rows, dim) of items of any slice. vectors: (slice, dim) of the own slice."""
        return lookup(vectors, rows, self.bounds, self.processes)

    def loss(
        self,
        compare: Loss,
        positives: Positives,
        users: Tensor,
        items: Tensor,
        user_rows: Tensor,
        targets: Tensor,
        owners: Tensor | None,
        weight: Tensor | None,
    ) -> Tensor:
        """Compute this process's part of the mean of weight * loss over the positives of all processes.

        Args:
            compare: The loss.
            positives: The items that are no negatives.
            users: (users, dim) of the own positives.
            items: (slice, dim).
            user_rows: (users,) their rows.
            targets: (positives,) item rows of the own positives.
            owners: (positives,) the row of `users` that predicts each positive; None if each has its own.
            weight: (positives,) weights of the positives; None: all 1.
        """
        every = self.processes.gather(user_rows)
        left, right = self.model.interaction.user_vectors(users), self.model.interaction.item_vectors(items)
        fill_mask = catalogue_mask(positives, every, at_least_float32(left), self.first, len(items))
        owners = torch.arange(len(targets), device=targets.device) if owners is None else owners
        return compare.over_slice(left, right, self.first, targets, owners, fill_mask, weight, self.processes)


def slice_bounds(table: ShardedTable | None, data: TrainingData, processes: Processes) -> list[int]:
    """Return the first item row of each process's slice, and the end.

    If the table of item ids is divided, a slice has the items whose ids the process has, so that no row of the table is
    exchanged to encode it. Both are sorted by id.
    """
    if table is not None and IDENTITY in data.items:
        values, present = data.items[IDENTITY]
        assert isinstance(values, Tensor)
        reached = torch.where(present, values, -1).cummax(0).values  # items without a table row follow the one before
        if bool((reached[present] == values[present]).all()):
            inner = torch.tensor(table.bounds[1:-1], device=values.device)
            return [0, *torch.searchsorted(reached, inner).tolist(), data.num_items]
    return processes.bounds(data.num_items)


def _table(encoder: nn.Module | None) -> ShardedTable | None:
    """Return the sharded table of an encoder, if it has one."""
    tables = [] if encoder is None else [one for one in encoder.modules() if isinstance(one, ShardedTable)]
    return tables[0] if len(tables) == 1 else None


def catalogue_mask(positives: Positives, user_rows: Tensor, like: Tensor, first: int, count: int) -> FillMask:
    """Return the function that masks the items that are no negatives of users.

    Args:
        positives: The items that each user has.
        user_rows: (batch,) rows of the users.
        like: A tensor of the type and device of the scores.
        first: Item row of the first column of the scores.
        count: Number of their columns.
    """
    distinct, place = torch.unique(user_rows, return_inverse=True)
    table = None
    if len(distinct) * count <= TABLE_CELLS:
        cells = like.new_empty(len(distinct), count)
        table = positives.fill(distinct, cells, -MASK_VALUE, 0.0, first)

    def fill_mask(low: int, high: int, scores: Tensor) -> Tensor:
        if table is not None:
            return torch.index_select(table, 0, place[low:high], out=scores)
        return positives.fill(user_rows[low:high], scores, -MASK_VALUE, 0.0, first)

    return fill_mask

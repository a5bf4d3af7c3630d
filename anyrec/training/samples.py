"""The training interactions as tensors, in an order that does not depend on the file's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.contracts import Head
from anyrec.data.dataset import Dataset
from anyrec.data.labels import Labels
from anyrec.model import Columns
from anyrec.ragged import Prepared


@dataclass(frozen=True)
class Samples:
    """users, items: (positives,) int64 rows; weights: (positives,) float32, or None where all are 1.

    negatives: (users, items) int64 rows of explicit negatives. targets: each head's, one row a positive.
    A pair that was repeated in the data is repeated here: it is learned as often as it happened.
    """

    users: Tensor
    items: Tensor
    weights: Tensor | None
    negatives: tuple[Tensor, Tensor]
    targets: dict[str, Prepared]

    def to(self, device: torch.device) -> Samples:
        return replace(
            self,
            users=self.users.to(device),
            items=self.items.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            negatives=(self.negatives[0].to(device), self.negatives[1].to(device)),
            targets={
                name: Prepared(values.to(device), present.to(device))
                for name, (values, present) in self.targets.items()
            },  # type: ignore[union-attr]
        )


@dataclass(frozen=True)
class TrainingData:
    """Both sides' prepared features and the samples, on the device."""

    users: Columns
    items: Columns
    samples: Samples
    num_users: int
    num_items: int


def make_samples(dataset: Dataset, rows: np.ndarray, labels: Labels, heads: nn.ModuleDict) -> Samples:
    """rows: training interactions."""
    users, items = dataset.user_rows[rows], dataset.item_rows[rows]
    order = np.lexsort((items, users))
    rows, users, items = rows[order], users[order], items[order]
    positive, negative = labels.positive[rows], labels.negative[rows]
    weights = labels.weight[rows][positive]
    targets = {}
    for name, head in heads.items():
        assert isinstance(head, Head)
        column = dataset.column(head.target)
        assert column is not None
        targets[name] = head.targets(column.take(pa.array(rows[positive])))
    return Samples(
        torch.from_numpy(users[positive]),
        torch.from_numpy(items[positive]),
        None if (weights == 1).all() else torch.from_numpy(weights),
        (torch.from_numpy(users[negative]), torch.from_numpy(items[negative])),
        targets,
    )

"""The training interactions as tensors, in an order that does not depend on the file's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.config import Config
from anyrec.contracts import Head
from anyrec.data.dataset import Dataset
from anyrec.data.histories import Events
from anyrec.data.labels import Labels
from anyrec.model import Columns, Model
from anyrec.ragged import Prepared
from anyrec.windows import Stream


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
    """Both sides' prepared features and the samples, on the device; with a feature made of histories, the stream of all events."""

    users: Columns
    items: Columns
    samples: Samples
    num_users: int
    num_items: int
    stream: Stream | None = None


def make_samples(
    dataset: Dataset, rows: np.ndarray, labels: Labels, heads: nn.ModuleDict, events: np.ndarray | None = None
) -> Samples:
    """rows: training interactions. events: the interactions in the order of time, -1 for what is none: positives then keep it."""
    users, items = dataset.user_rows[rows], dataset.item_rows[rows]
    rows = rows[np.lexsort((items, users))]
    positive = rows if events is None else events[events >= 0]
    positive, negative = positive[labels.positive[positive]], rows[labels.negative[rows]]
    weights = labels.weight[positive]
    targets = {}
    for name, head in heads.items():
        assert isinstance(head, Head)
        column = dataset.column(head.target)
        assert column is not None
        targets[name] = head.targets(column.take(pa.array(positive)))
    return Samples(
        torch.from_numpy(dataset.user_rows[positive]),
        torch.from_numpy(dataset.item_rows[positive]),
        None if (weights == 1).all() else torch.from_numpy(weights),
        (torch.from_numpy(dataset.user_rows[negative]), torch.from_numpy(dataset.item_rows[negative])),
        targets,
    )


def make_stream(model: Model, users: Columns, events: Events, labels: Labels, config: Config, ordered: bool) -> Stream:
    """The training events as windows. users: prepared columns, the histories of `events` among them."""
    ((name, encoder),) = model.user.histories.items()
    values: Any = users[name].values
    positive = (events.interactions >= 0) & labels.positive[events.interactions]
    samples = torch.from_numpy(np.where(positive, np.cumsum(positive) - 1, -1)).to(values["items"].offsets.device)
    return Stream(values, samples, encoder.window, config.training.batch_size, ordered, encoder.mask_share)

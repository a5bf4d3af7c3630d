"""The training interactions as tensors, in an order that does not depend on the file's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.core.config import Config
from anyrec.core.contracts import Head, HistoryEncoder
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.ragged import Prepared
from anyrec.core.windows import SequencePacker
from anyrec.data.dataset import Dataset
from anyrec.data.histories import Events
from anyrec.data.labels import Labels
from anyrec.model.towers import Columns, Model


@dataclass(frozen=True)
class Samples:
    """users, items: (positives,) int64 rows; weights: (positives,) float32 with mean 1, or None if all are 1.

    negatives: (users, items) int64 rows of explicit negatives; none is a training positive of the same user. targets: each head's, one row a positive.
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
    packer: SequencePacker | None = None


def make_samples(
    dataset: Dataset, rows: np.ndarray, labels: Labels, heads: nn.ModuleDict, events: np.ndarray | None = None
) -> Samples:
    """rows: training interactions. events: the interactions in the order of time, -1 for what is none: positives then keep it."""
    users, items = dataset.user_rows[rows], dataset.item_rows[rows]
    rows = rows[np.lexsort((items, users))]
    positive = rows if events is None else events[events >= 0]
    positive, negative = positive[labels.positive[positive]], rows[labels.negative[rows]]
    pairs = dataset.user_rows * len(dataset.items) + dataset.item_rows
    negative = negative[~np.isin(pairs[negative], pairs[positive])]
    weights = labels.weight[positive].astype(np.float32)
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


WINDOW = 100
"""Length of the stream's rows where nothing reads them."""


def make_stream(
    model: Model, users: Columns, events: Events, labels: Labels, config: Config, ordered: bool
) -> SequencePacker:
    """The training events as windows, as the encoders that read windows want them.

    users: prepared columns, the histories of `events` among them. Raises ConfigError where encoders want different ones.
    """
    encoders = model.user.histories
    _agree(encoders, "same_time", {name: "ordered" if one.ordered else "hidden" for name, one in encoders.items()})
    readers = {name: one for name, one in encoders.items() if one.window is not None}
    for option in ("window", "mask_share"):
        _agree(encoders, option, {name: getattr(one, option) or "none" for name, one in readers.items()})
    name, encoder = next(iter((readers or encoders).items()))
    values: Any = users[name].values
    positive = (events.interactions >= 0) & labels.positive[events.interactions]
    samples = torch.from_numpy(np.where(positive, np.cumsum(positive) - 1, -1)).to(values["items"].offsets.device)
    length = encoder.window or WINDOW
    return SequencePacker(values, samples, length, config.training.batch_size, ordered, encoder.mask_share)


def _agree(encoders: dict[str, HistoryEncoder], option: str, wanted: dict[str, Any]) -> None:
    """wanted: each feature's value of the option. All encoders of histories learn from one stream of events."""
    if len(set(wanted.values())) > 1:
        said = ", ".join(f"{name} ({encoders[name].type}) {value}" for name, value in wanted.items())
        fault = Fault(
            "/features/history",
            f"the features made of histories differ in {option}: {said}.",
            "They learn from one stream of events: give all the same (blocks that hide no interaction have no mask_share).",
        )
        raise ConfigError(fault)

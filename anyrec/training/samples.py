"""The training interactions as tensors. Their order does not depend on that of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.core.config import Config
from anyrec.core.contracts import Head, HistoryEncoder
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.ragged import Prepared, Ragged, move
from anyrec.core.scratch import Scratch, kept
from anyrec.core.windows import SequencePacker, SetPacker
from anyrec.data.dataset import Dataset
from anyrec.data.histories import Events
from anyrec.data.labels import Labels
from anyrec.data.sorting import order_by
from anyrec.model.towers import Columns
from anyrec.model.two_tower_network import TwoTower


@dataclass(frozen=True)
class Samples:
    """The training interactions. Repeated interactions are repeated here.

    Attributes:
        users: (positives,) int64 user rows.
        items: (positives,) int64 item rows.
        weights: (positives,) float32 with mean 1; None if all weights are 1.
        negatives: User rows and item rows of the explicit negatives, (negatives,) int64 each. None of these pairs is a
            training positive.
        neutral: User rows and item rows of the interactions that are neither, such as those of a type that
            `data.positive_types` leaves out, (neutral,) int64 each.
        targets: By name of the head: its targets, one row for each positive.
    """

    users: Tensor
    items: Tensor
    weights: Tensor | None
    negatives: tuple[Tensor, Tensor]
    neutral: tuple[Tensor, Tensor]
    targets: dict[str, Prepared]

    def to(self, device: torch.device) -> Samples:
        """Return a copy on the device."""
        return replace(
            self,
            users=self.users.to(device),
            items=self.items.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            negatives=(self.negatives[0].to(device), self.negatives[1].to(device)),
            neutral=(self.neutral[0].to(device), self.neutral[1].to(device)),
            targets={
                name: Prepared(move(values, device), present.to(device))
                for name, (values, present) in self.targets.items()
            },
        )


@dataclass(frozen=True)
class TrainingData:
    """Everything that training reads, on the device.

    Attributes:
        users: The prepared features of the users.
        items: The prepared features of the items.
        samples: The positives and the explicit negatives.
        num_users: Number of users.
        num_items: Number of items.
        packer: The events of all users, if a feature reads histories. Batches then come from it.
        scratch: Where arrays of all interactions are kept; None if they fit into memory.
    """

    users: Columns
    items: Columns
    samples: Samples
    num_users: int
    num_items: int
    packer: SequencePacker | SetPacker | None = None
    scratch: Scratch | None = None


def make_samples(
    dataset: Dataset, rows: np.ndarray, labels: Labels, heads: nn.ModuleDict, events: np.ndarray | None = None
) -> Samples:
    """Make the samples of the training interactions.

    Args:
        dataset: The data.
        rows: (n,) the training interactions.
        labels: Which interactions are positives and negatives, and their weights.
        heads: The heads by name.
        events: The interactions in the order of the users' histories, -1 for events without an interaction. Positives
            then have this order, which the events refer to; otherwise they are sorted by user and item.
    """
    keep = dataset.keep
    negative = rows[labels.negative[rows]]
    neutral = rows[~labels.positive[rows] & ~labels.negative[rows]]
    positive = rows if events is None else keep(events[events >= 0])
    positive = keep(positive[labels.positive[positive]])
    if events is None:
        positive = keep(_by_pair(dataset, positive))
    negative, neutral = _by_pair(dataset, negative), _by_pair(dataset, neutral)
    if len(negative):
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
        torch.from_numpy(keep(dataset.user_rows[positive])),
        torch.from_numpy(keep(dataset.item_rows[positive])),
        None if (weights == 1).all() else torch.from_numpy(keep(weights)),
        (torch.from_numpy(dataset.user_rows[negative]), torch.from_numpy(dataset.item_rows[negative])),
        (torch.from_numpy(dataset.user_rows[neutral]), torch.from_numpy(dataset.item_rows[neutral])),
        targets,
    )


def _by_pair(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Return the interactions `rows` by user and then by item."""
    return rows[order_by(dataset.user_rows[rows], dataset.item_rows[rows])]


WINDOW = 100
"""Tokens of a packed row if no feature reads windows."""


def pack_events(
    model: TwoTower,
    users: Columns,
    events: Events,
    labels: Labels,
    config: Config,
    ordered: bool,
    scratch: Scratch | None = None,
) -> SequencePacker | SetPacker:
    """Pack the training events into windows or sets, as the features that read histories need them.

    Args:
        model: The model, for its features that read histories.
        users: The prepared features of the users, among them the histories that were made from `events`.
        events: The training events.
        labels: Which interactions are positives.
        config: The config, for the batch size.
        ordered: Whether events at the same time as a target, but earlier in the file, belong to its history.
        scratch: Where arrays of all interactions are kept; None if they fit into memory.

    Raises:
        ConfigError: If the features need different windows.
    """
    encoders = model.user.histories
    _agree(encoders, "order", {name: "no order" if one.unordered else "order" for name, one in encoders.items()})
    _agree(encoders, "same_time", {name: "ordered" if one.ordered else "hidden" for name, one in encoders.items()})
    readers = {name: one for name, one in encoders.items() if one.window is not None}
    for option in ("window", "mask_share"):
        _agree(encoders, option, {name: getattr(one, option) or "none" for name, one in readers.items()})
    name, encoder = next(iter((readers or encoders).items()))
    values = cast(Mapping[str, Ragged], users[name].values)
    positive = (events.interactions >= 0) & labels.positive[events.interactions]
    numbers = np.where(positive, np.cumsum(positive) - 1, -1)
    samples = torch.from_numpy(kept(numbers, scratch)).to(values["items"].offsets.device)
    if encoder.unordered:
        return SetPacker(values, samples, config.training.batch_size, encoder.mask_share or 0.5, scratch)
    length = encoder.window or WINDOW
    return SequencePacker(values, samples, length, config.training.batch_size, ordered, encoder.mask_share, scratch)


def _agree(encoders: dict[str, HistoryEncoder], option: str, wanted: dict[str, Any]) -> None:
    """Check that all features that read histories have the same value of an option.

    Args:
        encoders: Their encoders, by feature.
        option: Name of the option.
        wanted: Its value, by feature.

    Raises:
        ConfigError: If the values differ.
    """
    if len(set(wanted.values())) > 1:
        said = ", ".join(f"{name} ({encoders[name].type}) {value}" for name, value in wanted.items())
        what = f"the features that read histories differ in {option}: {said}."
        hint = "They are trained on the same windows: give all of them the same value."
        if option == "mask_share":
            hint += " Blocks other than 'bidirectional' have none."
        raise ConfigError(Fault("/features/history", what, hint))

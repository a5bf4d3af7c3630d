"""What each interaction says: a positive of some weight, an explicit negative, or nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.config import DataConfig
from anyrec.data.dataset import Dataset
from anyrec.data.split import position_from_end, time_order

MICROSECONDS_A_DAY = 86_400_000_000


class Labels(NamedTuple):
    """One row an interaction.

    positive: (interactions,) bool. negative: (interactions,) bool, explicitly not liked.
    weight: (interactions,) float32, of positives; 0 elsewhere.
    """

    positive: np.ndarray
    negative: np.ndarray
    weight: np.ndarray


def label_interactions(dataset: Dataset, config: DataConfig) -> Labels:
    """Read labels, ratings and types, in that order of precedence.

    A label of 0 is a negative and of 1 a positive, whatever else the row says. Without a label, a rating below
    `min_rating` is a negative; a type that `positive_types` leaves out is neither. The weight is the row's own
    `weight` times its type's, halved for each `half_life_days` it is older than the newest interaction.
    """
    rows = len(dataset.interactions)
    positive, negative = np.ones(rows, bool), np.zeros(rows, bool)
    weight = _numbers(dataset, "weight", 1.0)
    if config.positive_types is not None:
        types = dataset.column("interaction_type")
        names = list(config.positive_types)
        place = np.full(rows, -1) if types is None else _place(types, names)
        positive = place >= 0
        weight *= np.append(np.array([config.positive_types[name] for name in names]), 0.0)[place]
    if config.min_rating is not None:
        low = _numbers(dataset, "rating", np.inf) < config.min_rating
        negative |= low & positive
        positive &= ~low
    label = _numbers(dataset, "label", -1.0)
    if config.positive_types is not None:
        weight[(label == 1) & ~positive] = 1.0
    positive, negative = (positive | (label == 1)) & (label != 0), (negative & (label != 1)) | (label == 0)
    positive &= weight > 0
    timestamps = dataset.column("timestamp")
    if config.half_life_days is not None and timestamps is not None and timestamps.null_count < rows:
        times = timestamps.cast(pa.int64())
        age = (
            pc.max(times).as_py() - pc.fill_null(times, pc.min(times)).to_numpy(zero_copy_only=False)
        ) / MICROSECONDS_A_DAY
        weight *= 0.5 ** (age / config.half_life_days)
    return Labels(positive, negative, np.where(positive, weight, 0.0).astype(np.float32))


def fade(labels: Labels, dataset: Dataset, train: np.ndarray, half_life: float | None) -> Labels:
    """The labels with each training positive's weight halved for every `half_life` training positives that its user
    had later. Without timestamps there is no later, and nothing changes."""
    if half_life is None or dataset.column("timestamp") is None:
        return labels
    trains = np.zeros(len(labels.positive), bool)
    trains[train] = True
    order = time_order(dataset)
    order = order[(trains & labels.positive)[order]]
    weight = labels.weight.copy()
    weight[order] *= (0.5 ** (position_from_end(dataset.user_rows[order]) / half_life)).astype(np.float32)
    return labels._replace(weight=weight)


def _numbers(dataset: Dataset, name: str, default: float) -> np.ndarray:
    """(interactions,) float64: a column's values, `default` where it has none."""
    column = dataset.column(name)
    if column is None:
        return np.full(len(dataset.interactions), default)
    return pc.fill_null(column.cast(pa.float64()), default).to_numpy(zero_copy_only=False).copy()


def _place(values: pa.Array, names: list[str]) -> np.ndarray:
    """(rows,) where each value stands in `names`; -1 where it does not."""
    return pc.fill_null(pc.index_in(values, value_set=pa.array(names, values.type)), -1).to_numpy(zero_copy_only=False)

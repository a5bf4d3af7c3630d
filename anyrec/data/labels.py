"""The meaning of each interaction for training: a positive with a weight, an explicit negative, or neither."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.ids import NO_TIME
from anyrec.data.order import position_from_end, time_order
from anyrec.data.tables import Tables

MICROSECONDS_A_DAY = 86_400_000_000
OUTLIER_GAP = 10.0
"""Interactions this many half-lives after all others do not set the time that ages are measured from."""
OUTLIER_SHARE = 0.01
"""At most this fraction of the interactions, and always one, can be such outliers."""
NEGLIGIBLE = 1e-6
"""A positive with less than this fraction of the largest weight has no effect on the model."""
ENOUGH, ENOUGH_SHARE = 100, 0.1
"""Training needs this many positives whose weight is not negligible, or this fraction of all positives."""


class Labels(NamedTuple):
    """What each interaction means for training.

    Attributes:
        positive: (interactions,) bool.
        negative: (interactions,) bool, explicitly not liked.
        weight: (interactions,) float64, of positives; 0 elsewhere. `training_weights` adds recency and scales it.
    """

    positive: np.ndarray
    negative: np.ndarray
    weight: np.ndarray


def label_interactions(dataset: Tables, config: DataConfig, *, checked: bool = True) -> Labels:
    """Label interactions by their labels, ratings and types, in that order of precedence.

    A label of 0 is a negative and of 1 a positive, whatever else the row says. Without a label, a rating below
    `min_rating` is a negative; a type that `positive_types` leaves out is neither. The weight is the row's own
    `weight` times the weight of its type; a row with a weight of 0 is neither positive nor negative by its type.

    Args:
        dataset: The data.
        config: The config's `data` section.
        checked: Raise for weights below 0; if False, such rows are not positive.

    Raises:
        DataError: If a weight is below 0 or not finite.
    """
    if checked:
        check_weights(dataset)
    rows = len(dataset.interactions)
    positive, negative = np.ones(rows, bool), np.zeros(rows, bool)
    weight = _numbers(dataset, "weight", 1.0)
    weighs = weight > 0
    if config.positive_types is not None:
        types = dataset.column("interaction_type")
        names = list(config.positive_types)
        place = np.full(rows, -1) if types is None else _place(types, names)
        positive = place >= 0
        of_type = np.append(np.array([config.positive_types[name] for name in names]), 0.0)[place]
        label_decides = (_numbers(dataset, "label", -1.0) == 1) & ~positive
        weighs &= (of_type > 0) | label_decides
        with np.errstate(over="ignore", under="ignore"):
            weight = np.where(label_decides, weight, weight * of_type)
    if config.min_rating is not None:
        low = _numbers(dataset, "rating", np.inf) < config.min_rating
        negative |= low & positive
        positive &= ~low
    if dataset.column("label") is not None:
        label = _numbers(dataset, "label", -1.0)
        positive, negative = (positive | (label == 1)) & (label != 0), (negative & (label != 1)) | (label == 0)
    positive &= weighs
    bounds = np.finfo(np.float64)
    np.clip(weight, bounds.tiny, bounds.max, out=weight)
    weight[~positive] = 0.0
    return Labels(positive, negative, weight)


def check_weights(dataset: Tables) -> None:
    """Raise DataError if a weight is below 0 or not finite."""
    column = dataset.column("weight")
    if column is None:
        return
    weight = _numbers(dataset, "weight", 1.0)
    wrong = np.flatnonzero((weight < 0) | ~np.isfinite(weight))
    if not len(wrong):
        return
    hint = "Give dislikes a label of 0 (or a rating and data.min_rating); leave out rows that do not count."
    faults = [
        Fault(f"/interactions/{row}/weight", f"a weight is 0 or more; found {weight[row]:g}.", hint, "bad weight")
        for row in wrong[:20].tolist()
    ]
    raise DataError(faults, {"bad weight": len(wrong)})


def training_weights(
    labels: Labels, dataset: Tables, train: np.ndarray, config: DataConfig, notes: list[str]
) -> Labels:
    """Return the labels with the weights that training uses: with recency, and with a mean of 1.

    A training positive weighs half for each `half_life_days` it is older than the newest training positive (see
    `ages`), and half for each `half_life_interactions` training positives that its user had later. Without timestamps
    neither applies. Weights are scaled to a mean of 1 over training positives.

    Args:
        labels: As `label_interactions` returns them.
        dataset: The data.
        train: (rows,) Interactions of the training part.
        config: The config's `data` section.
        notes: Gets a sentence if timestamps far after all others were set aside.

    Raises:
        DataError: If nearly all weights are negligible, so that nearly nothing would be learned.
    """
    rows = train[labels.positive[train]]
    halvings: np.ndarray | float = 0.0
    timed = dataset.column("timestamp") is not None
    if config.half_life_days is not None and timed:
        old, late = ages(dataset.times[rows], config.half_life_days * MICROSECONDS_A_DAY)
        halvings = halvings + old
        if late:
            notes.append(
                f"{late:,} of {len(rows):,} training positives lie more than {OUTLIER_GAP:g} times data.half_life_days "
                "after all others: ages are measured from the newest of the others. Check these timestamps."
            )
    if config.half_life_interactions is not None and timed:
        order = time_order(dataset, rows)
        later = np.empty(len(dataset.interactions))
        later[order] = position_from_end(dataset.user_rows[order])
        halvings = halvings + later[rows] / config.half_life_interactions
    weight = np.zeros(len(labels.weight))
    if len(rows):
        # In logarithms, so that neither a product of large weights nor a short half-life leaves the range of a double.
        relative = np.log2(labels.weight[rows])
        relative -= halvings
        relative -= relative.max()
        np.exp2(relative, out=relative)
        _check_enough(relative, config)
        relative /= relative.mean()
        weight[rows] = relative
    return Labels(labels.positive, labels.negative, weight)


def ages(times: np.ndarray, half_life: float) -> tuple[np.ndarray, int]:
    """Return the age of each interaction in half-lives, and the number of outliers.

    Ages are measured from the newest time. A few times that lie far after all others (at most 1 in 100, and always
    one, more than 10 half-lives later) are taken for mistakes: one timestamp in the wrong unit would otherwise give
    all other interactions a weight of zero. They have age 0, and the newest of the others sets the reference.

    Args:
        times: (rows,) In the unit of `half_life`; NO_TIME if unknown, which counts as the oldest.
        half_life: The half-life.

    Returns:
        (rows,) float64, and the number of outliers after the time that ages are measured from.
    """
    known = times != NO_TIME
    if not known.any():
        return np.zeros(len(times)), 0
    values = times.astype(np.float64)
    ordered = np.sort(values[known])
    values[~known] = ordered[0]
    most = max(1, int(len(ordered) * OUTLIER_SHARE)) if len(ordered) > 2 else 0
    gaps = np.diff(ordered[len(ordered) - most - 1 :]) if most else np.empty(0)
    far = np.flatnonzero(gaps > OUTLIER_GAP * half_life)
    late = len(gaps) - int(far[0]) if len(far) else 0
    return np.maximum(ordered[len(ordered) - late - 1] - values, 0.0) / half_life, late


def _check_enough(relative: np.ndarray, config: DataConfig) -> None:
    """Raise DataError if too few weights count. relative: (positives,) weights over the largest weight."""
    counting = int((relative > NEGLIGIBLE).sum())
    if counting >= min(ENOUGH, ENOUGH_SHARE * len(relative)):
        return
    keys = [name for name in ("half_life_days", "half_life_interactions") if getattr(config, name) is not None]
    hint = "Check the timestamps and weights" + (
        f", or raise {' and '.join(f'data.{k}' for k in keys)}." if keys else "."
    )
    what = (
        f"the weights of {len(relative) - counting:,} of {len(relative):,} training positives are below a millionth of "
        "the largest weight, so nearly nothing would be learned."
    )
    raise DataError(Fault("/interactions", what, hint, "weights near zero"))


def _numbers(dataset: Tables, name: str, default: float) -> np.ndarray:
    """Return (interactions,) float64, the values of a column; `default` if a row has none."""
    column = dataset.column(name)
    if column is None:
        return np.full(len(dataset.interactions), default)
    values = pc.fill_null(column.cast(pa.float64()), default).to_numpy(zero_copy_only=False).copy()
    values[np.isnan(values)] = default
    return values


def _place(values: pa.Array, names: list[str]) -> np.ndarray:
    """Return (rows,) the position of each value in `names`; -1 if it is not there."""
    return pc.fill_null(pc.index_in(values, value_set=pa.array(names, values.type)), -1).to_numpy(zero_copy_only=False)

"""Sequences of numbers, and timestamps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.core.columns import FlatLists, PreparedColumn
from anyrec.data.list_columns import flat, offsets_of

DAY = 86_400_000_000
"""Microseconds in a day."""
YEAR = 365.2425
"""Days in a year, on average."""


def sequence_statistics(column: pa.Array, mean: float, deviation: float, clip: float) -> PreparedColumn:
    """Return (records, 8) float32: mean, deviation, minimum, maximum, first, last, slope and log length.

    Args:
        column: (records,) lists of numbers. Numbers that are not finite are left out.
        mean: Mean of the numbers in training.
        deviation: Their standard deviation.
        clip: Number of deviations from the mean that numbers are limited to.
    """
    scaled, offsets = _scaled(column, mean, deviation, clip)
    return PreparedColumn(_statistics(scaled, offsets), np.diff(offsets) > 0)


def last_numbers(column: pa.Array, mean: float, deviation: float, clip: float, most: int) -> FlatLists:
    """Return the last `most` numbers of each record, standardised, float32; arguments as of `sequence_statistics`."""
    scaled, offsets = _scaled(column, mean, deviation, clip)
    return FlatLists(scaled.astype(np.float32), offsets).last(most)


def _scaled(column: pa.Array, mean: float, deviation: float, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (values,) float64 standardised numbers, and (records + 1,) int64 offsets."""
    values, offsets = finite_lists(column)
    return np.clip((values - mean) / deviation, -clip, clip), offsets


def summarised_times(column: pa.Array, newest: int) -> PreparedColumn:
    """Summarise the timestamps of each record.

    Args:
        column: (records,) lists of timestamps.
        newest: The newest time in training, in microseconds since 1970.

    Returns:
        (records, 16) float32: sine and cosine of the mean and of the last time of day, weekday and day of the year
        (12); signed log days between the last time and the newest time in training; log days from first to last; log
        days of the mean gap; log count. The divisors bring all of them to about the same scale. A record without a
        timestamp is absent.
    """
    times, offsets = finite_lists(column, as_time=True)
    lengths = np.diff(offsets)
    rows, filled = len(lengths), lengths > 0
    first = times[np.where(filled, offsets[:-1], 0)] if len(times) else np.zeros(rows)
    last = times[np.where(filled, offsets[1:] - 1, 0)] if len(times) else np.zeros(rows)
    circles = _circles(times)
    owner = np.repeat(np.arange(rows), lengths)
    mean = np.stack([np.bincount(owner, circle, rows) for circle in circles.T], 1) / np.maximum(lengths, 1)[:, None]
    span = (last - first) / DAY
    features = np.column_stack(
        [
            mean,
            _circles(last),
            np.sign(newest - last) * np.log1p(np.abs(newest - last) / DAY) / 5,
            np.log1p(np.abs(span)) / 5,
            np.log1p(np.abs(span) / np.maximum(lengths - 1, 1)) / 5,
            np.log1p(lengths) / 3,
        ]
    )
    features[~filled] = 0.0
    return PreparedColumn(features.astype(np.float32), filled)


def finite_lists(column: pa.Array, as_time: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Lay the numbers of all records end to end, without those that are not finite.

    Args:
        column: (records,) lists of numbers or timestamps.
        as_time: Whether they are timestamps.

    Returns:
        (values,) float64, timestamps in microseconds since 1970; and (records + 1,) int64 offsets.
    """
    numbers, owners = flat(column)
    values = (
        (numbers.cast(pa.int64()) if as_time else numbers).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    )
    finite = np.isfinite(values)
    return values[finite], offsets_of(owners[finite], len(column))


def _statistics(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Summarise each sequence.

    Args:
        values: (values,) numbers of all sequences, end to end.
        offsets: (rows + 1,).

    Returns:
        (rows, 8) float32; zeros for an empty sequence.
    """
    lengths = np.diff(offsets)
    rows, filled = len(lengths), lengths > 0
    found = np.zeros((rows, 8), np.float32)
    if not filled.any():
        return found
    starts = offsets[:-1][filled]
    length, owner = lengths[filled], np.repeat(np.arange(filled.sum()), lengths[filled])
    mean = np.add.reduceat(values, starts) / length
    centred = values - mean[owner]
    # The slope of a least-squares line over the positions, counted from their middle.
    place = np.arange(len(values)) - starts[owner] - (length[owner] - 1) / 2
    spread = np.maximum(np.add.reduceat(place**2, starts), 1e-9)
    found[filled] = np.column_stack(
        [
            mean,
            np.sqrt(np.add.reduceat(centred**2, starts) / length),
            np.minimum.reduceat(values, starts),
            np.maximum.reduceat(values, starts),
            values[starts],
            values[starts + length - 1],
            np.add.reduceat(place * centred, starts) / spread,
            np.log1p(length) / 3,
        ]
    )
    return found


def _circles(times: np.ndarray) -> np.ndarray:
    """Return (times, 6), time of day, weekday and day of the year as sines (first three) and cosines.

    1970-01-01 was a Thursday, so 3 days are added for weeks to begin on Monday.
    """
    turns = np.stack([times / DAY, (times / DAY + 3) / 7, times / DAY / YEAR], 1) * 2 * np.pi
    return np.concatenate([np.sin(turns), np.cos(turns)], 1)

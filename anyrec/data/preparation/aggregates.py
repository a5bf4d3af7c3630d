"""Aggregates of users' items: running means of item numbers, and frequencies of item categories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anyrec.core.columns import PreparedColumn
from anyrec.data.list_columns import flat, offsets_of
from anyrec.data.preparation.categories import categories_of
from anyrec.data.preparation.events import items_of
from anyrec.data.preparation.numbers import standardised

BOUND = 5.0
"""Aggregates and item numbers are limited to this many standard deviations from the mean."""
NEGLIGIBLE = 2.0**-60
"""A weight below this does not change a float64 sum of numbers of similar size."""


@dataclass(frozen=True)
class ItemAggregates:
    """The aggregates that are computed of a user's items.

    Attributes:
        numbers: For each continuous item feature, the means and the standard deviations of its numbers in training.
        categories: For each categorical item feature, the values that are counted one by one, in ascending order.
        half_life: Interactions after which the weight of one is halved; None for equal weights.
    """

    numbers: Mapping[str, tuple[list[float], list[float]]]
    categories: Mapping[str, pa.Array]
    half_life: float | None

    def of(self, table: pa.Table, items: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the aggregates one after another, each over the user's events up to and including each event.

        One at a time, so that the float64 values of only one of them are in memory.

        Args:
            table: The items.
            items: (events,) rows of `table`.
            offsets: (users + 1,) of the events of each user.

        Yields:
            (events,) float64.
        """
        lengths = np.diff(offsets)
        places = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        sums = _RunningSums(places, 1.0 if self.half_life is None else 0.5 ** (1 / self.half_life))
        yield np.log1p(places + 1.0)
        weights = sums.of(np.ones(len(items)))
        table, place = features_of_items(table, items)
        for name, (mean, deviation) in self.numbers.items():
            values, present = standardised(_column(table, name), mean, deviation, BOUND)
            having = sums.of(present.astype(np.float64)[place])
            yield having / weights
            total = np.where(having > 0, having, 1.0)
            for part in np.asarray(values).astype(np.float64).T:
                yield sums.of(part[place]) / total
        for name, vocabulary in self.categories.items():
            found = categories_of(_column(table, name), vocabulary, None)
            owners = np.repeat(np.arange(len(table)), found.lengths)
            for code in range(len(vocabulary) + 1):
                having = np.zeros(len(table))
                having[owners[found.values == code]] = 1.0
                yield sums.of(having[place]) / weights

    def latest(self, column: pa.Array, table: pa.Table, mean: list[float], deviation: list[float]) -> PreparedColumn:
        """Return (users, aggregates) float32, the standardised aggregates of all events of each user.

        Args:
            column: (users,) lists of `anyrec.data.histories.EVENT`, oldest first. A user without an event is absent.
            table: The items.
            mean: (aggregates,) the means in training.
            deviation: (aggregates,) the standard deviations.
        """
        events, owners = flat(column)
        offsets = offsets_of(owners, len(column))
        there, last = np.diff(offsets) > 0, np.maximum(offsets[1:] - 1, 0)
        now = np.zeros((len(column), len(mean)), np.float32)
        for place, aggregate in enumerate(self.of(table, items_of(events), offsets)):
            now[there, place] = scaled(aggregate, mean[place], deviation[place])[last[there]]
        return PreparedColumn(now, there)


def scaled(aggregate: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """Return an aggregate standardised and limited, float32."""
    return np.clip((aggregate - mean) / deviation, -BOUND, BOUND).astype(np.float32)


def features_of_items(table: pa.Table, items: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Return the features of the distinct `items: (events,)`, and (events,) int64, the row there of each."""
    names = [name for name in table.column_names if name.startswith(("continuous.", "categorical."))]
    rows, place = np.unique(items, return_inverse=True)
    return table.select(names).take(pa.array(rows)), place


class _RunningSums:
    """Sums over each user's events so far, in which an event that is `k` events old has the weight decay ** k.

    The sums are made by doubling: each pass adds the sum that ends where the present one begins, so that the sums cover
    1, 2, 4, 8, ... events. Unlike a difference of cumulative sums, no event of another user or of a later time is ever
    added and subtracted again. A sum is therefore bit-identical whatever those events are.

    Args:
        places: (events,) position of each event among its user's, from 0.
        decay: Weight of the previous event relative to the present one.
    """

    def __init__(self, places: np.ndarray, decay: float):
        longest = int(places.max()) + 1 if len(places) else 0
        self.passes: list[tuple[int, np.ndarray]] = []
        covered, weight = 1, decay
        while covered < longest and weight > NEGLIGIBLE:
            self.passes.append((covered, np.where(places[covered:] >= covered, weight, 0.0)))
            covered, weight = 2 * covered, weight * weight

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return the running sums, (events,) float64, of `values: (events,) float64`."""
        total = values.copy()
        for covered, weights in self.passes:
            total[covered:] += total[:-covered] * weights
        return total


def _column(table: pa.Table, name: str) -> pa.Array:
    """Return a feature of the items, which is null for all of them if the table has no such column."""
    if name not in table.column_names:
        return pa.nulls(len(table), pa.float64() if name.startswith("continuous.") else pa.string())
    return table.column(name).combine_chunks()

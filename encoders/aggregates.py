"""What a user's items up to now have in common: running means of numbers and shares of categories, never of what comes later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import HistoryEncoder, Params
from anyrec.core.ragged import Prepared, Ragged
from anyrec.core.windows import Batch, Events
from anyrec.data.list_columns import flat, offsets_of
from anyrec.encoders.categorical import Categorical
from anyrec.encoders.continuous import Continuous, scaling_of
from anyrec.encoders.history import items_of, moments_of

BOUND = 5.0
"""Aggregates are bounded at so many deviations."""
FORGOTTEN = 2.0**-60
"""A weight that no longer changes a float64 sum."""


class Aggregates(HistoryEncoder):
    """What a user's earlier items have in common: how many, the means of their numbers, the shares of their categories.

    In numbers: log(1 + count); of each continuous item feature the share of items that have it and the mean over those,
    standardised; of each categorical one the share of items with each of its `top` commonest values, and with any
    other. All standardised by the training histories, then projected. `{"history": {"fields": {"totals": {"type":
    "aggregates"}}}}` sets it beside the sequence.
    """

    type = "aggregates"
    group = "history"

    class Params(Params):
        top: int = Field(16, ge=1, le=4096, description="Values of a categorical item feature that are counted apart.")
        half_life: float | None = Field(
            None, ge=1e-3, le=1e9, description="Interactions after which one weighs half; null weighs all alike."
        )
        same_time: Literal["hidden", "ordered"] = Field(
            "hidden",
            description="What happened at the very time of a target: hidden from it, or known where it stands before it in the file.",
        )

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.window = None
        self.ordered = self.params.same_time == "ordered"
        self.mask_share = None

    def fit(self, column: pa.Array) -> None:
        """Learns from the items that occur in `column`, whose features are `context.items`, each counted once."""
        events, owners = flat(column)
        self.timeless = pc.struct_field(events, "time").null_count == len(events)
        items, offsets = items_of(events), offsets_of(owners, len(column))
        table = self._table(items)[0]
        self.numbers, self.categories = {}, {}
        for name in sorted(table.column_names):
            values = table.column(name).combine_chunks()
            if name.startswith("continuous."):
                self.numbers[name] = Continuous(Continuous.Params(encoding="linear"))
                self.numbers[name].fit(values)
            elif name.startswith("categorical."):
                self.categories[name] = Categorical(Categorical.Params(max_categories=self.params.top))
                self.categories[name].fit(values)
        if not self.numbers and not self.categories:
            self.context.warnings.append(
                "No item has a continuous or categorical feature: the aggregates of a history are its length alone."
            )
        self.mean, self.deviation = [], []
        for aggregate in self._aggregates(items, offsets):
            known = len(aggregate) > 0
            deviation = float(aggregate.std()) if known else 1.0
            self.mean.append(float(aggregate.mean()) if known else 0.0)
            self.deviation.append(deviation if deviation > 1e-9 else 1.0)

    def prepare(self, column: pa.Array) -> Prepared:
        """column: list<EVENT> of `anyrec.data.histories`. Beside the values of `anyrec.core.windows.Events`:
        `before`: (events, width) aggregates of what came before each; `known`: (events,) whether anything did;
        `now`: (users, width) aggregates of all."""
        events, owners = flat(column)
        offsets = offsets_of(owners, len(column))
        items, count, lengths = items_of(events), int(offsets[-1]), np.diff(offsets)
        begins = np.repeat(offsets[:-1], lengths)
        moments = moments_of(pc.struct_field(events, "time"), offsets)
        seen = np.arange(count) - begins if self.ordered or self.timeless else moments
        known, previous = seen > 0, np.maximum(begins + seen - 1, 0)
        there, last = lengths > 0, np.maximum(offsets[1:] - 1, 0)
        before = np.zeros((count, len(self.mean)), np.float32)
        now = np.zeros((len(column), len(self.mean)), np.float32)
        for place, aggregate in enumerate(self._aggregates(items, offsets)):
            scaled = (aggregate - self.mean[place]) / self.deviation[place]
            scaled = np.clip(scaled, -BOUND, BOUND).astype(np.float32)
            before[known, place] = scaled[previous[known]]
            now[there, place] = scaled[last[there]]
        starts = torch.from_numpy(offsets)
        values = {
            "items": items,
            "gaps": np.zeros(count, np.float32),
            "kinds": np.zeros(count, np.int64),
            "moments": moments,
            "before": before,
            "known": known,
        }
        ragged = {name: Ragged(torch.from_numpy(part), starts) for name, part in values.items()}
        return Prepared({**ragged, "now": torch.from_numpy(now)}, torch.from_numpy(there))  # type: ignore[arg-type]

    def build(self) -> None:
        self.project = nn.Linear(len(self.mean), self.output_dim)

    def before(self, batch: Batch, values: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        """(positives, output_dim) the aggregates before each positive, and where there was anything before it."""
        assert batch.events is not None
        return self.project(values["before"].values[batch.events]), values["known"].values[batch.events]

    def forward(self, values: Events, items: Tensor | None = None) -> Tensor:
        """values: histories of a batch of users -> (batch, output_dim), the aggregates of all they did."""
        assert items is not None  # only where a user is read as they are now: what trains goes through `before`
        return self.project(values["now"])

    def _aggregates(self, items: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
        """One aggregate after another, each (events,) float64: of the user's events up to and with each event.

        One at a time, so that only float32 is kept of them all. items: (events,) rows of `context.items`.
        """
        lengths = np.diff(offsets)
        places = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        decay = 1.0 if self.params.half_life is None else 0.5 ** (1 / self.params.half_life)
        sums = _Sums(places, decay)
        yield np.log1p(places + 1.0)
        weights = sums.of(np.ones(len(items)))
        table, place = self._table(items)
        for name, encoder in self.numbers.items():
            values, present = encoder.prepare(_column(table, name))
            having = sums.of(present.numpy().astype(np.float64)[place])
            yield having / weights
            total = np.where(having > 0, having, 1.0)
            for part in values.numpy().astype(np.float64).T:
                yield sums.of(part[place]) / total
        for name, encoder in self.categories.items():
            found = encoder.prepare(_column(table, name))
            owners, codes = found.row_of_value().numpy(), found.values.numpy()
            for code in range(len(encoder.vocabulary) + 1):
                having = np.zeros(len(table))
                having[owners[codes == code]] = 1.0
                yield sums.of(having[place]) / weights

    def _table(self, items: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        """The features read of the distinct `items: (events,)`, and (events,) the row there of each."""
        assert self.context.items is not None
        names = [name for name in self.context.items.column_names if name.startswith(("continuous.", "categorical."))]
        rows, place = np.unique(items, return_inverse=True)
        return self.context.items.select(names).take(pa.array(rows)), place

    def state(self) -> dict[str, Any]:
        return {
            "timeless": self.timeless,
            "mean": self.mean,
            "deviation": self.deviation,
            "numbers": {name: encoder.state() for name, encoder in self.numbers.items()},
            "categories": {name: encoder.vocabulary.to_pylist() for name, encoder in self.categories.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.timeless = bool(state["timeless"])
        self.mean, self.deviation = scaling_of(state, len(state["mean"]))
        self.numbers, self.categories = {}, {}
        for name, learned in sorted(state["numbers"].items()):
            self.numbers[name] = Continuous(Continuous.Params(encoding="linear"))
            self.numbers[name].restore(learned)
        for name, values in sorted(state["categories"].items()):
            self.categories[name] = Categorical(Categorical.Params(max_categories=self.params.top))
            self.categories[name].restore({"vocabulary": pa.array(values, pa.string())})

    @classmethod
    def example(cls) -> pa.Array:
        """A column for the conformance kit."""
        from anyrec.encoders.history import History

        return History.example()


class _Sums:
    """Sums over each user's events so far, one that is `k` events old weighing decay ** k.

    By doubling: with each pass a sum reaches back twice as far. Nothing of another user or of a later event is ever
    added and taken off again, so that a sum does not depend on them in its last bit either.
    """

    def __init__(self, places: np.ndarray, decay: float):
        """places: (events,) of each event among its user's, from 0."""
        longest = int(places.max()) + 1 if len(places) else 0
        self.passes: list[tuple[int, np.ndarray]] = []
        reach, weight = 1, decay
        while reach < longest and weight > FORGOTTEN:
            self.passes.append((reach, np.where(places[reach:] >= reach, weight, 0.0)))
            reach, weight = 2 * reach, weight * weight

    def of(self, values: np.ndarray) -> np.ndarray:
        """values: (events,) float64 -> (events,) float64."""
        total = values.copy()
        for reach, weights in self.passes:
            total[reach:] += total[:-reach] * weights
        return total


def _column(table: pa.Table, name: str) -> pa.Array:
    """A feature; nulls where the table lacks it."""
    if name not in table.column_names:
        return pa.nulls(len(table), pa.float64() if name.startswith("continuous.") else pa.string())
    return table.column(name).combine_chunks()
